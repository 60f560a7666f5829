//! Owns what the owner of a VM reads in `kubectl describe vm`: who woke it, or why it stays off.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use k8s_openapi::{
    api::core::v1::{Event, EventSource, ObjectReference},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
    jiff::Timestamp,
};
use kube::{Api, Client, api::PostParams};
use tokio::{sync::mpsc, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    dedup::{Verdict, Window},
    manager::{
        intents::{Settled, Waiting},
        metrics::{Metrics, Told},
        report::Report,
        vm::{Power, RunStrategy, Vm},
    },
    wake::Outcome,
};

/// Who writes them.
const COMPONENT: &str = "kubevirt-wol";
/// Events that wait to be written; past this many they are dropped.
const MAX_WAITING: usize = 256;
/// The same trouble with the same VM is told once in this time.
const REPEATED_AFTER: Duration = Duration::from_secs(60);
/// Troubles remembered for that.
const MAX_TROUBLES: usize = 4_096;
/// Writing one may take so long.
const WRITTEN_WITHIN: Duration = Duration::from_secs(5);
/// What waits at the end is written within this time.
const FLUSHED_WITHIN: Duration = Duration::from_secs(2);
/// Bytes of an Event's message that the API server accepts.
const MAX_MESSAGE: usize = 1_024;
/// Characters of the VM's name in the name of an Event, which may have 253 in all.
const MAX_NAME: usize = 230;

/// What happened to a VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// It was started, or unpaused.
    Started,
    /// It cannot be started yet, and will be.
    Deferred,
    /// A start is refused or would change nothing.
    Refused,
    /// It could not be started in time.
    Expired,
    /// A packet named it, but may not wake it.
    Ignored,
    /// A packet named it, and another VM.
    Ambiguous,
}

impl Reason {
    /// What `kubectl` shows in its column.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Started => "WakeOnLanStarted",
            Self::Deferred => "WakeOnLanDeferred",
            Self::Refused => "WakeOnLanRefused",
            Self::Expired => "WakeOnLanExpired",
            Self::Ignored => "WakeOnLanIgnored",
            Self::Ambiguous => "WakeOnLanAmbiguous",
        }
    }
}

#[derive(Debug)]
struct Note {
    vm: Arc<Vm>,
    reason: Reason,
    message: String,
}

/// The troubles told moments ago, by VM.
type Troubles = Window<(Arc<str>, Reason)>;

/// Takes Events in without waiting.
#[derive(Debug, Clone)]
pub struct Events {
    queue: mpsc::Sender<Note>,
    troubles: Arc<Mutex<Troubles>>,
    metrics: Metrics,
}

/// Writes what [`Events`] took in.
pub struct Scribe {
    client: Client,
    queue: mpsc::Receiver<Note>,
    replica: Arc<str>,
    metrics: Metrics,
}

impl Events {
    /// Makes the two ends of a bounded queue.
    #[must_use]
    pub fn new(client: Client, replica: Arc<str>, metrics: Metrics) -> (Self, Scribe) {
        let (sender, queue) = mpsc::channel(MAX_WAITING);
        let events = Self {
            queue: sender,
            troubles: Arc::new(Mutex::new(Window::new(REPEATED_AFTER, MAX_TROUBLES))),
            metrics: metrics.clone(),
        };
        let scribe = Scribe {
            client,
            queue,
            replica,
            metrics,
        };
        (events, scribe)
    }

    /// Tells of a decision, where the owner of the VM should know it.
    pub fn settled(&self, settled: &Settled, now: Instant) {
        let Settled { vm, report, .. } = settled;
        let by = packet(report);
        let (reason, message) = match settled.outcome {
            Outcome::Started if vm.power == Power::Paused => {
                (Reason::Started, format!("unpaused by {by}"))
            }
            Outcome::Started => {
                let hint = if vm.strategy == RunStrategy::Halted {
                    ". Its runStrategy was Halted, which a start turns into Always: KubeVirt will \
                     restart it when its guest powers off. With Manual or RerunOnFailure it would \
                     stay off until the next packet"
                } else {
                    ""
                };
                (Reason::Started, format!("woken by {by}{hint}"))
            }
            Outcome::Stuck | Outcome::Unsupported | Outcome::Forbidden => (
                Reason::Refused,
                format!("not started by {by}: {}", settled.message),
            ),
            Outcome::Expired => (
                Reason::Expired,
                format!("not started by {by}: {}", settled.message),
            ),
            _ => return,
        };
        self.tell(vm, reason, message, now);
    }

    /// Tells that a wake takes longer. Never takes the last room from what is decided.
    pub fn deferred(&self, Waiting { report, vm, why }: &Waiting, now: Instant) {
        if self.queue.capacity() < MAX_WAITING / 2 {
            return self.metrics.told(Told::Dropped);
        }
        let by = packet(report);
        let message = format!("will be started by {by} when that is possible: {why}");
        self.tell(vm, Reason::Deferred, message, now);
    }

    /// Tells that a packet named a VM that it may not wake.
    pub fn ignored(&self, vm: &Arc<Vm>, report: &Report, why: &str, now: Instant) {
        let message = format!("not woken by {}: {why}", packet(report));
        self.tell(vm, Reason::Ignored, message, now);
    }

    /// Tells that a packet named several VMs, of which this is one.
    pub fn ambiguous(&self, vm: &Arc<Vm>, report: &Report, why: &str, now: Instant) {
        let message = format!("not woken by {}: {why}", packet(report));
        self.tell(vm, Reason::Ambiguous, message, now);
    }

