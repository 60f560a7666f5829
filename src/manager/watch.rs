//! Owns the watches of `VirtualMachine` and `WolConfig`, which keep the directory and the agents'
//! settings up to date for as long as the manager runs, whatever the API server does.

mod follow;
mod metrics;

use std::{
    collections::{BTreeMap, HashSet},
    mem,
    sync::Arc,
    time::{Duration, Instant},
};

use kube::{Api, Client, ResourceExt as _, core::DeserializeGuard, runtime::watcher::Event};
use tokio::sync::watch::Sender;
use tokio_util::sync::CancellationToken;

use crate::{
    admin::{Gate, Liveness},
    crd::WolConfig,
    kubevirt::VirtualMachine,
    manager::{
        config::{Plan, Windows, plan},
        directory::{Directory, Size},
        vm::{Vm, VmKey},
    },
    settings::Settings,
};

pub use metrics::{Metrics, Watched};

/// Who wants to know of each change of a VM, after the directory has it. Called from the watch:
/// must return at once.
pub trait Observer: Send + Sync {
    /// The VM is new, or not as it was.
    fn changed(&self, vm: &Arc<Vm>);
    /// The VM is gone; this is what was last known of it.
    fn deleted(&self, vm: &Arc<Vm>);
}

/// What both watches need.
#[derive(Clone)]
pub struct Watch {
    /// The way to the API server.
    pub client: Client,
    /// What the watches fill.
    pub directory: Arc<Directory>,
    /// What they count.
    pub metrics: Metrics,
    /// Who notices when one of them hangs.
    pub liveness: Liveness,
    /// Ends them.
    pub token: CancellationToken,
}

/// A watch that has not taken a turn for so long hangs; it takes one every few seconds.
const STUCK_AFTER: Duration = Duration::from_secs(30);

impl Watch {
    /// Keeps the directory's VMs up to date and tells `observer` of each change. `gate` opens with
    /// the first complete list; a cluster without KubeVirt has an empty one.
    ///
    /// # Errors
    ///
    /// None: it ends when the token is cancelled, and not before.
    pub async fn virtual_machines(
        self,
        observer: Arc<dyn Observer>,
        gate: Gate,
    ) -> anyhow::Result<()> {
        let mut machines = Machines {
            directory: self.directory,
            observer,
            gate,
            metrics: self.metrics.clone(),
            unreadable: HashSet::new(),
        };
        let api = Api::<VirtualMachine>::all(self.client);
        let heart = self.liveness.task("virtual machines", STUCK_AFTER);
        let what = Watched::VirtualMachines;
        let watch = follow::follow(api, what, &self.metrics, &heart, |event| {
            machines.take(event);
        });
        self.token.run_until_cancelled(watch).await;
        Ok(())
    }

    /// Keeps the directory's grants up to date, and the settings that agents get; these are sent
    /// with their generation, from 1, only when they differ. `gate` opens with the first complete list.
    ///
    /// # Errors
    ///
    /// None: it ends when the token is cancelled, and not before.
    pub async fn wol_configs(
        self,
        windows: Windows,
        settings: Sender<(u64, Arc<Settings>)>,
        gate: Gate,
    ) -> anyhow::Result<()> {
        let mut configs = Configs {
            directory: self.directory,
            windows,
            settings,
            gate,
            metrics: self.metrics.clone(),
            listed: BTreeMap::new(),
            known: BTreeMap::new(),
        };
        let api = Api::<DeserializeGuard<WolConfig>>::all(self.client);
        let heart = self.liveness.task("configs", STUCK_AFTER);
        let what = Watched::WolConfigs;
        let watch = follow::follow(api, what, &self.metrics, &heart, |event| {
            configs.take(event);
        });
        self.token.run_until_cancelled(watch).await;
        Ok(())
    }
}

/// Brings changes of VMs to the directory.
struct Machines {
    directory: Arc<Directory>,
    observer: Arc<dyn Observer>,
    gate: Gate,
    metrics: Metrics,
    /// VMs that cannot be read: each is logged once.
    unreadable: HashSet<VmKey>,
}

impl Machines {
    fn take(&mut self, event: Event<VirtualMachine>) {
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
                for vm in self.directory.finish_relist() {
                    self.observer.deleted(&vm);
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
            }
        }
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
        if self
            .directory
            .vm(&key)
            .is_some_and(|known| known.uid != vm.uid)
        {
            self.delete(&key);
        }
        if let Some(vm) = self.directory.apply(vm, Instant::now()) {
            if !vm.bad_macs.is_empty() {
                tracing::debug!(vm = %key, macs = ?vm.bad_macs, "addresses that no packet can name");
            }
            self.observer.changed(&vm);
        }
    }

    fn delete(&self, key: &VmKey) {
        if let Some(vm) = self.directory.delete(key) {
            self.observer.deleted(&vm);
        }
    }
}

fn key(vm: &VirtualMachine) -> VmKey {
    VmKey::new(&vm.namespace().unwrap_or_default(), &vm.name_any())
}

/// Brings changes of configs to the directory and the agents.
struct Configs {
    directory: Arc<Directory>,
    windows: Windows,
    settings: Sender<(u64, Arc<Settings>)>,
    gate: Gate,
    metrics: Metrics,
    /// The list under way.
    listed: BTreeMap<String, Option<WolConfig>>,
    /// All configs by name; none for one that cannot be read.
    known: BTreeMap<String, Option<WolConfig>>,
}

impl Configs {
    fn take(&mut self, event: Event<DeserializeGuard<WolConfig>>) {
        match event {
            Event::Init => self.listed.clear(),
            Event::InitApply(config) => self.listed.extend([read(config)]),
            Event::InitDone => {
                let listed = mem::take(&mut self.listed);
                if self.gate.is_open() && listed == self.known {
                    return;
                }
                self.known = listed;
                self.publish();
                self.gate.open();
            }
            Event::Apply(config) => {
                self.known.extend([read(config)]);
                self.publish();
            }
            Event::Delete(config) => {
                self.known.remove(&config.name_any());
                self.publish();
            }
        }
    }

    fn publish(&self) {
        let readable: BTreeMap<String, WolConfig> = self
            .known
            .iter()
            .filter_map(|(name, config)| Some((name.clone(), config.clone()?)))
            .collect();
        let Plan {
            grants,
            settings,
            problems,
        } = plan(&readable, self.windows);
        for finding in &problems {
            let error: &dyn std::error::Error = &finding.problem;
            tracing::warn!(config = %finding.config, error, "part of a WolConfig has no effect");
        }
        if self.known.is_empty() {
            tracing::warn!("there is no WolConfig, so nothing is wakeable");
        } else {
            tracing::info!(
                configs = self.known.len(),
                ports = ?settings.udp_ports,
                "took in the WolConfigs"
            );
        }
        self.directory.set_grants(grants);
        self.settings.send_if_modified(|(generation, current)| {
            let differs = *generation == 0 || **current != settings;
            if differs {
                *generation += 1;
                *current = Arc::new(settings);
            }
            differs
        });
        self.metrics.problems(problems.len());
        self.metrics
            .unreadable(Watched::WolConfigs, self.known.len() - readable.len());
    }
}

fn read(config: DeserializeGuard<WolConfig>) -> (String, Option<WolConfig>) {
    let name = config.name_any();
    match config.0 {
        Ok(mut config) => {
            config.metadata.managed_fields = None;
            (name, Some(config))
        }
        Err(error) => {
            let error: &dyn std::error::Error = &error;
            tracing::warn!(
                config = name,
                error,
                "cannot read a WolConfig, so it allows nothing"
            );
            (name, None)
        }
    }
}
