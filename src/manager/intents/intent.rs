//! Owns [`Intent`]: the wish to start one VM, who wished it, and how far it got.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    manager::{
        report::{Reply, Report, Wakeable},
        vm::{Power, RunStrategy, Vm},
    },
    pace,
    wake::{Answer, Wake},
};

use super::{
    Action, BREATH, CONFIRMED_WITHIN, Call, SILENCE,
    action::Waiting,
    steps::{verdict, went_off_after, went_on_after},
};

/// Every reporter hears something within this time of its report; the contract allows a second.
const FIRST_ANSWER: Duration = Duration::from_millis(800);
/// An agent without any answer for this long has asked another manager.
const ASKED_ELSEWHERE: Duration = Duration::from_secs(2);
/// A call made just before the deadline is given this long to show what came of it.
const LAST_CALL: Duration = Duration::from_secs(30);

/// How far an intent got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// The VM is stopping; a change of the VM ends this.
    Stopping,
    /// Waiting for a place among the calls under way, and what is no read also for the throttle.
    Queued { call: Call, ticket: u64 },
    /// The call is under way.
    Calling { call: Call, id: u64 },
    /// The call was accepted; the VM has yet to show it. Read it where the watch stays silent.
    Confirming { read_at: Instant },
    /// Something was in the way.
    Backoff { until: Instant, hasten: Hasten },
}

/// What brings the next attempt near, before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hasten {
    /// Nothing: the server said how long to wait.
    Never,
    /// A change of the VM.
    Vm,
    /// The return of the API server.
    Api,
}

/// The wish to start one VM.
#[derive(Debug, Clone)]
pub(super) struct Intent {
    /// The newest view of the VM.
    pub(super) vm: Arc<Vm>,
    /// The VM's strategy when the wake came.
    strategy: RunStrategy,
    /// Whether the packet that opened it may unpause the VM.
    unpause: bool,
    /// Whether the VM has to be read first: what is known of it may be out of date, and would end this.
    pub(super) unsure: bool,
    /// The view that the last start, or unpausing, was decided on.
    pub(super) decided_on: Arc<Vm>,
    pub(super) state: State,
    /// Why it is not settled yet, for people.
    pub(super) why: String,
    /// Calls that came to nothing.
    pub(super) failures: u32,
    /// The last call of ours that took effect, or may have.
    pub(super) effective: Option<Call>,
    pub(super) opened: Instant,
    pub(super) first_call: Option<Instant>,
    /// When the last call was accepted.
    pub(super) accepted: Option<Instant>,
    pub(super) deadline: Instant,
    /// When the youngest packet was heard.
    pub(super) last_heard: Instant,
    /// The packet that opened it.
    pub(super) first: Report,
    /// The packet that was let in last: what let the first one in may have changed since.
    pub(super) latest: Wake,
    /// Who is told, in the order of their reports, and when each reported.
    reporters: Vec<(Instant, Reply)>,
    /// How many of them know that it takes longer.
    told: usize,
    /// When it is looked at next, as the owner's timer knows it.
    pub(super) timer: Option<Instant>,
}

impl Intent {
    pub(super) fn new(wake: Wakeable, now: Instant, patience: Duration) -> Self {
        let Wakeable {
            report,
            vm,
            unpause,
            unsure,
        } = wake;
        Self {
            strategy: vm.strategy,
            unpause,
            unsure: unsure && verdict(vm.power).is_some(),
            decided_on: vm.clone(),
            vm,
            state: State::Stopping,
            why: String::new(),
            failures: 0,
            effective: None,
            opened: now,
            first_call: None,
            accepted: None,
            deadline: report.heard_at + patience,
            last_heard: report.heard_at,
            reporters: vec![(now, report.reply.clone())],
            told: 0,
            timer: None,
            latest: report.wake.clone(),
            first: report,
        }
    }

    pub(super) fn join(&mut self, report: Report, now: Instant) {
        self.last_heard = self.last_heard.max(report.heard_at);
        self.latest = report.wake;
        self.reporters.push((now, report.reply));
    }

    /// Takes what a read brought. Where it is the first that can be relied on, only from then on can a
    /// change of `runStrategy` overrule the wake.
    pub(super) fn learn(&mut self, vm: Arc<Vm>) {
        self.vm = vm;
        if std::mem::take(&mut self.unsure) {
            self.strategy = self.vm.strategy;
            self.decided_on = self.vm.clone();
        }
    }

    /// Whether the VM is off, and is known to have been on when the youngest packet was heard.
    pub(super) fn was_on_when_heard(&self) -> bool {
        let off = matches!(self.vm.power, Power::Off | Power::Stopping);
        off && went_off_after(&self.vm, self.last_heard, self.first.deferred)
    }

