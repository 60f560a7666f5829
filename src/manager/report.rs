//! Owns [`Report`]: one wake as an agent reported it, and the way back for its answer; and
//! [`Wakeable`], a report whose VM is known.

use std::{fmt, sync::Arc, time::Instant};

use tokio::sync::mpsc;

use crate::{
    manager::vm::Vm,
    wake::{Answer, Wake},
};

/// Takes reported wakes and answers each of them within a second.
pub trait Reports: Send + Sync + 'static {
    /// Takes one. Never blocks; the answers come by [`Report::reply`].
    fn report(&self, report: Report);

    /// The VM that a wake names, for people only; none where there is not exactly one.
    fn vm(&self, wake: &Wake) -> Option<Arc<Vm>>;
}

/// One reported wake.
#[derive(Debug, Clone)]
pub struct Report {
    /// The node whose agent heard it.
    pub node: Arc<str>,
    /// What was heard.
    pub wake: Wake,
    /// When it was heard: its arrival here less its age.
    pub heard_at: Instant,
    /// Whether a manager deferred it before, so that it may be older than a fresh one.
    pub deferred: bool,
    /// Where the answers go.
    pub reply: Reply,
}

/// A report whose VM is known, and that may wake it.
#[derive(Debug, Clone)]
pub struct Wakeable {
    /// What was reported.
    pub report: Report,
    /// The VM that it names.
    pub vm: Arc<Vm>,
    /// Whether it may unpause the VM, too.
    pub unpause: bool,
    /// Whether `vm` may have changed before the packet was heard: changes do not reach this manager.
    pub unsure: bool,
}

/// The way back to the agent: any number of deferrals, then one final answer.
#[derive(Clone)]
pub struct Reply {
    seq: u64,
    answers: mpsc::Sender<(u64, Answer)>,
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reply({})", self.seq)
    }
}

impl Reply {
    /// Answers to event `seq` go to `answers`, a bounded queue that the session drains.
    #[must_use]
    pub fn new(seq: u64, answers: mpsc::Sender<(u64, Answer)>) -> Self {
        Self { seq, answers }
    }

    /// Sends an answer without waiting. False where the session is gone or does not read: its
    /// agent then asks again, here or at another replica.
    #[must_use]
    pub fn send(&self, answer: Answer) -> bool {
        self.answers.try_send((self.seq, answer)).is_ok()
    }

    /// Whether the session is still there: an agent that ended, or one that asks once only, is not.
    #[must_use]
    pub fn is_open(&self) -> bool {
        !self.answers.is_closed()
    }
}
