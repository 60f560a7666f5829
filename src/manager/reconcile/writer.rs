//! Owns the writing of a config's status, and the Events about what is news in it.

use std::{sync::Arc, time::Duration};

use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};
use serde_json::json;
use tokio::time::{Instant, timeout};

use crate::{
    cluster::chain,
    crd::{WolConfig, WolConfigStatus},
    manager::{
        directory::Directory,
        events::{ConfigReason, ConfigRef, Events},
        status::INVALID_FIELDS,
        vm::VmKey,
    },
    telemetry::Word,
};

/// Who owns the fields that are written here.
const MANAGER: &str = "kubevirt-wol-status";
/// A call may take so long.
const CALL: Duration = Duration::from_secs(10);

/// What came of writing a status.
#[derive(Debug)]
pub(super) enum Written {
    /// The config as it is stored now.
    Done(Box<WolConfig>),
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
}

impl Writer {
    /// A writer that finds the VMs to tell of a conflict in `directory`.
    #[must_use]
    pub fn new(client: Client, events: Events, directory: Arc<Directory>) -> Self {
        let writes = Family::default();
        for outcome in [Outcome::Done, Outcome::Outdated, Outcome::Failed] {
            drop(Family::<By, Counter>::get_or_create(&writes, &by(outcome)));
        }
        Self {
            api: Api::all(client),
            events,
            directory,
            writes,
        }
    }

    /// Makes its metric known.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "status_writes",
            "Statuses of WolConfigs written, by what came of it",
            self.writes.clone(),
        );
    }

    /// Writes the status of a config.
    pub(super) async fn write(&self, config: &WolConfig, status: &WolConfigStatus) -> Written {
        let written = self.patch(config, status).await;
        let outcome = match &written {
            Written::Done(written) => {
                self.tell(config, written, status);
                Outcome::Done
            }
            Written::Outdated => Outcome::Outdated,
            Written::Failed => Outcome::Failed,
        };
        self.writes.get_or_create(&by(outcome)).inc();
        written
    }

    async fn patch(&self, config: &WolConfig, status: &WolConfigStatus) -> Written {
        let Some(name) = config.metadata.name.as_deref() else {
            return Written::Outdated;
        };
        // Whose field lastWake is, is written elsewhere.
        let own = WolConfigStatus {
            last_wake: None,
            ..status.clone()
        };
        let patch = json!({
            "apiVersion": "wol.pillon.org/v1beta1",
            "kind": "WolConfig",
            // A config that was changed or made anew since does not get this status.
            "metadata": {"resourceVersion": config.metadata.resource_version},
            "status": own,
        });
        let (params, patch) = (PatchParams::apply(MANAGER).force(), Patch::Apply(patch));
        let error = match timeout(CALL, self.api.patch_status(name, &params, &patch)).await {
            Ok(Ok(written)) => return Written::Done(Box::new(written)),
            Ok(Err(kube::Error::Api(error))) if matches!(error.code, 404 | 409) => {
                return Written::Outdated;
            }
            Ok(Err(error)) => chain(&error),
            Err(_) => format!("no answer within {CALL:?}"),
        };
        tracing::warn!(
            config = name,
            error,
            "cannot write the status of a WolConfig"
        );
        Written::Failed
    }

    /// Tells of what the status says for the first time and somebody has to mend: on the config,
    /// and on the VMs.
    fn tell(&self, before: &WolConfig, config: &WolConfig, status: &WolConfigStatus) {
        let now = Instant::now().into_std();
        let events = &self.events;
        let text = |text: &Option<String>| text.as_deref().unwrap_or_default().into();
        let about = ConfigRef {
            name: text(&config.metadata.name),
            uid: text(&config.metadata.uid),
            resource_version: text(&config.metadata.resource_version),
        };
        let known = before.status.clone().unwrap_or_default();
        for conflict in &status.conflicts {
            if known.conflicts.contains(conflict) {
                continue;
            }
            let vms = conflict.vms.join(" and ");
            let message = format!(
                "{} is the MAC address of {vms}, so that a packet wakes none of them; give each its \
                 own, or name the one that is meant in explicitMappings of a WolConfig",
                conflict.mac_address
            );
            events.config(&about, ConfigReason::MacConflict, message.clone(), now);
            let keys = conflict.vms.iter().filter_map(|vm| vm.split_once('/'));
            let keys = keys.map(|(namespace, name)| VmKey::new(namespace, name));
            for vm in keys.filter_map(|key| self.directory.vm(&key)) {
                events.conflict(&vm, message.clone(), now);
            }
        }
        if let Some(message) = rejected(status)
            && rejected(&known) != Some(message)
        {
            events.config(&about, ConfigReason::Rejected, message.into(), now);
        }
    }
}

fn by(outcome: Outcome) -> By {
    By {
        result: Word(outcome),
    }
}

fn rejected(status: &WolConfigStatus) -> Option<&str> {
    let mut conditions = status.conditions.iter();
    let own = conditions.find(|condition| condition.reason == INVALID_FIELDS)?;
    Some(&own.message)
}
