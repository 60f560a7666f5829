//! Owns the small steps that move an intent: queueing its calls, backing off, settling.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    manager::{
        report::{Report, Wakeable},
        vm::{Power, Vm},
    },
    pace,
    sabotage::{self, Mechanism},
    wake::{Answer, Outcome},
};

use super::{
    Action, Admission, BREATH, BUSY, CONFIRMED_WITHIN, Call, Intents, SKEW, Settled, UNREAD,
    intent::{Hasten, Intent, State},
};

/// What a wake can say of a VM at once; nothing where it has to be started first.
#[must_use]
pub fn verdict(power: Power) -> Option<(Outcome, String)> {
    let (outcome, message) = match power {
        Power::Off | Power::Stopping => return None,
        Power::On => (Outcome::AlreadyOn, "the virtual machine is on".into()),
        Power::Paused => (
            Outcome::AlreadyOn,
            "the virtual machine is on, but paused".into(),
        ),
        Power::Stuck(status) => (
            Outcome::Stuck,
            format!("the virtual machine is on its way but stuck in {status}"),
        ),
        Power::Unsupported(why) => (Outcome::Unsupported, why.into()),
        Power::Receiver => (
            Outcome::Unsupported,
            "the virtual machine waits to receive a migration".into(),
        ),
        Power::Gone => (Outcome::Gone, DELETED.into()),
    };
    Some((outcome, message))
}

/// Whether a VM went on after a packet was heard, be it off again: then the wake has had its effect.
pub(super) fn went_on_after(vm: &Vm, heard_at: Instant) -> bool {
    vm.on_since.is_some_and(|since| heard_at < since)
}

/// Whether a VM was on when a packet was heard, and has gone off since, as far as is known. Who deferred
/// the wake may have seen the VM go off a little earlier than we, if it looked at all.
pub(super) fn went_off_after(vm: &Vm, heard_at: Instant, deferred: bool) -> bool {
    let slack = if deferred {
        pace::of(SKEW)
    } else {
        Duration::ZERO
    };
    vm.off_since.is_some_and(|since| heard_at + slack < since)
}

/// What became of a VM by a call of ours.
pub(super) fn done(deed: Call) -> &'static str {
    match deed {
        Call::Unpause => "unpaused",
        Call::Start | Call::Read => "started",
    }
}

/// Why a wake ends whose VM is no more.
pub(super) const DELETED: &str = "the virtual machine was deleted";

/// Why a wake ends whose VM was given another `runStrategy` while it waited: whoever did that came
/// later, and may want the VM off.
pub(super) const OVERRULED: &str =
    "its runStrategy was changed while the wake waited; another packet starts it";

/// Why a wake ends whose VM went on by somebody else, and may be off again.
pub(super) const OVERTAKEN: &str = "the virtual machine went on after this packet was heard";

/// Why a wake ends whose VM was on when it was heard.
pub(super) const WAS_ON: &str =
    "the virtual machine was on when this packet was heard, and went off since";

/// Why a wake waits whose VM was on when word of it came the last time.
pub(super) const UNSURE: &str =
    "changes may have been missed, as the API server was away: the virtual machine is read first";

/// What those are told who have to report once more.
const STOOD_STILL: &str = "this manager stood still for a while";

/// Why a wake ends that would not be taken any more.
pub(super) const WITHDRAWN: &str = "while the wake waited, the WolConfigs, the labels or the \
     addresses changed, so that the packet may not wake it any more";

/// The pause after so many failures: three quick attempts, then 2 s doubling to 15 s, each cut to
/// between a half and the whole by `roll` (0 to 1).
pub(super) fn pause(failures: u32, roll: f64) -> Duration {
    let full = match failures {
        0..=3 => Duration::from_millis(100) * 2_u32.pow(failures),
        _ => Duration::from_secs(2) * 2_u32.pow((failures - 4).min(3)),
    };
    let full = full.min(Duration::from_secs(15));
    pace::of(full).mul_f64(0.5 + roll / 2.0)
}

