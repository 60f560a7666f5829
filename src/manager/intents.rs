//! Owns the start intents: at most one per VM, admitted atomically, each settled exactly once.
//!
//! Pure: the caller brings the clock and performs the [`Action`]s. What a VM does decides an
//! intent, never the status code of a call alone: an accepted start may come to nothing, and a
//! refused one may have been made by somebody else.

mod action;
mod closing;
mod intent;
mod queue;
mod steps;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

pub use action::{Action, Admission, Call, Settled, Waiting};
use intent::{Hasten, Intent, State};
pub use steps::verdict;
use steps::{DELETED, OVERRULED, OVERTAKEN, UNSURE, WAS_ON, WITHDRAWN, done, pause, went_on_after};

use crate::{
    manager::{
        marks::Marks,
        report::Wakeable,
        start::{Answered, Reread},
        vm::{Power, Vm},
    },
    pace,
    sabotage::{self, Mechanism},
    throttle::Throttle,
    wake::{Outcome, Wake},
};

/// After an accepted start the VM is read where the watch says nothing for so long.
const SILENCE: Duration = Duration::from_secs(3);
/// An accepted start that the VM does not show within this time is made again.
const CONFIRMED_WITHIN: Duration = Duration::from_secs(30);
/// A reporter that we have no room for asks again after this time.
const BUSY: Duration = Duration::from_secs(2);
/// A change of a VM hastens the next attempt, but no attempt follows another sooner than this.
const BREATH: Duration = Duration::from_millis(200);
/// Who could not read a VM tries on after this time at the latest: it may have cost the whole timeout
/// of a call to find that out.
const UNREAD: Duration = Duration::from_secs(2);
/// Of two managers, one may notice a change so much later than the other.
const SKEW: Duration = Duration::from_secs(2);
/// Marks of settled wakes that are kept at most.
const MAX_MARKS: usize = 16_384;

/// What the intents may do.
#[derive(Debug, Clone)]
pub struct Limits {
    /// How long a wake waits for a VM that cannot start yet, from the moment it was heard.
    pub wake_deadline: Duration,
    /// A wake older than this is stale, unless it was deferred.
    pub event_ttl: Duration,
    /// Repeats within this time of the first packet are one wake.
    pub dedup_window: Duration,
    /// Calls under way at once.
    pub concurrency: usize,
    /// Starts per second.
    pub rate: u32,
    /// Starts at once after a quiet time.
    pub burst: u32,
    /// Open intents.
    pub intents: usize,
    /// Reporters waiting for an answer, over all intents.
    pub reporters: usize,
}

/// The open intents and the wakes settled moments ago.
#[derive(Debug, Clone)]
pub struct Intents {
    limits: Limits,
    open: HashMap<Arc<str>, Intent>,
    due: BTreeSet<(Instant, Arc<str>)>,
    starts: BTreeMap<u64, Arc<str>>,
    reads: BTreeMap<u64, Arc<str>>,
    /// Reads of VMs that may have changed before their wakes were heard.
    checks: BTreeMap<u64, Arc<str>>,
    under_way: usize,
    reporters: usize,
    throttle: Throttle,
    /// That of `checks`.
    checking: Throttle,
    marks: Marks,
    tickets: u64,
    jitter: fastrand::Rng,
    closing: bool,
    /// Nothing is started before.
    held_until: Option<Instant>,
    actions: Vec<Action>,
}

impl Intents {
    /// No intents yet; `seed` makes the jitter of retries.
    #[must_use]
    pub fn new(limits: Limits, seed: u64) -> Self {
        Self {
            open: HashMap::new(),
            due: BTreeSet::new(),
            starts: BTreeMap::new(),
            reads: BTreeMap::new(),
            checks: BTreeMap::new(),
            under_way: 0,
            reporters: 0,
            throttle: Throttle::new(limits.rate, limits.burst),
            checking: Throttle::new(limits.rate, limits.burst),
            marks: Marks::new(limits.dedup_window, limits.event_ttl, MAX_MARKS),
            tickets: 0,
            jitter: fastrand::Rng::with_seed(seed),
            closing: false,
            held_until: None,
            actions: Vec::new(),
            limits,
        }
    }

    /// Takes what is to be done now, in order.
    pub fn take_actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    /// When [`tick`](Self::tick) is to be called unless something else happens before.
    #[must_use]
    pub fn next_due(&self, now: Instant) -> Option<Instant> {
        let throttled = !self.starts.is_empty() && self.under_way < self.limits.concurrency;
        let start = (throttled && !self.closing).then(|| self.throttle.ready_at(now));
        let start = start.map(|at| self.held_until.map_or(at, |held| at.max(held)));
        let check = (!self.checks.is_empty() && self.has_room_for_checks() && !self.closing)
            .then(|| self.checking.ready_at(now));
        let due = self.due.first().map(|(at, _)| *at);
        start.into_iter().chain(check).chain(due).min()
    }

