//! The hidden options that the tests of faults stand on: a pace at which nobody waits for minutes, and
//! mechanisms that can be turned off. Each is told by what a wake becomes with it and without it.

use std::{path::Path, time::Duration};

use nix::sys::signal::Signal;
use serde_json::json;

use crate::common::{
    cluster::{Agent, Cluster, Manager, SOON, eventually},
    kubevirt::vm::{RunStrategy, vm},
    line::Line,
    process::{free_tcp, free_udp},
};

const NS: &str = "home";
const MAC: &str = "52:54:00:00:03:01";
const PROBE: &str = "52:54:00:00:03:02";
const A_WHILE: Duration = Duration::from_millis(700);
const FAST: [&str; 2] = ["--time-scale", "10"];

/// A cluster with a VM that is off, and another one by which it is seen that all goes well.
async fn cluster() -> Cluster {
    let c = Cluster::stand_in(Path::new(env!("CARGO_BIN_EXE_kubevirt-wol"))).await;
    c.install_crd().await;
    c.namespace(NS).await;
    c.config("default", json!({"discoveryMode": "All"})).await;
    let desktop = vm(NS, "desktop").run_strategy(RunStrategy::Halted);
    c.kubevirt.add(&desktop.mac(MAC)).await;
    c.kubevirt.add(&vm(NS, "probe").mac(PROBE)).await;
    c
}

fn flags(off: Option<&'static str>) -> Vec<&'static str> {
    let off = off.into_iter().flat_map(|what| ["--sabotage", what]);
    FAST.into_iter().chain(off).collect()
}

/// Has the agent hear a packet, which it reports.
async fn hears(agent: &Agent) {
    let before = agent.heard(MAC);
    agent.hears(MAC);
    eventually("the packet is heard", async || agent.heard(MAC) > before).await;
}

/// How often the VM was called to start, once all that was heard before has been looked at.
async fn calls(c: &Cluster, agent: &Agent) -> usize {
    eventually("the probe is woken", async || {
        agent.hears(PROBE);
        tokio::time::sleep(Duration::from_millis(50)).await;
        c.kubevirt.boots(NS, "probe") > 0
    })
    .await;
    tokio::time::sleep(A_WHILE).await;
    c.kubevirt.codes(NS, "desktop").len()
}

async fn world(c: &Cluster, flags: &[&str]) -> (Manager, Agent) {
    let manager = c.manager(flags).await;
    let agent = c.agent_at("node-1", manager.grpc, free_udp(), flags);
    agent.configured();
    (manager, agent)
}

async fn calls_for_a_wake_of_a_tenth_of_its_time(off: Option<&'static str>) -> usize {
    let (c, flags, grpc) = (cluster().await, flags(off), free_tcp());
    let agent = c.agent_at("node-1", grpc, free_udp(), &flags);
    agent
        .process
        .wait_for("listening", SOON, |line| line.message() == "listening");
    hears(&agent).await;
    // Stale after 30 s, which are 3 s at this pace.
    tokio::time::sleep(Duration::from_millis(3_300)).await;
    let manager = c.manager_at(grpc, &flags);
    manager.ready().await;
    calls(&c, &agent).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_ten_times_the_pace_a_wake_is_stale_after_a_tenth_of_its_time() {
    assert_eq!(calls_for_a_wake_of_a_tenth_of_its_time(None).await, 0);
    assert_eq!(
        calls_for_a_wake_of_a_tenth_of_its_time(Some("ttl")).await,
        1
    );
}

async fn calls_for_three_packets(off: Option<&'static str>) -> usize {
    let c = cluster().await;
    let (_manager, agent) = world(&c, &flags(off)).await;
    // All of them before KubeVirt has answered the first: a VM that was started looks as if it were on.
    c.kubevirt.hold(NS, "desktop");
    for _ in 0..3 {
        agent.hears(MAC);
    }
    calls(&c, &agent).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_dedup_every_packet_calls() {
    assert_eq!(calls_for_three_packets(None).await, 1);
    assert_eq!(calls_for_three_packets(Some("dedup")).await, 3);
}

async fn calls_after_a_manager_was_killed(off: Option<&'static str>) -> usize {
    let (c, flags) = (cluster().await, flags(off));
    let (mut manager, agent) = world(&c, &flags).await;
    c.cut_off(true);
    hears(&agent).await;
    let opened = r#"kubevirt_wol_events_total{verdict="opened"}"#;
    eventually("it is with the manager", async || {
        manager.metric(opened) > 0.5
    })
    .await;
    manager.process.signal(Signal::SIGKILL);
    manager.process.ended(SOON);
    c.cut_off(false);
    let manager = c.manager_at(manager.grpc, &flags);
    manager.ready().await;
    calls(&c, &agent).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_replay_a_wake_dies_with_its_manager() {
    assert_eq!(calls_after_a_manager_was_killed(None).await, 1);
    assert_eq!(calls_after_a_manager_was_killed(Some("replay")).await, 0);
}

async fn calls_for_a_vm_that_was_on_since(off: Option<&'static str>) -> usize {
    // At the usual pace, at which there is time for a VM to come and go.
    let (c, flags) = (cluster().await, &flags(off)[FAST.len()..]);
    let manager = c.manager(flags).await;
    let line = Line::to(manager.grpc).await;
    let agent = c.agent_at("node-1", line.address(), free_udp(), flags);
    agent.configured();
    line.cut(true);
    hears(&agent).await;
    let strategy = async |strategy| {
        let patch = json!({"spec": {"runStrategy": strategy}});
        c.kubevirt.edit(NS, "desktop", patch).await;
    };
    strategy("Always").await;
    c.kubevirt.wait_for_status(NS, "desktop", "Running").await;
    strategy("Halted").await;
    c.kubevirt.wait_for_status(NS, "desktop", "Stopped").await;
    tokio::time::sleep(A_WHILE).await;
    line.cut(false);
    calls(&c, &agent).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_check_of_its_age_a_wake_from_before_a_vm_was_on_starts_it_again() {
    assert_eq!(calls_for_a_vm_that_was_on_since(None).await, 0);
    assert_eq!(calls_for_a_vm_that_was_on_since(Some("age")).await, 1);
}