impl Intents {
    /// Whether a wake needs no intent, and why.
    pub(super) fn settled_already(&self, wake: &Wakeable) -> Option<(Outcome, String)> {
        let Wakeable { report, vm, .. } = wake;
        if self.marks.covers(&vm.uid, report.heard_at) && !sabotage::is(Mechanism::Dedup) {
            let message = "a repeat of a wake that was settled moments ago";
            return Some((Outcome::Duplicate, message.into()));
        }
        let knows = !sabotage::is(Mechanism::Age);
        if knows && went_on_after(vm, report.heard_at) {
            return Some((Outcome::AlreadyOn, OVERTAKEN.into()));
        }
        if knows && went_off_after(vm, report.heard_at, report.deferred) {
            return Some((Outcome::AlreadyOn, WAS_ON.into()));
        }
        let unpause = wake.unpause && vm.power == Power::Paused;
        verdict(vm.power).filter(|_| !unpause && !wake.unsure)
    }

    /// Puts the next attempt off, between the bounds if there are any. Where the server named no time,
    /// its return from an outage hastens it.
    pub(super) fn back_off(
        &mut self,
        uid: &Arc<str>,
        (least, most): (Option<Duration>, Option<Duration>),
        why: String,
        now: Instant,
    ) {
        let roll = self.jitter.f64();
        if let Some(intent) = self.open.get_mut(uid) {
            let pause = pause(intent.failures, roll);
            let pause = pause.min(most.unwrap_or(pause));
            intent.failures += 1;
            intent.why = why;
            intent.state = State::Backoff {
                until: now + pause.max(least.unwrap_or_default()),
                hasten: match least {
                    Some(_) => Hasten::Never,
                    None => Hasten::Api,
                },
            };
            // The VM may have begun to stop while the call was under way.
            self.judge(uid, now);
        }
    }

    /// A VM could not be read. Where a start was accepted, that is no reason to make it again.
    pub(super) fn unread(&mut self, uid: &Arc<str>, why: String, now: Instant) {
        let roll = self.jitter.f64();
        if let Some(intent) = self.open.get_mut(uid)
            && intent
                .accepted
                .is_some_and(|at| now < at + pace::of(CONFIRMED_WITHIN))
        {
            let read_at = now + pause(intent.failures, roll);
            intent.failures += 1;
            intent.state = State::Confirming { read_at };
        } else {
            self.back_off(uid, (None, Some(pace::of(UNREAD))), why, now);
        }
    }

    /// Takes the news that the API server is back: what failed while it was away is tried soon, not
    /// when its own pause is over. The throttle spreads that out.
    pub fn hasten(&mut self, now: Instant) {
        let (mut hastened, mut hung) = (Vec::new(), Vec::new());
        for (uid, intent) in &mut self.open {
            // It may hang on a connection that is no more.
            if intent.is_checked() {
                hung.push(uid.clone());
            }
            if let State::Backoff {
                until,
                hasten: Hasten::Api,
            } = &mut intent.state
            {
                *until =
                    (*until).min(now + pace::of(BREATH).mul_f64(0.5 + self.jitter.f64() / 2.0));
                // Not all of it may be back: quick attempts, as after the first failure.
                intent.failures = intent.failures.min(1);
                hastened.push(uid.clone());
            }
        }
        for uid in hung {
            self.enqueue(&uid, Call::Read);
            self.schedule(&uid);
        }
        for uid in hastened {
            self.schedule(&uid);
        }
        self.pump(now);
    }

    /// Keeps the timer of an intent at what it waits for.
    pub(super) fn schedule(&mut self, uid: &Arc<str>) {
        let Some(intent) = self.open.get_mut(uid) else {
            return;
        };
        let due = intent.due();
        if let Some(old) = intent.timer.replace(due) {
            self.due.remove(&(old, uid.clone()));
        }
        self.due.insert((due, uid.clone()));
    }