    /// Open intents.
    #[must_use]
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// Whether no intent is open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Whether an intent for this VM is open.
    #[must_use]
    pub fn contains(&self, uid: &str) -> bool {
        self.open.contains_key(uid)
    }

    /// Calls under way.
    #[must_use]
    pub fn under_way(&self) -> usize {
        self.under_way
    }

    /// Marks of settled wakes that were forgotten for want of room.
    #[must_use]
    pub fn evicted(&self) -> u64 {
        self.marks.evicted()
    }

    /// Takes a wake whose VM is known and selected.
    pub fn wake(&mut self, wake: Wakeable, now: Instant) -> Admission {
        let uid = wake.vm.uid.clone();
        if let Some(intent) = self.open.get_mut(&uid) {
            if self.reporters >= self.limits.reporters {
                return self.busy(wake.report, "too many agents report at once");
            }
            intent.join(wake.report, now);
            self.reporters += 1;
            if self.closing && !intent.is_in_hand() {
                intent.defer(now, true, &mut self.actions);
            }
            if sabotage::is(Mechanism::Dedup) {
                self.call_again(wake.vm);
            }
            self.schedule(&uid);
            return Admission::Joined;
        }
        if let Some((outcome, message)) = self.settled_already(&wake) {
            let heard_at = wake.report.heard_at;
            if outcome == Outcome::AlreadyOn && went_on_after(&wake.vm, heard_at) {
                self.marks.set(&uid, heard_at, now);
            }
            self.refuse(wake, outcome, message);
            return Admission::Answered;
        }
        if self.closing {
            return self.busy(wake.report, "this manager is shutting down");
        }
        if self.open.len() >= self.limits.intents || self.reporters >= self.limits.reporters {
            return self.busy(wake.report, "too many virtual machines are being started");
        }
        let intent = Intent::new(wake, now, self.limits.wake_deadline);
        self.open.insert(uid.clone(), intent);
        self.reporters += 1;
        self.judge(&uid, now);
        self.schedule(&uid);
        self.pump(now);
        Admission::Opened
    }

    /// Takes a view of a VM, as the watch brought it. What a read had brought before is newer at
    /// times: then nothing happens.
    pub fn changed(&mut self, vm: &Arc<Vm>, now: Instant) {
        let Some(intent) = self.open.get_mut(&vm.uid) else {
            return;
        };
        // A watch that was interrupted brings the past first: then a read alone says what is now.
        if intent.unsure {
            intent.vm = vm.clone();
            return;
        }
        if vm.is_older_than(&intent.vm) {
            return;
        }
        intent.vm = vm.clone();
        intent.look_forward(now);
        self.judge(&vm.uid, now);
        self.schedule(&vm.uid);
        self.pump(now);
    }

    /// Takes the news that a VM is no more.
    pub fn deleted(&mut self, uid: &Arc<str>, now: Instant) {
        self.settle(uid, Outcome::Gone, DELETED, now);
        self.pump(now);
    }

    /// The packet that opened the intent of this VM.
    #[must_use]
    pub fn wake_of(&self, uid: &str) -> Option<&Wake> {
        self.open.get(uid).map(|intent| &intent.latest)
    }

    /// Takes the news that a call was not made, because the packet may not wake the VM any more.
    pub fn withdrawn(&mut self, uid: &Arc<str>, id: u64, now: Instant) {
        self.under_way = self.under_way.saturating_sub(1);
        if self.calling(uid, id).is_some() {
            self.settle(uid, Outcome::NotSelected, WITHDRAWN, now);
        }
        self.pump(now);
    }

    /// Takes the answer to a start, or to an unpausing.
    pub fn answered(&mut self, uid: &Arc<str>, id: u64, answer: Answered, now: Instant) {
        self.under_way = self.under_way.saturating_sub(1);
        if let Some(intent) = self.calling(uid, id) {
            if answer.may_have_started() {
                intent.effective = intent.deed();
            }
            match answer {
                Answered::Accepted => {
                    intent.accepted = Some(now);
                    intent.why = "KubeVirt accepted the call and has yet to act on it".into();
                    intent.state = State::Confirming {
                        read_at: now + pace::of(SILENCE),
                    };
                    self.judge(uid, now);
                }
                Answered::Recheck { why, .. } => {
                    intent.failures += 1;
                    intent.why = why;
                    self.enqueue(uid, Call::Read);
                }
                Answered::Retry { after, why, .. } => self.back_off(uid, (after, None), why, now),
                Answered::ApiMissing { after, why } => {
                    self.back_off(uid, (Some(after), None), why, now);
                }
                Answered::Gone => self.settle(uid, Outcome::Gone, DELETED, now),
                Answered::Forbidden(why) => self.settle(uid, Outcome::Forbidden, &why, now),
                Answered::Refused(why) => self.settle(uid, Outcome::Stuck, &why, now),
                Answered::Unsupported(why) | Answered::Bug(why) => {
                    self.settle(uid, Outcome::Unsupported, &why, now);
                }
            }
            self.schedule(uid);
        }
        self.pump(now);
    }

