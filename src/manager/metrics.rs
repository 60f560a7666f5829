//! Owns what the manager counts about wakes and sessions.

use std::time::Duration;

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};

use crate::wake::Outcome;

/// What was done with a reported event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Verdict {
    /// It opened a wake.
    Opened,
    /// It joined a wake that is not settled yet.
    Joined,
    /// It was answered by what is known: on already, a duplicate, cannot be started.
    Answered,
    /// It named nothing that it may wake.
    Rejected,
    /// It was too old.
    Expired,
    /// It was malformed.
    Invalid,
    /// There was no room for it; the agent sends it again.
    Busy,
    /// The manager had been frozen; the session was reset unread.
    Frozen,
}

/// The parts of a wake's way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Stage {
    /// From the packet to its report here.
    Agent,
    /// From the report to the call.
    Queue,
    /// From the call to its answer.
    Api,
    /// From the accepted start to the VM that runs.
    Running,
}

/// Why a VM that we started was not seen to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Unseen {
    /// It went off before.
    Off,
    /// It was deleted before.
    Gone,
    /// It took too long.
    Late,
    /// There was no room to look after it.
    Evicted,
}

/// What became of an Event that a VM's owner should see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Told {
    /// It was written.
    Written,
    /// Another replica had written it.
    Known,
    /// The API server refused it or was away.
    Failed,
    /// There was no room, or one like it was written moments ago.
    Dropped,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Decided {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reported {
    verdict: Verdict,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    answer: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Timed {
    stage: Stage,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Boot {
    reason: Unseen,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ended {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Written {
    result: Told,
}

/// The manager's counters. Cheap to clone; all clones count together.
#[derive(Debug, Clone)]
pub struct Metrics {
    wakes: Family<Decided, Counter>,
    events: Family<Reported, Counter>,
    starts: Family<Answered, Counter>,
    unpausings: Family<Answered, Counter>,
    unseen: Family<Boot, Counter>,
    stages: Family<Timed, Histogram, fn() -> Histogram>,
    told: Family<Written, Counter>,
    ended: Family<Ended, Counter>,
    /// Answers that a session did not take.
    pub dropped_answers: Counter,
    /// Marks of settled wakes that were forgotten for want of room.
    pub evicted_marks: Gauge,
    /// Wakes that are not settled yet.
    pub intents: Gauge,
    /// Calls to the API server under way.
    pub calls: Gauge,
    /// Agents with a session.
    pub connected: Gauge,
    /// Agents that have put the newest configuration into force.
    pub configured: Gauge,
    /// 1 where agents are accepted without encryption.
    pub insecure: Gauge,
}

impl Metrics {
    /// Registers everything; every outcome exists at once, at zero.
    #[must_use]
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            wakes: Family::default(),
            events: Family::default(),
            starts: Family::default(),
            unpausings: Family::default(),
            unseen: Family::default(),
            // From a tenth of a millisecond to ten minutes: some machines boot slowly.
            stages: Family::new_with_constructor(|| {
                Histogram::new(exponential_buckets(0.000_1, 2.5, 18))
            }),
            told: Family::default(),
            ended: Family::default(),
            dropped_answers: Counter::default(),
            evicted_marks: Gauge::default(),
            intents: Gauge::default(),
            calls: Gauge::default(),
            connected: Gauge::default(),
            configured: Gauge::default(),
            insecure: Gauge::default(),
        };
        for outcome in Outcome::ALL {
            let outcome = outcome.as_str();
            drop(metrics.wakes.get_or_create(&Decided { outcome }));
        }
        metrics.register_wakes(registry);
        metrics.register_sessions(registry);
        metrics
    }

    fn register_wakes(&self, registry: &mut Registry) {
        registry.register(
            "wakes",
            "Reports decided, by outcome; each agent's counts, but not those that joined an open wake",
            self.wakes.clone(),
        );
        registry.register(
            "events",
            "Events that agents reported, by what was done with them",
            self.events.clone(),
        );
        registry.register(
            "start_calls",
            "Calls to start a VM, by what their answer meant",
            self.starts.clone(),
        );
        registry.register(
            "unpause_calls",
            "Calls to unpause a VM, by what their answer meant",
            self.unpausings.clone(),
        );
        registry.register(
            "boots_unseen",
            "VMs that were started and not seen to run, by reason",
            self.unseen.clone(),
        );
        registry.register(
            "wake_duration_seconds",
            "How long the parts of a wake took",
            self.stages.clone(),
        );
        registry.register(
            "vm_events",
            "Kubernetes Events on VMs, by what became of them",
            self.told.clone(),
        );
        registry.register(
            "intents_open",
            "Wakes not settled yet",
            self.intents.clone(),
        );
        registry.register(
            "api_calls_under_way",
            "Calls to start or read a VM that are under way",
            self.calls.clone(),
        );
        registry.register(
            "forgotten_marks",
            "Settled wakes forgotten early for want of room; a late copy may repeat them",
            self.evicted_marks.clone(),
        );
    }

    fn register_sessions(&self, registry: &mut Registry) {
        registry.register(
            "connected_agents",
            "Agents with a session to this manager",
            self.connected.clone(),
        );
        registry.register(
            "configured_agents",
            "Connected agents that have put the newest configuration into force",
            self.configured.clone(),
        );
        registry.register(
            "sessions_ended",
            "Sessions of agents that ended, by reason",
            self.ended.clone(),
        );
        registry.register(
            "dropped_answers",
            "Answers that a session did not take; its agent asks again",
            self.dropped_answers.clone(),
        );
        registry.register(
            "insecure",
            "1 where agents are accepted without encryption and authentication",
            self.insecure.clone(),
        );
    }

    /// Counts a decision.
    pub fn decided(&self, outcome: Outcome) {
        let outcome = outcome.as_str();
        self.wakes.get_or_create(&Decided { outcome }).inc();
    }

    /// Counts an event.
    pub fn reported(&self, verdict: Verdict) {
        self.events.get_or_create(&Reported { verdict }).inc();
    }

    /// Counts the answer to a start.
    pub fn start_answered(&self, answer: &'static str) {
        self.starts.get_or_create(&Answered { answer }).inc();
    }

    /// Counts the answer to an unpausing.
    pub fn unpause_answered(&self, answer: &'static str) {
        self.unpausings.get_or_create(&Answered { answer }).inc();
    }

    /// Counts a VM that was started and not seen to run.
    pub fn unseen(&self, reason: Unseen) {
        self.unseen.get_or_create(&Boot { reason }).inc();
    }

    /// Notes how long a part of a wake took.
    pub fn took(&self, stage: Stage, time: Duration) {
        let histogram = self.stages.get_or_create(&Timed { stage });
        histogram.observe(time.as_secs_f64());
    }

    /// Counts an Event on a VM.
    pub fn told(&self, result: Told) {
        self.told.get_or_create(&Written { result }).inc();
    }

    /// Counts the end of a session.
    pub fn ended(&self, reason: &'static str) {
        self.ended.get_or_create(&Ended { reason }).inc();
    }
}
