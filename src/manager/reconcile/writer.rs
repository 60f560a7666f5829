//! Owns the writing of a config's status, and the Events about what is news in it.

use std::sync::Arc;

use kube::{
    Api, Client, ResourceExt as _,
    api::{Patch, PatchParams},
};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use tokio::time::{Instant, timeout};

use crate::{
    cluster::{PATIENCE, chain},
    crd::{WolConfig, WolConfigStatus},
    manager::{
        directory::Directory,
        events::{ConfigReason, ConfigRef, Events},
        status::{INVALID_FIELDS, SHARED_ADDRESS, applied},
        vm::VmKey,
        watch::Unreadable,
    },
    telemetry::Word,
};

/// Who owns the fields that are written here.
const MANAGER: &str = "kubevirt-wol-status";
/// The version of a config whose status is written.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) name: String,
    uid: String,
    resource_version: Option<String>,
}

impl Target {
    pub(super) fn of(config: &WolConfig, resource_version: Option<String>) -> Self {
        Self {
            name: config.name_any(),
            uid: config.uid().unwrap_or_default(),
            resource_version,
        }
    }

    pub(super) fn of_unreadable(name: &str, config: &Unreadable) -> Self {
        Self {
            name: name.into(),
            uid: config.uid.clone().unwrap_or_default(),
            resource_version: config.resource_version.clone(),
        }
    }
}

/// What came of writing a status.
#[derive(Debug)]
pub(super) enum Written {
    /// It is stored, as this resource version.
    Done(Option<String>),
    /// The config was changed, deleted or made anew since: the watch tells.
    Outdated,
    /// The API server refused it or did not answer.
    Failed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Outcome {
    Done,
    Outdated,
    Failed,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct By {
    result: Word<Outcome>,
}

/// Writes the status of configs, and tells of what is news in it.
pub struct Writer {
    api: Api<WolConfig>,
    events: Events,
    directory: Arc<Directory>,
    writes: Family<By, Counter>,
    conflicts: Gauge,
    /// The last trouble, which is told once.
    trouble: Option<String>,
}

impl Writer {
    /// A writer that finds the VMs to tell of a conflict in `directory`.
    #[must_use]
    pub fn new(client: Client, events: Events, directory: Arc<Directory>) -> Self {
        let writes = Family::<By, Counter>::default();
        for outcome in [Outcome::Done, Outcome::Outdated, Outcome::Failed] {
            drop(writes.get_or_create(&by(outcome)));
        }
        Self {
            api: Api::all(client),
            events,
            directory,
            writes,
            conflicts: Gauge::default(),
            trouble: None,
        }
    }

    /// Makes its metrics known.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "status_writes",
            "Statuses of WolConfigs written, by what came of it",
            self.writes.clone(),
        );
        registry.register(
            "mac_conflicts",
            "MAC addresses that several VMs have, so that none of them is woken; each WolConfig's count, on the leader",
            self.conflicts.clone(),
        );
    }

    /// Shows how many conflicts there are.
    pub(super) fn conflicts(&self, count: usize) {
        self.conflicts.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Shows nothing any more: another replica does.
    pub(super) fn rest(&self) {
        self.conflicts.set(0);
    }

    /// Writes the status of a config in the place of the `present` one.
    pub(super) async fn write(
        &mut self,
        target: &Target,
        present: &WolConfigStatus,
        status: &WolConfigStatus,
    ) -> Written {
        let (written, outcome) = match self.patch(target, status).await {
            Ok(Some(config)) => {
                self.trouble = None;
                let version = config.resource_version();
                self.tell(target, present, status);
                (Written::Done(version), Outcome::Done)
            }
            Ok(None) => (Written::Outdated, Outcome::Outdated),
            Err(error) => {
                self.complain(&target.name, error);
                (Written::Failed, Outcome::Failed)
            }
        };
        self.writes.get_or_create(&by(outcome)).inc();
        written
    }

    /// None where the config was changed, deleted or made anew since, so that it does not get this
    /// status.
    async fn patch(
        &self,
        target: &Target,
        status: &WolConfigStatus,
    ) -> Result<Option<WolConfig>, String> {
        // Whose field lastWake is, is written elsewhere.
        let own = WolConfigStatus {
            last_wake: None,
            ..status.clone()
        };
        let patch = Patch::Apply(applied(target.resource_version.as_deref(), &own));
        let params = PatchParams::apply(MANAGER).force();
        let answer = self.api.patch_status(&target.name, &params, &patch);
        match timeout(crate::pace::of(PATIENCE), answer).await {
            Ok(Ok(config)) => Ok(Some(config)),
            Ok(Err(kube::Error::Api(error))) if matches!(error.code, 404 | 409) => Ok(None),
            Ok(Err(error)) => Err(chain(&error)),
            Err(_) => Err(format!("no answer within {:?}", crate::pace::of(PATIENCE))),
        }
    }

    fn complain(&mut self, config: &str, error: String) {
        if self.trouble.as_ref() != Some(&error) {
            tracing::warn!(
                config,
                error,
                "cannot write the status of a WolConfig; wakes are served nevertheless"
            );
            self.trouble = Some(error);
        }
    }

    /// Tells of what the status says for the first time and somebody has to mend: on the config,
    /// and on the VMs, as far as there is room for so many Events.
    fn tell(&self, target: &Target, present: &WolConfigStatus, status: &WolConfigStatus) {
        let now = Instant::now().into_std();
        let about = ConfigRef {
            name: (*target.name).into(),
            uid: (*target.uid).into(),
            resource_version: target
                .resource_version
                .as_deref()
                .unwrap_or_default()
                .into(),
        };
        for (reason, event) in [
            (SHARED_ADDRESS, ConfigReason::MacConflict),
            (INVALID_FIELDS, ConfigReason::Rejected),
        ] {
            let (before, message) = (message(present, reason), message(status, reason));
            if let Some(message) = message.filter(|message| before != Some(message)) {
                self.events.config(&about, event, message.into(), now);
            }
        }
        let news = status.conflicts.iter();
        for conflict in news.filter(|conflict| !present.conflicts.contains(conflict)) {
            let vms = conflict.vms.join(" and ");
            let message = format!(
                "{} is the MAC address of {vms}, so that a packet wakes none of them; give each its \
                 own, or name the one that is meant in explicitMappings of a WolConfig",
                conflict.mac_address
            );
            let keys = conflict.vms.iter().filter_map(|vm| vm.split_once('/'));
            let keys = keys.map(|(namespace, name)| VmKey::new(namespace, name));
            for vm in keys.filter_map(|key| self.directory.vm(&key)) {
                self.events.conflict(&vm, message.clone(), now);
            }
        }
    }
}

fn by(outcome: Outcome) -> By {
    By {
        result: Word(outcome),
    }
}

/// What the condition with this reason says.
fn message<'a>(status: &'a WolConfigStatus, reason: &str) -> Option<&'a str> {
    let mut conditions = status.conditions.iter();
    let own = conditions.find(|condition| condition.reason == reason)?;
    Some(&own.message)
}