    /// Takes what reading a VM brought.
    pub fn reread(&mut self, uid: &Arc<str>, id: u64, read: Reread, now: Instant) {
        self.under_way = self.under_way.saturating_sub(1);
        let roll = self.jitter.f64();
        if let Some(intent) = self.calling(uid, id) {
            match read {
                Reread::Vm(vm) if vm.uid == *uid => {
                    let first = intent.unsure;
                    if first || !vm.is_older_than(&intent.vm) {
                        intent.learn(Arc::new(vm.with_past_of(&intent.vm)));
                    }
                    intent.state = match intent.accepted {
                        _ if first => State::Stopping,
                        Some(since) if now < since + pace::of(CONFIRMED_WITHIN) => {
                            State::Confirming {
                                read_at: now + pace::of(SILENCE).mul_f64(0.5 + roll),
                            }
                        }
                        _ => State::Backoff {
                            until: now + pause(intent.failures, roll),
                            hasten: Hasten::Vm,
                        },
                    };
                    if first && intent.was_on_when_heard() {
                        self.settle(uid, Outcome::AlreadyOn, WAS_ON, now);
                    } else {
                        self.judge(uid, now);
                    }
                }
                // Another VM has taken the name.
                Reread::Vm(_) | Reread::Gone => self.settle(uid, Outcome::Gone, DELETED, now),
                Reread::Failed(why) => self.unread(uid, why, now),
            }
            self.schedule(uid);
        }
        self.pump(now);
    }

    /// Does what is due.
    pub fn tick(&mut self, now: Instant) {
        while let Some((at, uid)) = self.due.first().cloned() {
            if at > now {
                break;
            }
            self.due.pop_first();
            self.on_time(&uid, now);
            self.schedule(&uid);
        }
        self.pump(now);
    }

    fn on_time(&mut self, uid: &Arc<str>, now: Instant) {
        let Some(intent) = self.open.get_mut(uid) else {
            return;
        };
        if now >= intent.expires_at() {
            return self.expire(uid, now);
        }
        if intent.is_given_up(self.limits.event_ttl, now) {
            return self.expire(uid, now);
        }
        intent.defer(now, false, &mut self.actions);
        let wanted = intent.wanted();
        match intent.state {
            State::Backoff { until, .. } if now >= until => self.enqueue(uid, wanted),
            State::Confirming { read_at } if now >= read_at => self.enqueue(uid, Call::Read),
            _ => {}
        }
    }

    /// Moves an intent by what its VM looks like now.
    pub(super) fn judge(&mut self, uid: &Arc<str>, now: Instant) {
        let Some(intent) = self.open.get_mut(uid) else {
            return;
        };
        if intent.unsure {
            if intent.state == State::Stopping {
                intent.why = UNSURE.into();
                self.enqueue(uid, Call::Read);
            }
            return;
        }
        let decided = verdict(intent.vm.power).filter(|_| !intent.awaits_unpausing());
        if let Some((outcome, message)) = decided {
            return match (outcome, intent.deed()) {
                (Outcome::AlreadyOn, Some(deed)) => {
                    self.settle(uid, Outcome::Started, done(deed), now);
                }
                _ => self.settle(uid, outcome, &message, now),
            };
        }
        if intent.is_overtaken() {
            return match intent.deed() {
                Some(deed) => self.settle(uid, Outcome::Started, done(deed), now),
                None => self.settle(uid, Outcome::AlreadyOn, OVERTAKEN, now),
            };
        }
        let stopping = intent.vm.power == Power::Stopping;
        let overruled = intent.is_overruled();
        match intent.state {
            State::Stopping
            | State::Backoff { .. }
            | State::Queued {
                call: Call::Start | Call::Unpause,
                ..
            } if overruled => self.settle(uid, Outcome::Expired, OVERRULED, now),
            // Opened just now, or the VM has stopped.
            State::Stopping if !stopping => {
                intent.why = "waiting for its turn to be started".into();
                let wanted = intent.wanted();
                self.enqueue(uid, wanted);
            }
            State::Stopping | State::Backoff { .. } | State::Queued { .. } if stopping => {
                intent.why = "waiting for the virtual machine to stop".into();
                self.unqueue(uid, State::Stopping);
            }
            // What a call under way or an accepted start brings is seen later.
            _ => {}
        }
    }
}
