//! What the manager costs in a cluster with many VMs.

use std::time::{Duration, Instant};

use futures::{StreamExt as _, stream};
use kube::{
    Api,
    api::{ApiResource, DynamicObject, PostParams},
};

use crate::{bed, process, table::Table, vm};

const VMS: u32 = 10_000;

/// Requests to the API at once while VMs are made.
const WRITERS: usize = 16;

/// A manager that starts when there are many VMs.
pub(crate) async fn vms(table: &mut Table) {
    let cluster = bed::cluster().await;
    // The VMs shall be as they are written.
    cluster.kubevirt.stop_controller(true);
    for number in 0..vm::NAMESPACES {
        cluster.namespace(&vm::namespace(number)).await;
    }
    let resource = ApiResource {
        group: "kubevirt.io".into(),
        version: "v1".into(),
        api_version: "kubevirt.io/v1".into(),
        kind: "VirtualMachine".into(),
        plural: "virtualmachines".into(),
    };
    stream::iter(0..VMS)
        .for_each_concurrent(WRITERS, |number| {
            let api: Api<DynamicObject> =
                Api::namespaced_with(cluster.client.clone(), &vm::namespace(number), &resource);
            async move {
                let mut object = vm::object(number);
                // A version is the server's to give.
                object["metadata"]["resourceVersion"] = "".into();
                let object = serde_json::from_value(object).expect("an object");
                let made = api.create(&PostParams::default(), &object).await;
                made.expect("the VM is taken");
            }
        })
        .await;
    let start = Instant::now();
    let manager = cluster.manager(&[]).await;
    let (ready, pid) = (start.elapsed(), manager.process.pid());
    let known = manager.metric("kubevirt_wol_directory_virtual_machines");
    assert!(known >= f64::from(VMS), "it knows {known}");
    table.time(
        "manager with 10,000 VMs: ready after",
        ready,
        Some(Duration::from_secs(3)),
    );
    table.time("  its processor time until then", process::cpu(pid), None);
    table.memory("  resident", process::resident(pid), Some(64 << 10));
    table.memory("  of that not the program's file", process::own(pid), None);
    table.memory("  resident at most, so far", process::peak(pid), None);
}
