//! Certificates that are wrong, late, missing, a client's, or changed while everybody looks on.

use std::time::Duration;

use tonic::Code;

use super::bed::{
    MAC, Mount, NAME, OTHER, agent_in, attack, bare_agent, bundle, handshakes, prepare, refused,
    reviews, starts_nothing, trust, wakes_soon, way, woken_by,
};
use crate::common::{
    cluster::{Cluster, Manager, SOON},
    pki::Authority,
    process::{Line, free_udp},
    sessions::{Crowd, Session, Way},
    trust::{AGENT, NAMESPACE, Trust},
};

/// Agents with sessions during a rotation.
const AGENTS: usize = 50;

/// A manager that serves with a certificate in a directory.
async fn manager_with(c: &Cluster, mount: &Mount, flags: &[&str]) -> Manager {
    let directory = ["--tls-dir", mount.path().to_str().unwrap()];
    let interval = ["--tls-reload-interval", "50ms"];
    c.manager(&[&directory, &interval, flags].concat()).await
}

pub(crate) async fn a_manager_of_a_foreign_authority_gets_neither_token_nor_wake(c: &Cluster) {
    prepare(c).await;
    let manager = c.manager(&[]).await;
    let foreign = Mount::bundle(&Authority::new("foreign"));
    let pod = trust(c).pod("node-1", AGENT).await;
    let name = format!("kubevirt-wol-grpc.{NAMESPACE}.svc");
    let agent = agent_in(&pod, &manager, &foreign, &["--server-name", &name]);
    agent.agent.hears(MAC);
    let words = "compare it with ca.crt in the ConfigMap kubevirt-wol-ca-bundle";
    agent.complains(words, "unknown-issuer").await;
    starts_nothing(c, "desktop").await;
    assert!(handshakes(&manager, "refused") >= 1.0);
    assert!(reviews(&manager) < 0.1, "its token has not left it");
    // What it has heard is told as soon as it knows whom it tells.
    foreign.put(&[("ca.crt", &bundle(c).await)]);
    agent.agent.configured();
    wakes_soon(c, &agent.agent, MAC, "desktop").await;
}

pub(crate) async fn a_manager_with_an_expired_certificate_gets_neither_token_nor_wake(c: &Cluster) {
    prepare(c).await;
    let (ca, mount) = (Authority::new("ours"), Mount::empty());
    mount.leaf(&ca.expired_server(&[NAME]));
    let manager = manager_with(c, &mount, &[]).await;
    manager
        .process
        .wait_for("that it has expired", SOON, |line| {
            line.message().contains("has expired")
        });
    let pod = trust(c).pod("node-1", AGENT).await;
    let (bundle, name) = (Mount::bundle(&ca), ["--server-name", NAME]);
    let agent = agent_in(&pod, &manager, &bundle, &name);
    agent.agent.hears(MAC);
    let words = "renew the manager's certificate, or set the clock of this node right";
    agent.complains(words, "expired").await;
    starts_nothing(c, "desktop").await;
    assert!(reviews(&manager) < 0.1, "its token has not left it");
    mount.leaf(&ca.server(&[NAME]));
    agent.agent.configured();
    wakes_soon(c, &agent.agent, MAC, "desktop").await;
}

pub(crate) async fn without_a_bundle_an_agent_tells_nobody_anything(c: &Cluster) {
    prepare(c).await;
    let manager = c.manager(&[]).await;
    let (pod, mount) = (trust(c).pod("node-1", AGENT).await, Mount::empty());
    let name = format!("kubevirt-wol-grpc.{NAMESPACE}.svc");
    let agent = agent_in(&pod, &manager, &mount, &["--server-name", &name]);
    agent.agent.hears(MAC);
    let words = "look whether the ConfigMap that is mounted there (kubevirt-wol-ca-bundle) has the \
                 key ca.crt";
    agent.complains(words, "no-bundle").await;
    starts_nothing(c, "desktop").await;
    let begun = ["accepted", "refused", "broken", "plaintext", "other"];
    let begun: f64 = begun.iter().map(|how| handshakes(&manager, how)).sum();
    assert!(begun < 0.1, "nobody was asked");
    mount.put(&[("ca.crt", &bundle(c).await)]);
    agent.agent.configured();
    wakes_soon(c, &agent.agent, MAC, "desktop").await;
}

