//! Owns [`Directory`]: which VM a magic packet means. Knows neither Kubernetes' API nor tokio; a
//! watch feeds it, everybody asks it.

mod refusal;

use std::{
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockWriteGuard},
    time::Duration,
};

use dashmap::DashMap;

use crate::{
    mac::MacAddr,
    manager::{
        grant::Grant,
        passwords::{Passwords, Secret},
        vm::{Noticed, Vm, VmKey},
    },
    wake::Wake,
};

pub use refusal::{MAX_NAMED, Refusal};
use refusal::{Say, ask};

/// All VMs, by name and by MAC address, and the grants that make them wakeable.
///
/// Lookups run in parallel with each other and with changes. Changes come from one watch, one at a
/// time; `writer` makes sure of it.
///
/// No guard of a map lives while that map is touched again, which could lock the same shard twice
/// and stop for ever: every method takes what it needs out of a map (an `Arc`, a list of names)
/// within one expression, and only then goes on. A lookup may thus see an address without its VM,
/// or a VM that has just lost the address; it checks for both.
#[derive(Debug, Default)]
pub struct Directory {
    vms: DashMap<VmKey, Entry>,
    macs: DashMap<MacAddr, Vec<VmKey>>,
    grants: RwLock<Arc<[Grant]>>,
    passwords: RwLock<Arc<Passwords>>,
    /// Held through each change.
    writer: Mutex<Writer>,
}

/// What only changes need.
#[derive(Debug, Default)]
struct Writer {
    /// Re-lists begun.
    relist: u64,
    /// VMs without an address.
    without_mac: usize,
    /// Addresses that no packet can name.
    bad_macs: usize,
}

#[derive(Debug)]
struct Entry {
    vm: Arc<Vm>,
    /// The re-list during which, or after which, the VM was last seen.
    seen: u64,
}

/// What a wake means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup {
    /// This VM, and the packet may wake it. What that takes is in its `power`.
    Wakeable {
        /// The VM.
        vm: Arc<Vm>,
        /// Whether a config that allows this wake also has paused VMs unpaused.
        unpause: bool,
    },
    /// No VM has this address.
    NotFound,
    /// A config maps the address to this VM, which does not exist (yet, or any more).
    Missing(VmKey),
    /// This VM has the address, but the packet may not wake it.
    NotSelected {
        /// The VM.
        vm: Arc<Vm>,
        /// Why not.
        why: Refusal,
    },
    /// Several VMs, in the order of their names. Which one is meant cannot be known.
    Ambiguous(Vec<VmKey>),
    /// Cannot be known: a config that may serve no longer while the API server is away might have
    /// it otherwise.
    Stale,
    /// Cannot be known: the Secret with the VM's password has not been read yet.
    Locked,
}

/// How much a directory holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// VMs.
    pub vms: usize,
    /// Distinct MAC addresses.
    pub macs: usize,
    /// VMs without a usable address.
    pub without_mac: usize,
    /// Addresses in the VMs' specs that no packet can name.
    pub bad_macs: usize,
}

impl Directory {
    /// An empty directory, in which nothing is wakeable.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in a VM as it is now. Returns it as it is now known, or none where this very
    /// version was known already.
    pub fn apply(&self, vm: Vm, noticed: impl Into<Noticed>) -> Option<Arc<Vm>> {
        let mut writer = self.writer();
        let known = self.vm(&vm.key);
        if let Some(known) = known.as_ref().filter(|known| is_same_version(known, &vm)) {
            self.insert(Arc::clone(known), writer.relist);
            return None;
        }
        let vm = Arc::new(vm.after(known.as_deref(), noticed.into()));
        let old = known.as_ref().map_or(&[][..], |known| &known.macs);
        for mac in vm.macs.iter().filter(|mac| !old.contains(mac)) {
            self.macs.entry(*mac).or_default().push(vm.key.clone());
        }
        self.insert(Arc::clone(&vm), writer.relist);
        for mac in old.iter().filter(|mac| !vm.macs.contains(mac)) {
            self.unlist(*mac, &vm.key);
        }
        if let Some(known) = known {
            writer.uncount(&known);
        }
        writer.count(&vm);
        Some(vm)
    }

    /// Forgets a VM; returns what was known of it.
    pub fn delete(&self, key: &VmKey) -> Option<Arc<Vm>> {
        self.remove(&mut self.writer(), key)
    }

