//! Owns what people read in `kubectl describe`: of a VM, who woke it, or why it stays off; of a
//! `WolConfig`, what is wrong with it.
//!
//! Repeats of the same trouble are counted, not written: the Event that told it is brought up to
//! date once a minute at most. A flood of troubles is told in part, and takes nothing from starts.
//! Of these as many are told in a second as are made, unless somebody raises `--start-rate`.

mod note;
mod recent;
mod scribe;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use kube::Client;
use tokio::sync::mpsc;

use crate::{
    manager::{
        intents::{Settled, Waiting},
        metrics::{Metrics, Told},
        report::Report,
        vm::{Power, RunStrategy, Vm},
    },
    throttle::Throttle,
    wake::Outcome,
};

use note::{About, Key, Note};
use recent::Recent;
pub use scribe::Scribe;

/// Events that wait to be written; past this many they are dropped.
const MAX_WAITING: usize = 256;
/// The same trouble with the same object is told once in this time.
const REPEATED_AFTER: Duration = Duration::from_secs(60);
/// Troubles remembered for that. One that is forgotten is told anew, as if for the first time.
const MAX_TROUBLES: usize = 4_096;
/// Starts told per second, and at once.
const START_RATE: u32 = 20;
const START_BURST: u32 = 100;
/// All else that is told per second, and at once: packets that are refused come without end.
const TROUBLE_RATE: u32 = 2;
const TROUBLE_BURST: u32 = 50;
/// Of the places to wait, what is left to starts.
const FOR_STARTS: usize = 50;

/// What happened to a VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// It was started, or unpaused.
    Started,
    /// Starting it changed what its guest's power-off does; said once.
    Hint,
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
            Self::Hint => "WakeOnLanHint",
            Self::Deferred => "WakeOnLanDeferred",
            Self::Refused => "WakeOnLanRefused",
            Self::Expired => "WakeOnLanExpired",
            Self::Ignored => "WakeOnLanIgnored",
            Self::Ambiguous => "WakeOnLanAmbiguous",
        }
    }
}

/// What is wrong with a `WolConfig`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ConfigReason {
    /// VMs that it selects share a MAC address, so that no packet wakes them.
    MacConflict,
    /// Parts of it make no sense and have no effect.
    Rejected,
}

impl ConfigReason {
    /// What `kubectl` shows in its column.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::MacConflict => "MACConflict",
            Self::Rejected => "ConfigRejected",
        }
    }
}

/// Names the version of a `WolConfig` that something was decided on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigRef {
    /// Its name.
    pub name: Arc<str>,
    /// Tells it from an earlier one of the same name.
    pub uid: Arc<str>,
    /// The version.
    pub resource_version: Arc<str>,
}

const HALTED: &str = "its runStrategy was Halted, which a start turns into Always: KubeVirt will \
     restart it when its guest powers off. With Manual or RerunOnFailure it would stay off until \
     the next packet";

/// Takes Events in without waiting.
#[derive(Debug, Clone)]
pub struct Events {
    queue: mpsc::Sender<Note>,
    limits: Arc<Mutex<Limits>>,
    metrics: Metrics,
}

/// What keeps a flood of packets from being a flood of Events.
#[derive(Debug)]
struct Limits {
    troubles: Recent<Key, Trouble>,
    of_troubles: Throttle,
    of_starts: Throttle,
}

/// One kind of trouble with one object.
#[derive(Debug, Default)]
struct Trouble {
    /// When it was told last.
    told: Option<Instant>,
    /// How often it happened since.
    untold: u32,
}

impl Trouble {
    /// Whether it was told moments ago.
    fn is_fresh(&self, now: Instant) -> bool {
        self.told.is_some_and(|told| {
            now.saturating_duration_since(told) < crate::pace::of(REPEATED_AFTER)
        })
    }
}

impl Events {
    /// Makes the two ends of a bounded queue.
    #[must_use]
    pub fn new(client: Client, replica: Arc<str>, metrics: Metrics) -> (Self, Scribe) {
        let (sender, queue) = mpsc::channel(MAX_WAITING);
        let limits = Limits {
            troubles: Recent::new(MAX_TROUBLES),
            of_troubles: Throttle::new(crate::pace::rate(TROUBLE_RATE), TROUBLE_BURST),
            of_starts: Throttle::new(crate::pace::rate(START_RATE), START_BURST),
        };
        let events = Self {
            queue: sender,
            limits: Arc::new(Mutex::new(limits)),
            metrics: metrics.clone(),
        };
        (events, Scribe::new(client, queue, replica, metrics))
    }