    pub(super) fn reporters(&self) -> usize {
        self.reporters.len()
    }

    /// Whether somebody can be asked to report it again.
    pub(super) fn is_listened_to(&self) -> bool {
        self.reporters.iter().any(|(_, reply)| reply.is_open())
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

    /// Whether the VM went on after the youngest packet was heard, be it off again: then the wake has had
    /// its effect.
    pub(super) fn is_overtaken(&self) -> bool {
        went_on_after(&self.vm, self.last_heard)
    }

    /// What would have the VM on, if it is not: a paused one need not be started.
    pub(super) fn wanted(&self) -> Call {
        match self.vm.power {
            _ if self.unsure => Call::Read,
            Power::Paused => Call::Unpause,
            _ => Call::Start,
        }
    }

    /// Whether the VM is paused and the wake shall change that. What we started is left paused:
    /// its owner asked for that.
    pub(super) fn awaits_unpausing(&self) -> bool {
        self.unpause && self.vm.power == Power::Paused && self.deed() != Some(Call::Start)
    }

    /// What we did to have the VM on, as far as we know: a call under way may have been heard.
    pub(super) fn deed(&self) -> Option<Call> {
        match self.state {
            State::Calling {
                call: call @ (Call::Start | Call::Unpause),
                ..
            } => Some(call),
            _ => self.effective,
        }
    }

    /// Whether a call of ours is under way, or what came of it is not known yet.
    pub(super) fn is_in_hand(&self) -> bool {
        match self.state {
            _ if self.unsure => false,
            State::Calling { .. } | State::Confirming { .. } => true,
            // Only after a call that may have started it.
            State::Queued { call, .. } => call == Call::Read,
            State::Stopping | State::Backoff { .. } => false,
        }
    }

    /// Whether its VM is being read, since it may have changed.
    pub(super) fn is_checked(&self) -> bool {
        self.unsure && matches!(self.state, State::Calling { .. })
    }

    /// Whether somebody was told to keep the wake until the deadline.
    pub(super) fn is_promised(&self) -> bool {
        self.told > 0
    }

    /// Whether this process stood still for so long that those who reported it heard nothing in
    /// time, and have dropped it: who is told only now to keep it has nothing to keep.
    pub(super) fn is_given_up(&self, ttl: Duration, now: Instant) -> bool {
        let waits = !matches!(self.state, State::Calling { .. } | State::Confirming { .. });
        let silent = |(joined, _): &(Instant, Reply)| now >= *joined + pace::of(ASKED_ELSEWHERE);
        waits
            && !self.is_promised()
            && !self.first.deferred
            && now >= self.last_heard + ttl
            && self.reporters.iter().all(silent)
    }

    /// Tells those who have waited long enough, or everybody, that it takes longer.
    pub(super) fn defer(&mut self, now: Instant, everybody: bool, actions: &mut Vec<Action>) {
        let remaining = self.deadline.saturating_duration_since(now);
        while let Some((joined, reply)) = self.reporters.get(self.told) {
            if !everybody && now < *joined + pace::of(FIRST_ANSWER) {
                return;
            }
            let answer = Answer::Deferred(remaining, self.why.clone());
            actions.push(Action::Answer(reply.clone(), answer));
            // At the end of this manager it is another one's to tell.
            if self.told == 0 && !everybody {
                actions.push(Action::Waiting(Box::new(Waiting {
                    report: self.first.clone(),
                    vm: self.vm.clone(),
                    why: self.why.clone(),
                })));
            }
            self.told += 1;
        }
    }

    /// Its VM has changed: whether that means something is to be found out soon, but not at once.
    pub(super) fn look_forward(&mut self, now: Instant) {
        match &mut self.state {
            // A VM that changes all the time without going on is looked at in the end, too.
            State::Confirming { read_at } => {
                let end = self.accepted;
                let end = end.map_or(now, |at| at + pace::of(CONFIRMED_WITHIN));
                *read_at = (now + pace::of(SILENCE)).min(end.max(*read_at));
            }
            State::Backoff {
                until,
                hasten: Hasten::Vm,
            } => *until = (*until).min(now + pace::of(BREATH)),
            _ => {}
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
            .map_or(end, |(joined, _)| *joined + pace::of(FIRST_ANSWER));
        state.min(answer).min(end)
    }

    /// When it is given up.
    pub(super) fn expires_at(&self) -> Instant {
        match self.state {
            State::Calling { .. } | State::Confirming { .. } => self.deadline + pace::of(LAST_CALL),
            State::Stopping | State::Queued { .. } | State::Backoff { .. } => self.deadline,
        }
    }
}
