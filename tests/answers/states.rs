//! Every `status.printableStatus`, with the strategies for which it means something of its own.

use serde_json::json;

use super::{Bed, NS, mac};
use crate::common::{
    cluster::{Cluster, eventually},
    kubevirt::vm::{
        RunStrategy::{self, Always, Halted, Manual, Once, RerunOnFailure, WaitAsReceiver},
        vm,
    },
};

/// What a wake does with a VM in some state.
#[derive(Clone, Copy, PartialEq)]
enum Then {
    /// One call; the wake ends like this once the VM goes on.
    Call(&'static str),
    /// No call, and this end.
    End(&'static str),
    /// No call as long as it is so; then this end.
    Wait(&'static str),
}

const ON: Then = Then::End("already-on");
const NEVER: Then = Then::End("unsupported");
const STUCK: Then = Then::End("stuck");
const START: Then = Then::Call("started");

const TABLE: &[(&str, &[(RunStrategy, Then)])] = &[
    (
        "Stopped",
        &[
            (Manual, START),
            (RerunOnFailure, START),
            (Halted, START),
            (Always, ON),
            (Once, NEVER),
            (WaitAsReceiver, NEVER),
        ],
    ),
    (
        "Stopping",
        &[
            (Manual, Then::Wait("started")),
            (RerunOnFailure, Then::Wait("started")),
            (Halted, Then::Wait("started")),
            (Always, Then::Wait("already-on")),
            (Once, NEVER),
        ],
    ),
    ("Migrating", &[(Manual, ON)]),
    ("Paused", &[(Manual, ON)]),
    ("Running", &[(Manual, ON), (Once, ON)]),
    ("Starting", &[(Halted, ON)]),
    ("WaitingForVolumeBinding", &[(Manual, ON)]),
    ("ErrorPvcNotFound", &[(Always, STUCK)]),
    ("ErrorUnschedulable", &[(Manual, STUCK), (Always, STUCK)]),
    ("ErrImagePull", &[(RerunOnFailure, STUCK)]),
    ("ImagePullBackOff", &[(Manual, STUCK)]),
    // It will not boot: started once, and told.
    (
        "DataVolumeError",
        &[
            (Halted, Then::Call("stuck")),
            (Manual, START),
            (Always, STUCK),
            (Once, STUCK),
        ],
    ),
    (
        "Provisioning",
        &[(Halted, START), (Manual, START), (Always, ON), (Once, ON)],
    ),
    (
        "CrashLoopBackOff",
        &[(RerunOnFailure, START), (Always, STUCK), (Once, STUCK)],
    ),
    ("WaitingForReceiver", &[(WaitAsReceiver, NEVER)]),
    ("Terminating", &[(Manual, Then::End("not-found"))]),
    ("Unknown", &[(Manual, START)]),
    (
        "HibernatingSinceKubeVirt2",
        &[(Manual, START), (Halted, START), (Once, NEVER)],
    ),
];

struct Machine {
    name: String,
    status: &'static str,
    then: Then,
}

pub(crate) async fn every_state_of_a_vm_has_its_consequence(c: &Cluster) {
    let bed = Bed::new(c, &[]).await;
    let machines = machines(&bed).await;
    bed.up_to_date().await;
    for n in 0..machines.len() {
        bed.hears(n);
    }
    let waits = |m: &&Machine| matches!(m.then, Then::Wait(_));
    eventually("only those that stop are waited for", async || {
        bed.open() == machines.iter().filter(waits).count()
    })
    .await;
    for machine in machines.iter().filter(waits) {
        bed.told(&machine.name, "WakeOnLanDeferred", "to stop")
            .await;
        assert!(calls(c, machine).is_empty(), "{} is stopping", machine.name);
    }
    for machine in machines.iter().filter(|m| !matches!(m.then, Then::End(_))) {
        c.kubevirt.release(NS, &machine.name);
    }
    for (n, machine) in machines.iter().enumerate() {
        check(&bed, n, machine).await;
    }
}

/// Makes a VM for each line of the table, each in its state; none has an instance yet.
async fn machines(bed: &Bed<'_>) -> Vec<Machine> {
    let mut machines = Vec::new();
    for (status, strategies) in TABLE {
        for (strategy, then) in *strategies {
            let name = format!("{status}-{strategy}").to_lowercase();
            bed.c.kubevirt.show(NS, &name, status);
            let address = mac(machines.len());
            let vm = vm(NS, &name).mac(&address).run_strategy(*strategy);
            bed.c.kubevirt.create(&vm).await;
            bed.c.kubevirt.wait_for_status(NS, &name, status).await;
            machines.push(Machine {
                name,
                status,
                then: *then,
            });
        }
    }
    let null = json!({"spec": {"template": {"metadata": null}}});
    bed.c.kubevirt.edit(NS, "stopped-manual", null).await;
    machines
}

fn calls(c: &Cluster, machine: &Machine) -> Vec<u16> {
    c.kubevirt.codes(NS, &machine.name)
}

async fn check(bed: &Bed<'_>, n: usize, machine: &Machine) {
    let (c, name) = (bed.c, &machine.name);
    let (outcome, reason) = bed.ended(n);
    let (Then::Call(ends) | Then::End(ends) | Then::Wait(ends)) = machine.then;
    assert_eq!(outcome, ends, "{name}: {reason}");
    let called = machine.then != Then::End(ends) && ends != "already-on";
    let codes: &[u16] = if called { &[202] } else { &[] };
    bed.called(name, codes).await;
    match ends {
        "started" => {
            bed.told(name, "WakeOnLanStarted", "woken by").await;
            c.kubevirt.wait_for_status(NS, name, "Running").await;
            assert_eq!(c.kubevirt.boots(NS, name), 1, "{name}");
        }
        "stuck" => {
            bed.told(name, "WakeOnLanRefused", machine.status).await;
            assert!(reason.contains(machine.status), "{name}: {reason}");
        }
        "unsupported" if !name.ends_with("waitasreceiver") => {
            bed.told(name, "WakeOnLanRefused", "runStrategy Once").await;
        }
        _ => {}
    }
    if machine.status == "Paused" {
        assert!(reason.contains("paused"), "{reason}");
    }
}
