//! What a user sees, each told as: given a cluster, when a packet comes, then a VM starts or not.

mod bad_input;
mod changes;
mod configs;
mod events;
mod outages;
mod send_and_wait;

use std::time::Duration;

use kubevirt_wol::rpc::pb::{
    WolEvent, wol_event_response::Status, wol_service_client::WolServiceClient,
};
use nix::sys::signal::Signal;
use serde_json::json;

use crate::common::{
    cluster::{Agent, Cluster, Manager, eventually, send},
    kubevirt::vm::{RunStrategy, vm},
    process::{free_tcp, free_udp},
};

pub(crate) use bad_input::*;
pub(crate) use changes::*;
pub(crate) use configs::*;
pub(crate) use events::*;
pub(crate) use outages::*;
pub(crate) use send_and_wait::*;

const NS: &str = "home";
const MAC: &str = "52:54:00:00:00:01";
const OTHER: &str = "52:54:00:00:00:02";

/// Longer than a wake takes: what has not happened by then does not happen.
const A_WHILE: Duration = Duration::from_millis(700);

/// The definitions, a namespace, a config that wakes everything, a manager and an agent.
async fn ready(c: &Cluster) -> (Manager, Agent) {
    c.install_crd().await;
    c.namespace(NS).await;
    c.config("default", json!({"discoveryMode": "All"})).await;
    let manager = c.manager(&[]).await;
    let agent = c.agent("node-1", &manager, free_udp());
    (manager, agent)
}

/// Calls of `start` for a VM so far, whatever they were answered.
fn starts(c: &Cluster, name: &str) -> usize {
    c.kubevirt.codes(NS, name).len()
}

/// Sends packets until the VM was called to start: for what takes effect a moment later.
async fn wakes_soon(c: &Cluster, agent: &Agent, mac: &str, name: &str) {
    eventually(&format!("{mac} wakes {name}"), async || {
        agent.hears(mac);
        tokio::time::sleep(Duration::from_millis(50)).await;
        starts(c, name) > 0
    })
    .await;
}

