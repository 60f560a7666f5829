//! Who the agents are to the manager, and how those fare who are none.

use std::time::Duration;

use kubevirt_wol::rpc::pb::{WolEvent, wol_service_client::WolServiceClient};
use rustls::pki_types::ServerName;
use tonic::{Request, Status};

use crate::{
    Bed, SPARE,
    common::{
        apiserver::ApiServer,
        process::Line,
        sessions::{Way, trusting},
        trust::{NAMESPACE, STRANGER, Security, Trust},
    },
    story::Story,
};

/// Far longer than a line of the log takes.
const SOON: Duration = Duration::from_secs(5);

/// Tells how manager and agents know each other.
pub(crate) fn chapter_agents(story: &mut Story, bed: &Bed) {
    Story::chapter("Nobody set that up, but manager and agents know each other");
    let manager = &bed.manager;
    story.tell(
        "manager",
        "made a CA of its own, and publishes it in the ConfigMap kubevirt-wol-ca-bundle",
    );
    story.expect(
        "the manager takes TLS only",
        manager.metric("kubevirt_wol_insecure") < 0.5,
    );
    let requests = bed.cluster.server().map(ApiServer::requests);
    let asked = requests.unwrap_or_default().into_iter();
    let asked = asked.filter(|request| request.path.ends_with("/tokenreviews"));
    let told = format!(
        "was asked {} times whose a token is: each is of an agent's pod, and names its node",
        asked.count()
    );
    story.tell("api", &told);
    let accepted = r#"kubevirt_wol_token_reviews_total{result="accepted"}"#;
    let proven = manager.metric(accepted) >= 2.0;
    story.expect("both agents have proven which node they are on", proven);
}

/// Tells how it fares who is no agent.
pub(crate) async fn chapter_strangers(story: &mut Story, bed: &Bed) {
    Story::chapter("Somebody who is no agent wants demo/spare to start");
    plaintext(story, bed).await;
    let Security::Own(trust) = &bed.cluster.security else {
        return story.expect("the demo runs with TLS and tokens", false);
    };
    stranger(story, bed, trust).await;
}

async fn plaintext(story: &mut Story, bed: &Bed) {
    story.tell("attacker", &format!("reports {SPARE} without TLS"));
    let way = Way {
        manager: bed.manager.grpc,
        tls: None,
    };
    let answer = report(&way, None).await;
    let logged = logged(bed, |line| line.message().contains("speaks no TLS"));
    tell_refusal(story, &answer, logged.as_ref());
    let refused = answer.is_err() && logged.is_some();
    story.expect("without TLS nobody is heard", refused);
}

async fn stranger(story: &mut Story, bed: &Bed, trust: &Trust) {
    let told = format!("reports {SPARE} with the token of a pod that is no agent");
    story.tell("attacker", &told);
    let pod = trust.pod("node-1", STRANGER).await;
    let token = pod.token(&Trust::audience()).await;
    // Everybody may read the bundle.
    let bundle = bed.agents.iter().find_map(|agent| agent.pod.as_ref());
    let bundle = bundle.and_then(|pod| std::fs::read_to_string(pod.ca_file()).ok());
    let name = ServerName::try_from(format!("kubevirt-wol-grpc.{NAMESPACE}.svc"));
    let name = name.expect("it is a name");
    let way = Way {
        manager: bed.manager.grpc,
        tls: bundle.map(|bundle| (trusting(&bundle), name)),
    };
    let answer = report(&way, Some(&token)).await;
    let logged = logged(bed, |line| line.field("reason") == "account");
    tell_refusal(story, &answer, logged.as_ref());
    let denied = answer.is_err_and(|status| status.code() == tonic::Code::PermissionDenied);
    story.expect(
        "a token of somebody else is refused",
        denied && logged.is_some(),
    );
}

/// Reports a wake of the spare VM, in one call.
async fn report(way: &Way, token: Option<&str>) -> Result<(), Status> {
    let channel = way.connect().await;
    let channel = channel.map_err(|error| Status::from_error(error.into()))?;
    let mut request = Request::new(WolEvent {
        mac_address: SPARE.to_owned(),
        node_name: "node-1".to_owned(),
        ..WolEvent::default()
    });
    if let Some(token) = token {
        let value = format!("Bearer {token}").parse().expect("a token is text");
        request.metadata_mut().insert("authorization", value);
    }
    let mut client = WolServiceClient::new(channel);
    client.report_wol_event(request).await.map(drop)
}

fn logged(bed: &Bed, wanted: impl Fn(&Line) -> bool) -> Option<Line> {
    bed.manager.process.find(SOON, wanted)
}

fn tell_refusal(story: &Story, answer: &Result<(), Status>, logged: Option<&Line>) {
    if let Err(status) = answer {
        story.tell("attacker", &format!("hears: {}", status.message()));
    }
    if let Some(line) = logged {
        story.tell("manager", &format!("logs: {}", line.message()));
    }
}