    /// Tells of a decision, where the owner of the VM should know it.
    pub fn settled(&self, settled: &Settled, now: Instant) {
        let Settled { vm, report, .. } = settled;
        let by = packet(report);
        match settled.outcome {
            Outcome::Started if vm.power == Power::Paused => {
                self.vm(vm, Reason::Started, format!("unpaused by {by}"), now);
            }
            Outcome::Started => {
                self.vm(vm, Reason::Started, format!("woken by {by}"), now);
                if vm.strategy == RunStrategy::Halted {
                    self.vm(vm, Reason::Hint, HALTED.into(), now);
                }
            }
            Outcome::Stuck | Outcome::Unsupported | Outcome::Forbidden => {
                let message = format!("not started by {by}: {}", settled.message);
                self.vm(vm, Reason::Refused, message, now);
            }
            Outcome::Expired => {
                let message = format!("not started by {by}: {}", settled.message);
                self.vm(vm, Reason::Expired, message, now);
            }
            _ => {}
        }
    }

    /// Tells that a wake takes longer.
    pub fn deferred(&self, Waiting { report, vm, why }: &Waiting, now: Instant) {
        let by = packet(report);
        let message = format!("will be started by {by} when that is possible: {why}");
        self.vm(vm, Reason::Deferred, message, now);
    }

    /// Tells that a packet named a VM that it may not wake.
    pub fn ignored(&self, vm: &Arc<Vm>, report: &Report, why: &str, now: Instant) {
        let message = format!("not woken by {}: {why}", packet(report));
        self.vm(vm, Reason::Ignored, message, now);
    }

    /// Tells that a packet named several VMs, of which this is one.
    pub fn ambiguous(&self, vm: &Arc<Vm>, report: &Report, why: &str, now: Instant) {
        let message = format!("not woken by {}: {why}", packet(report));
        self.vm(vm, Reason::Ambiguous, message, now);
    }

    /// Tells that a VM shares its address with others, although no packet came.
    pub fn conflict(&self, vm: &Arc<Vm>, message: String, now: Instant) {
        self.vm(vm, Reason::Ambiguous, message, now);
    }

    /// Tells what is wrong with a `WolConfig`.
    pub fn config(&self, config: &ConfigRef, reason: ConfigReason, message: String, now: Instant) {
        self.tell(About::Config(config.clone(), reason), message, now);
    }

    fn vm(&self, vm: &Arc<Vm>, reason: Reason, message: String, now: Instant) {
        self.tell(About::Vm(vm.clone(), reason), message, now);
    }

    fn tell(&self, about: About, message: String, now: Instant) {
        if let Err(told) = self.hand_on(about, message, now) {
            self.metrics.told(told);
        }
    }

    /// Gives it to the scribe, or says why not; what was not told then is counted the next time.
    fn hand_on(&self, about: About, message: String, now: Instant) -> Result<(), Told> {
        let mut limits = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        if about.is_start() {
            if !limits.of_starts.admit(now) {
                return Err(Told::RateLimited);
            }
            let note = Note {
                about,
                message,
                times: 1,
            };
            return self.queue.try_send(note).map_err(|_| Told::QueueFull);
        }
        let Limits {
            troubles,
            of_troubles,
            ..
        } = &mut *limits;
        let trouble = troubles.of(&about.key());
        trouble.untold = trouble.untold.saturating_add(1);
        if trouble.is_fresh(now) {
            return Err(Told::Suppressed);
        }
        if self.queue.capacity() <= FOR_STARTS {
            return Err(Told::QueueFull);
        }
        if !of_troubles.admit(now) {
            return Err(Told::RateLimited);
        }
        let note = Note {
            about,
            message,
            times: trouble.untold,
        };
        self.queue.try_send(note).map_err(|_| Told::QueueFull)?;
        *trouble = Trouble {
            told: Some(now),
            untold: 0,
        };
        Ok(())
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

#[cfg(test)]
mod tests;
