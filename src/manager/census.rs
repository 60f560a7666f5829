//! Owns [`Census`]: what each `WolConfig` makes of the VMs, for its status. Kept up to date by what
//! changed, so that one VM's change costs the same however many VMs there are. Pure.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
};

use crate::{
    mac::MacAddr,
    manager::{
        directory::{Directory, Lookup},
        grant::Grant,
        vm::{Power, RunStrategy, Vm, VmKey},
    },
};

/// What each grant makes of the VMs of a directory that it has looked at.
#[derive(Debug)]
pub struct Census {
    grants: Arc<[Grant]>,
    /// One per grant, in the same order.
    counts: Vec<Count>,
}

#[derive(Debug, Clone, Default)]
struct Count {
    /// Addresses that mean one VM.
    mapped: BTreeSet<MacAddr>,
    /// Addresses that mean several.
    conflicts: BTreeSet<MacAddr>,
    /// VMs that at least one address means.
    managed: HashSet<VmKey>,
    unwakeable: BTreeMap<VmKey, Obstacle>,
    /// VMs that this grant wants a password for and another one does not.
    bypassed: BTreeSet<VmKey>,
}

/// Why no packet starts a VM that a config selects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Obstacle {
    /// A mapping names it, and it does not exist (yet).
    Missing,
    /// Its spec has no address.
    NoMac,
    /// Its spec has only addresses that no packet can name.
    BadMac,
    /// KubeVirt keeps it on by itself.
    Always,
    /// KubeVirt starts it once, and never again.
    Once,
    /// It waits to receive a migration.
    Receiver,
}

/// A VM that wants a password, and the config by which it wakes without one.
pub type Bypassed = (VmKey, Arc<str>);

/// What one grant makes of the VMs, as much as is shown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    /// VMs that at least one address means.
    pub managed: usize,
    /// The first addresses and the VMs that they mean.
    pub mappings: Vec<(MacAddr, VmKey)>,
    /// How many there are.
    pub mappings_total: usize,
    /// The first addresses that mean several VMs, and these.
    pub conflicts: Vec<(MacAddr, Vec<VmKey>)>,
    /// How many there are.
    pub conflicts_total: usize,
    /// The first VMs that no packet starts, and why.
    pub unwakeable: Vec<(VmKey, Obstacle)>,
    /// How many there are.
    pub unwakeable_total: usize,
    /// The first VMs that want a password by this grant, and none by that of the named config.
    pub bypassed: Vec<Bypassed>,
    /// How many there are.
    pub bypassed_total: usize,
}

impl Census {
    /// A census that has looked at nothing yet.
    #[must_use]
    pub fn new(grants: Arc<[Grant]>) -> Self {
        Self {
            counts: vec![Count::default(); grants.len()],
            grants,
        }
    }

    /// All VMs that it has to look at: those that exist, and those that a mapping names.
    #[must_use]
    pub fn everyone(&self, directory: &Directory) -> Vec<VmKey> {
        let mapped = self.grants.iter().flat_map(Grant::mapped_vms).cloned();
        directory.keys().into_iter().chain(mapped).collect()
    }

    /// Whether it was taken with these grants.
    #[must_use]
    pub fn is_of(&self, grants: &Arc<[Grant]>) -> bool {
        Arc::ptr_eq(&self.grants, grants)
    }

    /// Looks again at these addresses, at these VMs, and at whatever else their change touches.
    pub fn update(&mut self, directory: &Directory, macs: &HashSet<MacAddr>, vms: &HashSet<VmKey>) {
        let mut macs = macs.clone();
        macs.extend(self.addresses(directory, vms));
        let holders = macs.iter().flat_map(|mac| directory.holders(*mac));
        let mapped = macs.iter().flat_map(|mac| {
            let grants = self.grants.iter();
            grants.flat_map(|grant| grant.mapped(*mac)).cloned()
        });
        let vms: HashSet<VmKey> = vms.iter().cloned().chain(holders).chain(mapped).collect();
        self.recount(directory, &macs, &vms);
    }

    /// What the grant of this config makes of the VMs; none where it has no grant.
    #[must_use]
    pub fn findings(&self, config: &str, directory: &Directory, most: Most) -> Option<Findings> {
        let position = self.grants.iter().position(|g| &*g.config == config)?;
        let count = self.counts.get(position)?;
        let mappings = count.mapped.iter().take(most.mappings).filter_map(|mac| {
            let vm = directory.meant(*mac, &self.grants).ok()?;
            Some((*mac, vm.key.clone()))
        });
        let conflicts = count.conflicts.iter().take(most.problems);
        let conflicts = conflicts.filter_map(|mac| match directory.meant(*mac, &self.grants) {
            Err(Lookup::Ambiguous(vms)) => Some((*mac, vms)),
            _ => None,
        });
        let unwakeable = count.unwakeable.iter().take(most.problems);
        Some(Findings {
            managed: count.managed.len(),
            mappings: mappings.collect(),
            mappings_total: count.mapped.len(),
            conflicts: conflicts.collect(),
            conflicts_total: count.conflicts.len(),
            unwakeable: unwakeable.map(|(key, why)| (key.clone(), *why)).collect(),
            unwakeable_total: count.unwakeable.len(),
            bypassed: self.bypassed(count, directory, most.problems),
            bypassed_total: count.bypassed.len(),
        })
    }

