//! Owns the plan of one run: what is sent, what strikes, and when. A pure function of the seed.

use std::time::Duration;

use kubevirt_wol::mac::MacAddr;

use super::{draw::draw, seeds::setting};

/// The program's times are divided by this: 10, or less where a machine has too much to do for that.
pub(crate) fn pace() -> u32 {
    setting("WOL_FAULT_PACE").unwrap_or(10).clamp(1, 20)
}

/// Whether the API server is to be a real one, and no stand-in.
pub(crate) fn on_the_real() -> bool {
    match setting::<String>("WOL_FAULT_API").as_deref() {
        None => false,
        Some(other) => {
            assert_eq!(other, "real", "WOL_FAULT_API is real or nothing");
            true
        }
    }
}

/// A time that is so many milliseconds long at the usual pace. Those of a plan are.
pub(crate) fn paced(milliseconds: u64) -> Duration {
    Duration::from_millis(10 * milliseconds / u64::from(pace()))
}

/// A wake older than this is stale.
pub(crate) fn ttl() -> Duration {
    paced(3_000)
}

/// Repeats within this time of the first packet are one wake.
pub(crate) fn window() -> Duration {
    paced(1_000)
}

/// VMs that nobody wakes.
pub(crate) const BYSTANDERS: usize = 2;

/// What is done at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// A magic packet for a VM, heard by all agents or sent to one alone.
    Wake { vm: usize, only: Option<usize> },
    /// The VM is switched off as soon as it is seen on, unless it stays off for a second.
    PowerOff { vm: usize },
    /// A fault begins or ends.
    Fault { fault: Fault, begins: bool },
}

/// One thing that goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// SIGKILL; at the end it is started again.
    Kill(Who),
    /// SIGSTOP, and SIGCONT at the end.
    Freeze(Who),
    /// SIGTERM; at the end it is started again.
    Terminate(Who),
    /// The connections between an agent and a manager break, and none can be made.
    Cut(Between),
    /// They stay, and nothing gets through.
    Silence(Between),
    /// The same between a manager, or all of them, and the API server.
    ApiCut(Option<usize>),
    ApiSilence(Option<usize>),
    /// What the API server, or virt-api behind it, answers to starts.
    Start(Refusal),
    /// Every request to the API server is answered 500.
    ApiErrors,
    /// A real API server and its store are killed, and started again at the end.
    ApiKill,
    /// All watches end, and their versions are forgotten.
    WatchReset,
    /// Somebody else holds the Lease.
    LeaseTheft,
    /// The agent's token has run out.
    TokenExpiry(usize),
    /// The interface by which the node hears is deleted, and made again at the end.
    Unplug(usize),
    /// Junk, and wakes for addresses that nobody has.
    Flood,
}

/// A process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Who {
    Agent(usize),
    Manager(usize),
}

/// Lines between agents and managers; none stands for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Between {
    pub(crate) agent: Option<usize>,
    pub(crate) manager: Option<usize>,
}

/// How starts fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// virt-api is not there.
    Away,
    /// 500, and nothing is done.
    Error,
    /// 429, come again in a second.
    Busy,
    /// It is done, and not answered.
    Swallow,
    /// Each call takes 300 ms.
    Slow,
}

impl Fault {
    /// The word for it in the report.
    pub(crate) fn kind(self) -> &'static str {
        match self {
            Self::Kill(Who::Agent(_)) => "agent killed",
            Self::Kill(Who::Manager(_)) => "manager killed",
            Self::Freeze(Who::Agent(_)) => "agent frozen",
            Self::Freeze(Who::Manager(_)) => "manager frozen",
            Self::Terminate(Who::Agent(_)) => "agent drained",
            Self::Terminate(Who::Manager(_)) => "manager drained",
            Self::Cut(_) => "network cut",
            Self::Silence(_) => "network silent",
            Self::ApiCut(_) => "API cut off",
            Self::ApiSilence(_) => "API silent",
            Self::Start(Refusal::Away) => "virt-api away",
            Self::Start(Refusal::Error) => "start answered 500",
            Self::Start(Refusal::Busy) => "start answered 429",
            Self::Start(Refusal::Swallow) => "start never answered",
            Self::Start(Refusal::Slow) => "virt-api slow",
            Self::ApiErrors => "API answers 500",
            Self::ApiKill => "API server killed",
            Self::WatchReset => "watches reset",
            Self::LeaseTheft => "lease stolen",
            Self::TokenExpiry(_) => "token expired",
            Self::Unplug(_) => "interface deleted",
            Self::Flood => "flood",
        }
    }
}

/// All that will be done in one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) agents: usize,
    pub(crate) managers: usize,
    /// VMs that may be woken; the bystanders come after them.
    pub(crate) vms: usize,
    /// How long a deferred wake is kept.
    pub(crate) patience: Duration,
    /// Whether each node is to be a network namespace of its own.
    pub(crate) namespaces: bool,
    /// Whether the managers' CA is to be renewed all the time.
    pub(crate) rotation: bool,
    /// In the order of their times since the beginning.
    pub(crate) steps: Vec<(Duration, Step)>,
}

/// The address of a VM.
pub(crate) fn mac(vm: usize) -> MacAddr {
    let low = u8::try_from(vm).unwrap_or(u8::MAX);
    MacAddr::new([0x52, 0x54, 0, 0, 2, low])
}

/// The name of a manager.
pub(crate) fn replica(manager: usize) -> String {
    format!("manager-{manager}")
}

impl Plan {
    /// The plan of a seed.
    pub(crate) fn new(seed: u64) -> Self {
        let mut plan = draw(seed, on_the_real());
        plan.steps.sort_by_key(|(at, _)| *at);
        plan
    }
}
