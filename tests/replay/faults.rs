//! Managers that are killed, frozen or cut off.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::{
    MAC, NAME, NS, World, calls, cluster, connected, eventually, keep_stopping, knows_all,
    managers, names, waits, wakes, world,
};
use crate::common::{
    cluster::{Cluster, send},
    kubevirt::Fault,
    line::Line,
    process::{Process, free_tcp, free_udp},
};

/// Longer than a wake takes: what has not happened by then does not happen.
const A_WHILE: Duration = Duration::from_secs(2);

/// The VM runs, having been started once.
async fn started_once(c: &Cluster) {
    c.kubevirt.wait_for_status(NS, NAME, "Running").await;
    assert_eq!(c.kubevirt.boots(NS, NAME), 1);
}

/// Has a process stand still, and waits until it does.
async fn freeze(process: &Process) {
    process.signal(Signal::SIGSTOP);
    let path = format!("/proc/{}/stat", process.pid());
    eventually("it stands still", async || {
        let stat = std::fs::read_to_string(&path).unwrap();
        stat.rsplit(") ").next().unwrap().starts_with('T')
    })
    .await;
    // Its threads stop one by one.
    tokio::time::sleep(Duration::from_millis(200)).await;
}

pub(crate) async fn a_manager_killed_before_it_starts_the_vm_costs_no_wake(c: &Cluster) {
    let World { home, other, agent } = world(c).await;
    // Its call reaches nobody.
    c.kubevirt.fault(Some(Fault::Away));
    agent.hears(MAC);
    waits(&home).await;
    home.process.signal(Signal::SIGKILL);
    c.kubevirt.fault(None);
    started_once(c).await;
    eventually("the other one answers", async || {
        wakes(&other, "started") > 0.5
    })
    .await;
}

pub(crate) async fn a_manager_killed_after_its_start_and_before_its_answer_costs_no_second_start(
    c: &Cluster,
) {
    let World { home, other, agent } = world(c).await;
    // Nothing shows that the start was taken but the request that KubeVirt has noted.
    c.kubevirt.stop_controller(true);
    c.kubevirt.delay(Duration::from_secs(1));
    agent.hears(MAC);
    waits(&home).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    // Its call is on its way, and it will not hear of the answer.
    freeze(&home.process).await;
    let asked = |vm: &serde_json::Value| {
        let requests = vm["status"]["stateChangeRequests"].as_array();
        requests.is_some_and(|requests| !requests.is_empty())
    };
    c.kubevirt.wait_for(NS, NAME, "a request", asked).await;
    home.process.signal(Signal::SIGKILL);
    eventually("the other one answers", async || {
        wakes(&other, "already-on") > 0.5
    })
    .await;
    c.kubevirt.delay(Duration::ZERO);
    c.kubevirt.stop_controller(false);
    // It looks at the VM again.
    c.kubevirt.release(NS, NAME);
    started_once(c).await;
    assert!(calls(&other) < 0.5, "it saw that this was done");
}

pub(crate) async fn a_wake_that_waits_for_its_vm_outlives_its_manager(c: &Cluster) {
    let World { home, other, agent } = world(c).await;
    agent.hears(MAC);
    started_once(c).await;
    keep_stopping(c).await;
    // Past the windows in which a second packet is a repeat of the first.
    tokio::time::sleep(Duration::from_secs(10)).await;
    agent.hears(MAC);
    waits(&home).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    home.process.signal(Signal::SIGKILL);
    waits(&other).await;
    c.kubevirt.release(NS, NAME);
    c.kubevirt.wait_for_status(NS, NAME, "Running").await;
    assert_eq!(c.kubevirt.boots(NS, NAME), 2);
    eventually("it is told", async || wakes(&other, "started") > 0.5).await;
}

pub(crate) async fn a_manager_that_is_frozen_costs_two_seconds_and_starts_nothing_when_it_thaws(
    c: &Cluster,
) {
    let World { home, other, agent } = world(c).await;
    freeze(&home.process).await;
    let sent = Instant::now();
    agent.hears(MAC);
    eventually("the other one starts it", async || calls(&other) > 0.5).await;
    let late = sent.elapsed();
    assert!(late < Duration::from_secs(5), "after {late:?}");
    started_once(c).await;
    c.kubevirt.stop(NS, NAME).await;
    c.kubevirt.wait_for_status(NS, NAME, "Stopped").await;
    // So long that it notices. The wake waits in its socket, and is young as far as that says.
    let frozen = Duration::from_secs(8);
    tokio::time::sleep(frozen.saturating_sub(sent.elapsed())).await;
    home.process.signal(Signal::SIGCONT);
    home.process.wait_for("it notices", A_WHILE * 5, |line| {
        line.message().contains("stood still")
    });
    tokio::time::sleep(A_WHILE).await;
    assert_eq!(c.kubevirt.boots(NS, NAME), 1, "its owner has stopped it");
    assert!(calls(&home) < 0.5);
    // And then it serves again.
    connected(&home).await;
    tokio::time::sleep(Duration::from_secs(10).saturating_sub(sent.elapsed())).await;
    agent.hears(MAC);
    c.kubevirt.wait_for_status(NS, NAME, "Running").await;
    assert_eq!(c.kubevirt.boots(NS, NAME), 2);
}

