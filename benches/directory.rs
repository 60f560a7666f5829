//! What the directory costs: a lookup, a re-list, and memory per VM beside its budget; and what it
//! costs to read a VM at all.

#![allow(
    clippy::expect_used,
    reason = "a fixture that breaks has to stop the bench"
)]

use std::{fs, hint::black_box, time::Instant};

use divan::{Bencher, counter::ItemsCount};
use kube::core::DeserializeGuard;
use kubevirt_wol::{
    crd::WolConfigSpec,
    kubevirt::VirtualMachine,
    mac::MacAddr,
    manager::{directory::Directory, grant::Grant, vm::Vm},
    packet::Trailing,
    wake::{Carrier, Origin, Wake},
};
use serde_json::{Value, json};

const SIZES: [u32; 2] = [10_000, 100_000];

fn main() {
    // Before anything else takes memory from the system.
    for (vms, budget) in [(10_000, 64), (100_000, 256)] {
        let before = resident_kib();
        let directory = black_box(filled(vms));
        let taken = resident_kib().saturating_sub(before);
        eprintln!(
            "{vms} VMs with 2 addresses and 4 labels: {:.1} MiB, {} bytes each (budget of the whole manager: {budget} MiB)",
            f64::from(taken) / 1024.0,
            u64::from(taken) * 1024 / u64::from(vms),
        );
        assert_eq!(directory.size().vms, vms as usize);
    }
    divan::main();
}

/// Memory of this process that is resident, in KiB.
fn resident_kib() -> u32 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse().ok())
        .unwrap_or(0)
}

fn mac(number: u32) -> MacAddr {
    let [_, b, c, d] = number.to_be_bytes();
    MacAddr::new([0x52, 0x54, 0, b, c, d])
}

/// A stopped VM as `kubectl apply` and KubeVirt leave it, about 6 kB.
fn object(number: u32) -> Value {
    let nic = |name: &str, mac: MacAddr| json!({"name": name, "bridge": {}, "model": "virtio", "macAddress": mac.to_string()});
    let fields = |levels: u32| {
        (0..levels).fold(
            json!({}),
            |inner, level| json!({format!("f:field{level}"): inner, ".": {}}),
        )
    };
    let mut vm = json!({
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachine",
        "metadata": {
            "name": format!("vm-{number:06}"),
            "namespace": format!("team-{}", number % 100),
            "uid": format!("5f3c7a52-0c1e-4a51-9d5e-{number:012x}"),
            "resourceVersion": number.to_string(),
            "generation": 3,
            "creationTimestamp": "2026-11-01T08:00:00Z",
            "finalizers": ["kubevirt.io/virtualMachineControllerFinalize"],
            "labels": {
                "app": "workstation",
                "kubevirt.io/vm": format!("vm-{number:06}"),
                "team": format!("team-{}", number % 100),
                "wol": "enabled",
            },
            "managedFields": [
                {"manager": "kubectl", "operation": "Update", "fieldsType": "FieldsV1", "fieldsV1": fields(40)},
                {"manager": "virt-controller", "operation": "Update", "subresource": "status", "fieldsV1": fields(20)},
            ],
        },
        "spec": {
            "runStrategy": "Manual",
            "template": {
                "metadata": {"labels": {"kubevirt.io/vm": format!("vm-{number:06}")}},
                "spec": {
                    "domain": {
                        "cpu": {"cores": 2, "sockets": 1, "threads": 1},
                        "devices": {
                            "disks": [
                                {"name": "root", "disk": {"bus": "virtio"}, "bootOrder": 1},
                                {"name": "cloudinit", "disk": {"bus": "virtio"}},
                            ],
                            "interfaces": [nic("default", mac(2 * number)), nic("lan", mac(2 * number + 1))],
                            "rng": {},
                        },
                        "machine": {"type": "q35"},
                        "resources": {"requests": {"memory": "4Gi"}},
                    },
                    "networks": [{"name": "default", "pod": {}}, {"name": "lan", "multus": {"networkName": "lan"}}],
                    "volumes": [
                        {"name": "root", "dataVolume": {"name": format!("root-{number}")}},
                        {"name": "cloudinit", "cloudInitNoCloud": {"userData": "#cloud-config\n".to_owned() + &"- run: something useful\n".repeat(40)}},
                    ],
                },
            },
        },
        "status": {
            "printableStatus": "Stopped",
            "conditions": [
                {"type": "Ready", "status": "False", "reason": "VMINotExists", "message": "VMI does not exist"},
                {"type": "LiveMigratable", "status": "True"},
            ],
            "volumeSnapshotStatuses": [{"name": "root", "enabled": true}],
        },
    });
    let applied = vm["spec"].to_string();
    vm["metadata"]["annotations"] =
        json!({"kubectl.kubernetes.io/last-applied-configuration": applied});
    vm
}

