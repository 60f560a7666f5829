//! Owns the manager's view of a virtual machine: who it is, its addresses, and whether a start
//! makes sense. Pure; the wire type is in `kubevirt`.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

pub use crate::kubevirt::VmKey;
use crate::{
    kubevirt::{Addresses, VirtualMachine},
    mac::MacAddr,
};

/// What we keep of a VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vm {
    /// Its name.
    pub key: VmKey,
    /// Tells it from an earlier VM of the same name.
    pub uid: Arc<str>,
    /// The version that this view was made from.
    pub resource_version: Arc<str>,
    /// Its labels, for selectors.
    pub labels: BTreeMap<String, String>,
    /// The addresses in its spec that a packet can name, each once.
    pub macs: Vec<MacAddr>,
    /// Addresses in its spec that no packet can name, as far as they are worth showing.
    pub bad_macs: Vec<String>,
    /// What its owner asked KubeVirt to do with it.
    pub strategy: RunStrategy,
    /// What a wake shall do with it.
    pub power: Power,
    /// Whether its guest runs, be it paused; more than being on its way.
    pub running: bool,
    /// When it was last seen to go from off to on; none where that was never seen.
    pub on_since: Option<Instant>,
    /// When it was last seen to go from on to off, or to begin to; none where that was never seen. A
    /// change that may have been missed for a while counts from the beginning of that while.
    pub off_since: Option<Instant>,
}

/// When a change of a VM was noticed, and how much earlier it may have happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Noticed {
    /// Now.
    pub at: Instant,
    /// The earliest that it can have happened, where the watch was interrupted; else now, too.
    pub earliest: Instant,
}

impl From<Instant> for Noticed {
    fn from(at: Instant) -> Self {
        Self { at, earliest: at }
    }
}

impl Vm {
    /// This view, with what was seen of the past: `known` is the view before. When a VM went on stays
    /// known after it went off again, and the other way round: a wake from before has had its effect.
    #[must_use]
    pub fn after(self, known: Option<&Self>, noticed: Noticed) -> Self {
        let Some(known) = known.filter(|known| known.uid == self.uid) else {
            return self;
        };
        let (was, is) = (known.power.is_started(), self.power.is_started());
        let on = (is && !was).then_some(noticed.at);
        let off = (was && !is).then_some(noticed.earliest);
        Self {
            on_since: on.or(known.on_since),
            off_since: off.or(known.off_since),
            ..self
        }
    }

    /// This view, which was read and not watched, with what is known of the past.
    #[must_use]
    pub fn with_past_of(&self, known: &Self) -> Self {
        Self {
            on_since: known.on_since,
            off_since: known.off_since,
            ..self.clone()
        }
    }

    /// Whether this view is surely older than `other`, one of the same VM: a watch and a read may
    /// overtake each other. Resource versions of one resource are numbers that rise; one that is
    /// no number proves nothing.
    #[must_use]
    pub fn is_older_than(&self, other: &Self) -> bool {
        let number = |vm: &Self| vm.resource_version.parse::<u64>().ok();
        number(self)
            .zip(number(other))
            .is_some_and(|(own, others)| own < others)
    }
}

/// `spec.runStrategy`, with the deprecated `spec.running` read as the strategy that it stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RunStrategy {
    /// Off until started; a start turns it into `Always`.
    Halted,
    /// Started and stopped by calls only.
    Manual,
    /// Restarted by KubeVirt when it fails, not when its guest powers off.
    RerunOnFailure,
    /// Kept on by KubeVirt.
    Always,
    /// Started once by KubeVirt, and never again.
    Once,
    /// The receiving end of a migration between clusters.
    WaitAsReceiver,
    /// One that this version does not know.
    Other,
}

impl RunStrategy {
    fn of(vm: &VirtualMachine) -> Self {
        match (vm.run_strategy.as_deref(), vm.running) {
            (Some("Halted"), _) | (None, None | Some(false)) => Self::Halted,
            (Some("Manual"), _) => Self::Manual,
            (Some("RerunOnFailure"), _) => Self::RerunOnFailure,
            (Some("Always"), _) | (None, Some(true)) => Self::Always,
            (Some("Once"), _) => Self::Once,
            (Some("WaitAsReceiver"), _) => Self::WaitAsReceiver,
            (Some(_), _) => Self::Other,
        }
    }
}

