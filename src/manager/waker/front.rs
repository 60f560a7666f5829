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
        directory::{Directory, Lookup, Refusal},
        events::Events,
        metrics::{Metrics, Stage, Verdict},
        quota::Quota,
        report::{Report, Reports, Wakeable},
        vm::{Vm, VmKey},
        watch::Contact,
    },
    wake::{Answer, Outcome, Wake},
};

use super::{Journal, LOCKED, STALE, Tools};

/// An agent that finds no room comes again after this time.
const BUSY: Duration = Duration::from_secs(2);
/// VMs named where an address is ambiguous.
const MAX_NAMED: usize = 8;

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
        self.answer(report, Answer::Deferred(BUSY, why.into()));
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

    fn not_selected(&self, report: &Report, vm: &Arc<Vm>, why: Refusal) {
        let target = report.wake.target;
        let text = format!("{} has the address {target}, but {why}", vm.key);
        let outcome = match why {
            Refusal::PasswordUnset | Refusal::PasswordAbsent | Refusal::PasswordWrong => {
                Outcome::WrongPassword
            }
            Refusal::Receiver => Outcome::Unsupported,
            Refusal::NoConfig | Refusal::Source => Outcome::NotSelected,
        };
        // The owner of a VM that no config selects has not asked to be told.
        if !matches!(why, Refusal::NoConfig | Refusal::Receiver) {
            self.events.ignored(vm, report, &why.to_string(), now());
        }
        self.reject(report, Some(&vm.key), outcome, text);
    }

    fn ambiguous(&self, report: &Report, keys: &[VmKey]) {
        let (target, count) = (report.wake.target, keys.len());
        let shown = &keys[..count.min(MAX_NAMED)];
        let names: Vec<String> = shown.iter().map(ToString::to_string).collect();
        let names = names.join(", ");
        let why = format!("{count} virtual machines have the address {target}: {names}");
        for vm in shown.iter().filter_map(|key| self.directory.vm(key)) {
            self.events.ambiguous(&vm, report, &why, now());
        }
        self.reject(report, None, Outcome::Ambiguous, why);
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
        if age >= limit {
            let why = format!("heard {age:.1?} ago; a wake older than {limit:?} starts nothing");
            return self.reject(&report, None, Outcome::Expired, why);
        }
        let target = report.wake.target;
        if !self.listed.iter().all(Gate::is_open) {
            return self.defer(
                &report,
                Verdict::Busy,
                "this manager does not know all virtual machines yet",
            );
        }
        let age = self.contact.age(now());
        match self.directory.look_up(&report.wake, age) {
            Lookup::Wakeable { vm, unpause } => self.hand_on(Wakeable {
                report,
                vm,
                unpause,
            }),
            Lookup::NotFound => {
                let why = format!("no virtual machine has the address {target} in its spec");
                self.reject(&report, None, Outcome::NotFound, why);
            }
            Lookup::Missing(key) => {
                let why = format!("a WolConfig maps {target} to {key}, which does not exist");
                self.reject(&report, Some(&key), Outcome::NotFound, why);
            }
            Lookup::NotSelected { vm, why } => self.not_selected(&report, &vm, why),
            Lookup::Ambiguous(keys) => self.ambiguous(&report, &keys),
            Lookup::Stale => self.defer(&report, Verdict::Stale, STALE),
            Lookup::Locked => self.defer(&report, Verdict::Busy, LOCKED),
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
