//! VMs that are paused: what `wakePaused` changes.

use std::time::Duration;

use serde_json::json;

use super::{Bed, NS, mac};
use crate::common::{
    cluster::{Cluster, SOON, eventually},
    kubevirt::{Fault, vm::vm},
};

/// A config that lets packets unpause the VMs that have the label.
async fn unpausing(c: &Cluster) {
    let labels = json!({"matchLabels": {"unpause": "yes"}});
    let spec = json!({"discoveryMode": "LabelSelector", "vmSelector": labels, "wakePaused": true});
    c.config("unpausing", spec).await;
}

/// VM number `n` runs, and is paused.
async fn paused(c: &Cluster, n: usize, name: &str, unpause: bool) {
    let label = if unpause { "yes" } else { "no" };
    let vm = vm(NS, name)
        .mac(&mac(n))
        .label("unpause", label)
        .running(true);
    c.kubevirt.create(&vm).await;
    c.kubevirt.wait_for_status(NS, name, "Running").await;
    c.kubevirt.pause(NS, name);
    c.kubevirt.wait_for_status(NS, name, "Paused").await;
}

pub(crate) async fn a_paused_vm_is_unpaused_where_a_config_says_so(c: &Cluster) {
    c.install_crd().await;
    unpausing(c).await;
    let bed = Bed::new(c, &[]).await;
    paused(c, 0, "paused", true).await;
    paused(c, 1, "left-alone", false).await;
    bed.up_to_date().await;
    bed.hears(0);
    bed.hears(1);
    assert_eq!(bed.ended(0), ("started".into(), "unpaused".into()));
    c.kubevirt.wait_for_status(NS, "paused", "Running").await;
    bed.told("paused", "WakeOnLanStarted", "unpaused by a packet from")
        .await;
    let (outcome, reason) = bed.ended(1);
    assert_eq!(outcome, "already-on");
    assert!(reason.contains("paused"), "{reason}");
    c.kubevirt.wait_for_status(NS, "left-alone", "Paused").await;
    assert_eq!(bed.unpausings(), [("accepted".into(), 1)].into());
    assert!(bed.calls().is_empty(), "a paused VM is not started");
    assert_eq!(c.kubevirt.boots(NS, "paused"), 1);
}

pub(crate) async fn unpausing_copes_with_what_kubevirt_answers(c: &Cluster) {
    c.install_crd().await;
    unpausing(c).await;
    let bed = Bed::new(c, &["--start-timeout", "300ms"]).await;
    let k = &c.kubevirt;
    let names = ["silent", "not-running", "role", "gone"];
    for (n, name) in names.into_iter().enumerate() {
        paused(c, n, name, true).await;
    }
    bed.up_to_date().await;

    // It goes on, and nobody says so.
    k.fault(Some(Fault::Swallow));
    bed.hears(0);
    assert_eq!(bed.ended(0).1, "unpaused");
    k.fault(None);

    // What is refused in passing is asked for again; what is not allowed is told.
    k.fault_once(Fault::Refuse(409, "VMI is not running".into()));
    bed.hears(1);
    assert_eq!(bed.ended(1).1, "unpaused");
    let role = "cannot update resource \"virtualmachineinstances/unpause\"";
    k.fault_once(Fault::Refuse(403, role.into()));
    bed.hears(2);
    assert_eq!(bed.ended(2).0, "forbidden");
    bed.told(
        "role",
        "WakeOnLanRefused",
        "virtualmachineinstances/unpause",
    )
    .await;
    k.wait_for_status(NS, "role", "Paused").await;
    k.delay(Duration::from_millis(200));
    bed.hears(3);
    tokio::time::sleep(Duration::from_millis(50)).await;
    k.delete(NS, "gone").await;
    assert_eq!(bed.ended(3).0, "gone");
    k.delay(Duration::ZERO);
    assert!(bed.calls().is_empty(), "nothing was started");
}

pub(crate) async fn a_snapshot_of_a_paused_vm_is_waited_for(c: &Cluster) {
    c.install_crd().await;
    unpausing(c).await;
    let bed = Bed::new(c, &[]).await;
    let k = &c.kubevirt;
    for (n, name) in ["snap", "withdrawn"].into_iter().enumerate() {
        paused(c, n, name, true).await;
        k.edit_status(NS, name, json!({"snapshotInProgress": "s"}))
            .await;
    }
    bed.up_to_date().await;
    for (n, name) in ["snap", "withdrawn"].into_iter().enumerate() {
        bed.hears(n);
        bed.told(name, "WakeOnLanDeferred", "snapshot is in progress")
            .await;
    }
    let done = json!({"snapshotInProgress": null});
    k.edit_status(NS, "snap", done.clone()).await;
    assert_eq!(bed.ended(0).1, "unpaused");
    k.wait_for_status(NS, "snap", "Running").await;
    // Nobody may unpause any more when the other snapshot is done.
    c.delete_config("unpausing").await;
    bed.manager
        .process
        .wait_for("one config left", SOON, |line| {
            line.message() == "took in the WolConfigs" && line.value["configs"] == 1
        });
    k.edit_status(NS, "withdrawn", done).await;
    assert_eq!(bed.ended(1).0, "not-selected");
    k.wait_for_status(NS, "withdrawn", "Paused").await;
    eventually("all are settled", async || bed.open() == 0).await;
}
