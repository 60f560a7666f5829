//! Owns the words between the intents and who performs them.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    manager::{
        report::{Reply, Report},
        vm::Vm,
    },
    wake::{Answer, Outcome},
};

/// A call to the API server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// Starts the VM.
    Start,
    /// Has the guest of a paused VM go on.
    Unpause,
    /// Reads the VM.
    Read,
}

/// What the caller shall do.
#[derive(Debug, Clone)]
pub enum Action {
    /// Make the call, then tell [`Intents::answered`](super::Intents::answered) or [`Intents::reread`](super::Intents::reread) under this number.
    Call(Call, u64, Arc<Vm>),
    /// Answer a reporter.
    Answer(Reply, Answer),
    /// A wake takes longer, and those who reported it know: tell the VM's owner. Once for each
    /// intent.
    Waiting(Box<Waiting>),
    /// A wake was decided: log it, count it, tell the VM's owner.
    Settled(Box<Settled>),
}

/// A wake that takes longer.
#[derive(Debug, Clone)]
pub struct Waiting {
    /// The first packet.
    pub report: Report,
    /// The VM as it is now.
    pub vm: Arc<Vm>,
    /// What it waits for, for people.
    pub why: String,
}

/// What became of a wake.
#[derive(Debug, Clone)]
pub struct Settled {
    /// The first packet.
    pub report: Report,
    /// The view of the VM that the decision rests on.
    pub vm: Arc<Vm>,
    /// What became of it.
    pub outcome: Outcome,
    /// Why, for people.
    pub message: String,
    /// How many agents reported it.
    pub reporters: usize,
    /// From its first report to the first call.
    pub queued: Option<Duration>,
    /// Where it was started by us: when KubeVirt accepted that, and the VM as it is now.
    pub boot: Option<(Instant, Arc<Vm>)>,
}

/// What was done with a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// It opened an intent.
    Opened,
    /// It joined one.
    Joined,
    /// It was answered at once.
    Answered,
    /// There was no room; the agent asks again.
    Busy,
}