    /// The first VMs that another grant lets wake without a password, and that grant's config.
    fn bypassed(&self, count: &Count, directory: &Directory, most: usize) -> Vec<Bypassed> {
        let named = count.bypassed.iter().take(most).filter_map(|key| {
            let vm = directory.vm(key)?;
            let open = self.grants.iter().find(|grant| opens(grant, &vm))?;
            Some((key.clone(), open.config.clone()))
        });
        named.collect()
    }

    /// The addresses that may mean these VMs.
    fn addresses(&self, directory: &Directory, vms: &HashSet<VmKey>) -> HashSet<MacAddr> {
        let mut macs = HashSet::new();
        for key in vms {
            macs.extend(directory.vm(key).iter().flat_map(|vm| &vm.macs));
            macs.extend(self.grants.iter().flat_map(|grant| grant.mapped_to(key)));
        }
        macs
    }

    fn recount(&mut self, directory: &Directory, macs: &HashSet<MacAddr>, vms: &HashSet<VmKey>) {
        for mac in macs {
            let meant = directory.meant(*mac, &self.grants);
            for (grant, count) in self.grants.iter().zip(&mut self.counts) {
                let (mapped, conflict) = match &meant {
                    Ok(vm) => (grant.names(*mac, vm), false),
                    Err(Lookup::Ambiguous(vms)) => (
                        false,
                        vms.iter().any(|vm| claims(grant, *mac, vm, directory)),
                    ),
                    Err(_) => (false, false),
                };
                keep(&mut count.mapped, *mac, mapped);
                keep(&mut count.conflicts, *mac, conflict);
            }
        }
        for key in vms {
            let vm = directory.vm(key).filter(|vm| !vm.power.is_gone());
            let open = vm
                .as_ref()
                .filter(|vm| self.grants.iter().any(|g| opens(g, vm)));
            for (grant, count) in self.grants.iter().zip(&mut self.counts) {
                let managed = vm.as_ref().is_some_and(|vm| {
                    let own = addresses_of(vm, grant);
                    own.iter().any(|mac| {
                        count.mapped.contains(mac) && means(directory, &self.grants, *mac, key)
                    })
                });
                if managed {
                    count.managed.insert(key.clone());
                } else {
                    count.managed.remove(key);
                }
                if open.is_some_and(|vm| grant.secure_on.is_some() && grant.covers(vm)) {
                    count.bypassed.insert(key.clone());
                } else {
                    count.bypassed.remove(key);
                }
                match obstacle(grant, key, vm.as_deref()) {
                    Some(why) => count.unwakeable.insert(key.clone(), why),
                    None => count.unwakeable.remove(key),
                };
            }
        }
    }
}

/// How many entries of each kind are shown at most.
#[derive(Debug, Clone, Copy)]
pub struct Most {
    /// Mappings.
    pub mappings: usize,
    /// Conflicts, and VMs that no packet starts.
    pub problems: usize,
}

fn keep(set: &mut BTreeSet<MacAddr>, mac: MacAddr, wanted: bool) {
    if wanted {
        set.insert(mac);
    } else {
        set.remove(&mac);
    }
}

/// Whether packets without a password wake this VM, as far as this grant is concerned.
fn opens(grant: &Grant, vm: &Vm) -> bool {
    grant.secure_on.is_none() && grant.covers(vm)
}

/// Whether a grant says that this address names this VM, which need not exist.
fn claims(grant: &Grant, mac: MacAddr, key: &VmKey, directory: &Directory) -> bool {
    grant.mapped(mac).contains(key) || directory.vm(key).is_some_and(|vm| grant.names(mac, &vm))
}

fn means(directory: &Directory, grants: &[Grant], mac: MacAddr, key: &VmKey) -> bool {
    directory.meant(mac, grants).is_ok_and(|vm| vm.key == *key)
}

/// The addresses by which a grant knows a VM.
fn addresses_of(vm: &Vm, grant: &Grant) -> Vec<MacAddr> {
    let found: &[MacAddr] = if grant.discovers(vm) { &vm.macs } else { &[] };
    [found, grant.mapped_to(&vm.key)].concat()
}

/// What is in the way of a start by this grant, if it selects the VM and anything is.
fn obstacle(grant: &Grant, key: &VmKey, vm: Option<&Vm>) -> Option<Obstacle> {
    let Some(vm) = vm else {
        return (!grant.mapped_to(key).is_empty()).then_some(Obstacle::Missing);
    };
    if !grant.covers(vm) {
        return None;
    }
    match (vm.power, vm.strategy) {
        (Power::Receiver, _) => Some(Obstacle::Receiver),
        (_, RunStrategy::Once) => Some(Obstacle::Once),
        (_, RunStrategy::Always) => Some(Obstacle::Always),
        _ if !addresses_of(vm, grant).is_empty() => None,
        _ if vm.bad_macs.is_empty() => Some(Obstacle::NoMac),
        _ => Some(Obstacle::BadMac),
    }
}

impl Obstacle {
    /// Why, for people, and what helps.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "a mapping names it, and it does not exist yet",
            Self::NoMac => {
                "no interface in its spec has a macAddress, so that it has another one at each \
                 boot; set one"
            }
            Self::BadMac => {
                "no macAddress in its spec is one that a packet can name; set a unicast \
                 address"
            }
            Self::Always => "runStrategy Always: KubeVirt keeps it on, so there is nothing to wake",
            Self::Once => {
                "runStrategy Once: KubeVirt never starts it again; use Manual or RerunOnFailure"
            }
            Self::Receiver => "it waits to receive a migration",
        }
    }
}