pub(crate) async fn a_manager_that_froze_with_a_wake_in_hand_does_not_come_back_to_it(c: &Cluster) {
    let World { home, other, agent } = world(c).await;
    agent.hears(MAC);
    started_once(c).await;
    keep_stopping(c).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    agent.hears(MAC);
    waits(&home).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    freeze(&home.process).await;
    // It was deferred, so that only the end of the session tells the agent.
    waits(&other).await;
    c.kubevirt.release(NS, NAME);
    c.kubevirt.wait_for_status(NS, NAME, "Running").await;
    c.kubevirt.stop(NS, NAME).await;
    c.kubevirt.wait_for_status(NS, NAME, "Stopped").await;
    home.process.signal(Signal::SIGCONT);
    connected(&home).await;
    tokio::time::sleep(A_WHILE * 2).await;
    assert_eq!(c.kubevirt.boots(NS, NAME), 2, "its owner has stopped it");
}

pub(crate) async fn an_agent_that_was_frozen_reports_nothing_that_is_stale(c: &Cluster) {
    cluster(c).await;
    let managers = managers(c, &["--event-ttl", "3s"]).await;
    let agent = c.agent_of("node-1", &managers, free_udp());
    for manager in &managers {
        connected(manager).await;
    }
    freeze(&agent.process).await;
    agent.hears(MAC);
    tokio::time::sleep(Duration::from_secs(5)).await;
    agent.process.signal(Signal::SIGCONT);
    tokio::time::sleep(A_WHILE).await;
    assert_eq!(agent.heard(MAC), 0, "it waited in the socket");
    assert!(c.kubevirt.codes(NS, NAME).is_empty(), "it was too old");
    agent.hears(MAC);
    started_once(c).await;
}

pub(crate) async fn a_way_that_falls_silent_costs_less_than_five_seconds(c: &Cluster) {
    cluster(c).await;
    let mut managers = managers(c, &[]).await;
    let line = Line::to(managers[0].grpc).await;
    let direct = std::mem::replace(&mut managers[0].grpc, line.address());
    let agent = c.agent_of("node-1", &managers, free_udp());
    for manager in &managers {
        connected(manager).await;
    }
    line.silence(true);
    let sent = Instant::now();
    agent.hears(MAC);
    eventually("the other one starts it", async || {
        calls(&managers[1]) > 0.5
    })
    .await;
    let late = sent.elapsed();
    assert!(late < Duration::from_secs(5), "after {late:?}");
    started_once(c).await;
    assert_ne!(direct, line.address());
    // What arrives late changes nothing.
    line.silence(false);
    tokio::time::sleep(A_WHILE).await;
    assert_eq!(c.kubevirt.boots(NS, NAME), 1);
}

pub(crate) async fn a_flood_while_no_manager_is_there_does_not_cost_the_wake_of_a_known_vm(
    c: &Cluster,
) {
    cluster(c).await;
    let (grpc, port) = (free_tcp(), free_udp());
    let manager = c.manager_at(grpc, &["--replica-id", names().0]);
    manager.ready().await;
    let admin = free_tcp();
    let agent = c.agent_at("node-1", grpc, port, &["--admin-bind", &admin.to_string()]);
    agent.configured();
    eventually("the agent knows which addresses are VMs", async || {
        metric(admin, "kubevirt_wol_agent_wakeable_filter_bytes") > 0.5
    })
    .await;
    drop(manager);
    eventually("the manager is missed", async || {
        metric(admin, "kubevirt_wol_agent_connected_managers") < 0.5
    })
    .await;
    agent.hears(MAC);
    // More strangers than there is room for, at the rate that one sender may have.
    for number in 0..3_000_u32 {
        let [_, _, high, low] = number.to_be_bytes();
        send(
            "127.0.0.1",
            port,
            &format!("02:99:00:00:{high:02x}:{low:02x}"),
        );
        if number % 100 == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    let lost = r#"kubevirt_wol_agent_lost_events_total{reason="overflow"}"#;
    eventually("some had to leave", async || metric(admin, lost) > 0.5).await;
    let manager = c.manager_at(grpc, &["--replica-id", names().0]);
    started_once(c).await;
    knows_all(&manager).await;
}

fn metric(admin: std::net::SocketAddr, series: &str) -> f64 {
    let (_, text) = crate::common::cluster::get(admin, "/metrics").unwrap_or_default();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.map_or(0.0, |value| value.trim().parse().unwrap())
}