/// Fills a directory the way the watch does: from text, one VM after the other.
fn filled(vms: u32) -> Directory {
    let directory = Directory::new();
    directory.begin_relist();
    for number in 0..vms {
        let vm: VirtualMachine =
            serde_json::from_str(&object(number).to_string()).expect("a VM is JSON");
        directory.apply(vm.into(), Instant::now());
    }
    directory.finish_relist();
    let (grant, _) = Grant::new("default", &WolConfigSpec::default());
    directory.set_grants(grant.into_iter().collect());
    directory
}

fn wake(number: u32) -> Wake {
    Wake {
        target: mac(number),
        trailing: Trailing::default(),
        origin: Origin {
            carrier: Carrier::Udp,
            interface: "eth0".into(),
            vlan: None,
            source_mac: None,
            source: None,
            source_port: 9,
            length: 102,
        },
    }
}

/// One wake of a known VM.
#[divan::bench(args = SIZES)]
fn look_up(bencher: Bencher<'_, '_>, vms: u32) {
    let directory = filled(vms);
    let mut wakes = (0..1024)
        .map(|n| wake(n * 7919 % (2 * vms)))
        .collect::<Vec<_>>();
    bencher
        .counter(ItemsCount::new(wakes.len()))
        .bench_local(|| {
            for wake in &mut wakes {
                black_box(directory.look_up(wake));
            }
        });
}

/// One wake of an address that nobody has.
#[divan::bench(args = SIZES)]
fn look_up_unknown(bencher: Bencher<'_, '_>, vms: u32) {
    let directory = filled(vms);
    let unknown = wake(2 * vms + 1);
    bencher.bench_local(|| black_box(directory.look_up(&unknown)));
}

/// A new list in which nothing has changed.
#[divan::bench(args = SIZES, sample_count = 10, sample_size = 1)]
fn relist(bencher: Bencher<'_, '_>, vms: u32) {
    let directory = filled(vms);
    let listed: Vec<Vm> = (0..vms)
        .filter_map(|number| serde_json::from_value(object(number)).ok())
        .map(|vm: VirtualMachine| vm.into())
        .collect();
    bencher
        .counter(ItemsCount::new(listed.len()))
        .with_inputs(|| listed.clone())
        .bench_local_values(|listed| {
            directory.begin_relist();
            for vm in listed {
                directory.apply(vm, Instant::now());
            }
            directory.finish_relist()
        });
}

/// The first list.
#[divan::bench(args = SIZES, sample_count = 10, sample_size = 1)]
fn first_list(bencher: Bencher<'_, '_>, vms: u32) {
    let listed: Vec<Vm> = (0..vms)
        .filter_map(|number| serde_json::from_value(object(number)).ok())
        .map(|vm: VirtualMachine| vm.into())
        .collect();
    bencher
        .counter(ItemsCount::new(listed.len()))
        .with_inputs(|| listed.clone())
        .bench_local_values(|listed| {
            let directory = Directory::new();
            for vm in listed {
                directory.apply(vm, Instant::now());
            }
            directory
        });
}

/// Reading one VM from the text of the API server.
#[divan::bench]
fn read(bencher: Bencher<'_, '_>) {
    let text = object(1).to_string();
    eprintln!("a VM of {} bytes", text.len());
    bencher.bench_local(|| serde_json::from_str::<VirtualMachine>(black_box(&text)).map(Vm::from));
}

/// The same through kube's guard against unreadable objects, which holds each one as a tree first:
/// why [`VirtualMachine`] guards itself.
#[divan::bench]
fn read_through_a_guard(bencher: Bencher<'_, '_>) {
    let text = object(1).to_string();
    bencher.bench_local(|| {
        serde_json::from_str::<DeserializeGuard<VirtualMachine>>(black_box(&text))
            .map(|guard| guard.0.ok().map(Vm::from))
    });
}