/// Sends packets until one is answered with this outcome.
async fn answered(manager: &Manager, agent: &Agent, mac: &str, outcome: &str) {
    let series = format!(r#"kubevirt_wol_wakes_total{{outcome="{outcome}"}}"#);
    let before = manager.metric(&series);
    eventually(&format!("{mac} is answered {outcome}"), async || {
        agent.hears(mac);
        tokio::time::sleep(Duration::from_millis(50)).await;
        manager.metric(&series) > before
    })
    .await;
}

pub(crate) async fn a_packet_starts_a_vm_once_and_says_so_on_it(c: &Cluster) {
    let (_manager, agent) = ready(c).await;
    c.kubevirt
        .add(&vm(NS, "desktop").mac("52-54-00-00-00-01"))
        .await;
    c.kubevirt.add(&vm(NS, "other").mac(OTHER)).await;
    wakes_soon(c, &agent, MAC, "desktop").await;
    c.kubevirt.wait_for_status(NS, "desktop", "Running").await;
    for _ in 0..5 {
        agent.hears(MAC);
    }
    tokio::time::sleep(A_WHILE).await;
    assert_eq!(c.kubevirt.codes(NS, "desktop"), [202], "one PUT");
    assert_eq!(c.kubevirt.boots(NS, "desktop"), 1);
    assert_eq!(starts(c, "other"), 0);
    eventually("an Event names node and source", async || {
        let events = c.events(NS, "desktop").await;
        events
            .iter()
            .any(|e| e.contains("node-1") && e.contains("127.0.0.1") && e.contains(" on lo"))
    })
    .await;
    if let Some(server) = c.server() {
        let ours = server.requests().into_iter().filter(|request| {
            request.path.contains("/virtualmachines/desktop")
                && request.user_agent.starts_with("kubevirt-wol/")
        });
        let ours: Vec<_> = ours.map(|request| request.method).collect();
        assert_eq!(ours, [http::Method::PUT], "no GET: the watch tells");
    }
}

pub(crate) async fn two_nodes_hear_one_packet_and_one_start_follows(c: &Cluster) {
    let (manager, first) = ready(c).await;
    let second = c.agent("node-2", &manager, first.port);
    c.kubevirt.add(&vm(NS, "desktop").mac(MAC)).await;
    c.kubevirt.add(&vm(NS, "probe").mac(OTHER)).await;
    wakes_soon(c, &first, OTHER, "probe").await;
    for _ in 0..3 {
        send("127.255.255.255", first.port, MAC);
    }
    c.kubevirt.wait_for_status(NS, "desktop", "Running").await;
    for agent in [&first, &second] {
        agent
            .process
            .wait_for("heard", A_WHILE * 10, |line| line.field("mac") == MAC);
    }
    tokio::time::sleep(A_WHILE).await;
    assert_eq!(c.kubevirt.codes(NS, "desktop"), [202]);
}

pub(crate) async fn a_halted_vm_starts_and_is_warned_of_becoming_always(c: &Cluster) {
    let (_manager, agent) = ready(c).await;
    c.kubevirt
        .add(&vm(NS, "server").mac(MAC).run_strategy(RunStrategy::Halted))
        .await;
    wakes_soon(c, &agent, MAC, "server").await;
    let woken = c.kubevirt.wait_for_status(NS, "server", "Running").await;
    assert_eq!(
        woken["spec"]["runStrategy"], "Always",
        "as KubeVirt does it"
    );
    eventually(
        "an Event of its own recommends another strategy",
        async || {
            let events = c.events(NS, "server").await;
            let hint = |event: &&String| event.starts_with("WakeOnLanHint: ");
            events.iter().filter(hint).any(|e| e.contains("Manual"))
        },
    )
    .await;
}

pub(crate) async fn a_running_vm_is_left_alone(c: &Cluster) {
    let (manager, agent) = ready(c).await;
    c.kubevirt
        .create(&vm(NS, "busy").mac(MAC).run_strategy(RunStrategy::Always))
        .await;
    c.kubevirt.wait_for_status(NS, "busy", "Running").await;
    eventually("the packet is answered", async || {
        agent.hears(MAC);
        tokio::time::sleep(Duration::from_millis(50)).await;
        manager.metric(r#"kubevirt_wol_wakes_total{outcome="already-on"}"#) >= 1.0
    })
    .await;
    assert_eq!(starts(c, "busy"), 0);
}

pub(crate) async fn an_unknown_address_starts_nothing(c: &Cluster) {
    let (manager, agent) = ready(c).await;
    c.kubevirt.add(&vm(NS, "desktop").mac(MAC)).await;
    agent.hears(OTHER);
    eventually("the packet is refused", async || {
        manager.metric(r#"kubevirt_wol_wakes_total{outcome="not-found"}"#) >= 1.0
    })
    .await;
    tokio::time::sleep(A_WHILE).await;
    assert_eq!(starts(c, "desktop"), 0);
}

pub(crate) async fn two_vms_with_one_address_start_neither(c: &Cluster) {
    let (manager, agent) = ready(c).await;
    c.kubevirt.add(&vm(NS, "one").mac(MAC)).await;
    c.kubevirt.add(&vm(NS, "two").mac("5254.0000.0001")).await;
    c.kubevirt.add(&vm(NS, "probe").mac(OTHER)).await;
    wakes_soon(c, &agent, OTHER, "probe").await;
    agent.hears(MAC);
    eventually("both VMs say why", async || {
        let (one, two) = (c.events(NS, "one").await, c.events(NS, "two").await);
        one.iter().any(|event| event.contains("home/two"))
            && two.iter().any(|event| event.contains("home/one"))
    })
    .await;
    assert!(manager.metric(r#"kubevirt_wol_wakes_total{outcome="ambiguous"}"#) >= 1.0);
    assert_eq!((starts(c, "one"), starts(c, "two")), (0, 0));
    // Once it is one VM's again, it wakes that one.
    c.kubevirt.delete(NS, "two").await;
    wakes_soon(c, &agent, MAC, "one").await;
}

pub(crate) async fn a_vm_that_is_stopping_starts_when_it_has_stopped(c: &Cluster) {
    let (manager, agent) = ready(c).await;
    c.kubevirt.add(&vm(NS, "desktop").mac(MAC)).await;
    wakes_soon(c, &agent, MAC, "desktop").await;
    c.kubevirt.wait_for_status(NS, "desktop", "Running").await;
    c.kubevirt.show(NS, "desktop", "Stopping");
    c.kubevirt.stop(NS, "desktop").await;
    c.kubevirt.wait_for_status(NS, "desktop", "Stopping").await;
    // Past the window in which a second packet is a repeat of the first.
    let fresh = c.manager(&[]).await;
    let port = agent.port;
    // Two agents share a port, and either may get the packet.
    drop((manager, agent));
    let agent = c.agent("node-1", &fresh, port);
    agent.hears(MAC);
    eventually("the wake waits", async || {
        fresh.metric("kubevirt_wol_intents_open") >= 1.0
    })
    .await;
    let before = c.kubevirt.boots(NS, "desktop");
    tokio::time::sleep(A_WHILE).await;
    assert_eq!(
        c.kubevirt.boots(NS, "desktop"),
        before,
        "not while it is stopping"
    );
    c.kubevirt.release(NS, "desktop");
    eventually("it is started again", async || {
        c.kubevirt.boots(NS, "desktop") > before
    })
    .await;
    c.kubevirt.wait_for_status(NS, "desktop", "Running").await;
    assert_eq!(c.kubevirt.boots(NS, "desktop"), before + 1);
}

pub(crate) async fn definitions_may_come_after_the_manager(c: &Cluster) {
    c.kubevirt.uninstall().await;
    c.remove_crd().await;
    c.namespace(NS).await;
    let manager = c.manager(&[]).await;
    let agent = c.agent("node-1", &manager, free_udp());
    agent.hears(MAC);
    c.install_crd().await;
    c.config("default", json!({})).await;
    c.kubevirt.install().await;
    c.kubevirt.add(&vm(NS, "desktop").mac(MAC)).await;
    wakes_soon(c, &agent, MAC, "desktop").await;
    // And they may go and come again.
    c.kubevirt.uninstall().await;
    tokio::time::sleep(A_WHILE).await;
    c.kubevirt.install().await;
    c.kubevirt.add(&vm(NS, "laptop").mac(OTHER)).await;
    wakes_soon(c, &agent, OTHER, "laptop").await;
}

pub(crate) async fn a_wake_heard_before_the_manager_came_is_delivered(c: &Cluster) {
    c.install_crd().await;
    c.namespace(NS).await;
    c.config("default", json!({})).await;
    c.kubevirt.add(&vm(NS, "desktop").mac(MAC)).await;
    let grpc = free_tcp();
    let agent = c.agent_at("node-1", grpc, free_udp(), &[]);
    agent.process.wait_for("listening", A_WHILE * 10, |line| {
        line.message() == "listening"
    });
    agent.hears(MAC);
    tokio::time::sleep(A_WHILE).await;
    let manager = c.manager_at(grpc, &[]);
    manager.ready().await;
    c.kubevirt.wait_for_status(NS, "desktop", "Running").await;
    assert_eq!(c.kubevirt.codes(NS, "desktop"), [202]);
}

pub(crate) async fn a_wake_while_the_api_is_away_starts_when_it_is_back(c: &Cluster) {
    let (_manager, agent) = ready(c).await;
    c.kubevirt.add(&vm(NS, "desktop").mac(MAC)).await;
    c.kubevirt.add(&vm(NS, "probe").mac(OTHER)).await;
    wakes_soon(c, &agent, OTHER, "probe").await;
    c.kubevirt.wait_for_status(NS, "probe", "Running").await;
    c.api_away(true);
    agent.hears(MAC);
    tokio::time::sleep(A_WHILE * 2).await;
    c.api_away(false);
    c.kubevirt.wait_for_status(NS, "desktop", "Running").await;
    assert_eq!(c.kubevirt.boots(NS, "desktop"), 1);
}

pub(crate) async fn an_odd_vm_does_not_hide_the_others(c: &Cluster) {
    let (_manager, agent) = ready(c).await;
    c.kubevirt
        .add(&vm(NS, "no-mac").interface_without_mac())
        .await;
    c.kubevirt.add(&vm(NS, "bad-mac").mac("not a mac")).await;
    c.kubevirt
        .add(&vm(NS, "group-mac").mac("01:00:5e:00:00:01"))
        .await;
    c.kubevirt.add(&vm(NS, "null-metadata").mac(OTHER)).await;
    c.kubevirt
        .edit(
            NS,
            "null-metadata",
            json!({"spec": {"template": {"metadata": null}}}),
        )
        .await;
    c.kubevirt.add(&vm(NS, "desktop").mac(MAC)).await;
    wakes_soon(c, &agent, MAC, "desktop").await;
    wakes_soon(c, &agent, OTHER, "null-metadata").await;
    for odd in ["no-mac", "bad-mac", "group-mac"] {
        assert_eq!(starts(c, odd), 0, "{odd}");
    }
}

/// A wake for `desktop`, as an agent of the original implementation reports it.
fn original_event() -> WolEvent {
    WolEvent {
        mac_address: MAC.to_uppercase(),
        node_name: "old-node".into(),
        source_ip: "10.0.0.7".into(),
        packet_size: 102,
        ..WolEvent::default()
    }
}

pub(crate) async fn the_original_agents_protocol_wakes_too(c: &Cluster) {
    c.install_crd().await;
    c.namespace(NS).await;
    c.config("default", json!({"discoveryMode": "All"})).await;
    c.kubevirt.add(&vm(NS, "desktop").mac(MAC)).await;
    let bind = free_tcp().to_string();
    let manager = c.manager(&["--legacy-plaintext-bind", &bind]).await;
    // Not beside our own agents, whose port is for TLS.
    let refused = match WolServiceClient::connect(format!("http://{}", manager.grpc)).await {
        Err(_) => true,
        Ok(mut client) => client.report_wol_event(original_event()).await.is_err(),
    };
    assert!(refused, "plaintext is served on the agents' port");
    tokio::time::sleep(A_WHILE).await;
    assert_eq!(starts(c, "desktop"), 0);
    let mut client = WolServiceClient::connect(format!("http://{bind}"))
        .await
        .expect("it listens");
    eventually("it is answered as started", async || {
        let response = client
            .report_wol_event(original_event())
            .await
            .expect("an answer")
            .into_inner();
        matches!(
            response.status(),
            Status::VmStartInitiated | Status::Accepted
        )
    })
    .await;
    c.kubevirt.wait_for_status(NS, "desktop", "Running").await;
    assert_eq!(c.kubevirt.codes(NS, "desktop"), [202]);
    eventually("the Event names its node", async || {
        c.events(NS, "desktop")
            .await
            .iter()
            .any(|event| event.contains("old-node"))
    })
    .await;
}

pub(crate) async fn manager_and_agents_end_when_asked(c: &Cluster) {
    let (mut manager, mut agent) = ready(c).await;
    agent.process.signal(Signal::SIGTERM);
    assert_eq!(agent.process.ended(Duration::from_secs(5)).code(), Some(0));
    let mut left = c.agent("node-2", &manager, free_udp());
    manager.process.signal(Signal::SIGTERM);
    assert_eq!(
        manager.process.ended(Duration::from_secs(5)).code(),
        Some(0)
    );
    left.process.signal(Signal::SIGINT);
    assert_eq!(left.process.ended(Duration::from_secs(5)).code(), Some(0));
}
