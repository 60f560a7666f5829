//! What a user sees of certificates.

#[path = "bed.rs"]
mod bed;

use std::{
    io::Read as _,
    net::TcpStream,
    time::{Duration, Instant},
};

use kubevirt_wol::rpc::pb::{
    WolEvent, wol_event_response::Status, wol_service_client::WolServiceClient,
};
use serde_json::json;

use crate::common::{
    cluster::{Agent, Cluster, SOON, eventually, get},
    kubevirt::vm::vm,
    pki::Authority,
    process::free_tcp,
};
use bed::{Mount, NAME, agent, bare_agent, bare_manager, handshakes, manager, manager_at};

const NS: &str = "home";
const MAC: &str = "52:54:00:00:00:01";

/// The definitions, a namespace and a config that wakes everything.
async fn prepare(c: &Cluster) {
    c.install_crd().await;
    c.namespace(NS).await;
    c.config("default", json!({"discoveryMode": "All"})).await;
}

/// Sends packets until the VM was called to start.
async fn wakes(c: &Cluster, agent: &Agent, mac: &str, name: &str) {
    eventually(&format!("{mac} wakes {name}"), async || {
        agent.hears(mac);
        tokio::time::sleep(Duration::from_millis(50)).await;
        !c.kubevirt.codes(NS, name).is_empty()
    })
    .await;
}

pub(crate) async fn a_wake_comes_over_tls(c: &Cluster) {
    prepare(c).await;
    let ca = Authority::new("ours");
    let manager = manager(c, &Mount::server(&ca)).await;
    let agent = agent(c, "node-1", &manager, &Mount::bundle(&ca), &[]);
    agent.agent.configured();
    c.kubevirt.add(&vm(NS, "desktop").mac(MAC)).await;
    wakes(c, &agent.agent, MAC, "desktop").await;
    assert!(handshakes(&manager, "accepted") >= 1.0);
    assert!(manager.metric("kubevirt_wol_insecure") < 1.0);
}

pub(crate) async fn a_manager_of_a_foreign_authority_is_not_told_anything(c: &Cluster) {
    prepare(c).await;
    let (ours, foreign) = (Authority::new("ours"), Authority::new("foreign"));
    let manager = manager(c, &Mount::server(&foreign)).await;
    let agent = agent(c, "node-1", &manager, &Mount::bundle(&ours), &[]);
    agent
        .complains("is not signed by any authority in", "unknown-issuer")
        .await;
    eventually("the manager counts it", async || {
        handshakes(&manager, "refused") > 0.0
    })
    .await;
    assert!(handshakes(&manager, "accepted") < 1.0);
}

pub(crate) async fn an_expired_certificate_is_refused(c: &Cluster) {
    prepare(c).await;
    let (ca, mount) = (Authority::new("ours"), Mount::empty());
    mount.leaf(&ca.expired_server(&[NAME]));
    let manager = manager(c, &mount).await;
    let agent = agent(c, "node-1", &manager, &Mount::bundle(&ca), &[]);
    agent
        .complains("renew the manager's certificate", "expired")
        .await;
    let told = |line: &crate::common::process::Line| line.message().contains("has expired");
    manager.process.wait_for("expired", SOON, told);
    let expiry = manager.metric("kubevirt_wol_serving_certificate_expiry_timestamp_seconds");
    assert!((expiry - 946_684_800.0).abs() < 1.0, "{expiry}");
    // The new one is taken as soon as it is there.
    mount.leaf(&ca.server(&[NAME]));
    agent.agent.configured();
}

pub(crate) async fn a_certificate_for_another_name_is_refused(c: &Cluster) {
    prepare(c).await;
    let ca = Authority::new("ours");
    let manager = manager(c, &Mount::server(&ca)).await;
    let bundle = Mount::bundle(&ca);
    let file = bundle.file("ca.crt");
    // By the address that is dialled, for which the certificate is not.
    let (pod, _) = c.security.of_agent("node-1");
    let token = pod.as_ref().unwrap().token_file();
    let files = [("--ca-file", &file), ("--token-file", &token)];
    let flags = files.map(|(flag, file)| [flag, file.to_str().unwrap()]);
    let agent = bare_agent("node-1", &manager, flags.as_flattened());
    agent.complains("--server-name", "wrong-name").await;
}

pub(crate) async fn a_missing_bundle_is_told_and_counts_once_it_is_there(c: &Cluster) {
    prepare(c).await;
    let (ca, bundle) = (Authority::new("ours"), Mount::empty());
    let manager = manager(c, &Mount::server(&ca)).await;
    let agent = agent(c, "node-1", &manager, &bundle, &[]);
    agent
        .complains("kubelet brings it within 90 s", "no-bundle")
        .await;
    bundle.put(&[("ca.crt", "no certificate")]);
    agent.complains("is of no use", "bad-bundle").await;
    let sum = ["accepted", "refused", "broken"].map(|outcome| handshakes(&manager, outcome));
    assert!(sum.iter().sum::<f64>() < 1.0, "nobody was asked: {sum:?}");
    bundle.put(&[("ca.crt", &ca.pem)]);
    agent.agent.configured();
}

