//! What both servers can be asked for.

use std::time::Duration;

use kubevirt_wol::rpc::pb::{self, WolEvent, agent_message};
use tokio::time::{Instant, timeout};
use tonic::{Code, Status};

use crate::{
    bed::{Agent, Bed},
    world::{ACCOUNT, Api, Wanted, calling, session},
};

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// A real API server remembers for 10 s that a token was good.
const PATIENCE: Duration = Duration::from_secs(30);
/// Several reviews of sessions.
const A_WHILE: Duration = Duration::from_secs(3);

/// How a session ends.
pub(crate) async fn end(agent: &mut Agent) -> Status {
    let end = async {
        loop {
            match agent.message_ever().await {
                Err(status) => return status,
                Ok(message) => assert!(message.is_some(), "it ends without a reason"),
            }
        }
    };
    timeout(PATIENCE, end).await.expect("the session ends")
}

/// The session takes an event; tells of which node it is.
pub(crate) async fn delivers(bed: &Bed, agent: &Agent) -> String {
    let before = bed.desk.reports.lock().unwrap().len();
    agent.event(before as u64, &MAC).await;
    let reports = bed.desk.reported(before + 1).await;
    reports.last().unwrap().node.to_string()
}

pub(crate) async fn refusal(bed: &Bed, token: &str) -> Status {
    let called = calling(bed, Some(&format!("Bearer {token}"))).await;
    called.err().expect("it is refused")
}

pub(crate) async fn credential(agent: &Agent, token: &str) {
    let token = token.to_owned();
    let body = agent_message::Body::Credential(pb::Credential { token });
    agent.send(body).await;
}

pub(crate) async fn the_node_is_what_the_token_says_and_not_what_the_agent_says(api: Api) {
    let bed = api.manager().await;
    let token = api.agent_token("agent-1", "node-1").await;
    for said in ["node-1", "node-2", "No Node"] {
        let agent = session(&bed, &token, said).await;
        assert_eq!(delivers(&bed, &agent).await, "node-1");
        let agents = bed.sessions.agents();
        assert!(agents.iter().all(|(id, _)| &*id.node == "node-1"));
    }
}

pub(crate) async fn who_proves_nothing_is_refused_and_told_why(api: Api) {
    let bed = api.manager().await;
    let uid = api.pod("agent-1", "node-1").await;
    let (audience, pod) = (api.audience(), Some(("agent-1", &*uid)));
    let wanted = |account, audience, pod| Wanted {
        account,
        audience,
        pod,
    };
    let elsewhere = api.token(wanted(ACCOUNT, "elsewhere", pod)).await;
    let of_other = api.token(wanted("other", &audience, None)).await;
    let unbound = api.token(wanted(ACCOUNT, &audience, None)).await;
    let (unknown, forbidden) = (Code::Unauthenticated, Code::PermissionDenied);
    for (header, code, words, reason) in [
        (None, unknown, "no token came", "no-token"),
        (
            Some("Basic YTpi".into()),
            unknown,
            "no token came",
            "no-token",
        ),
        (
            Some("Bearer garbage".into()),
            unknown,
            "does not accept the token",
            "token",
        ),
        (
            Some(format!("Bearer {elsewhere}")),
            unknown,
            "does not accept the token",
            "token",
        ),
        (
            Some(format!("Bearer {of_other}")),
            forbidden,
            "--agent-service-account",
            "account",
        ),
        (
            Some(format!("Bearer {unbound}")),
            unknown,
            "bound neither to a node",
            "unbound",
        ),
    ] {
        let counter = format!("kubevirt_wol_refused_agents_total{{reason=\"{reason}\"}}");
        let before = bed.metric(&counter).unwrap();
        let status = calling(&bed, header.as_deref())
            .await
            .err()
            .expect("refused");
        assert_eq!(status.code(), code, "{status:?}");
        assert!(status.message().contains(words), "{status:?}");
        assert_eq!(bed.metric(&counter), Some(before + 1.0), "{reason}");
    }
    let ended = "kubevirt_wol_sessions_ended_total{reason=\"unauthenticated\"}";
    assert_eq!(bed.metric(ended), Some(6.0));
    assert!(bed.sessions.agents().is_empty());
}

pub(crate) async fn the_token_of_a_deleted_pod_opens_nothing_and_what_it_opened_ends(api: Api) {
    let bed = api.manager().await;
    let token = api.agent_token("agent-1", "node-1").await;
    let mut agent = session(&bed, &token, "node-1").await;
    assert_eq!(delivers(&bed, &agent).await, "node-1");
    api.delete_pod("agent-1").await;
    let status = end(&mut agent).await;
    assert_eq!(status.code(), Code::Unauthenticated, "{status:?}");
    let status = refusal(&bed, &token).await;
    assert_eq!(status.code(), Code::Unauthenticated, "{status:?}");
}

