//! Owns [`Intent`]: the wish to start one VM, who wished it, and how far it got.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    manager::{
        report::{Reply, Report},
        vm::{RunStrategy, Vm},
    },
    wake::Answer,
};

use super::{Action, Call};

/// Every reporter hears something within this time of its report; the contract allows a second.
const FIRST_ANSWER: Duration = Duration::from_millis(800);
/// A call made just before the deadline is given this long to show what came of it.
const LAST_CALL: Duration = Duration::from_secs(30);

/// How far an intent got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// The VM is stopping; a change of the VM ends this.
    Stopping,
    /// Waiting for a place among the calls under way, and a start also for the throttle.
    Queued { call: Call, ticket: u64 },
    /// The call is under way.
    Calling { call: Call, id: u64 },
    /// The start was accepted; the VM has yet to show it. Read it where the watch stays silent.
    Confirming { read_at: Instant },
    /// Something was in the way; where that was the VM, a change of it hastens the next attempt.
    Backoff { until: Instant, hasten: bool },
}

/// The wish to start one VM.
#[derive(Debug)]
pub(super) struct Intent {
    /// The newest view of the VM.
    pub(super) vm: Arc<Vm>,
    /// The VM's strategy when the wake came.
    strategy: RunStrategy,
    /// The view that the last start was decided on.
    pub(super) decided_on: Arc<Vm>,
    pub(super) state: State,
    /// Why it is not settled yet, for people.
    pub(super) why: String,
    /// Calls that came to nothing.
    pub(super) failures: u32,
    /// Whether a start of ours took effect, or may have.
    pub(super) effective: bool,
    pub(super) opened: Instant,
    pub(super) first_call: Option<Instant>,
    /// When a start was last accepted.
    pub(super) accepted: Option<Instant>,
    pub(super) deadline: Instant,
    /// When the youngest packet was heard.
    pub(super) last_heard: Instant,
    /// The packet that opened it.
    pub(super) first: Report,
    /// Who is told, in the order of their reports, and when each reported.
    reporters: Vec<(Instant, Reply)>,
    /// How many of them know that it takes longer.
    told: usize,
    /// When it is looked at next, as the owner's timer knows it.
    pub(super) timer: Option<Instant>,
}

impl Intent {
    pub(super) fn new(vm: Arc<Vm>, report: Report, now: Instant, patience: Duration) -> Self {
        Self {
            strategy: vm.strategy,
            decided_on: vm.clone(),
            vm,
            state: State::Stopping,
            why: String::new(),
            failures: 0,
            effective: false,
            opened: now,
            first_call: None,
            accepted: None,
            deadline: report.heard_at + patience,
            last_heard: report.heard_at,
            reporters: vec![(now, report.reply.clone())],
            told: 0,
            timer: None,
            first: report,
        }
    }

    pub(super) fn join(&mut self, report: Report, now: Instant) {
        self.last_heard = self.last_heard.max(report.heard_at);
        self.reporters.push((now, report.reply));
    }

    pub(super) fn reporters(&self) -> usize {
        self.reporters.len()
    }

    pub(super) fn into_reporters(self) -> impl Iterator<Item = Reply> {
        self.reporters.into_iter().map(|(_, reply)| reply)
    }

    /// Whether somebody gave the VM another `runStrategy` since. A start itself makes a halted VM
    /// one that is always on.
    pub(super) fn is_overruled(&self) -> bool {
        let (then, now) = (self.strategy, self.vm.strategy);
        then != now && (then, now) != (RunStrategy::Halted, RunStrategy::Always)
    }

    /// Whether somebody was told to keep the wake until the deadline.
    pub(super) fn is_promised(&self) -> bool {
        self.told > 0
    }

    /// Tells those who have waited long enough, or everybody, that it takes longer.
    pub(super) fn defer(&mut self, now: Instant, everybody: bool, actions: &mut Vec<Action>) {
        let remaining = self.deadline.saturating_duration_since(now);
        while let Some((joined, reply)) = self.reporters.get(self.told) {
            if !everybody && now < *joined + FIRST_ANSWER {
                return;
            }
            let answer = Answer::Deferred(remaining, self.why.clone());
            actions.push(Action::Answer(reply.clone(), answer));
            self.told += 1;
        }
    }

    /// When something is to be done next without news from outside.
    pub(super) fn due(&self) -> Instant {
        let end = self.expires_at();
        let state = match self.state {
            State::Confirming { read_at } => read_at,
            State::Backoff { until, .. } => until,
            State::Stopping | State::Queued { .. } | State::Calling { .. } => end,
        };
        let answer = self
            .reporters
            .get(self.told)
            .map_or(end, |(joined, _)| *joined + FIRST_ANSWER);
        state.min(answer).min(end)
    }

    /// When it is given up.
    pub(super) fn expires_at(&self) -> Instant {
        match self.state {
            State::Calling { .. } | State::Confirming { .. } => self.deadline + LAST_CALL,
            State::Stopping | State::Queued { .. } | State::Backoff { .. } => self.deadline,
        }
    }
}
