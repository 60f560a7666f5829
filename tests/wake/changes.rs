//! What is changed while everything runs counts within moments; how long it took is printed.

use std::time::Instant;

use serde_json::json;

use super::{MAC, NS, answered};
use crate::common::{
    cluster::{Agent, Cluster, Manager},
    kubevirt::vm::{RunStrategy, vm},
    process::free_udp,
};

/// A VM that is on, and a manager by which every packet is answered, not only the first of some
/// seconds: each packet for it is answered `already-on` for as long as it may wake it.
async fn running(c: &Cluster) -> (Manager, Agent) {
    c.install_crd().await;
    c.namespace(NS).await;
    let selector =
        json!({"discoveryMode": "LabelSelector", "vmSelector": {"matchLabels": {"wol": "yes"}}});
    c.config("default", selector).await;
    let windows = ["--dedup-window", "10ms", "--agent-dedup-window", "10ms"];
    let manager = c.manager(&windows).await;
    let agent = c.agent("node-1", &manager, free_udp());
    let desktop = vm(NS, "desktop").mac(MAC).label("wol", "yes");
    c.kubevirt
        .create(&desktop.run_strategy(RunStrategy::Always))
        .await;
    c.kubevirt.wait_for_status(NS, "desktop", "Running").await;
    answered(&manager, &agent, MAC, "already-on").await;
    (manager, agent)
}

/// Waits until packets for `mac` are answered with `outcome`.
async fn soon(what: &str, manager: &Manager, agent: &Agent, mac: &str, outcome: &str) {
    let changed = Instant::now();
    answered(manager, agent, mac, outcome).await;
    eprintln!("{what} counts after {:.0?}", changed.elapsed());
}

pub(crate) async fn a_vm_that_loses_its_label_is_not_woken_any_more(c: &Cluster) {
    let (manager, agent) = running(c).await;
    let unlabelled = json!({"metadata": {"labels": {"wol": null}}});
    c.kubevirt.edit(NS, "desktop", unlabelled).await;
    soon("a label taken away", &manager, &agent, MAC, "not-selected").await;
    let labelled = json!({"metadata": {"labels": {"wol": "yes"}}});
    c.kubevirt.edit(NS, "desktop", labelled).await;
    soon("a label set", &manager, &agent, MAC, "already-on").await;
}

pub(crate) async fn an_address_that_is_changed_moves_the_vm(c: &Cluster) {
    let (manager, agent) = running(c).await;
    let new = "52:54:00:00:00:09";
    let interfaces = json!([{"name": "net0", "macAddress": new, "masquerade": {}}]);
    let devices = json!({"devices": {"interfaces": interfaces}});
    let spec = json!({"template": {"spec": {"domain": devices}}});
    c.kubevirt.edit(NS, "desktop", json!({"spec": spec})).await;
    soon("the new address", &manager, &agent, new, "already-on").await;
    soon("the old one's end", &manager, &agent, MAC, "not-found").await;
}

pub(crate) async fn a_vm_that_is_deleted_is_not_found_any_more(c: &Cluster) {
    let (manager, agent) = running(c).await;
    c.kubevirt.delete(NS, "desktop").await;
    soon("a VM's deletion", &manager, &agent, MAC, "not-found").await;
}

pub(crate) async fn a_config_that_is_deleted_wakes_nothing_any_more(c: &Cluster) {
    let (manager, agent) = running(c).await;
    c.delete_config("default").await;
    soon("a config's deletion", &manager, &agent, MAC, "not-selected").await;
}