    fn tell(&self, vm: &Arc<Vm>, reason: Reason, message: String, now: Instant) {
        let repeated = reason != Reason::Started && {
            let mut troubles = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
            troubles.admit((vm.uid.clone(), reason), now) == Verdict::Repeat
        };
        let vm = vm.clone();
        if repeated
            || self
                .queue
                .try_send(Note {
                    vm,
                    reason,
                    message,
                })
                .is_err()
        {
            self.metrics.told(Told::Dropped);
        }
    }
}

/// Names a packet: `a packet from 10.0.0.7 on eth0 of node-3`.
fn packet(Report { wake, node, .. }: &Report) -> String {
    let on = if wake.origin.interface.is_empty() {
        ", heard by"
    } else {
        " of"
    };
    format!("a packet from {}{on} {node}", wake.origin)
}

impl Scribe {
    /// Writes Events until `end` is cancelled and what waits then is written.
    ///
    /// # Errors
    ///
    /// None: an Event that cannot be written is counted.
    pub async fn run(mut self, end: CancellationToken) -> anyhow::Result<()> {
        while let Some(Some(note)) = end.run_until_cancelled(self.queue.recv()).await {
            self.write(&note).await;
        }
        self.queue.close();
        let flush = async {
            while let Some(note) = self.queue.recv().await {
                self.write(&note).await;
            }
        };
        if timeout(FLUSHED_WITHIN, flush).await.is_err() {
            tracing::warn!("some Events on virtual machines could not be written before the end");
        }
        Ok(())
    }

    async fn write(&self, note: &Note) {
        let api = Api::<Event>::namespaced(self.client.clone(), &note.vm.key.namespace);
        let event = event(note, &self.replica, Timestamp::now());
        let params = PostParams::default();
        let result = match timeout(WRITTEN_WITHIN, api.create(&params, &event)).await {
            Ok(Ok(_)) => Told::Written,
            Ok(Err(kube::Error::Api(status))) if status.code == 409 => Told::Known,
            Ok(Err(error)) => {
                let error: &dyn std::error::Error = &error;
                tracing::debug!(vm = %note.vm.key, error, "cannot write an Event");
                Told::Failed
            }
            Err(_) => Told::Failed,
        };
        self.metrics.told(result);
    }
}

fn event(note: &Note, replica: &str, now: Timestamp) -> Event {
    let Vm {
        key,
        uid,
        resource_version,
        ..
    } = &*note.vm;
    let mut message = note.message.clone();
    let mut end = message.len().min(MAX_MESSAGE);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    message.truncate(end);
    Event {
        metadata: ObjectMeta {
            name: Some(name(&note.vm, note.reason)),
            namespace: Some(key.namespace.to_string()),
            ..ObjectMeta::default()
        },
        involved_object: ObjectReference {
            api_version: Some("kubevirt.io/v1".into()),
            kind: Some("VirtualMachine".into()),
            name: Some(key.name.to_string()),
            namespace: Some(key.namespace.to_string()),
            uid: Some(uid.to_string()),
            resource_version: Some(resource_version.to_string()),
            ..ObjectReference::default()
        },
        type_: Some(
            if matches!(note.reason, Reason::Started | Reason::Deferred) {
                "Normal"
            } else {
                "Warning"
            }
            .into(),
        ),
        reason: Some(note.reason.as_str().into()),
        message: Some(message),
        count: Some(1),
        first_timestamp: Some(Time(now)),
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

/// The same for every replica that decided the same on the same version of the VM.
fn name(vm: &Vm, reason: Reason) -> String {
    let mut name: String = vm.key.name.chars().take(MAX_NAME).collect();
    name.truncate(name.trim_end_matches(['-', '.']).len());
    let hash = [&*vm.uid, reason.as_str(), &*vm.resource_version]
        .iter()
        .flat_map(|part| part.bytes().chain([0]))
        .fold(FNV_OFFSET, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(FNV_PRIME)
        });
    format!("{name}.{hash:016x}")
}

/// FNV-1a, 64 bits: all replicas, whatever their version, must come to the same name.
const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manager::vm::VmKey;

    fn note(name: &str, resource_version: &str, reason: Reason) -> Note {
        let vm = Vm {
            key: VmKey::new("shop", name),
            uid: "0a1b".into(),
            resource_version: resource_version.into(),
            labels: [].into(),
            macs: Vec::new(),
            bad_macs: Vec::new(),
            strategy: RunStrategy::Manual,
            power: Power::Off,
            running: false,
            on_since: None,
        };
        Note {
            vm: vm.into(),
            reason,
            message: "é".repeat(MAX_MESSAGE),
        }
    }

    #[test]
    fn replicas_that_decide_the_same_write_one_event() {
        let name = |note: &Note, replica| {
            let event = event(note, replica, Timestamp::UNIX_EPOCH);
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
    fn names_and_messages_fit_what_the_api_server_accepts() {
        let long = format!("{}-.-tail", "a".repeat(MAX_NAME - 2));
        let event = event(
            &note(&long, "7", Reason::Started),
            "a",
            Timestamp::UNIX_EPOCH,
        );
        let name = event.metadata.name.expect("it has a name");
        assert!(name.len() <= 253 && !name.contains("-."), "{name}");
        assert_eq!(
            event.message.map(|message| message.len()),
            Some(MAX_MESSAGE)
        );
    }
}