pub(crate) async fn while_the_api_is_away_sessions_go_on_and_new_ones_wait(api: Api) {
    let bed = api.manager().await;
    let first = api.agent_token("agent-1", "node-1").await;
    let second = api.agent_token("agent-2", "node-2").await;
    let agent = session(&bed, &first, "node-1").await;
    api.away(true);
    tokio::time::sleep(A_WHILE).await;
    assert_eq!(delivers(&bed, &agent).await, "node-1");
    let failed = "kubevirt_wol_token_reviews_total{result=\"unavailable\"}";
    assert!(bed.metric(failed).unwrap() >= 1.0, "it was reviewed");
    let status = refusal(&bed, &second).await;
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    assert!(status.message().contains("try again"), "{status:?}");
    api.away(false);
    let late = session(&bed, &second, "node-2").await;
    assert_eq!(delivers(&bed, &late).await, "node-2");
    assert_eq!(delivers(&bed, &agent).await, "node-1");
}

pub(crate) async fn a_ban_ends_sessions_at_once_and_is_taken_back_as_fast(api: Api) {
    // Neither a review nor the end of the cache is what ends the session here.
    let hour = Duration::from_secs(3_600);
    let bed = api.manager_with(hour, hour).await;
    let token = api.agent_token("agent-1", "node-1").await;
    let other = api.agent_token("agent-2", "node-2").await;
    let mut agent = session(&bed, &token, "node-1").await;
    let stays = session(&bed, &other, "node-2").await;
    let began = Instant::now();
    api.ban("node-1, node-7\nNot_a_node").await;
    let status = end(&mut agent).await;
    assert!(
        began.elapsed() < Duration::from_secs(1),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(status.code(), Code::PermissionDenied, "{status:?}");
    assert!(status.message().contains("node-1 is banned"), "{status:?}");
    assert_eq!(refusal(&bed, &token).await.code(), Code::PermissionDenied);
    assert_eq!(bed.metric("kubevirt_wol_banned_nodes"), Some(2.0));
    let ended = "kubevirt_wol_sessions_ended_total{reason=\"banned\"}";
    assert_eq!(bed.metric(ended), Some(2.0));
    assert_eq!(delivers(&bed, &stays).await, "node-2");
    api.ban("").await;
    let admitted = async {
        while bed.metric("kubevirt_wol_banned_nodes") != Some(0.0) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(1), admitted).await.unwrap();
    let back = session(&bed, &token, "node-1").await;
    assert_eq!(delivers(&bed, &back).await, "node-1");
}

pub(crate) async fn a_newer_token_takes_the_place_of_the_first_in_the_session(api: Api) {
    let bed = api.manager().await;
    let old = api.agent_token("agent-1", "node-1").await;
    let new = api.agent_token("agent-2", "node-1").await;
    let mut agent = session(&bed, &old, "node-1").await;
    let mut witness = session(&bed, &old, "node-1").await;
    let reviews = "kubevirt_wol_token_reviews_total{result=\"accepted\"}";
    let before = bed.metric(reviews).unwrap();
    credential(&agent, &new).await;
    assert_eq!(delivers(&bed, &agent).await, "node-1");
    let taken = async {
        while bed.metric(reviews).unwrap() <= before {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, taken).await.expect("it is reviewed");
    api.delete_pod("agent-1").await;
    // Once this one has ended, the first token opens nothing any more.
    end(&mut witness).await;
    tokio::time::sleep(A_WHILE).await;
    assert_eq!(delivers(&bed, &agent).await, "node-1");
    api.delete_pod("agent-2").await;
    assert_eq!(end(&mut agent).await.code(), Code::Unauthenticated);
}

pub(crate) async fn a_newer_token_of_another_node_or_of_nobody_ends_the_session(api: Api) {
    let bed = api.manager().await;
    let token = api.agent_token("agent-1", "node-1").await;
    let other = api.agent_token("agent-2", "node-2").await;
    let mut agent = session(&bed, &token, "node-1").await;
    credential(&agent, &other).await;
    let status = end(&mut agent).await;
    assert_eq!(status.code(), Code::PermissionDenied, "{status:?}");
    assert!(
        status.message().contains("node-1") && status.message().contains("node-2"),
        "{status:?}"
    );
    let mut agent = session(&bed, &token, "node-1").await;
    credential(&agent, "garbage").await;
    assert_eq!(end(&mut agent).await.code(), Code::Unauthenticated);
    // The same again is no news, and what is no token at all changes nothing.
    let agent = session(&bed, &token, "node-1").await;
    credential(&agent, &token).await;
    credential(&agent, "").await;
    assert_eq!(delivers(&bed, &agent).await, "node-1");
}

pub(crate) async fn the_original_agents_service_asks_for_a_token_too(api: Api) {
    let bed = api.manager().await;
    let token = api.agent_token("agent-1", "node-1").await;
    let event = WolEvent {
        mac_address: "02:00:00:00:00:01".into(),
        node_name: "node-9".into(),
        ..WolEvent::default()
    };
    let refused = bed.legacy().report_wol_event(event.clone()).await;
    assert_eq!(refused.unwrap_err().code(), Code::Unauthenticated);
    assert!(bed.desk.reports.lock().unwrap().is_empty());
    let mut request = tonic::Request::new(event);
    let header = format!("Bearer {token}").parse().unwrap();
    request.metadata_mut().insert("authorization", header);
    bed.legacy().report_wol_event(request).await.unwrap();
    assert_eq!(&*bed.desk.reported(1).await[0].node, "node-1");
    let health = pb::HealthCheckRequest::default();
    bed.legacy().health_check(health).await.unwrap();
}
