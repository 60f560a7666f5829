//! Configs that contradict themselves or match nothing, and VMs of a KubeVirt to come: nothing is
//! started by mistake, everybody is told why, and the rest works on.

use std::time::Instant;

use serde_json::{Value, json};

use super::{A_WHILE, MAC, NS, OTHER, answered, ready, starts, wakes_soon};
use crate::common::{
    cluster::{Cluster, eventually},
    kubevirt::vm::vm,
};

fn mapping(mac: &str, name: &str) -> Value {
    json!({"macAddress": mac, "vmName": name, "namespace": NS})
}

fn explicit(mappings: &[Value]) -> Value {
    json!({"discoveryMode": "Explicit", "explicitMappings": mappings})
}

pub(crate) async fn two_configs_that_map_one_address_to_two_vms_wake_neither(c: &Cluster) {
    let (manager, agent) = ready(c).await;
    c.config("default", explicit(&[mapping(MAC, "one")])).await;
    let second = explicit(&[mapping(MAC, "two"), mapping(OTHER, "probe")]);
    c.config("second", second).await;
    for name in ["one", "two", "probe"] {
        c.kubevirt.add(&vm(NS, name)).await;
    }
    wakes_soon(c, &agent, OTHER, "probe").await;
    answered(&manager, &agent, MAC, "ambiguous").await;
    eventually("both VMs say why", async || {
        let (one, two) = (c.events(NS, "one").await, c.events(NS, "two").await);
        one.iter().any(|event| event.contains("home/two"))
            && two.iter().any(|event| event.contains("home/one"))
    })
    .await;
    assert_eq!((starts(c, "one"), starts(c, "two")), (0, 0));
    // Once one of them is taken back, the other counts.
    c.config("second", explicit(&[mapping(OTHER, "probe")]))
        .await;
    wakes_soon(c, &agent, MAC, "one").await;
    assert_eq!(starts(c, "two"), 0);
}

pub(crate) async fn configs_that_match_nothing_do_no_harm(c: &Cluster) {
    let (manager, agent) = ready(c).await;
    let nobody =
        json!({"discoveryMode": "LabelSelector", "vmSelector": {"matchLabels": {"wol": "no-vm"}}});
    c.config("default", nobody).await;
    c.config("nowhere", json!({"namespaceSelectors": ["not-yet"]}))
        .await;
    c.config("probe", explicit(&[mapping(OTHER, "probe")]))
        .await;
    c.kubevirt.add(&vm(NS, "probe")).await;
    c.kubevirt.add(&vm(NS, "desktop").mac(MAC)).await;
    wakes_soon(c, &agent, OTHER, "probe").await;
    answered(&manager, &agent, MAC, "not-selected").await;
    assert_eq!(starts(c, "desktop"), 0);
    // The namespace comes after the config that names it.
    let late = "52:54:00:00:00:03";
    c.namespace("not-yet").await;
    c.kubevirt.add(&vm("not-yet", "late").mac(late)).await;
    eventually("a VM of the new namespace wakes", async || {
        agent.hears(late);
        tokio::time::sleep(A_WHILE / 10).await;
        c.kubevirt.boots("not-yet", "late") == 1
    })
    .await;
    c.kubevirt.delete("not-yet", "late").await;
}

pub(crate) async fn a_vm_that_several_configs_select_starts_once(c: &Cluster) {
    let (_manager, agent) = ready(c).await;
    c.config("second", json!({"namespaceSelectors": [NS]}))
        .await;
    c.config(
        "third",
        explicit(&[mapping(MAC, "desktop"), mapping(OTHER, "probe")]),
    )
    .await;
    c.kubevirt.add(&vm(NS, "desktop").mac(MAC)).await;
    c.kubevirt.add(&vm(NS, "probe")).await;
    wakes_soon(c, &agent, OTHER, "probe").await;
    for _ in 0..3 {
        agent.hears(MAC);
    }
    c.kubevirt.wait_for_status(NS, "desktop", "Running").await;
    tokio::time::sleep(A_WHILE).await;
    assert_eq!(c.kubevirt.codes(NS, "desktop"), [202], "one PUT");
    assert_eq!(c.kubevirt.boots(NS, "desktop"), 1);
}

pub(crate) async fn a_mapped_vm_is_not_found_until_it_is_created(c: &Cluster) {
    let (manager, agent) = ready(c).await;
    c.config("default", explicit(&[mapping(MAC, "late")])).await;
    answered(&manager, &agent, MAC, "not-found").await;
    assert_eq!(starts(c, "late"), 0);
    c.kubevirt.add(&vm(NS, "late")).await;
    let created = Instant::now();
    wakes_soon(c, &agent, MAC, "late").await;
    eprintln!("woken {:.0?} after its creation", created.elapsed());
}

pub(crate) async fn the_last_of_ten_thousand_mappings_wakes(c: &Cluster) {
    let (_manager, agent) = ready(c).await;
    let mac = |n: u32| {
        let [_, _, high, low] = n.to_be_bytes();
        format!("52:54:00:01:{high:02x}:{low:02x}")
    };
    let mappings: Vec<Value> = (0..10_000)
        .map(|n| mapping(&mac(n), &format!("vm-{n}")))
        .collect();
    c.delete_config("default").await;
    c.large_config("many", explicit(&mappings)).await;
    c.kubevirt.add(&vm(NS, "vm-9999")).await;
    wakes_soon(c, &agent, &mac(9_999), "vm-9999").await;
}

pub(crate) async fn words_of_a_newer_kubevirt_hide_no_vm(c: &Cluster) {
    let (_manager, agent) = ready(c).await;
    c.kubevirt.add(&vm(NS, "strategy").mac(MAC)).await;
    let strategy = json!({"spec": {"runStrategy": "OnWeekdays"}});
    c.kubevirt.edit(NS, "strategy", strategy).await;
    c.kubevirt.add(&vm(NS, "status").mac(OTHER)).await;
    c.kubevirt.show(NS, "status", "Hibernated");
    c.kubevirt.wait_for_status(NS, "status", "Hibernated").await;
    // What they mean is for KubeVirt to say: it is asked.
    wakes_soon(c, &agent, MAC, "strategy").await;
    wakes_soon(c, &agent, OTHER, "status").await;
    let usual = "52:54:00:00:00:03";
    c.kubevirt.add(&vm(NS, "usual").mac(usual)).await;
    wakes_soon(c, &agent, usual, "usual").await;
    c.kubevirt.wait_for_status(NS, "usual", "Running").await;
}
