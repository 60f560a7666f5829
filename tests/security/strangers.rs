//! Callers that are no agents of ours.

use tonic::Code;

use super::bed::{
    A_WHILE, DESKTOP, MAC, OTHER, attack, bare_agent, handshakes, prepare, refused, reviews,
    starts_nothing, trust, wakes_soon, way, woken_by,
};
use crate::common::{
    cluster::{Cluster, Manager, SOON, eventually},
    process::free_udp,
    sessions::{Session, Way},
    trust::{AGENT, STRANGER, Trust},
};
use kubevirt_wol::rpc::pb::{WolEvent, wol_service_client::WolServiceClient};

/// How somebody is turned away: the code, the words of caller and log, and the reason in metrics.
struct Refusal(Code, &'static str, &'static str);

const NO_TOKEN: Refusal = Refusal(
    Code::Unauthenticated,
    "sends the one that its pod mounts (--token-file)",
    "no-token",
);
const NOT_ACCEPTED: Refusal = Refusal(
    Code::Unauthenticated,
    "the API server does not accept the token",
    "token",
);
const EXPIRED: Refusal = Refusal(
    Code::Unauthenticated,
    "compare the clocks of the machines",
    "expired",
);
const ACCOUNT: Refusal = Refusal(
    Code::PermissionDenied,
    "(--agent-service-account)",
    "account",
);

/// An attacker with such a token is refused, told why, counted and logged, and starts nothing.
async fn turned_away(c: &Cluster, manager: &Manager, token: Option<&str>, how: Refusal) {
    let Refusal(code, words, reason) = how;
    let before = refused(manager, reason);
    for status in attack(&way(c, manager).await, token).await.unwrap() {
        assert_eq!(status.code(), code, "{status:?}");
        assert!(status.message().contains(words), "{status:?}");
    }
    let counted = refused(manager, reason) - before;
    assert!((counted - 2.0).abs() < 0.1, "{counted} for {reason}");
    let told = manager.process.wait_for("why", SOON, |line| {
        line.field("reason") == reason && line.message().contains(words)
    });
    assert!(told.field("who").starts_with("127.0.0.1:"), "{told:?}");
    if let Some(token) = token.filter(|token| token.len() > 100) {
        let leaked = manager.process.text().contains(token);
        assert!(!leaked, "the token is in the log");
    }
    starts_nothing(c, "desktop").await;
}

/// Our own agent is served all the while.
async fn ours_wakes(c: &Cluster, manager: &Manager) {
    let agent = c.agent("node-1", manager, free_udp());
    wakes_soon(c, &agent, MAC, "desktop").await;
}

pub(crate) async fn without_a_token_nothing_starts(c: &Cluster) {
    prepare(c).await;
    let manager = c.manager(&[]).await;
    turned_away(c, &manager, None, NO_TOKEN).await;
    ours_wakes(c, &manager).await;
}

pub(crate) async fn garbage_for_a_token_starts_nothing(c: &Cluster) {
    prepare(c).await;
    let manager = c.manager(&[]).await;
    for garbage in ["garbage", "a.b.c", "e30.e30.c2ln"] {
        turned_away(c, &manager, Some(garbage), NOT_ACCEPTED).await;
    }
    ours_wakes(c, &manager).await;
}

pub(crate) async fn a_token_for_another_audience_starts_nothing(c: &Cluster) {
    prepare(c).await;
    let manager = c.manager(&[]).await;
    let pod = trust(c).pod("node-1", AGENT).await;
    for audience in ["kubevirt-wol.elsewhere", "https://kubernetes.default.svc"] {
        let token = pod.token(audience).await;
        turned_away(c, &manager, Some(&token), NOT_ACCEPTED).await;
    }
    ours_wakes(c, &manager).await;
}

pub(crate) async fn a_token_of_another_account_starts_nothing(c: &Cluster) {
    prepare(c).await;
    let manager = c.manager(&[]).await;
    let pod = trust(c).pod("node-1", STRANGER).await;
    let token = pod.token(&Trust::audience()).await;
    turned_away(c, &manager, Some(&token), ACCOUNT).await;
    ours_wakes(c, &manager).await;
}

pub(crate) async fn an_expired_token_starts_nothing(c: &Cluster) {
    prepare(c).await;
    let manager = c.manager(&[]).await;
    let pod = trust(c).pod("node-1", AGENT).await;
    let expired = async |seconds| trust(c).token_for(&pod, &Trust::audience(), seconds).await;
    turned_away(c, &manager, Some(&expired(-62).await), NOT_ACCEPTED).await;
    // API servers would take this one, as clocks may be apart.
    turned_away(c, &manager, Some(&expired(-5).await), EXPIRED).await;
    ours_wakes(c, &manager).await;
}

pub(crate) async fn a_plaintext_client_starts_nothing(c: &Cluster) {
    prepare(c).await;
    let manager = c.manager(&[]).await;
    let pod = trust(c).pod("node-1", AGENT).await;
    let token = pod.token(&Trust::audience()).await;
    let plain = Way {
        manager: manager.grpc,
        tls: None,
    };
    // It has a good token, and is not even asked for it: how it notices is its own affair, if it does.
    let _ = tokio::time::timeout(A_WHILE, attack(&plain, Some(&token))).await;
    assert!(reviews(&manager) < 0.1, "nobody looked at its token");
    eventually("it is counted", async || {
        handshakes(&manager, "plaintext") >= 1.0
    })
    .await;
    manager
        .process
        .wait_for("why", SOON, |line| line.message().contains("speaks no TLS"));
    let insecure = bare_agent("node-1", &manager, &["--insecure"]);
    insecure.complains("speaks only TLS", "session").await;
    insecure.agent.hears(MAC);
    starts_nothing(c, "desktop").await;
    ours_wakes(c, &manager).await;
}

pub(crate) async fn a_wake_is_of_the_node_of_the_token_whatever_the_message_says(c: &Cluster) {
    prepare(c).await;
    let manager = c.manager(&[]).await;
    let way = way(c, &manager).await;
    let pod = trust(c).pod("node-1", AGENT).await;
    let token = pod.token(&Trust::audience()).await;
    let session = Session::open(&way, "node-2", Some(&token)).await.unwrap();
    session.event(DESKTOP).await;
    woken_by(c, "desktop", "node-1", "node-2").await;
    let channel = way.connect().await.unwrap();
    let mut request = tonic::Request::new(WolEvent {
        mac_address: OTHER.into(),
        node_name: "node-2".into(),
        ..WolEvent::default()
    });
    let bearer = format!("Bearer {token}").parse().unwrap();
    request.metadata_mut().insert("authorization", bearer);
    let mut client = WolServiceClient::new(channel);
    client.report_wol_event(request).await.unwrap();
    woken_by(c, "laptop", "node-1", "node-2").await;
    tokio::time::sleep(A_WHILE).await;
    let named = |line: &crate::common::process::Line| line.field("node") == "node-2";
    assert!(!manager.process.lines().iter().any(named));
    assert_eq!(session.record().ended, None);
}
