//! Owns the watches of `VirtualMachine`, `WolConfig` and the SecureOn Secrets, which keep the
//! directory and the agents' settings up to date for as long as the manager runs, whatever the API server does.

mod configs;
mod contact;
mod follow;
mod link;
mod machines;
mod manners;
mod metrics;
mod secrets;
mod stale;

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
    time::Duration,
};

use kube::{Api, Client, core::DeserializeGuard, runtime::watcher::Config};
use prometheus_client::registry::Registry;
use tokio::sync::watch::Sender;
use tokio_util::sync::CancellationToken;

use crate::{
    admin::{Gate, Liveness},
    crd::WolConfig,
    kubevirt::VirtualMachine,
    manager::{config::Windows, directory::Directory, pulse::Pulse, vm::Vm},
    settings::Settings,
};

use configs::Configs;
pub use configs::{InForce, Unreadable};
pub use contact::Contact;
use follow::Marks;
use machines::Machines;
pub use metrics::{Metrics, Watched};

/// Who wants to know of each change of a VM, after the directory has it. Called from the watch:
/// must return at once.
pub trait Observer: Send + Sync {
    /// The VM is new, or not as it was before.
    fn changed(&self, before: Option<&Arc<Vm>>, vm: &Arc<Vm>);
    /// The VM is gone; this is what was last known of it.
    fn deleted(&self, vm: &Arc<Vm>);
}

/// What all watches need.
#[derive(Clone)]
pub struct Watch {
    /// The way to the API server.
    pub client: Client,
    /// What the watches fill.
    pub directory: Arc<Directory>,
    /// Where they note that they are in contact.
    pub contact: Contact,
    /// Whether the process stood still.
    pub pulse: Arc<Pulse>,
    /// What they count.
    pub metrics: Metrics,
    /// Is told whether the cluster has KubeVirt.
    pub kubevirt: Sender<bool>,
    /// Is told which configs are out of date.
    pub stale: Sender<BTreeSet<Arc<str>>>,
    /// Where the configs go that are in force.
    pub in_force: Sender<Arc<InForce>>,
    /// Is told when the directory has other passwords.
    pub passwords: Sender<()>,
    /// Who notices when one of them hangs.
    pub liveness: Liveness,
    /// Ends them.
    pub token: CancellationToken,
}

/// A watch that has not taken a turn for so long hangs; it takes one every few seconds.
const STUCK_AFTER: Duration = Duration::from_secs(30);

impl Watch {
    /// An empty directory, and nothing known of the cluster.
    #[must_use]
    pub fn new(
        client: Client,
        registry: &mut Registry,
        liveness: Liveness,
        token: CancellationToken,
    ) -> Self {
        let contact = Contact::new(contact::now());
        contact.register(registry);
        Self {
            client,
            directory: Arc::new(Directory::new()),
            contact,
            pulse: Pulse::new(),
            metrics: Metrics::register(registry),
            // Until the first list says so.
            kubevirt: Sender::new(true),
            stale: Sender::default(),
            in_force: Sender::default(),
            passwords: Sender::default(),
            liveness,
            token,
        }
    }

    fn marks(&self, task: &'static str) -> Marks {
        Marks {
            metrics: self.metrics.clone(),
            contact: self.contact.clone(),
            heart: self.liveness.task(task, STUCK_AFTER),
        }
    }

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
        let marks = self.marks("virtual machines");
        let mut machines = Machines {
            directory: self.directory,
            observers,
            served: self.kubevirt,
            gate,
            metrics: self.metrics,
            interruptions: (self.contact.clone(), self.pulse),
            unreadable: HashSet::new(),
        };
        let what = Watched::VirtualMachines;
        let api = Api::<VirtualMachine>::all(self.contact.noted_by(self.client, what));
        let watch = follow::follow(api, Config::default(), what, &marks, |event| {
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
        let marks = self.marks("configs");
        let mut configs = Configs {
            directory: self.directory,
            windows,
            settings,
            in_force: self.in_force,
            gate,
            metrics: self.metrics,
            listed: BTreeMap::new(),
            known: BTreeMap::new(),
        };
        let what = Watched::WolConfigs;
        let client = self.contact.noted_by(self.client, what);
        let api = Api::<DeserializeGuard<WolConfig>>::all(client);
        let watch = follow::follow(api, Config::default(), what, &marks, |event| {
            configs.take(event);
        });
        self.token.run_until_cancelled(watch).await;
        Ok(())
    }
}
