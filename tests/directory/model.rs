//! Whatever happens in whatever order, a lookup says what a search through all VMs would say.

use std::{collections::BTreeMap, time::Instant};

use kubevirt_wol::manager::{
    directory::Directory,
    vm::{Power, Vm, VmKey},
};
use proptest::{collection::vec, prelude::*, sample::select, sample::subsequence};

use crate::fixture::{grant, labelled, look_up, look_up_after, version, vm};

const NAMES: [&str; 4] = ["a", "b", "c", "d"];
const MACS: [u8; 4] = [1, 2, 3, 4];

#[derive(Debug, Clone)]
enum Change {
    Apply(&'static str, Vec<u8>, Power),
    Delete(&'static str),
    /// A list that has only these, as they are.
    Relist(Vec<&'static str>),
    /// Configs that select only these.
    Select(Vec<&'static str>),
}

fn change() -> impl Strategy<Value = Change> {
    let names = || subsequence(NAMES.to_vec(), 0..=NAMES.len());
    let power = select(vec![
        Power::Off,
        Power::On,
        Power::Gone,
        Power::Receiver,
        Power::Stopping,
    ]);
    prop_oneof![
        6 => (select(NAMES.to_vec()), subsequence(MACS.to_vec(), 0..=3), power)
            .prop_map(|(name, macs, power)| Change::Apply(name, macs, power)),
        2 => select(NAMES.to_vec()).prop_map(Change::Delete),
        1 => names().prop_map(Change::Relist),
        2 => names().prop_map(Change::Select),
    ]
}

/// All VMs and what is selected, without an index.
#[derive(Default)]
struct Model {
    vms: BTreeMap<&'static str, Vm>,
    selected: Vec<&'static str>,
}

impl Model {
    fn look_up(&self, last: u8) -> String {
        let having = |(_, vm): &(&&str, &Vm)| {
            vm.macs.iter().any(|mac| mac.octets()[5] == last) && vm.power != Power::Gone
        };
        let holders: Vec<_> = self.vms.iter().filter(having).collect();
        let chosen: Vec<_> = holders
            .iter()
            .filter(|(name, vm)| vm.power != Power::Receiver && self.selected.contains(*name))
            .map(|(_, vm)| vm.key.to_string())
            .collect();
        match &chosen[..] {
            [] if holders.is_empty() => "not found".into(),
            [] if holders.iter().all(|(_, vm)| vm.power == Power::Receiver) => "Receiver".into(),
            [] => "NoConfig".into(),
            [one] => format!("wakes {one}"),
            several => format!("ambiguous {}", several.join(" ")),
        }
    }

    fn make(&mut self, change: Change, number: usize, directory: &Directory) {
        let now = Instant::now();
        match change {
            Change::Apply(name, macs, power) => {
                let vm = Vm {
                    power,
                    ..version(&number.to_string(), vm(name, &macs))
                };
                directory.apply(vm.clone(), now);
                self.vms.insert(name, vm);
            }
            Change::Delete(name) => {
                directory.delete(&VmKey::new("shop", name));
                self.vms.remove(name);
            }
            Change::Relist(names) => {
                directory.begin_relist();
                self.vms.retain(|name, _| names.contains(name));
                for vm in self.vms.values() {
                    directory.apply(vm.clone(), now);
                }
                directory.finish_relist();
            }
            Change::Select(names) => {
                let specs: Vec<_> = names.iter().map(|name| labelled(name)).collect();
                grant(directory, &specs);
                self.selected = names;
            }
        }
    }
}

proptest! {
    #[test]
    fn the_index_agrees_with_a_search(changes in vec(change(), 1..40)) {
        let directory = Directory::new();
        let mut model = Model::default();
        for (number, change) in changes.into_iter().enumerate() {
            model.make(change, number, &directory);
            for last in MACS {
                let seen = look_up(&directory, last);
                let expected = model.look_up(last);
                // Which of several VMs a refusal names does not matter.
                let agree = seen == expected || seen.ends_with(&format!(": {expected}"));
                prop_assert!(agree, "{seen} instead of {expected}");
                let later = look_up_after(&directory, last, 301);
                let unknown = if model.selected.is_empty() { seen.as_str() } else { "stale" };
                prop_assert_eq!(later, unknown);
            }
            let size = directory.size();
            let macs = MACS.iter().filter(|last| {
                model.vms.values().any(|vm| vm.macs.iter().any(|mac| mac.octets()[5] == **last))
            });
            prop_assert_eq!((size.vms, size.macs), (model.vms.len(), macs.count()));
            let without = model.vms.values().filter(|vm| vm.macs.is_empty()).count();
            prop_assert_eq!(size.without_mac, without);
        }
    }
}
