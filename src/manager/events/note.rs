//! Owns [`Note`]: what is told of which object, and the Kubernetes Event that says so. Pure.

use std::sync::Arc;

use k8s_openapi::{
    api::core::v1::{Event, EventSource, ObjectReference},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
    jiff::Timestamp,
};
use serde_json::{Value, json};

use super::{ConfigReason, ConfigRef, Reason};
use crate::manager::vm::Vm;

/// Who writes them.
const COMPONENT: &str = "kubevirt-wol";
/// Where the Events of objects without a namespace are.
const CLUSTER_EVENTS: &str = "default";
/// Bytes of an Event's message that the API server accepts.
const MAX_MESSAGE: usize = 1_024;
/// Characters of the object's name in the name of an Event, which may have 253 in all.
const MAX_NAME: usize = 230;

/// What is told, and of what.
#[derive(Debug, Clone)]
pub(super) enum About {
    Vm(Arc<Vm>, Reason),
    Config(ConfigRef, ConfigReason),
}

/// Names one kind of trouble with one object: its uid and the reason.
pub(super) type Key = (Arc<str>, &'static str);

/// On its way to the API server.
#[derive(Debug)]
pub(super) struct Note {
    pub(super) about: About,
    pub(super) message: String,
    /// How often it happened since it was told last.
    pub(super) times: u32,
}

impl About {
    pub(super) fn key(&self) -> Key {
        (self.uid().clone(), self.reason())
    }

    /// Whether each one is worth an Event of its own, and all others may wait for it.
    pub(super) fn is_start(&self) -> bool {
        matches!(self, Self::Vm(_, Reason::Started))
    }

    /// Whether it is said once for all.
    pub(super) fn is_hint(&self) -> bool {
        matches!(self, Self::Vm(_, Reason::Hint))
    }

    fn uid(&self) -> &Arc<str> {
        match self {
            Self::Vm(vm, _) => &vm.uid,
            Self::Config(config, _) => &config.uid,
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::Vm(_, reason) => reason.as_str(),
            Self::Config(_, reason) => reason.as_str(),
        }
    }

    fn object_name(&self) -> &str {
        match self {
            Self::Vm(vm, _) => &vm.key.name,
            Self::Config(config, _) => &config.name,
        }
    }

    /// The namespace that the Event is in.
    pub(super) fn namespace(&self) -> &str {
        match self {
            Self::Vm(vm, _) => &vm.key.namespace,
            Self::Config(..) => CLUSTER_EVENTS,
        }
    }

    fn is_normal(&self) -> bool {
        matches!(
            self,
            Self::Vm(_, Reason::Started | Reason::Deferred | Reason::Hint)
        )
    }

    fn reference(&self) -> ObjectReference {
        let (api_version, kind, namespace, resource_version) = match self {
            Self::Vm(vm, _) => (
                "kubevirt.io/v1",
                "VirtualMachine",
                Some(vm.key.namespace.to_string()),
                &vm.resource_version,
            ),
            Self::Config(config, _) => (
                "wol.pillon.org/v1beta1",
                "WolConfig",
                None,
                &config.resource_version,
            ),
        };
        ObjectReference {
            api_version: Some(api_version.into()),
            kind: Some(kind.into()),
            name: Some(self.object_name().into()),
            namespace,
            uid: Some(self.uid().to_string()),
            resource_version: Some(resource_version.to_string()),
            ..ObjectReference::default()
        }
    }

    /// The same for every replica that decided the same on the same version of the object; a hint
    /// has one name for ever, so that the API server itself keeps it to one.
    pub(super) fn event_name(&self) -> String {
        let mut name: String = self.object_name().chars().take(MAX_NAME).collect();
        name.truncate(name.trim_end_matches(['-', '.']).len());
        let version = match self {
            Self::Vm(vm, _) => &*vm.resource_version,
            Self::Config(config, _) => &config.resource_version,
        };
        let version = (!self.is_hint()).then_some(version);
        let hash = [&**self.uid(), self.reason()]
            .into_iter()
            .chain(version)
            .flat_map(|part| part.bytes().chain([0]))
            .fold(FNV_OFFSET, |hash, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(FNV_PRIME)
            });
        format!("{name}.{hash:016x}")
    }
}

