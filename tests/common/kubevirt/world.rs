//! What KubeVirt holds beside the `VirtualMachine` objects: the running instances, the faults that
//! a test asked for, and the log of starts.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Notify, watch},
    task::JoinSet,
    time::Instant,
};

/// Names a VM.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    pub namespace: String,
    pub name: String,
}

impl Key {
    pub fn new(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// How far an instance has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Scheduling,
    Running,
    Succeeded,
    Failed,
}

impl Phase {
    /// Whether it runs no more.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed)
    }
}

/// A `VirtualMachineInstance`: one run of a VM.
#[derive(Debug, Clone)]
pub struct Instance {
    pub uid: String,
    pub phase: Phase,
    pub deleting: bool,
    pub paused: bool,
    /// When its next phase is due.
    pub due: Option<Instant>,
}

/// How long things take.
#[derive(Debug, Clone, Copy)]
pub struct Speed {
    /// From a request until the controller acts on it: how long a VM still shows `Stopped`.
    pub lag: Duration,
    /// From `Starting` to `Running`.
    pub boot: Duration,
    /// From `Stopping` to `Stopped`: the grace period of the guest.
    pub stop: Duration,
}

impl Default for Speed {
    fn default() -> Self {
        Self {
            lag: Duration::from_millis(5),
            boot: Duration::from_millis(20),
            stop: Duration::from_millis(20),
        }
    }
}

/// What is wrong with virt-api.
#[derive(Debug, Clone)]
pub enum Fault {
    /// It does not get to a call before the fault is lifted.
    Hang,
    /// It does what is asked and does not answer before the fault is lifted.
    Swallow,
    /// It answers this code and message and does nothing.
    Refuse(u16, String),
    /// It has too much to do, and asks to be called again after so many seconds.
    Busy(u64),
    /// It is not there: the aggregator answers in its place.
    Away,
    /// It denies the user, as where its own review of the user says no.
    Denied,
}

/// One call of `start`, as it was answered.
#[derive(Debug, Clone)]
pub struct Start {
    /// When the call came, and when it had done what it does.
    pub asked: Instant,
    pub at: Instant,
    pub vm: Key,
    /// Who called, where an API server in front told.
    pub user: Option<String>,
    pub code: u16,
    /// The message of a refusal, or nothing.
    pub message: String,
}

#[derive(Default)]
pub struct State {
    pub instances: BTreeMap<Key, Instance>,
    /// When the creation of an instance is due.
    pub starting: BTreeMap<Key, Instant>,
    /// VMs that are to be off when they are first seen.
    pub resting: BTreeSet<Key>,
    /// VMs that stay as they are, with the status to show, if not their own.
    pub held: BTreeMap<Key, Option<String>>,
    /// VMs that are held as soon as they show this status.
    pub hold_at: BTreeMap<Key, String>,
    /// How many instances each VM has had.
    pub boots: BTreeMap<Key, usize>,
    /// VMs to look at again.
    pub dirty: BTreeSet<Key>,
    pub starts: Vec<Start>,
    pub delay: Duration,
    pub faults_once: VecDeque<Fault>,
    pub controller_stopped: bool,
    pub serial: u64,
}

pub struct World {
    state: Mutex<State>,
    calls: Mutex<JoinSet<()>>,
    pub speed: Speed,
    pub changed: Notify,
    pub fault: watch::Sender<Option<Fault>>,
}

impl World {
    pub fn new(speed: Speed) -> Self {
        Self {
            state: Mutex::default(),
            calls: Mutex::default(),
            speed,
            changed: Notify::new(),
            fault: watch::Sender::new(None),
        }
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a call to its end, whether or not its caller waits.
    pub fn spawn(&self, call: impl Future<Output = ()> + Send + 'static) {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        while calls.try_join_next().is_some() {}
        calls.spawn(call);
    }

    /// Ends the calls that are still served.
    pub fn end_calls(&self) {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        calls.abort_all();
    }

    /// Has the controller look at a VM again.
    pub fn poke(&self, key: &Key) {
        self.state().dirty.insert(key.clone());
        self.changed.notify_one();
    }

    /// The fault that the next call meets.
    pub fn next_fault(&self) -> Option<Fault> {
        let once = self.state().faults_once.pop_front();
        once.or_else(|| self.fault.borrow().clone())
    }

    /// Waits until the standing fault is lifted.
    pub async fn fault_lifted(&self) {
        let mut fault = self.fault.subscribe();
        // Fails only where the world is gone, and nobody waits then.
        let _ = fault.wait_for(Option::is_none).await;
    }
}

impl State {
    /// Makes an instance.
    pub fn boot(&mut self, key: &Key, due: Instant) {
        self.serial += 1;
        let instance = Instance {
            uid: format!("vmi-{}", self.serial),
            phase: Phase::Scheduling,
            deleting: false,
            paused: false,
            due: Some(due),
        };
        self.instances.insert(key.clone(), instance);
        self.starting.remove(key);
        *self.boots.entry(key.clone()).or_default() += 1;
    }
}
