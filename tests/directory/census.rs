//! A census that is kept up to date change by change finds what a new one finds.

use std::{collections::HashSet, sync::Arc, time::Instant};

use kubevirt_wol::{
    crd::{SecureOn, WolConfigSpec},
    mac::MacAddr,
    manager::{
        census::{Census, Findings, Most, Obstacle},
        directory::Directory,
        dirty::Dirty,
        grant::Grant,
        vm::{Power, RunStrategy, Vm, VmKey},
        watch::Observer as _,
    },
};
use proptest::{collection::vec, prelude::*, sample::select, sample::subsequence};

use crate::fixture::{all, explicit, labelled, mac, version, vm};

const NAMES: [&str; 4] = ["a", "b", "c", "d"];
const EVERYTHING: Most = Most {
    mappings: 100,
    problems: 100,
};

#[derive(Debug, Clone)]
enum Change {
    Apply(Box<Vm>),
    Delete(&'static str),
    /// Another `WolConfig` comes into force, or one goes.
    Select(Vec<usize>),
}

fn change() -> impl Strategy<Value = Change> {
    let power = select(vec![Power::Off, Power::On, Power::Gone, Power::Receiver]);
    let strategy = select(vec![
        RunStrategy::Manual,
        RunStrategy::Always,
        RunStrategy::Once,
    ]);
    let macs = subsequence(vec![1, 2, 3], 0..=3);
    let names = select(NAMES.to_vec());
    let applied = (names.clone(), names.clone(), macs, power, strategy).prop_map(
        |(name, tier, macs, power, strategy)| {
            Change::Apply(Box::new(Vm {
                labels: [("tier".to_owned(), tier.to_owned())].into(),
                power,
                strategy,
                ..vm(name, &macs)
            }))
        },
    );
    prop_oneof![
        6 => applied,
        2 => names.prop_map(Change::Delete),
        1 => subsequence((0..4).collect::<Vec<_>>(), 0..=4).prop_map(Change::Select),
    ]
}

/// Configs that overlap and contradict each other.
fn specs() -> [(&'static str, WolConfigSpec); 4] {
    let one = [("52:54:00:00:00:01", "a"), ("52:54:00:00:00:03", "d")];
    let two = [("52:54:00:00:00:01", "b")];
    let labels = WolConfigSpec {
        secure_on: Some(SecureOn {
            secret_name: "secureon".into(),
        }),
        ..labelled("a")
    };
    [
        ("labels", labels),
        ("one", explicit(&one)),
        ("two", explicit(&two)),
        ("all", all()),
    ]
}

fn select_configs(directory: &Directory, positions: &[usize]) {
    let specs = specs();
    let chosen = positions.iter().map(|position| &specs[*position]);
    let grants = chosen.filter_map(|(name, spec)| Grant::new(name, spec).0);
    directory.set_grants(grants.collect());
}

/// A census of all VMs, which are looked at so many at a time.
fn taken(directory: &Directory, at_once: usize) -> Census {
    let mut census = Census::new(directory.grants());
    for vms in census.everyone(directory).chunks(at_once) {
        census.update(directory, &HashSet::new(), &vms.iter().cloned().collect());
    }
    census
}

fn all_findings(census: &Census, directory: &Directory) -> Vec<Option<Findings>> {
    let names = specs().map(|(name, _)| name);
    let found = names.map(|name| census.findings(name, directory, EVERYTHING));
    found.into()
}

/// Makes a change as the watch does, and tells the census what it has to know.
fn make(change: Change, number: usize, directory: &Directory, census: &mut Census) {
    let dirty = Dirty::default();
    match change {
        Change::Apply(vm) => {
            let before = directory.vm(&vm.key);
            let vm = directory.apply(version(&number.to_string(), *vm), Instant::now());
            dirty.changed(before.as_ref(), &vm.unwrap());
        }
        Change::Delete(name) => {
            if let Some(gone) = directory.delete(&VmKey::new("shop", name)) {
                dirty.deleted(&gone);
            }
        }
        Change::Select(positions) => select_configs(directory, &positions),
    }
    let changed = dirty.take();
    if census.is_of(&directory.grants()) {
        census.update(directory, &changed.macs, &changed.vms);
    } else {
        *census = taken(directory, 100);
    }
}

proptest! {
    #[test]
    fn an_updated_census_is_as_good_as_a_new_one(changes in vec(change(), 1..40)) {
        let directory = Directory::new();
        select_configs(&directory, &[0, 1, 2, 3]);
        let mut census = taken(&directory, 100);
        for (number, change) in changes.into_iter().enumerate() {
            make(change, number, &directory, &mut census);
            let fresh = taken(&directory, 100);
            let found = all_findings(&fresh, &directory);
            prop_assert_eq!(&all_findings(&census, &directory), &found);
            let one_by_one = taken(&directory, 1);
            prop_assert_eq!(&all_findings(&one_by_one, &directory), &found);
        }
    }
}

#[test]
fn a_census_counts_what_a_lookup_would_say() {
    let directory = Directory::new();
    select_configs(&directory, &[0, 1]);
    for vm in [vm("a", &[1, 2]), vm("b", &[2]), vm("c", &[])] {
        directory.apply(vm, Instant::now());
    }
    let census = taken(&directory, 100);
    let found = |config| census.findings(config, &directory, EVERYTHING).unwrap();
    let key = |name| VmKey::new("shop", name);
    let labels = found("labels");
    // b has the second address, too, but no config selects it.
    assert_eq!(labels.mappings, [(mac(1), key("a")), (mac(2), key("a"))]);
    assert_eq!((labels.managed, labels.conflicts_total), (1, 0));
    let mapped = found("one");
    assert_eq!(mapped.mappings, [(mac(1), key("a"))]);
    assert_eq!(mapped.unwakeable, [(key("d"), Obstacle::Missing)]);
    assert_eq!(census.findings("two", &directory, EVERYTHING), None);
}

#[test]
fn a_shared_address_is_a_conflict_of_every_config_that_selects_one_of_its_vms() {
    let directory = Directory::new();
    select_configs(&directory, &[0, 3]);
    for vm in [vm("a", &[1]), vm("b", &[1])] {
        directory.apply(vm, Instant::now());
    }
    let census = taken(&directory, 100);
    for config in ["labels", "all"] {
        let found = census.findings(config, &directory, EVERYTHING).unwrap();
        assert_eq!((found.managed, found.mappings_total), (0, 0), "{config}");
        let both = vec![VmKey::new("shop", "a"), VmKey::new("shop", "b")];
        assert_eq!(found.conflicts, [(mac(1), both)], "{config}");
    }
}

#[test]
fn vms_that_another_config_wakes_without_a_password_are_counted() {
    let directory = Directory::new();
    for vm in [vm("a", &[1]), vm("b", &[2])] {
        directory.apply(vm, Instant::now());
    }
    let bypassed = |configs: &[usize], config| {
        select_configs(&directory, configs);
        let found = taken(&directory, 100).findings(config, &directory, EVERYTHING);
        found.unwrap().bypassed
    };
    let a = VmKey::new("shop", "a");
    // `two` maps the address of a to b, and so does not open a.
    for (others, open) in [(&[2][..], None), (&[1], Some("one")), (&[3], Some("all"))] {
        let expected: Vec<_> = open
            .map(|config| (a.clone(), config.into()))
            .into_iter()
            .collect();
        let configs = [&[0], others].concat();
        assert_eq!(bypassed(&configs, "labels"), expected, "{others:?}");
    }
    assert_eq!(bypassed(&[0, 3], "all"), [], "it wants none itself");
}

#[test]
fn past_some_thousand_changes_everything_is_looked_at() {
    let dirty = Dirty::default();
    for number in 0..5_000 {
        dirty.deleted(&Arc::new(vm(&format!("vm-{number}"), &[1])));
    }
    let changed = dirty.take();
    assert!(changed.all && changed.vms.is_empty());
    assert!(!dirty.take().all, "it is told once");
    // One VM whose addresses change all the time is bounded, too.
    for number in 0..50_u8 {
        for other in 0..100 {
            let macs = vec![MacAddr::new([2, 0, 0, 0, number, other])];
            dirty.deleted(&Arc::new(Vm {
                macs,
                ..vm("a", &[])
            }));
        }
    }
    assert!(dirty.take().all);
}
