//! What the directory costs: a lookup, a re-list, and memory per VM beside its budget; what it costs
//! the leader to count what the configs make of it; and what it costs to read a VM at all.

#![allow(
    clippy::expect_used,
    reason = "a fixture that breaks has to stop the bench"
)]

use std::{
    collections::HashSet,
    fs,
    hint::black_box,
    time::{Duration, Instant},
};

use divan::{Bencher, counter::ItemsCount};
use kube::core::DeserializeGuard;
use kubevirt_wol::{
    crd::WolConfigSpec,
    kubevirt::VirtualMachine,
    manager::{
        census::Census,
        directory::Directory,
        grant::Grant,
        vm::{Vm, VmKey},
        wakeable_push::discovered,
    },
    packet::Trailing,
    wake::{Carrier, Origin, Wake},
    wakeable::WakeableMacs,
};
#[path = "fixtures/vm.rs"]
mod vm;

use vm::{mac, object};

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
        let before = resident_kib();
        let census = black_box(counted(&directory));
        let taken = resident_kib().saturating_sub(before);
        eprintln!(
            "  the leader's census of them: {:.1} MiB",
            f64::from(taken) / 1024.0
        );
        drop(census);
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

/// Counts the way the leader does: some VMs at a time.
fn counted(directory: &Directory) -> Census {
    let mut census = Census::new(directory.grants());
    for vms in census.everyone(directory).chunks(256) {
        census.update(directory, &HashSet::new(), &vms.iter().cloned().collect());
    }
    census
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
                black_box(directory.look_up(wake, Duration::ZERO));
            }
        });
}

/// One wake of an address that nobody has.
#[divan::bench(args = SIZES)]
fn look_up_unknown(bencher: Bencher<'_, '_>, vms: u32) {
    let directory = filled(vms);
    let unknown = wake(2 * vms + 1);
    bencher.bench_local(|| black_box(directory.look_up(&unknown, Duration::ZERO)));
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

/// What a leader counts once.
#[divan::bench(args = SIZES, sample_count = 10, sample_size = 1)]
fn census(bencher: Bencher<'_, '_>, vms: u32) {
    let directory = filled(vms);
    bencher
        .counter(ItemsCount::new(vms))
        .bench_local(|| counted(&directory));
}

/// What it counts again after changes of some VMs.
#[divan::bench(args = SIZES)]
fn census_of_changes(bencher: Bencher<'_, '_>, vms: u32) {
    let directory = filled(vms);
    let mut census = counted(&directory);
    let changed: HashSet<VmKey> = directory.keys().into_iter().take(100).collect();
    bencher
        .counter(ItemsCount::new(changed.len()))
        .bench_local(|| census.update(&directory, &HashSet::new(), &changed));
}

/// What every replica gathers for the agents after changes, at most once in 30 s.
#[divan::bench(args = SIZES, sample_count = 10, sample_size = 1)]
fn wakeable(bencher: Bencher<'_, '_>, vms: u32) {
    let directory = filled(vms);
    let grants = directory.grants();
    bencher.counter(ItemsCount::new(vms)).bench_local(|| {
        let keys = directory.keys();
        let chunks = keys.chunks(256);
        let macs: Vec<_> = chunks
            .flat_map(|vms| discovered(&directory, &grants, vms))
            .collect();
        WakeableMacs::of(&macs)
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
