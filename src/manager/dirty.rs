//! Owns [`Dirty`]: which VMs and addresses the status of the configs has to look at again. Bounded:
//! past a number of them it is all of them.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

use crate::{
    mac::MacAddr,
    manager::{
        vm::{Vm, VmKey},
        watch::Observer,
    },
};

/// Past so many VMs, or addresses, looking at all of them is not much dearer.
const MAX: usize = 4_096;

/// Collects changes until they are taken.
#[derive(Debug, Default)]
pub struct Dirty {
    changes: Mutex<Changed>,
    news: Notify,
}

/// What changed since it was last asked.
#[derive(Debug, Default)]
pub struct Changed {
    /// VMs.
    pub vms: HashSet<VmKey>,
    /// Addresses that these VMs have or had.
    pub macs: HashSet<MacAddr>,
    /// Too many to name them.
    pub all: bool,
}

impl Dirty {
    /// Waits until something changed.
    pub async fn some(&self) {
        self.news.notified().await;
    }

    /// Takes what changed.
    pub fn take(&self) -> Changed {
        std::mem::take(&mut self.changes())
    }

    fn mark(&self, vm: &Vm) {
        let mut changes = self.changes();
        if !changes.all {
            changes.vms.insert(vm.key.clone());
            changes.macs.extend(&vm.macs);
            if changes.vms.len().max(changes.macs.len()) > MAX {
                *changes = Changed {
                    all: true,
                    ..Changed::default()
                };
            }
        }
        drop(changes);
        self.news.notify_one();
    }

    fn changes(&self) -> MutexGuard<'_, Changed> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Observer for Dirty {
    fn changed(&self, before: Option<&Arc<Vm>>, vm: &Arc<Vm>) {
        // Most changes are a VM's going on and off, which no config's status tells of.
        if before.is_some_and(|before| is_same_to_configs(before, vm)) {
            return;
        }
        if let Some(before) = before {
            self.mark(before);
        }
        self.mark(vm);
    }

    fn deleted(&self, vm: &Arc<Vm>) {
        self.mark(vm);
    }
}

fn is_same_to_configs(before: &Vm, after: &Vm) -> bool {
    before.macs == after.macs
        && before.bad_macs == after.bad_macs
        && before.labels == after.labels
        && before.strategy == after.strategy
        && before.power.is_candidate() == after.power.is_candidate()
        && before.power.is_gone() == after.power.is_gone()
}