pub(crate) async fn files_are_replaced_while_sessions_go_on(c: &Cluster) {
    prepare(c).await;
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let mount = Mount::server(&old);
    let manager = manager(c, &mount).await;
    let agents = ["node-1", "node-2"];
    let agents = agents.map(|node| agent(c, node, &manager, &Mount::bundle(&old), &[]));
    for agent in &agents {
        agent.agent.configured();
    }
    mount.leaf(&new.server(&[NAME]));
    let loaded = r#"kubevirt_wol_certificate_reloads_total{result="loaded"}"#;
    eventually("the new one is loaded", async || {
        manager.metric(loaded) > 1.5
    })
    .await;
    let next = agent(c, "node-3", &manager, &Mount::bundle(&new), &[]);
    next.agent.configured();
    c.kubevirt.add(&vm(NS, "desktop").mac(MAC)).await;
    wakes(c, &agents[0].agent, MAC, "desktop").await;
    for agent in &agents {
        let reconnects = agent.metric("kubevirt_wol_agent_reconnects_total");
        assert_eq!(reconnects, 0, "its session goes on");
    }
}

pub(crate) async fn useless_files_change_nothing(c: &Cluster) {
    prepare(c).await;
    let (ca, other) = (Authority::new("ours"), Authority::new("other"));
    let mount = Mount::server(&ca);
    let manager = manager(c, &mount).await;
    let (one, two) = (ca.server(&[NAME]), other.server(&[NAME]));
    mount.put(&[("tls.crt", &one.pem), ("tls.key", &two.key_pem)]);
    eventually("it is seen", async || {
        manager.metric("kubevirt_wol_certificate_files_bad") > 0.0
    })
    .await;
    // Many looks later it is told once.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let lines = manager.process.lines();
    let told = lines
        .iter()
        .filter(|line| line.message().contains("stay in force"));
    assert_eq!(told.count(), 1, "{}", manager.process.text());
    let agent = agent(c, "node-1", &manager, &Mount::bundle(&ca), &[]);
    agent.agent.configured();
    mount.leaf(&one);
    eventually("it is mended", async || {
        manager.metric("kubevirt_wol_certificate_files_bad") < 1.0
    })
    .await;
}

pub(crate) async fn an_insecure_agent_is_told_that_the_manager_speaks_only_tls(c: &Cluster) {
    prepare(c).await;
    let manager = manager(c, &Mount::server(&Authority::new("ours"))).await;
    let agent = bare_agent("node-1", &manager, &["--insecure"]);
    agent.complains("speaks only TLS", "session").await;
    eventually("it is counted", async || {
        handshakes(&manager, "plaintext") > 3.0
    })
    .await;
    let lines = manager.process.lines();
    let told = lines
        .iter()
        .filter(|line| line.message().contains("speaks no TLS"));
    let (told, count) = (told.count(), handshakes(&manager, "plaintext"));
    assert!(
        told >= 1 && f64::from(u32::try_from(told).unwrap()) < count,
        "{told} of {count}"
    );
}

pub(crate) async fn an_agent_tells_that_a_manager_speaks_no_tls(c: &Cluster) {
    prepare(c).await;
    let manager = bare_manager(c, &["--insecure"]);
    manager.ready().await;
    let agent = agent(
        c,
        "node-1",
        &manager,
        &Mount::bundle(&Authority::new("ours")),
        &[],
    );
    agent.complains("the manager speaks no TLS", "no-tls").await;
    manager.process.wait_for("the warning", SOON, |line| {
        line.message().contains("--insecure")
    });
    assert!(manager.metric("kubevirt_wol_insecure") > 0.0);
}

pub(crate) async fn without_a_certificate_a_manager_waits_and_is_not_ready(c: &Cluster) {
    prepare(c).await;
    let (ca, mount) = (Authority::new("ours"), Mount::empty());
    let manager = manager_at(c, &mount, &[]);
    eventually("only the certificate is missing", async || {
        let answer = get(manager.admin, "/readyz");
        answer.is_some_and(|(code, text)| {
            code == 503 && text.contains("a serving certificate") && !text.contains("the list")
        })
    })
    .await;
    let agent = agent(c, "node-1", &manager, &Mount::bundle(&ca), &[]);
    agent
        .complains("has no serving certificate yet", "refused")
        .await;
    assert!(handshakes(&manager, "no-certificate") > 0.0);
    mount.leaf(&ca.server(&[NAME]));
    manager.ready().await;
    agent.agent.configured();
}