    /// The process stood still, so that what it knows of VMs may be of before: nothing is started on that
    /// until `caught_up`. Who still waits for an answer reports again, here or elsewhere. Starts that are on
    /// their way or were accepted go on, and so does what nobody can report again. To be told before the
    /// actions are taken; names the VMs that nobody waits for any more.
    pub fn stood_still(&mut self, now: Instant, caught_up: Instant) -> Vec<Arc<str>> {
        self.held_until = Some(caught_up);
        let unmade = |action: &mut Action| matches!(action, Action::Call(..));
        let unmade: Vec<Action> = self.actions.extract_if(.., unmade).collect();
        self.under_way = self.under_way.saturating_sub(unmade.len());
        for action in unmade {
            if let Action::Call(call, id, vm) = action
                && self.calling(&vm.uid, id).is_some()
            {
                self.enqueue(&vm.uid, call);
                self.schedule(&vm.uid);
            }
        }
        let goes_on = |intent: &Intent| {
            let starts = matches!(intent.state, State::Calling { call, .. } if call != Call::Read);
            starts || intent.accepted.is_some() || !intent.is_listened_to()
        };
        let left = self.open.iter().filter(|(_, intent)| !goes_on(intent));
        let left: Vec<Arc<str>> = left.map(|(uid, _)| uid.clone()).collect();
        for uid in &left {
            self.leave(uid);
        }
        self.pump(now);
        left
    }

    /// Ends an intent without settling it: those who reported it report it again.
    fn leave(&mut self, uid: &str) {
        self.unqueue(uid, State::Stopping);
        let Some(intent) = self.open.remove(uid) else {
            return;
        };
        if let Some(timer) = intent.timer {
            self.due.remove(&(timer, uid.into()));
        }
        self.reporters -= intent.reporters();
        for reply in intent.into_reporters() {
            let answer = Answer::Deferred(pace::of(BUSY), STOOD_STILL.into());
            self.actions.push(Action::Answer(reply, answer));
        }
    }

    /// Ends an intent: tells everybody who reported it, and marks the VM where this started it. What
    /// came to nothing, or to nothing new, leaves no mark: the next packet counts.
    pub(super) fn settle(&mut self, uid: &Arc<str>, outcome: Outcome, message: &str, now: Instant) {
        let deed = self.open.get(uid).and_then(Intent::deed);
        self.unqueue(uid, State::Stopping);
        let Some(intent) = self.open.remove(uid) else {
            return;
        };
        let booted = outcome == Outcome::Started && deed == Some(Call::Start);
        if let Some(timer) = intent.timer {
            self.due.remove(&(timer, uid.clone()));
        }
        // Whoever had it go on after the packet was heard: repeats of that are to start nothing.
        let taken = outcome == Outcome::AlreadyOn && intent.is_overtaken();
        if outcome == Outcome::Started || taken {
            self.marks.set(uid, intent.first.heard_at, now);
        }
        self.reporters -= intent.reporters();
        self.actions.push(Action::Settled(Box::new(Settled {
            report: intent.first.clone(),
            vm: intent.decided_on.clone(),
            outcome,
            message: message.into(),
            reporters: intent.reporters(),
            queued: intent.first_call.map(|at| at - intent.opened),
            // The watch may bring what came of a call before its answer comes.
            boot: booted.then(|| (intent.accepted.unwrap_or(now), intent.vm.clone())),
        })));
        for reply in intent.into_reporters() {
            let answer = Answer::Final(outcome, message.into());
            self.actions.push(Action::Answer(reply, answer));
        }
    }

    /// Answers a report that needs no intent.
    pub(super) fn refuse(&mut self, wake: Wakeable, outcome: Outcome, message: String) {
        let Wakeable { report, vm, .. } = wake;
        let answer = Answer::Final(outcome, message.clone());
        self.actions
            .push(Action::Answer(report.reply.clone(), answer));
        self.actions.push(Action::Settled(Box::new(Settled {
            report,
            vm,
            outcome,
            message,
            reporters: 1,
            queued: None,
            boot: None,
        })));
    }

    /// Asks a reporter to come again.
    pub(super) fn busy(&mut self, report: Report, why: &str) -> Admission {
        let answer = Answer::Deferred(pace::of(BUSY), why.into());
        self.actions.push(Action::Answer(report.reply, answer));
        Admission::Busy
    }
}
