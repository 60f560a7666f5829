//! Owns what agents are told of the addresses that can wake a VM: [`Collector`] gathers them on
//! every replica, [`Outlet`] brings them to one session.
//!
//! Nothing is gathered while nothing changes, and nothing sent that is not different.

use std::{future, sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

use crate::{
    admin::{Gate, Heartbeat},
    mac::MacAddr,
    manager::{
        directory::Directory,
        dirty::Dirty,
        grant::Grant,
        vm::{Vm, VmKey},
        watch::{InForce, Watch},
    },
    wakeable::WakeableMacs,
};

/// Changes that come together are looked at together.
const GATHERED: Duration = Duration::from_secs(1);
/// VMs that are looked at without giving others a turn.
const AT_ONCE: usize = 256;
/// How often it is asked whether the directory is complete.
const LOOK: Duration = Duration::from_millis(250);
/// Sessions are served over this part of the interval, not all at once.
const SPREAD: u32 = 3;

/// The filter that agents should have; none while the directory is not complete.
pub type Filter = watch::Receiver<Option<Arc<WakeableMacs>>>;

/// Gathers the addresses.
pub struct Collector {
    /// All VMs and all grants.
    pub directory: Arc<Directory>,
    /// What of it changed.
    pub dirty: Arc<Dirty>,
    /// Tells that the grants changed.
    pub in_force: watch::Receiver<Arc<InForce>>,
    /// Open once all VMs and configs were listed.
    pub listed: Vec<Gate>,
    /// The shortest time between two filters.
    pub interval: Duration,
    /// Where they go.
    pub filter: watch::Sender<Option<Arc<WakeableMacs>>>,
}

impl Collector {
    /// Has gathered nothing yet; with the way to what it will.
    #[must_use]
    pub fn new(watch: &Watch, listed: Vec<Gate>, interval: Duration) -> (Self, Filter) {
        let (sender, filter) = watch::channel(None);
        let collector = Self {
            directory: watch.directory.clone(),
            dirty: Arc::default(),
            in_force: watch.in_force.subscribe(),
            listed,
            interval,
            filter: sender,
        };
        (collector, filter)
    }

    /// Keeps the filter up to date until `token` is cancelled.
    ///
    /// # Errors
    ///
    /// None.
    pub async fn run(mut self, token: CancellationToken, heart: Heartbeat) -> anyhow::Result<()> {
        token.run_until_cancelled(self.follow(&heart)).await;
        Ok(())
    }

    async fn follow(&mut self, heart: &Heartbeat) {
        while !self.listed.iter().all(Gate::is_open) {
            heart.beat();
            sleep(crate::pace::of(LOOK)).await;
        }
        loop {
            heart.beat();
            drop(self.dirty.take());
            let grants = self.in_force.borrow_and_update().grants.clone();
            let filter = gather(&self.directory, &grants).await;
            self.publish(filter);
            heart.waiting(sleep(self.interval)).await;
            heart.waiting(self.changed()).await;
            heart
                .waiting(sleep(crate::pace::of(GATHERED).min(self.interval)))
                .await;
        }
    }

    async fn changed(&mut self) {
        tokio::select! {
            () = self.dirty.some() => {}
            _ = self.in_force.changed() => {}
        }
    }

    fn publish(&self, filter: WakeableMacs) {
        let bytes = filter.bits().len();
        let differs = self.filter.send_if_modified(|current| {
            let differs = current.as_deref() != Some(&filter);
            if differs {
                *current = Some(Arc::new(filter));
            }
            differs
        });
        if differs {
            tracing::debug!(bytes, "other addresses can wake a virtual machine");
        }
    }
}

async fn gather(directory: &Directory, grants: &[Grant]) -> WakeableMacs {
    let mut macs: Vec<MacAddr> = grants.iter().flat_map(Grant::mapped_macs).collect();
    for vms in directory.keys().chunks(AT_ONCE) {
        macs.extend(discovered(directory, grants, vms));
        tokio::task::yield_now().await;
    }
    WakeableMacs::of(&macs)
}

/// The addresses by which the grants find these VMs.
#[must_use]
pub fn discovered(directory: &Directory, grants: &[Grant], vms: &[VmKey]) -> Vec<MacAddr> {
    let found = |vm: &Arc<Vm>| grants.iter().any(|grant| grant.discovers(vm));
    let vms = vms.iter().filter_map(|key| directory.vm(key)).filter(found);
    vms.flat_map(|vm| vm.macs.clone()).collect()
}

/// Brings the filter to one session.
#[derive(Debug)]
pub struct Outlet {
    filter: Filter,
    /// The same for each filter, so that no two come closer together than they were made.
    delay: Duration,
    due: Option<Instant>,
}

impl Outlet {
    /// For a session that has nothing yet; `interval` is the shortest time between two filters.
    #[must_use]
    pub fn new(mut filter: Filter, interval: Duration) -> Self {
        filter.mark_changed();
        Self {
            filter,
            delay: (interval / SPREAD).mul_f64(fastrand::f64()),
            due: None,
        }
    }

    /// Waits for the next filter to send. Nothing is lost where the wait is given up.
    pub async fn next(&mut self) -> Arc<WakeableMacs> {
        loop {
            match self.due {
                Some(due) => {
                    sleep_until(due).await;
                    self.due = None;
                    if let Some(filter) = self.filter.borrow_and_update().clone() {
                        return filter;
                    }
                }
                None if self.filter.changed().await.is_ok() => {
                    self.due = Some(Instant::now() + self.delay);
                }
                None => future::pending().await,
            }
        }
    }
}
