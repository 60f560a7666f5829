//! What a `WolConfig` lets packets wake.

use std::time::Duration;

use serde_json::json;

use super::{A_WHILE, MAC, NS, OTHER, ready, starts, wakes_soon};
use crate::common::{
    cluster::{Cluster, eventually},
    kubevirt::vm::vm,
    process::free_udp,
};

pub(crate) async fn a_label_selector_selects_what_it_says(c: &Cluster) {
    let (_manager, agent) = ready(c).await;
    let selector =
        json!({"discoveryMode": "LabelSelector", "vmSelector": {"matchLabels": {"wol": "yes"}}});
    c.config("default", selector).await;
    c.kubevirt
        .add(&vm(NS, "chosen").mac(MAC).label("wol", "yes"))
        .await;
    c.kubevirt.add(&vm(NS, "left-out").mac(OTHER)).await;
    wakes_soon(c, &agent, MAC, "chosen").await;
    agent.hears(OTHER);
    tokio::time::sleep(A_WHILE).await;
    assert_eq!(starts(c, "left-out"), 0);
    // A label that is added takes effect at once.
    c.kubevirt
        .edit(
            NS,
            "left-out",
            json!({"metadata": {"labels": {"wol": "yes"}}}),
        )
        .await;
    wakes_soon(c, &agent, OTHER, "left-out").await;
}

pub(crate) async fn explicit_mappings_go_before_discovery(c: &Cluster) {
    let (_manager, agent) = ready(c).await;
    let mapping = json!({"macAddress": MAC, "vmName": "mapped", "namespace": NS});
    c.config(
        "mapping",
        json!({"discoveryMode": "Explicit", "explicitMappings": [mapping]}),
    )
    .await;
    c.kubevirt.add(&vm(NS, "has-it").mac(MAC)).await;
    c.kubevirt.add(&vm(NS, "probe").mac(OTHER)).await;
    wakes_soon(c, &agent, OTHER, "probe").await;
    // The VM does not exist yet: nothing is started in its place.
    agent.hears(MAC);
    tokio::time::sleep(A_WHILE).await;
    assert_eq!(starts(c, "has-it"), 0);
    c.kubevirt.add(&vm(NS, "mapped")).await;
    wakes_soon(c, &agent, MAC, "mapped").await;
    assert_eq!(starts(c, "has-it"), 0);
}

pub(crate) async fn several_configs_add_up_and_deleting_one_takes_its_vms_out(c: &Cluster) {
    let (_manager, agent) = ready(c).await;
    c.namespace("work").await;
    c.config("default", json!({"namespaceSelectors": [NS]}))
        .await;
    c.config("second", json!({"namespaceSelectors": ["work"]}))
        .await;
    c.kubevirt.add(&vm(NS, "desktop").mac(MAC)).await;
    c.kubevirt.add(&vm("work", "laptop").mac(OTHER)).await;
    c.kubevirt
        .add(&vm("work", "tablet").mac("52:54:00:00:00:03"))
        .await;
    wakes_soon(c, &agent, MAC, "desktop").await;
    eventually("the second config counts, too", async || {
        agent.hears(OTHER);
        tokio::time::sleep(Duration::from_millis(50)).await;
        c.kubevirt.boots("work", "laptop") == 1
    })
    .await;
    c.delete_config("second").await;
    tokio::time::sleep(A_WHILE).await;
    agent.hears("52:54:00:00:00:03");
    tokio::time::sleep(A_WHILE).await;
    assert!(c.kubevirt.codes("work", "tablet").is_empty());
}

pub(crate) async fn without_a_config_nothing_is_wakeable(c: &Cluster) {
    let (manager, agent) = ready(c).await;
    c.kubevirt.add(&vm(NS, "desktop").mac(MAC)).await;
    c.delete_config("default").await;
    tokio::time::sleep(A_WHILE).await;
    agent.hears(MAC);
    tokio::time::sleep(A_WHILE).await;
    assert_eq!(starts(c, "desktop"), 0);
    drop(agent);
    c.config("default", json!({})).await;
    let agent = c.agent("node-1", &manager, free_udp());
    wakes_soon(c, &agent, MAC, "desktop").await;
}

pub(crate) async fn sources_and_interfaces_of_a_config_hold(c: &Cluster) {
    let (_manager, agent) = ready(c).await;
    c.namespace("work").await;
    c.config(
        "default",
        json!({"sourceRanges": ["10.0.0.0/8"], "namespaceSelectors": [NS]}),
    )
    .await;
    c.config(
        "second",
        json!({"interfaces": ["lo"], "namespaceSelectors": ["work"]}),
    )
    .await;
    c.kubevirt.add(&vm(NS, "desktop").mac(MAC)).await;
    c.kubevirt.add(&vm("work", "laptop").mac(OTHER)).await;
    eventually("a packet from lo wakes the one", async || {
        agent.hears(OTHER);
        tokio::time::sleep(Duration::from_millis(50)).await;
        c.kubevirt.boots("work", "laptop") == 1
    })
    .await;
    agent.hears(MAC);
    tokio::time::sleep(A_WHILE).await;
    assert_eq!(starts(c, "desktop"), 0, "127.0.0.1 is not in 10.0.0.0/8");
}
