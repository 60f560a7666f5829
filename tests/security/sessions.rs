//! Sessions whose proof ends, is renewed, or cannot be reviewed.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;
use tonic::Code;

use super::bed::{
    A_WHILE, MAC, Mount, NS, OTHER, agent_in, attack, bundle, ended, has_no_session, prepare,
    refused, starts, starts_nothing, trust, wakes_soon, way, welcomes,
};
use crate::common::{
    apiserver::{Fault, When},
    cluster::{Cluster, eventually},
    process::free_udp,
    sessions::Session,
    trust::{AGENT, Trust},
};

/// A token is known for moments only, and sessions are reviewed often.
const HASTY: [&str; 4] = ["--token-cache", "1s", "--token-review-interval", "1s"];

const BANNED: &str = "kubevirt-wol-banned-nodes";

pub(crate) async fn the_token_of_a_deleted_pod_wakes_nothing_any_more(c: &Cluster) {
    prepare(c).await;
    // A fifteenth of the times that managers have by themselves.
    let hasty = ["--token-cache", "4s", "--token-review-interval", "20s"];
    let manager = c.manager(&hasty).await;
    let agent = c.agent("node-1", &manager, free_udp());
    wakes_soon(c, &agent, MAC, "desktop").await;
    let pod = agent.pod.as_ref().unwrap();
    let token = std::fs::read_to_string(pod.token_file()).unwrap();
    pod.end().await;
    let gone = Instant::now();
    let way = way(c, &manager).await;
    // Four seconds here, and ten for which a real API server remembers that it was good.
    eventually("the replayed token is refused", async || {
        tokio::time::sleep(A_WHILE).await;
        let replayed = Session::open(&way, "node-1", Some(&token)).await;
        let refused = replayed.err();
        refused.is_some_and(|status| status.code() == Code::Unauthenticated)
    })
    .await;
    assert!(gone.elapsed() < Duration::from_secs(17));
    // And with the next review the session ends that it had opened.
    has_no_session(&agent, "does not accept the token");
    assert!(ended(&manager, "unauthenticated") >= 1.0);
    assert!(refused(&manager, "token") >= 2.0);
    let before = starts(c, "desktop");
    for status in attack(&way, Some(&token)).await.unwrap() {
        assert_eq!(status.code(), Code::Unauthenticated, "{status:?}");
    }
    agent.hears(OTHER);
    starts_nothing(c, "laptop").await;
    assert_eq!(starts(c, "desktop"), before);
}

pub(crate) async fn a_token_is_renewed_within_the_session(c: &Cluster) {
    prepare(c).await;
    let manager = c.manager(&HASTY).await;
    let ca = Mount::empty();
    ca.put(&[("ca.crt", &bundle(c).await)]);
    let began = Instant::now();
    let life = 12;
    let mut agents = Vec::new();
    for node in ["node-1", "node-2"] {
        let pod = trust(c).pod(node, AGENT).await;
        let token = trust(c).token_for(&pod, &Trust::audience(), life).await;
        pod.volume.set("token", Some(&token));
        let name = ["--server-name", "kubevirt-wol-grpc"];
        let agent = agent_in(&pod, &manager, &ca, &name);
        agent.agent.configured();
        agents.push((agent, pod));
    }
    let [(renewed, pod), (witness, _kept)] = &agents[..] else {
        panic!("there are two");
    };
    pod.refresh().await;
    // Whose token nobody renews is out when it ends.
    has_no_session(&witness.agent, "has expired");
    assert!(began.elapsed() > Duration::from_secs(life.unsigned_abs() - 2));
    eventually("the end is counted", async || {
        ended(&manager, "proof-expired") >= 1.0
    })
    .await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    renewed.agent.process.wait_for("that", A_WHILE, |line| {
        line.message() == "a new token is sent to the manager"
    });
    wakes_soon(c, &renewed.agent, MAC, "desktop").await;
    assert_eq!(welcomes(&renewed.agent), 1, "it is the session it was");
    witness.agent.hears(OTHER);
    starts_nothing(c, "laptop").await;
}

pub(crate) async fn a_ban_ends_the_session_of_its_node_alone(c: &Cluster) {
    prepare(c).await;
    let bans = trust(c).api::<ConfigMap>();
    let ban = async |nodes: &str| {
        let params = PatchParams::apply("test").force();
        let object = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": BANNED},
            "data": {"nodes": nodes},
        });
        let taken = bans.patch(BANNED, &params, &Patch::Apply(object)).await;
        taken.unwrap();
    };
    ban("").await;
    let manager = c.manager(&[]).await;
    let bad = c.agent("node-1", &manager, free_udp());
    let good = c.agent("node-2", &manager, free_udp());
    ban("node-1").await;
    has_no_session(&bad, "node node-1 is banned; take it off the ConfigMap");
    bad.hears(MAC);
    starts_nothing(c, "desktop").await;
    assert!(ended(&manager, "banned") >= 1.0 && refused(&manager, "banned") >= 1.0);
    assert!((manager.metric("kubevirt_wol_banned_nodes") - 1.0).abs() < 0.1);
    wakes_soon(c, &good, OTHER, "laptop").await;
    assert_eq!(welcomes(&good), 1, "its session went on");
    // Without the list nobody is banned.
    let gone = bans.delete(BANNED, &DeleteParams::default()).await;
    gone.unwrap();
    wakes_soon(c, &bad, MAC, "desktop").await;
}

pub(crate) async fn while_no_token_can_be_reviewed_sessions_go_on_and_new_ones_wait(c: &Cluster) {
    prepare(c).await;
    let manager = c.manager(&HASTY).await;
    let first = c.agent("node-1", &manager, free_udp());
    let unavailable = r#"kubevirt_wol_token_reviews_total{result="unavailable"}"#;
    no_reviews(c, true);
    eventually("a review has failed", async || {
        manager.metric(unavailable) >= 1.0
    })
    .await;
    let second = c.agent_at("node-2", manager.grpc, free_udp(), &[]);
    has_no_session(&second, "cannot find out at the moment who is calling");
    first.hears(MAC);
    second.hears(OTHER);
    starts_nothing(c, "laptop").await;
    assert!(refused(&manager, "unavailable") >= 1.0);
    no_reviews(c, false);
    // What both have heard meanwhile is not lost.
    c.kubevirt.wait_for_status(NS, "desktop", "Running").await;
    c.kubevirt.wait_for_status(NS, "laptop", "Running").await;
    assert_eq!((starts(c, "desktop"), starts(c, "laptop")), (1, 1));
    assert_eq!(welcomes(&first), 1, "its session went on");
    assert_eq!(welcomes(&second), 1);
}

/// No token can be reviewed, or can again. On a real API server nothing else is answered either.
fn no_reviews(c: &Cluster, away: bool) {
    let Some(server) = c.server() else {
        return c.cut_off(away);
    };
    if away {
        let fault = Fault::internal_error();
        server.faults().add(When::path("/tokenreviews"), fault);
    } else {
        server.faults().clear();
    }
}
