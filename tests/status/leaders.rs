//! Who writes: one replica at a time, and wakes do not wait for it.

use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::json;

use super::view::{MAC, NS, OTHER, prepared, status};
use crate::common::{
    cluster::{Cluster, INSECURE, Manager, eventually},
    kubevirt::vm::vm,
    process::free_udp,
};

/// The election at a tenth of its usual times, as far as whole seconds go.
const FAST: [&str; 6] = [
    "--lease-duration",
    "2s",
    "--lease-renew-deadline",
    "1s",
    "--lease-retry-period",
    "200ms",
];

fn leads(manager: &Manager) -> bool {
    manager.metric("kubevirt_wol_leader") > 0.5
}

/// Statuses that a manager wrote, or tried to.
fn written(manager: &Manager) -> f64 {
    let results = ["done", "failed", "outdated"].map(|result| {
        manager.metric(&format!(
            "kubevirt_wol_status_writes_total{{result=\"{result}\"}}"
        ))
    });
    results.iter().sum()
}

/// Waits until one of the managers leads, and says which.
async fn leader(managers: &[Manager]) -> usize {
    let mut leading = 0;
    eventually("one replica leads", async || {
        let all: Vec<usize> = (0..managers.len())
            .filter(|n| leads(&managers[*n]))
            .collect();
        assert!(all.len() < 2, "two replicas lead");
        all.first().inspect(|n| leading = **n).is_some()
    })
    .await;
    leading
}

pub(crate) async fn one_replica_leads_and_another_follows_when_it_is_killed(c: &Cluster) {
    prepared(c, json!({})).await;
    let mut managers = vec![c.manager(&FAST).await, c.manager(&FAST).await];
    let first = leader(&managers).await;
    c.kubevirt.add(&vm(NS, "desktop").mac(MAC)).await;
    status(c, "default", "one VM", |s| s["managedVMs"] == 1).await;
    let others = written(&managers[1 - first]);
    assert!(others < 0.5, "only the leader writes");
    managers.remove(first).process.signal(Signal::SIGKILL);
    leader(&managers).await;
    c.kubevirt.add(&vm(NS, "other").mac(OTHER)).await;
    status(c, "default", "two VMs", |s| s["managedVMs"] == 2).await;
}

pub(crate) async fn a_leader_that_was_frozen_is_none_any_more(c: &Cluster) {
    prepared(c, json!({})).await;
    let mut managers = vec![c.manager(&FAST).await, c.manager(&FAST).await];
    let first = leader(&managers).await;
    let frozen = managers.remove(first);
    frozen.process.signal(Signal::SIGSTOP);
    leader(&managers).await;
    frozen.process.signal(Signal::SIGCONT);
    for _ in 0..20 {
        assert!(!leads(&frozen), "it woke up as the leader");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(leads(&managers[0]), "the other one stays the leader");
}

pub(crate) async fn a_leader_that_ends_hands_over_at_once(c: &Cluster) {
    prepared(c, json!({})).await;
    // The Lease itself would hold for a minute.
    let slow = ["--lease-duration", "60s", "--lease-retry-period", "200ms"];
    let mut managers = vec![c.manager(&slow).await, c.manager(&slow).await];
    let first = leader(&managers).await;
    let mut ended = managers.remove(first);
    ended.process.signal(Signal::SIGTERM);
    let code = ended.process.ended(Duration::from_secs(10)).code();
    assert_eq!(code, Some(0));
    leader(&managers).await;
}

pub(crate) async fn wakes_are_served_without_a_leader(c: &Cluster) {
    prepared(c, json!({})).await;
    let manager = c.manager(&["--namespace", "nowhere", INSECURE]).await;
    let agent = c.agent_at("node-1", manager.grpc, free_udp(), &[INSECURE]);
    agent.configured();
    c.kubevirt.add(&vm(NS, "desktop").mac(MAC)).await;
    eventually("the VM is woken", async || {
        agent.hears(MAC);
        tokio::time::sleep(Duration::from_millis(50)).await;
        !c.kubevirt.codes(NS, "desktop").is_empty()
    })
    .await;
    assert!(!leads(&manager));
    manager
        .process
        .wait_for("the remedy", Duration::from_secs(20), |line| {
            line.message().contains("election of the leader")
                && line.field("namespace") == "nowhere"
        });
}
