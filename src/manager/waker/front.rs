//! Owns [`Front`]: takes reports from all sessions at once, answers what cannot be woken, and
//! hands the rest to the waker.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::mpsc;

use crate::{
    admin::Gate,
    manager::{
        directory::{Directory, Lookup, MAX_NAMED, Refusal},
        events::Events,
        metrics::{Metrics, Stage, Verdict},
        pulse::Pulse,
        quota::Quota,
        report::{Report, Reports, Wakeable},
        vm::{Vm, VmKey},
        watch::{Contact, Watched},
    },
    sabotage::{self, Mechanism},
    wake::{Answer, Outcome, Wake},
};

use super::{Journal, LOCKED, STALE, Tools};

/// Why a wake is put off just after the manager stood still.
const CATCHING_UP: &str = "this manager stood still for a while, and learns what it has missed";

/// An agent that finds no room comes again after this time.
const BUSY: Duration = Duration::from_secs(2);

/// How old a wake may be.
#[derive(Debug, Clone, Copy)]
pub struct Freshness {
    /// A fresh one.
    pub event_ttl: Duration,
    /// One that a manager deferred.
    pub wake_deadline: Duration,
}

/// Decides what needs no start.
pub struct Front {
    directory: Arc<Directory>,
    queue: mpsc::Sender<Wakeable>,
    quota: Quota,
    freshness: Freshness,
    /// Open once all VMs and configs were listed; until then nothing is known not to exist, be it
    /// a second VM with the same address.
    listed: Vec<Gate>,
    contact: Contact,
    pulse: Arc<Pulse>,
    events: Events,
    journal: Arc<Journal>,
    metrics: Metrics,
}

impl Front {
    /// Hands to `queue` what the directory of `tools` allows. Before the gates are open,
    /// everything is deferred.
    #[must_use]
    pub fn new(
        tools: Tools,
        queue: mpsc::Sender<Wakeable>,
        freshness: Freshness,
        listed: Vec<Gate>,
    ) -> Self {
        Self {
            directory: tools.directory,
            queue,
            quota: Quota::default(),
            freshness,
            listed,
            contact: tools.contact,
            pulse: tools.pulse,
            events: tools.events,
            journal: tools.journal,
            metrics: tools.metrics,
        }
    }

    fn hand_on(&self, wake: Wakeable) {
        if !self.quota.admit(&wake.report.node, now()) {
            let why = "more wakes were reported than this manager takes in";
            return self.defer(&wake.report, Verdict::RateLimited, why);
        }
        let (wake, why) = match self.queue.try_send(wake) {
            Ok(()) => return,
            Err(mpsc::error::TrySendError::Full(wake)) => (wake, "this manager is busy"),
            Err(mpsc::error::TrySendError::Closed(wake)) => (wake, "this manager is shutting down"),
        };
        self.defer(&wake.report, Verdict::Busy, why);
    }

    fn defer(&self, report: &Report, verdict: Verdict, why: &str) {
        self.metrics.reported(verdict);
        self.answer(report, Answer::Deferred(crate::pace::of(BUSY), why.into()));
    }

    fn reject(&self, report: &Report, vm: Option<&VmKey>, outcome: Outcome, why: String) {
        let verdict = match outcome {
            Outcome::Expired => Verdict::Expired,
            _ => Verdict::Rejected,
        };
        self.metrics.reported(verdict);
        self.metrics.decided(outcome);
        self.journal.rejected(report, vm, outcome, &why, now());
        self.answer(report, Answer::Final(outcome, why));
    }

    fn answer(&self, report: &Report, answer: Answer) {
        if !report.reply.send(answer) {
            self.metrics.dropped_answers.inc();
        }
    }

    /// Answers a wake that wakes nothing, and tells the owners of the VMs that it named.
    fn refuse(&self, report: &Report, lookup: &Lookup) {
        let Some((outcome, text)) = lookup.refusal(report.wake.target) else {
            return;
        };
        let vm = match lookup {
            Lookup::NotSelected { vm, why } => {
                // The owner of a VM that no config selects has not asked to be told.
                if !matches!(why, Refusal::NoConfig | Refusal::Receiver) {
                    self.events.ignored(vm, report, &why.to_string(), now());
                }
                Some(&vm.key)
            }
            Lookup::Ambiguous(keys) => {
                let named = keys.iter().take(MAX_NAMED);
                for vm in named.filter_map(|key| self.directory.vm(key)) {
                    self.events.ambiguous(&vm, report, &text, now());
                }
                None
            }
            Lookup::Missing(key) => Some(key),
            _ => None,
        };
        self.reject(report, vm, outcome, text);
    }
}

impl Reports for Front {
    fn report(&self, report: Report) {
        let age = now().saturating_duration_since(report.heard_at);
        let limit = if report.deferred {
            self.freshness.wake_deadline
        } else {
            self.metrics.took(Stage::Agent, age);
            self.freshness.event_ttl
        };
        if age >= limit && !sabotage::is(Mechanism::Ttl) {
            let why = format!("heard {age:.1?} ago; a wake older than {limit:?} starts nothing");
            return self.reject(&report, None, Outcome::Expired, why);
        }
        if !self.listed.iter().all(Gate::is_open) {
            return self.defer(
                &report,
                Verdict::Busy,
                "this manager does not know all virtual machines yet",
            );
        }
        if self.pulse.is_catching_up() {
            return self.defer(&report, Verdict::Busy, CATCHING_UP);
        }
        let contact = self.contact.age(now());
        let unsure = report.heard_at > self.contact.earliest(Watched::VirtualMachines, now());
        match self.directory.look_up(&report.wake, contact) {
            Lookup::Wakeable { vm, unpause } => self.hand_on(Wakeable {
                report,
                vm,
                unpause,
                unsure,
            }),
            Lookup::Stale => self.defer(&report, Verdict::Stale, STALE),
            Lookup::Locked => self.defer(&report, Verdict::Busy, LOCKED),
            refused => self.refuse(&report, &refused),
        }
    }

    fn vm(&self, wake: &Wake) -> Option<Arc<Vm>> {
        // People are served by what was known last.
        match self.directory.look_up(wake, Duration::ZERO) {
            Lookup::Wakeable { vm, .. } | Lookup::NotSelected { vm, .. } => Some(vm),
            Lookup::NotFound
            | Lookup::Missing(_)
            | Lookup::Ambiguous(_)
            | Lookup::Stale
            | Lookup::Locked => None,
        }
    }
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
