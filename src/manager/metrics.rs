//! Owns what the manager counts about wakes and sessions.

mod labels;
mod transport;

use std::time::Duration;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};

use crate::{telemetry::Word, wake::Outcome};

pub use labels::{Found, Meaning, SessionEnd, Told};
pub use transport::{Handshake, Reload, TransportMetrics};

/// What was done with a reported event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
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
    /// Its node, or all together, reported more than is taken in; the agent sends it again.
    RateLimited,
    /// The API server has been away for longer than `cacheTTL`; the agent sends it again.
    Stale,
    /// The manager had been frozen; the session was reset unread.
    Frozen,
}

impl Verdict {
    const ALL: [Self; 10] = [
        Self::Opened,
        Self::Joined,
        Self::Answered,
        Self::Rejected,
        Self::Expired,
        Self::Invalid,
        Self::Busy,
        Self::RateLimited,
        Self::Stale,
        Self::Frozen,
    ];
}

/// The parts of a wake's way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
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

impl Unseen {
    const ALL: [Self; 4] = [Self::Off, Self::Gone, Self::Late, Self::Evicted];
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Decided {
    outcome: Word<Outcome>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reported {
    verdict: Word<Verdict>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    answer: Word<Meaning>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reread {
    result: Word<Found>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Timed {
    stage: Word<Stage>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Boot {
    reason: Word<Unseen>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ended {
    reason: Word<SessionEnd>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Written {
    result: Word<Told>,
}

/// The manager's counters. Cheap to clone; all clones count together.
#[derive(Debug, Clone)]
pub struct Metrics {
    wakes: Family<Decided, Counter>,
    events: Family<Reported, Counter>,
    starts: Family<Answered, Counter>,
    reads: Family<Reread, Counter>,
    unpausings: Family<Answered, Counter>,
    unseen: Family<Boot, Counter>,
    stages: Family<Timed, Histogram, fn() -> Histogram>,
    told: Family<Written, Counter>,
    ended: Family<Ended, Counter>,
    /// Answers that a session did not take.
    pub dropped_answers: Counter,
    /// Marks of settled wakes that were forgotten for want of room.
    pub evicted_marks: Counter,
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
    /// Registers everything; every series exists at once, at zero.
    #[must_use]
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            wakes: Family::default(),
            events: Family::default(),
            starts: Family::default(),
            reads: Family::default(),
            unpausings: Family::default(),
            unseen: Family::default(),
            // From a tenth of a millisecond to ten minutes: some machines boot slowly.
            stages: Family::new_with_constructor(|| {
                Histogram::new(exponential_buckets(0.000_1, 2.5, 18))
            }),
            told: Family::default(),
            ended: Family::default(),
            dropped_answers: Counter::default(),
            evicted_marks: Counter::default(),
            intents: Gauge::default(),
            calls: Gauge::default(),
            connected: Gauge::default(),
            configured: Gauge::default(),
            insecure: Gauge::default(),
        };
        metrics.start_at_zero();
        metrics.register_wakes(registry);
        metrics.register_sessions(registry);
        metrics
    }

    fn start_at_zero(&self) {
        for outcome in Outcome::ALL.map(Word) {
            drop(self.wakes.get_or_create(&Decided { outcome }));
        }
        for verdict in Verdict::ALL.map(Word) {
            drop(self.events.get_or_create(&Reported { verdict }));
        }
        for answer in Meaning::ALL.map(Word) {
            drop(self.starts.get_or_create(&Answered { answer }));
            drop(self.unpausings.get_or_create(&Answered { answer }));
        }
        for result in Found::ALL.map(Word) {
            drop(self.reads.get_or_create(&Reread { result }));
        }
        for reason in Unseen::ALL.map(Word) {
            drop(self.unseen.get_or_create(&Boot { reason }));
        }
        for result in Told::ALL.map(Word) {
            drop(self.told.get_or_create(&Written { result }));
        }
        for reason in SessionEnd::ALL.map(Word) {
            drop(self.ended.get_or_create(&Ended { reason }));
        }
        let stages = [Stage::Agent, Stage::Queue, Stage::Api, Stage::Running];
        for stage in stages.map(Word) {
            drop(self.stages.get_or_create(&Timed { stage }));
        }
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
            "read_calls",
            "Calls to read a VM whose watch said nothing in time, or may have missed a change, by what they brought",
            self.reads.clone(),
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
            "kubernetes_events",
            "Kubernetes Events on VMs and WolConfigs, by what became of them",
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
        let outcome = Word(outcome);
        self.wakes.get_or_create(&Decided { outcome }).inc();
    }

    /// Counts an event.
    pub fn reported(&self, verdict: Verdict) {
        let verdict = Word(verdict);
        self.events.get_or_create(&Reported { verdict }).inc();
    }

    /// Counts the answer to a start.
    pub fn start_answered(&self, answer: Meaning) {
        let answer = Word(answer);
        self.starts.get_or_create(&Answered { answer }).inc();
    }

    /// Counts the answer to an unpausing.
    pub fn unpause_answered(&self, answer: Meaning) {
        let answer = Word(answer);
        self.unpausings.get_or_create(&Answered { answer }).inc();
    }

    /// Counts what reading a VM brought.
    pub fn read(&self, result: Found) {
        let result = Word(result);
        self.reads.get_or_create(&Reread { result }).inc();
    }

    /// Counts a VM that was started and not seen to run.
    pub fn unseen(&self, reason: Unseen) {
        let reason = Word(reason);
        self.unseen.get_or_create(&Boot { reason }).inc();
    }

    /// Notes how long a part of a wake took.
    pub fn took(&self, stage: Stage, time: Duration) {
        let stage = Word(stage);
        let histogram = self.stages.get_or_create(&Timed { stage });
        histogram.observe(time.as_secs_f64());
    }

    /// Counts an Event that people should see.
    pub fn told(&self, result: Told) {
        let result = Word(result);
        self.told.get_or_create(&Written { result }).inc();
    }

    /// Counts the end of a session.
    pub fn ended(&self, reason: SessionEnd) {
        let reason = Word(reason);
        self.ended.get_or_create(&Ended { reason }).inc();
    }
}