pub(crate) async fn agents_without_a_good_client_certificate_stay_out(c: &Cluster) {
    prepare(c).await;
    let (ours, foreign) = (Authority::new("ours"), Authority::new("foreign"));
    let (mount, server) = (Mount::empty(), ours.server(&[NAME]));
    let files = |ca: &Authority| {
        let key = ("tls.key", &*server.key_pem);
        mount.put(&[("tls.crt", &server.pem), key, ("ca.crt", &ca.pem)]);
    };
    files(&ours);
    let manager = manager_at(c, &mount, &["--agent-auth", "certificate"]);
    manager.ready().await;
    let bundle = Mount::bundle(&ours);
    let with = |node, authority| {
        let own = Mount::agent(authority, node);
        let flags = ["--client-tls-dir", own.path().to_str().unwrap()];
        (agent(c, node, &manager, &bundle, &flags), own)
    };
    let without = agent(c, "none", &manager, &bundle, &[]);
    without
        .complains("takes only agents with a client certificate", "refused")
        .await;
    let (stranger, _own) = with("stranger", &foreign);
    stranger
        .complains("does not take the client certificate", "refused")
        .await;
    let (good, _own) = with("node-1", &ours);
    good.agent.configured();
    assert!(handshakes(&manager, "bad-certificate") >= 2.0);
    // A changed ca.crt counts from the next handshake on.
    files(&foreign);
    stranger.agent.configured();
}

pub(crate) async fn connections_that_never_speak_keep_nobody_out(c: &Cluster) {
    prepare(c).await;
    let ca = Authority::new("ours");
    let manager = manager(c, &Mount::server(&ca)).await;
    let silent = |_| TcpStream::connect(manager.grpc).unwrap();
    let mut silent: Vec<_> = (0..1_000).map(silent).collect();
    let began = Instant::now();
    let agent = agent(c, "node-1", &manager, &Mount::bundle(&ca), &[]);
    agent.agent.configured();
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "{:?}",
        began.elapsed()
    );
    let slow = handshakes(&manager, "displaced") + handshakes(&manager, "timed-out");
    assert!(slow > 0.0, "they were cut off");
    // The first was cut off, and reads the end.
    silent[0].set_read_timeout(Some(SOON)).unwrap();
    assert_eq!(silent[0].read(&mut [0]).unwrap_or(0), 0);
    let told = manager
        .process
        .text()
        .matches("a connection is not served")
        .count();
    assert!(told < 30, "{told} lines");
}

pub(crate) async fn the_original_agents_have_a_plaintext_listener_of_their_own(c: &Cluster) {
    prepare(c).await;
    let mount = Mount::server(&Authority::new("ours"));
    let address = free_tcp();
    let bind = address.to_string();
    let manager = manager_at(c, &mount, &["--legacy-plaintext-bind", &bind]);
    manager.ready().await;
    assert!(manager.metric("kubevirt_wol_legacy_plaintext") > 0.0);
    let warned = |line: &crate::common::process::Line| line.message().contains("in plaintext, too");
    manager.process.wait_for("a warning", SOON, warned);
    c.kubevirt.add(&vm(NS, "desktop").mac(MAC)).await;
    let client = WolServiceClient::connect(format!("http://{bind}")).await;
    let mut client = client.expect("it listens");
    let event = WolEvent {
        mac_address: MAC.into(),
        node_name: "old-node".into(),
        ..WolEvent::default()
    };
    eventually("it is started", async || {
        let response = client.report_wol_event(event.clone()).await;
        response.unwrap().into_inner().status() == Status::VmStartInitiated
            || !c.kubevirt.codes(NS, "desktop").is_empty()
    })
    .await;
    let calls = (0..600).map(|_| {
        let (mut client, event) = (client.clone(), event.clone());
        async move { client.report_wol_event(event).await }
    });
    let answers = futures::future::join_all(calls).await;
    let refused = answers.iter().filter_map(|answer| answer.as_ref().err());
    let mut refused = refused.map(tonic::Status::code);
    assert!(refused.any(|code| code == tonic::Code::ResourceExhausted));
    assert!(manager.metric("kubevirt_wol_legacy_throttled_total") > 0.0);
    // Our own agents are not served there.
    let mut own = kubevirt_wol::rpc::pb::agent_service_client::AgentServiceClient::connect(
        format!("http://{bind}"),
    )
    .await
    .unwrap();
    let answer = own.session(tokio_stream::empty()).await;
    assert_eq!(answer.unwrap_err().code(), tonic::Code::Unimplemented);
}
