//! Owns the watches of `VirtualMachine` and `WolConfig`, which keep the directory and the agents'
//! settings up to date for as long as the manager runs, whatever the API server does.

mod follow;
mod metrics;

use follow::News;

use std::{
    collections::{BTreeMap, HashSet},
    mem,
    sync::Arc,
    time::Instant,
};

use kube::{Api, Client, ResourceExt as _, core::DeserializeGuard, runtime::watcher::Event};
use tokio::sync::watch::Sender;
use tokio_util::sync::CancellationToken;

use crate::{
    admin::Gate,
    crd::WolConfig,
    kubevirt::VirtualMachine,
    manager::{
        config::{Finding, Plan, Windows, plan},
        directory::{Directory, Size},
        vm::{Vm, VmKey},
    },
    settings::Settings,
};

pub use metrics::{Metrics, Watched};

/// Who wants to know of each change of a VM, after the directory has it. Called from the watch:
/// must return at once.
pub trait Observer: Send + Sync {
    /// The VM is new, or not as it was before.
    fn changed(&self, before: Option<&Arc<Vm>>, vm: &Arc<Vm>);
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
    /// Is told whether the cluster has KubeVirt.
    pub kubevirt: Sender<bool>,
    /// Where the configs go that are in force.
    pub in_force: Sender<Arc<InForce>>,
    /// Ends them.
    pub token: CancellationToken,
}

impl Watch {
    /// Keeps the directory's VMs up to date and tells `observers` of each change. `gate` opens with
    /// the first complete list; a cluster without KubeVirt has an empty one.
    ///
    /// # Errors
    ///
    /// None: it ends when the token is cancelled, and not before.
    pub async fn virtual_machines(
        self,
        observers: Vec<Arc<dyn Observer>>,
        gate: Gate,
    ) -> anyhow::Result<()> {
        let mut machines = Machines {
            directory: self.directory,
            observers,
            served: self.kubevirt,
            gate,
            metrics: self.metrics.clone(),
            unreadable: HashSet::new(),
        };
        let api = Api::<VirtualMachine>::all(self.client);
        let watch = follow::follow(api, Watched::VirtualMachines, &self.metrics, |event| {
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
            in_force: self.in_force,
            gate,
            metrics: self.metrics.clone(),
            listed: BTreeMap::new(),
            known: BTreeMap::new(),
        };
        let api = Api::<DeserializeGuard<WolConfig>>::all(self.client);
        let watch = follow::follow(api, Watched::WolConfigs, &self.metrics, |event| {
            configs.take(event);
        });
        self.token.run_until_cancelled(watch).await;
        Ok(())
    }
}

/// Brings changes of VMs to the directory.
struct Machines {
    directory: Arc<Directory>,
    observers: Vec<Arc<dyn Observer>>,
    /// Whether the API server knows VMs.
    served: Sender<bool>,
    gate: Gate,
    metrics: Metrics,
    /// VMs that cannot be read: each is logged once.
    unreadable: HashSet<VmKey>,
}

impl Machines {
    fn take(&mut self, news: News<VirtualMachine>) {
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
        if let Some(vm) = self.directory.apply(vm, Instant::now()) {
            if !vm.bad_macs.is_empty() {
                tracing::debug!(vm = %key, macs = ?vm.bad_macs, "addresses that no packet can name");
            }
            for observer in &self.observers {
                observer.changed(before.as_ref(), &vm);
            }
        }
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

/// The configs that are in force, and what is wrong with them.
#[derive(Debug, Default)]
pub struct InForce {
    /// All that can be read, by name.
    pub configs: BTreeMap<String, WolConfig>,
    /// What is wrong with them.
    pub findings: Vec<Finding>,
}

/// Brings changes of configs to the directory and the agents.
struct Configs {
    directory: Arc<Directory>,
    windows: Windows,
    settings: Sender<(u64, Arc<Settings>)>,
    in_force: Sender<Arc<InForce>>,
    gate: Gate,
    metrics: Metrics,
    /// The list under way.
    listed: BTreeMap<String, Option<WolConfig>>,
    /// All configs by name; none for one that cannot be read.
    known: BTreeMap<String, Option<WolConfig>>,
}

impl Configs {
    fn take(&mut self, news: News<DeserializeGuard<WolConfig>>) {
        match news {
            News::Absent => self.replace(BTreeMap::new()),
            News::Event(Event::Init) => self.listed.clear(),
            News::Event(Event::InitApply(config)) => self.listed.extend([read(config)]),
            News::Event(Event::InitDone) => {
                let listed = mem::take(&mut self.listed);
                self.replace(listed);
            }
            News::Event(Event::Apply(config)) => {
                let (name, config) = read(config);
                let before = self.known.insert(name, config.clone());
                self.publish(!is_same_spec(before.flatten().as_ref(), config.as_ref()));
            }
            News::Event(Event::Delete(config)) => {
                self.known.remove(&config.name_any());
                self.publish(true);
            }
        }
    }

    /// The list is complete.
    fn replace(&mut self, listed: BTreeMap<String, Option<WolConfig>>) {
        if self.gate.is_open() && listed == self.known {
            return;
        }
        self.known = listed;
        self.publish(true);
        self.gate.open();
    }

    /// Puts the configs into force: fetched by the watch, planned by [`plan`], applied to the
    /// directory and the agents. Where only a status changed, there is nothing to apply.
    fn publish(&self, apply: bool) {
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
        if apply {
            self.log(&problems, &settings);
            self.directory.set_grants(grants);
            self.settings.send_if_modified(|(generation, current)| {
                let differs = *generation == 0 || **current != settings;
                if differs {
                    *generation += 1;
                    *current = Arc::new(settings);
                }
                differs
            });
        }
        self.metrics.problems(problems.len());
        self.metrics
            .unreadable(Watched::WolConfigs, self.known.len() - readable.len());
        self.in_force.send_replace(Arc::new(InForce {
            configs: readable,
            findings: problems,
        }));
    }

    fn log(&self, problems: &[Finding], settings: &Settings) {
        for finding in problems {
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
    }
}

/// Whether nothing but what managers write has changed.
fn is_same_spec(before: Option<&WolConfig>, after: Option<&WolConfig>) -> bool {
    match (before, after) {
        (Some(before), Some(after)) => {
            before.metadata.uid == after.metadata.uid
                && before.metadata.generation == after.metadata.generation
                && before.spec == after.spec
        }
        (before, after) => before.is_none() && after.is_none(),
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