/// What a wake shall do, as seen from `runStrategy` and `printableStatus` (table in
/// docs/vm-states.md).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Power {
    /// Off, or in a state that this version does not know; a start is in order.
    Off,
    /// On, or on its way.
    On,
    /// On, but paused.
    Paused,
    /// On its way, but stuck for the reason in `printableStatus`; a start would change nothing.
    Stuck(&'static str),
    /// Stopping: start it as soon as it has stopped.
    Stopping,
    /// Never started by a wake, for the reason given.
    Unsupported(&'static str),
    /// The receiving end of a migration: its source owns the addresses, and starting it would run
    /// the same disks twice.
    Receiver,
    /// Being deleted.
    Gone,
}

impl Power {
    /// Whether the VM has been started, however far it got.
    #[must_use]
    pub fn is_started(self) -> bool {
        matches!(self, Self::On | Self::Paused | Self::Stuck(_))
    }

    /// Whether the VM is being deleted.
    #[must_use]
    pub fn is_gone(self) -> bool {
        self == Self::Gone
    }

    /// Whether a wake may name the VM at all.
    #[must_use]
    pub fn is_candidate(self) -> bool {
        !matches!(self, Self::Receiver | Self::Gone)
    }
}

/// Why a `Once` VM that is off stays off.
const ONCE: &str = "runStrategy Once starts a VM only once; use Manual or RerunOnFailure";

fn power(vm: &VirtualMachine, strategy: RunStrategy) -> Power {
    use RunStrategy::{Always, Once, WaitAsReceiver};
    let status = vm.printable_status.as_deref().unwrap_or_default();
    if vm.metadata.deletion_timestamp.is_some() || status == "Terminating" {
        return Power::Gone;
    }
    if strategy == WaitAsReceiver {
        return Power::Receiver;
    }
    match (status, strategy) {
        ("WaitingForReceiver", _) => Power::Receiver,
        ("Running" | "Migrating" | "Starting" | "WaitingForVolumeBinding", _) => Power::On,
        ("Paused", _) => Power::Paused,
        ("Stopping", Once) => Power::Unsupported(ONCE),
        ("Stopping", _) => Power::Stopping,
        ("ErrorPvcNotFound", _) => Power::Stuck("ErrorPvcNotFound"),
        ("ErrorUnschedulable", _) => Power::Stuck("ErrorUnschedulable"),
        ("ErrImagePull", _) => Power::Stuck("ErrImagePull"),
        ("ImagePullBackOff", _) => Power::Stuck("ImagePullBackOff"),
        // Shown for a failed import whether or not the VM runs.
        ("DataVolumeError", _) if vm.ready => Power::On,
        ("DataVolumeError", Always | Once) => Power::Stuck("DataVolumeError"),
        ("DataVolumeError", _) if vm.created => Power::Stuck("DataVolumeError"),
        // Of the others, RerunOnFailure alone gets there, and a start ends its back-off.
        ("CrashLoopBackOff", Always | Once) => Power::Stuck("CrashLoopBackOff"),
        // Shown while a disk is imported, whether or not anybody has asked for the VM.
        ("Provisioning", _) if strategy == Once || vm.created => Power::On,
        (_, strategy) => at_rest(vm, strategy),
    }
}

/// The power of a VM whose status says that it is off, or nothing that we know.
fn at_rest(vm: &VirtualMachine, strategy: RunStrategy) -> Power {
    use RunStrategy::{Always, Halted, Once};
    if vm.ready {
        return Power::On;
    }
    match strategy {
        Once => Power::Unsupported(ONCE),
        // KubeVirt starts it without being asked: this is how a halted VM looks just after a start.
        Always => Power::On,
        // A stale request does not hold up a halted VM.
        Halted => Power::Off,
        _ => match vm.last_change_request.as_deref() {
            // Also after a stop: a start first clears away what a powered-off guest left.
            Some("Start") => Power::On,
            Some("Stop") => Power::Stopping,
            _ => Power::Off,
        },
    }
}

/// Whether an instance of the VM has come as far as to run.
fn is_running(vm: &VirtualMachine) -> bool {
    let status = vm.printable_status.as_deref().unwrap_or_default();
    vm.ready || matches!(status, "Running" | "Migrating" | "Paused")
}

impl From<VirtualMachine> for Vm {
    fn from(mut vm: VirtualMachine) -> Self {
        let strategy = RunStrategy::of(&vm);
        let Addresses {
            macs,
            unusable: bad_macs,
        } = vm.addresses();
        let meta = &vm.metadata;
        let text = |text: &Option<String>| text.as_deref().unwrap_or_default().into();
        Self {
            key: VmKey {
                namespace: text(&meta.namespace),
                name: text(&meta.name),
            },
            uid: text(&meta.uid),
            resource_version: text(&meta.resource_version),
            macs,
            bad_macs,
            strategy,
            power: power(&vm, strategy),
            running: is_running(&vm),
            on_since: None,
            off_since: None,
            labels: vm.metadata.labels.take().unwrap_or_default(),
        }
    }
}