impl Note {
    /// The message, cut to what the API server accepts.
    fn message(&self) -> &str {
        let mut end = self.message.len().min(MAX_MESSAGE);
        while !self.message.is_char_boundary(end) {
            end -= 1;
        }
        &self.message[..end]
    }

    /// The Event of something that happened `count` times since `first`.
    pub(super) fn event(&self, replica: &str, first: Timestamp, count: u32) -> Event {
        let now = Timestamp::now().max(first);
        let kind = if self.about.is_normal() {
            "Normal"
        } else {
            "Warning"
        };
        Event {
            metadata: ObjectMeta {
                name: Some(self.about.event_name()),
                namespace: Some(self.about.namespace().into()),
                ..ObjectMeta::default()
            },
            involved_object: self.about.reference(),
            type_: Some(kind.into()),
            reason: Some(self.about.reason().into()),
            message: Some(self.message().into()),
            count: Some(i32::try_from(count).unwrap_or(i32::MAX)),
            first_timestamp: Some(Time(first)),
            last_timestamp: Some(Time(now)),
            source: Some(EventSource {
                component: Some(COMPONENT.into()),
                host: None,
            }),
            reporting_component: Some(COMPONENT.into()),
            reporting_instance: Some(replica.into()),
            ..Event::default()
        }
    }

    /// What changes in an Event that was written before, besides its count.
    pub(super) fn news(&self) -> Value {
        json!({
            "lastTimestamp": Time(Timestamp::now()),
            "message": self.message(),
        })
    }
}

/// FNV-1a, 64 bits: all replicas, whatever their version, must come to the same name.
const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manager::{
        events::tests::{config, machine},
        vm::RunStrategy,
    };

    fn note(name: &str, resource_version: &str, reason: Reason) -> Note {
        let vm = machine(name, resource_version, RunStrategy::Manual);
        Note {
            about: About::Vm(vm, reason),
            message: "é".repeat(MAX_MESSAGE),
            times: 1,
        }
    }

    fn event(note: &Note, replica: &str) -> Event {
        note.event(replica, Timestamp::UNIX_EPOCH, 1)
    }

    #[test]
    fn replicas_that_decide_the_same_write_one_event() {
        let name = |note: &Note, replica| {
            let event = event(note, replica);
            event.metadata.name.expect("it has a name")
        };
        let started = note("db", "7", Reason::Started);
        assert_eq!(name(&started, "a"), name(&started, "b"));
        // Fixed for ever: replicas of two versions must agree.
        assert_eq!(name(&started, "a"), "db.461bb86de391ba51");
        for other in [
            note("db", "8", Reason::Started),
            note("db", "7", Reason::Refused),
        ] {
            assert_ne!(name(&started, "a"), name(&other, "a"));
        }
    }

    #[test]
    fn a_hint_has_one_name_whatever_version_of_the_vm_it_was_decided_on() {
        let name = |version| note("db", version, Reason::Hint).about.event_name();
        assert_eq!(name("7"), name("8"));
    }

    #[test]
    fn names_and_messages_fit_what_the_api_server_accepts() {
        let long = format!("{}-.-tail", "a".repeat(MAX_NAME - 2));
        let event = event(&note(&long, "7", Reason::Started), "a");
        let name = event.metadata.name.expect("it has a name");
        assert!(name.len() <= 253 && !name.contains("-."), "{name}");
        assert_eq!(
            event.message.map(|message| message.len()),
            Some(MAX_MESSAGE)
        );
    }

    #[test]
    fn the_event_of_a_config_is_in_the_namespace_for_what_has_none() {
        let note = Note {
            about: About::Config(config(), ConfigReason::MacConflict),
            message: "two VMs have one address".into(),
            times: 3,
        };
        let event = note.event("a", Timestamp::UNIX_EPOCH, 3);
        assert_eq!(event.metadata.namespace.as_deref(), Some("default"));
        let object = event.involved_object;
        assert_eq!(object.namespace, None);
        assert_eq!(
            object.api_version.as_deref(),
            Some("wol.pillon.org/v1beta1")
        );
        assert_eq!(object.kind.as_deref(), Some("WolConfig"));
        assert_eq!(event.reason.as_deref(), Some("MACConflict"));
        assert_eq!(event.type_.as_deref(), Some("Warning"));
        assert_eq!(event.count, Some(3));
    }
}