    /// A full list of all VMs begins: each is [`apply`](Self::apply)-ed, then
    /// [`finish_relist`](Self::finish_relist) is called. Begun again, it starts over.
    pub fn begin_relist(&self) {
        self.writer().relist += 1;
    }

    /// The list is complete: VMs that were not in it are gone, and returned.
    pub fn finish_relist(&self) -> Vec<Arc<Vm>> {
        let mut writer = self.writer();
        // Collected first: the iterator holds a lock while it lives.
        let gone: Vec<VmKey> = self
            .vms
            .iter()
            .filter(|entry| entry.seen != writer.relist)
            .map(|entry| entry.key().clone())
            .collect();
        gone.iter()
            .filter_map(|key| self.remove(&mut writer, key))
            .collect()
    }

    /// Replaces the grants.
    pub fn set_grants(&self, grants: Arc<[Grant]>) {
        let mut current = self.grants.write().unwrap_or_else(PoisonError::into_inner);
        let old = mem::replace(&mut *current, grants);
        drop(current);
        // Lookups do not wait for this.
        drop(old);
    }

    /// The grants in force.
    #[must_use]
    pub fn grants(&self) -> Arc<[Grant]> {
        Arc::clone(&self.grants.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Replaces the passwords.
    pub fn set_passwords(&self, passwords: Passwords) {
        *self.locks() = Arc::new(passwords);
    }

    /// Takes in what one of the Secrets says now.
    pub fn set_secret(&self, name: &str, secret: Secret) {
        let mut current = self.locks();
        let next = Arc::new(current.with(name, secret));
        let old = mem::replace(&mut *current, next);
        drop(current);
        // Lookups do not wait for this.
        drop(old);
    }

    /// The passwords in force.
    #[must_use]
    pub fn passwords(&self) -> Arc<Passwords> {
        let current = self.passwords.read();
        Arc::clone(&current.unwrap_or_else(PoisonError::into_inner))
    }

    fn locks(&self) -> RwLockWriteGuard<'_, Arc<Passwords>> {
        let current = self.passwords.write();
        current.unwrap_or_else(PoisonError::into_inner)
    }

    /// The VM of this name.
    #[must_use]
    pub fn vm(&self, key: &VmKey) -> Option<Arc<Vm>> {
        self.vms.get(key).map(|entry| Arc::clone(&entry.vm))
    }

    /// How much is known.
    #[must_use]
    pub fn size(&self) -> Size {
        let writer = self.writer();
        Size {
            vms: self.vms.len(),
            macs: self.macs.len(),
            without_mac: writer.without_mac,
            bad_macs: writer.bad_macs,
        }
    }

    /// Which VM `wake` means, and whether it may wake it, where changes may have escaped the watches
    /// for `age`.
    ///
    /// Grants that this is too long for allow nothing. They still have a say in which VM is meant:
    /// that a VM is the only one with its address must not follow from having forgotten the other.
    /// All but a permission is then unknown: the next change might have brought the VM or the config.
    #[must_use]
    pub fn look_up(&self, wake: &Wake, age: Duration) -> Lookup {
        let grants = self.grants();
        match self.judge(wake, &grants, age) {
            wakeable @ Lookup::Wakeable { .. } => wakeable,
            _ if grants.iter().any(|grant| grant.is_stale(age)) => Lookup::Stale,
            known => known,
        }
    }

    fn judge(&self, wake: &Wake, grants: &[Grant], age: Duration) -> Lookup {
        let vm = match self.meant(wake.target, grants) {
            Ok(vm) => vm,
            Err(lookup) => return lookup,
        };
        let passwords = self.passwords();
        let (mut admitted, mut unpause, mut locked) = (false, false, false);
        let mut why = Refusal::NoConfig;
        for grant in grants.iter().filter(|g| g.names(wake.target, &vm)) {
            match ask(grant, wake, &vm, &passwords) {
                Say::Yes if grant.is_stale(age) => {}
                Say::Yes => {
                    admitted = true;
                    unpause |= grant.wake_paused;
                }
                Say::No(refusal) => why = why.max(refusal),
                Say::Unknown => locked = true,
            }
        }
        match (admitted, locked) {
            (true, _) => Lookup::Wakeable { vm, unpause },
            (_, true) => Lookup::Locked,
            _ => Lookup::NotSelected { vm, why },
        }
    }

    /// The configs that let this wake start this VM.
    #[must_use]
    pub fn granting(&self, wake: &Wake, vm: &Vm) -> Vec<Arc<str>> {
        let (grants, passwords) = (self.grants(), self.passwords());
        let granting = grants.iter().filter(|grant| {
            grant.names(wake.target, vm) && matches!(ask(grant, wake, vm, &passwords), Say::Yes)
        });
        granting.map(|grant| grant.config.clone()).collect()
    }

    /// The VMs that have `mac` in their specs.
    #[must_use]
    pub fn holders(&self, mac: MacAddr) -> Vec<VmKey> {
        self.macs
            .get(&mac)
            .map_or_else(Vec::new, |keys| keys.clone())
    }

    /// The names of all VMs.
    #[must_use]
    pub fn keys(&self) -> Vec<VmKey> {
        self.vms.iter().map(|entry| entry.key().clone()).collect()
    }

    /// The one VM that `mac` means, selected or not.
    ///
    /// # Errors
    ///
    /// There is not exactly one, or it can never be woken.
    pub fn meant(&self, mac: MacAddr, grants: &[Grant]) -> Result<Arc<Vm>, Lookup> {
        let mut mapped: Vec<&VmKey> = grants.iter().flat_map(|g| g.mapped(mac)).collect();
        mapped.sort_unstable();
        mapped.dedup();
        match *mapped {
            [] => self.discovered(mac, grants),
            [key] => {
                let vm = self.vm(key).filter(|vm| !vm.power.is_gone());
                let vm = vm.ok_or_else(|| Lookup::Missing(key.clone()))?;
                if vm.power.is_candidate() {
                    Ok(vm)
                } else {
                    let why = Refusal::Receiver;
                    Err(Lookup::NotSelected { vm, why })
                }
            }
            _ => Err(Lookup::Ambiguous(mapped.into_iter().cloned().collect())),
        }
    }

    /// The one VM that has `mac` in its spec. VMs that no grant selects do not make it ambiguous.
    fn discovered(&self, mac: MacAddr, grants: &[Grant]) -> Result<Arc<Vm>, Lookup> {
        let (mut selected, mut others) = (Vec::new(), Vec::new());
        for vm in self.holders(mac).iter().filter_map(|key| self.vm(key)) {
            if vm.macs.contains(&mac) && !vm.power.is_gone() {
                let chosen = vm.power.is_candidate() && grants.iter().any(|g| g.discovers(&vm));
                if chosen { &mut selected } else { &mut others }.push(vm);
            }
        }
        let other = others.into_iter().max_by_key(|vm| vm.power.is_candidate());
        match (selected.len(), other) {
            (0, None) => Err(Lookup::NotFound),
            (0, Some(vm)) if vm.power.is_candidate() => Ok(vm),
            (0, Some(vm)) => Err(Lookup::NotSelected {
                vm,
                why: Refusal::Receiver,
            }),
            (1, _) => selected.pop().ok_or(Lookup::NotFound),
            _ => {
                let mut keys: Vec<VmKey> = selected.iter().map(|vm| vm.key.clone()).collect();
                keys.sort_unstable();
                Err(Lookup::Ambiguous(keys))
            }
        }
    }

    fn insert(&self, vm: Arc<Vm>, seen: u64) {
        self.vms.insert(vm.key.clone(), Entry { vm, seen });
    }

    fn remove(&self, writer: &mut Writer, key: &VmKey) -> Option<Arc<Vm>> {
        let (_, Entry { vm, .. }) = self.vms.remove(key)?;
        for mac in &vm.macs {
            self.unlist(*mac, key);
        }
        writer.uncount(&vm);
        Some(vm)
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unlist(&self, mac: MacAddr, key: &VmKey) {
        self.macs.remove_if_mut(&mac, |_, keys| {
            keys.retain(|other| other != key);
            keys.is_empty()
        });
    }
}

impl Writer {
    fn count(&mut self, vm: &Vm) {
        self.without_mac += usize::from(vm.macs.is_empty());
        self.bad_macs += vm.bad_macs.len();
    }

    fn uncount(&mut self, vm: &Vm) {
        self.without_mac -= usize::from(vm.macs.is_empty());
        self.bad_macs -= vm.bad_macs.len();
    }
}

fn is_same_version(known: &Vm, vm: &Vm) -> bool {
    known.uid == vm.uid && known.resource_version == vm.resource_version
}