pub(crate) async fn an_agent_is_the_node_that_its_certificate_names(c: &Cluster) {
    prepare(c).await;
    let (ca, mount) = (Authority::new("ours"), Mount::empty());
    let leaf = ca.server(&[NAME]);
    let key = ("tls.key", &*leaf.key_pem);
    mount.put(&[("tls.crt", &leaf.pem), key, ("ca.crt", &ca.pem)]);
    let manager = manager_with(c, &mount, &["--agent-auth", "certificate"]).await;
    let bundle = Mount::bundle(&ca);
    let file = bundle.file("ca.crt");
    let flags = ["--ca-file", file.to_str().unwrap(), "--server-name", NAME];
    // Without a certificate a good token is worth nothing.
    let pod = trust(c).pod("node-1", AGENT).await;
    let tokens = agent_in(&pod, &manager, &bundle, &["--server-name", NAME]);
    tokens.agent.hears(OTHER);
    let words = "takes only agents with a client certificate; name one with --client-tls-dir";
    tokens.complains(words, "refused").await;
    starts_nothing(c, "laptop").await;
    // This one has no token at all.
    let own = Mount::agent(&ca, "node-7");
    let directory = ["--client-tls-dir", own.path().to_str().unwrap()];
    let absent = mount.file("no-token");
    let absent = ["--token-file", absent.to_str().unwrap()];
    let agent = bare_agent(
        "node-1",
        &manager,
        &[&flags, &directory[..], &absent].concat(),
    );
    agent.agent.configured();
    wakes_soon(c, &agent.agent, MAC, "desktop").await;
    woken_by(c, "desktop", "node-7", "node-1").await;
    assert!(reviews(&manager) < 0.1);
}

/// Tokens of pods on nodes of their own.
async fn tokens(c: &Cluster) -> Vec<Option<String>> {
    let mut tokens = Vec::new();
    for index in 0..AGENTS {
        let pod = trust(c).pod(&format!("crowd-{index}"), AGENT).await;
        tokens.push(Some(pod.token(&Trust::audience()).await));
    }
    tokens
}

/// Has every session deliver an event twice a second until the manager has dropped its first CA.
async fn deliver_through_a_rotation(c: &Cluster, manager: &Manager, crowd: &Crowd) -> u16 {
    let mut round = 0;
    let first = bundle(c).await;
    let done = async {
        loop {
            crowd.deliver(round).await;
            round += 1;
            tokio::time::sleep(Duration::from_millis(500)).await;
            let now = bundle(c).await;
            let dropped = manager.metric(r#"kubevirt_wol_ca_steps_total{step="drop"}"#) >= 1.0;
            if dropped && !now.contains(first.trim()) {
                return;
            }
        }
    };
    let done = tokio::time::timeout(Duration::from_secs(60), done).await;
    done.expect("a rotation within 30 s");
    round
}

pub(crate) async fn a_rotation_of_the_authority_costs_no_session_and_no_wake(c: &Cluster) {
    prepare(c).await;
    let tokens = tokens(c).await;
    let life = ["--ca-lifetime", "30s", "--leaf-lifetime", "6s"];
    let manager = c
        .manager(&[&life[..], &["--ca-publish-wait", "3s"]].concat())
        .await;
    let before = way(c, &manager).await;
    let crowd = Crowd::open(&before, &tokens).await;
    let rounds = deliver_through_a_rotation(c, &manager, &crowd).await;
    crowd.settled().await;
    for session in &crowd.0 {
        let record = session.record();
        assert_eq!(record.settled.len(), usize::from(rounds), "none is lost");
    }
    let renewed = |line: &&Line| line.message() == "serves agents with a new certificate";
    let leaves = manager.process.lines().iter().filter(renewed).count();
    assert!(
        leaves >= 3,
        "{leaves} certificates in {rounds} half seconds"
    );
    // Whoever knows the old CA alone is not to be served by the new one.
    let token = tokens[0].as_deref();
    let stale = Session::open(&before, "crowd-0", token).await;
    assert!(stale.is_err(), "the old CA still signs");
    let fresh: Way = way(c, &manager).await;
    for status in attack(&fresh, None).await.unwrap() {
        assert_eq!(status.code(), Code::Unauthenticated, "{status:?}");
    }
    starts_nothing(c, "desktop").await;
    // A new agent comes in by the rotated bundle, and the old ones are still there.
    let agent = c.agent("node-1", &manager, free_udp());
    wakes_soon(c, &agent, MAC, "desktop").await;
    crowd.deliver(rounds).await;
    crowd.settled().await;
    assert!(
        (refused(&manager, "no-token") - 2.0).abs() < 0.1,
        "the attacker"
    );
}
