//! Owns [`Machines`]: brings changes of VMs to the directory, and to whoever wants to know.

use std::{collections::HashSet, mem, sync::Arc};

use kube::{ResourceExt as _, runtime::watcher::Event};
use tokio::sync::watch::Sender;

use super::{
    Metrics, Observer, Watched,
    contact::{Contact, now},
    follow::News,
};
use crate::{
    admin::Gate,
    kubevirt::VirtualMachine,
    manager::{
        directory::{Directory, Size},
        pulse::Pulse,
        vm::{Noticed, Vm, VmKey},
    },
};

/// Brings changes of VMs to the directory.
pub(super) struct Machines {
    pub(super) directory: Arc<Directory>,
    pub(super) observers: Vec<Arc<dyn Observer>>,
    /// Whether the API server knows VMs.
    pub(super) served: Sender<bool>,
    pub(super) gate: Gate,
    pub(super) metrics: Metrics,
    /// When changes may have waited to be noticed.
    pub(super) interruptions: (Contact, Arc<Pulse>),
    /// VMs that cannot be read: each is logged once.
    pub(super) unreadable: HashSet<VmKey>,
}

impl Machines {
    pub(super) fn take(&mut self, news: News<VirtualMachine>) {
        let event = match news {
            News::Event(event) => event,
            // As good as a list without VMs.
            News::Absent => {
                self.served
                    .send_if_modified(|served| mem::replace(served, false));
                self.directory.begin_relist();
                return self.listed();
            }
        };
        match event {
            Event::Init => {
                self.unreadable.clear();
                self.directory.begin_relist();
            }
            // Counted when the list is complete.
            Event::InitApply(vm) => return self.apply(vm),
            Event::Apply(vm) => self.apply(vm),
            Event::Delete(vm) => {
                let key = key(&vm);
                self.unreadable.remove(&key);
                self.delete(&key);
            }
            Event::InitDone => {
                self.served
                    .send_if_modified(|served| !mem::replace(served, true));
                return self.listed();
            }
        }
        self.count();
    }

    /// The list is complete.
    fn listed(&mut self) {
        for vm in self.directory.finish_relist() {
            self.tell_deleted(&vm);
        }
        if !self.gate.is_open() {
            let Size {
                vms,
                macs,
                without_mac,
                ..
            } = self.directory.size();
            tracing::info!(vms, macs, without_mac, "took in the virtual machines");
        }
        self.gate.open();
        self.count();
    }

    fn count(&self) {
        self.metrics.directory(self.directory.size());
        self.metrics
            .unreadable(Watched::VirtualMachines, self.unreadable.len());
    }

    fn apply(&mut self, vm: VirtualMachine) {
        let key = key(&vm);
        if let Some(field) = vm.malformed {
            // What was known of it before may be wrong by now.
            self.delete(&key);
            if self.unreadable.insert(key.clone()) {
                tracing::warn!(
                    vm = %key,
                    field,
                    "cannot read a VirtualMachine, so no packet wakes it"
                );
            }
            return;
        }
        self.unreadable.remove(&key);
        let vm = Vm::from(vm);
        // In a list, a VM that took the name of a deleted one is all that is seen of the deletion.
        let mut before = self.directory.vm(&key);
        if before.as_ref().is_some_and(|known| known.uid != vm.uid) {
            self.delete(&key);
            before = None;
        }
        if let Some(vm) = self.directory.apply(vm, self.noticed()) {
            if !vm.bad_macs.is_empty() {
                tracing::debug!(vm = %key, macs = ?vm.bad_macs, "addresses that no packet can name");
            }
            for observer in &self.observers {
                observer.changed(before.as_ref(), &vm);
            }
        }
    }

    fn noticed(&self) -> Noticed {
        let (contact, pulse) = &self.interruptions;
        let awake = pulse.awake_since().into_std();
        let at = now();
        let earliest = contact.earliest(Watched::VirtualMachines, at).min(awake);
        Noticed { at, earliest }
    }

    fn delete(&self, key: &VmKey) {
        if let Some(vm) = self.directory.delete(key) {
            self.tell_deleted(&vm);
        }
    }

    fn tell_deleted(&self, vm: &Arc<Vm>) {
        for observer in &self.observers {
            observer.deleted(vm);
        }
    }
}

fn key(vm: &VirtualMachine) -> VmKey {
    VmKey::new(&vm.namespace().unwrap_or_default(), &vm.name_any())
}
