//! Owns [`Configs`]: puts `WolConfig`s into force as they come, for the directory and the agents.

use std::{collections::BTreeMap, mem, sync::Arc};

use kube::{ResourceExt as _, core::DeserializeGuard, runtime::watcher::Event};
use tokio::sync::watch::Sender;

use super::{Metrics, Watched, follow::News};
use crate::{
    admin::Gate,
    crd::WolConfig,
    manager::{
        config::{Finding, Plan, Windows, plan},
        directory::Directory,
        grant::Grant,
    },
    settings::Settings,
};

/// The configs that are in force, and what is wrong with them.
#[derive(Debug, Default)]
pub struct InForce {
    /// All that can be read, by name.
    pub configs: BTreeMap<String, Arc<WolConfig>>,
    /// All others.
    pub unreadable: BTreeMap<String, Arc<Unreadable>>,
    /// One per usable config.
    pub grants: Arc<[Grant]>,
    /// What is wrong with them.
    pub findings: Arc<[Finding]>,
}

/// A config that cannot be read, such as one with a mode of a newer version: it allows nothing.
#[derive(Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// Tells it from another one of the same name.
    pub uid: Option<String>,
    /// Its version.
    pub resource_version: Option<String>,
    /// The generation of its spec.
    pub generation: Option<i64>,
    /// Why, for people.
    pub error: String,
}

type Known = Result<Arc<WolConfig>, Arc<Unreadable>>;

/// Brings changes of configs to the directory and the agents.
pub(super) struct Configs {
    pub(super) directory: Arc<Directory>,
    pub(super) windows: Windows,
    pub(super) settings: Sender<(u64, Arc<Settings>)>,
    pub(super) in_force: Sender<Arc<InForce>>,
    pub(super) gate: Gate,
    pub(super) metrics: Metrics,
    /// The list under way.
    pub(super) listed: BTreeMap<String, Known>,
    /// All configs by name.
    pub(super) known: BTreeMap<String, Known>,
}

impl Configs {
    pub(super) fn take(&mut self, news: News<DeserializeGuard<WolConfig>>) {
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
                self.publish(!is_same_spec(before.as_ref(), &config));
            }
            News::Event(Event::Delete(config)) => {
                self.known.remove(&config.name_any());
                self.publish(true);
            }
        }
    }

    /// The list is complete.
    fn replace(&mut self, listed: BTreeMap<String, Known>) {
        if self.gate.is_open() && listed == self.known {
            return;
        }
        self.known = listed;
        self.publish(true);
        self.gate.open();
    }

    /// Puts the configs into force: fetched by the watch, planned by [`plan`], applied to the
    /// directory and the agents. Where only a status changed, there is nothing to plan or apply.
    fn publish(&self, apply: bool) {
        let (mut configs, mut unreadable) = (BTreeMap::new(), BTreeMap::new());
        for (name, config) in &self.known {
            match config.clone() {
                Ok(config) => drop(configs.insert(name.clone(), config)),
                Err(error) => drop(unreadable.insert(name.clone(), error)),
            }
        }
        self.metrics
            .unreadable(Watched::WolConfigs, unreadable.len());
        let (grants, findings) = if apply {
            let passwords = self.directory.passwords();
            self.apply(plan(&configs, self.windows, &passwords))
        } else {
            let before = self.in_force.borrow();
            (before.grants.clone(), before.findings.clone())
        };
        self.in_force.send_replace(Arc::new(InForce {
            configs,
            unreadable,
            grants,
            findings,
        }));
    }

    fn apply(&self, plan: Plan) -> (Arc<[Grant]>, Arc<[Finding]>) {
        let Plan {
            grants,
            settings,
            problems,
        } = plan;
        self.log(&problems, &settings);
        self.metrics.problems(problems.len());
        self.directory.set_grants(grants.clone());
        self.settings.send_if_modified(|(generation, current)| {
            let differs = *generation == 0 || **current != settings;
            if differs {
                *generation += 1;
                *current = Arc::new(settings);
            }
            differs
        });
        (grants, problems.into())
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
fn is_same_spec(before: Option<&Known>, after: &Known) -> bool {
    match (before, after) {
        (Some(Ok(before)), Ok(after)) => {
            before.metadata.uid == after.metadata.uid
                && before.metadata.generation == after.metadata.generation
                && before.spec == after.spec
        }
        (Some(Err(_)), Err(_)) => true,
        _ => false,
    }
}

fn read(config: DeserializeGuard<WolConfig>) -> (String, Known) {
    let name = config.name_any();
    match config.0 {
        Ok(mut config) => {
            config.metadata.managed_fields = None;
            (name, Ok(Arc::new(config)))
        }
        Err(invalid) => {
            let (meta, error) = (invalid.metadata, invalid.error);
            tracing::warn!(
                config = name,
                error,
                "cannot read a WolConfig, so it allows nothing"
            );
            let unreadable = Unreadable {
                uid: meta.uid,
                resource_version: meta.resource_version,
                generation: meta.generation,
                error,
            };
            (name, Err(Arc::new(unreadable)))
        }
    }
}
