//! Owns what the agent counts. No label names a MAC address, a VM or a node.

mod labels;

use prometheus_client::{
    metrics::{
        counter::Counter,
        family::Family,
        gauge::{ConstGauge, Gauge},
    },
    registry::{Registry, Unit},
};

pub use super::connect::Failure;
use super::{budget::Limit, ring};
use crate::{
    telemetry::Word,
    wake::{Answer, Carrier, Outcome},
};

use labels::{
    AnswerLabel, FailureLabel, InvalidLabel, LimitLabel, LossLabel, PacketLabels, Reply,
    SocketLabel, StateLabel, Way,
};
pub use labels::{Invalid, ListenerState, Loss, Socket, Verdict};

/// The agent's counters. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    packets: Family<PacketLabels, Counter>,
    invalid: Family<InvalidLabel, Counter>,
    kernel_drops: Family<SocketLabel, Counter>,
    lost: Family<LossLabel, Counter>,
    limited: Family<LimitLabel, Counter>,
    unconnected: Family<FailureLabel, Counter>,
    answers: Family<AnswerLabel, Counter>,
    listeners: Family<StateLabel, Gauge>,
    /// Keys that left the dedup window before their time.
    pub dedup_evictions: Counter,
    /// Shares of senders and targets that were forgotten for want of room.
    pub forgotten_shares: Counter,
    /// Bytes of the filters of wakeable addresses; 0 until a manager has sent one.
    pub wakeable_filter: Gauge,
    /// Targets beyond the first few of one packet.
    pub capped_packets: Counter,
    /// Attempts to connect, after the first.
    pub reconnects: Counter,
    /// Managers that have welcomed this agent and not left it.
    connected_managers: Gauge,
    /// Events that wait for their final answer.
    pub unsettled: Gauge,
}

impl Metrics {
    /// Registers all of them, every series at zero.
    pub fn register(&self, registry: &mut Registry) {
        let r = registry.sub_registry_with_prefix("agent");
        r.register("packets", "Packets heard", self.packets.clone());
        r.register(
            "invalid_packets",
            "Packets that are no magic packets, by what is wrong with them",
            self.invalid.clone(),
        );
        r.register(
            "kernel_dropped_packets",
            "Packets that the kernel dropped because the agent was too slow",
            self.kernel_drops.clone(),
        );
        r.register(
            "lost_events",
            "Events that were given up without an answer",
            self.lost.clone(),
        );
        r.register(
            "answers",
            "Answers of managers to events",
            self.answers.clone(),
        );
        r.register(
            "listeners",
            "Sockets to hear packets with, by whether they are open, or why not",
            self.listeners.clone(),
        );
        r.register(
            "dedup_evictions",
            "Targets forgotten before the dedup window ended, because too many came",
            self.dedup_evictions.clone(),
        );
        r.register(
            "capped_packets",
            "Packets that named more targets than are looked at",
            self.capped_packets.clone(),
        );
        r.register(
            "unsettled_events",
            "Events that wait for their final answer",
            self.unsettled.clone(),
        );
        r.register(
            "unsettled_events_capacity",
            "Events that can wait at once; one more makes the least promising give way",
            ConstGauge::new(i64::try_from(ring::CAPACITY).unwrap_or(i64::MAX)),
        );
        self.register_limits(r);
        self.register_sessions(r);
        self.start_at_zero();
    }

    fn register_limits(&self, r: &mut Registry) {
        r.register(
            "limited_wakes",
            "Wakes that were not reported because too many came, by whose share was used up",
            self.limited.clone(),
        );
        r.register(
            "forgotten_shares",
            "Senders and targets forgotten for want of room; each may report at full rate again",
            self.forgotten_shares.clone(),
        );
        r.register_with_unit(
            "wakeable_filter",
            "Size of the filters by which wakeable addresses go first; 0 until a manager sends one",
            Unit::Bytes,
            self.wakeable_filter.clone(),
        );
    }

    fn register_sessions(&self, r: &mut Registry) {
        r.register(
            "reconnects",
            "Attempts to connect to a manager after the first",
            self.reconnects.clone(),
        );
        r.register(
            "connection_failures",
            "Sessions that could not be had, or broke, by reason",
            self.unconnected.clone(),
        );
        r.register(
            "connected_managers",
            "Managers that this agent has a session with",
            self.connected_managers.clone(),
        );
    }

    fn start_at_zero(&self) {
        use Verdict::{Filtered, Invalid, Limited, Repeat, Reported, Stale};
        let verdicts = [Reported, Repeat, Filtered, Limited, Stale, Invalid];
        let read = Way::KNOWN
            .into_iter()
            .flat_map(|way| verdicts.map(|verdict| (way, verdict)));
        for (way, verdict) in read.chain([(Way::Unknown, Invalid)]) {
            let (carrier, verdict) = (Word(way), Word(verdict));
            let labels = PacketLabels { carrier, verdict };
            drop(self.packets.get_or_create(&labels));
        }
        for reason in self::Invalid::all() {
            drop(self.invalid.get_or_create(&InvalidLabel { reason }));
        }
        let outcomes = Outcome::ALL.into_iter().chain([Outcome::Unknown]);
        let replies = outcomes.map(Reply::Final);
        for outcome in replies.chain([Reply::Deferred]) {
            drop(self.answers.get_or_create(&AnswerLabel { outcome }));
        }
        for reason in [Loss::Overflow, Loss::Crowded, Loss::Stale].map(Word) {
            drop(self.lost.get_or_create(&LossLabel { reason }));
        }
        for limit in Limit::ALL.map(Word) {
            drop(self.limited.get_or_create(&LimitLabel { limit }));
        }
        for reason in Failure::ALL.map(Word) {
            drop(self.unconnected.get_or_create(&FailureLabel { reason }));
        }
        for socket in [Socket::Raw, Socket::Udp].map(Word) {
            drop(self.kernel_drops.get_or_create(&SocketLabel { socket }));
        }
        self.listeners(std::iter::empty());
    }

    /// Counts a packet; the carrier is not known of a frame that could not be read.
    pub fn packet(&self, carrier: Option<Carrier>, verdict: Verdict) {
        let (carrier, verdict) = (Word(carrier.into()), Word(verdict));
        self.packets
            .get_or_create(&PacketLabels { carrier, verdict })
            .inc();
    }

    /// Counts a packet that is no magic packet.
    pub fn invalid(&self, carrier: Option<Carrier>, reason: Invalid) {
        self.packet(carrier, Verdict::Invalid);
        self.invalid.get_or_create(&InvalidLabel { reason }).inc();
    }

    /// Counts packets that the kernel dropped for a kind of socket.
    pub fn kernel_dropped(&self, socket: Socket, packets: u64) {
        let socket = Word(socket);
        self.kernel_drops
            .get_or_create(&SocketLabel { socket })
            .inc_by(packets);
    }

    /// Counts an event that was given up.
    pub fn lost(&self, loss: Loss) {
        let reason = Word(loss);
        self.lost.get_or_create(&LossLabel { reason }).inc();
    }

    /// Counts a wake that was not reported because too many came.
    pub fn limited(&self, limit: Limit) {
        let limit = Word(limit);
        self.limited.get_or_create(&LimitLabel { limit }).inc();
    }

    /// Counts a session that could not be had, or broke.
    pub fn unconnected(&self, failure: Failure) {
        let reason = Word(failure);
        let counter = self.unconnected.get_or_create(&FailureLabel { reason });
        counter.inc();
    }

    /// Says how many managers there is a session with.
    pub fn connected(&self, managers: usize) {
        let managers = i64::try_from(managers).unwrap_or(i64::MAX);
        self.connected_managers.set(managers);
    }

    /// Counts an answer.
    pub fn answered(&self, answer: &Answer) {
        let outcome = match answer {
            Answer::Final(outcome, _) => Reply::Final(*outcome),
            Answer::Deferred(..) => Reply::Deferred,
        };
        self.answers.get_or_create(&AnswerLabel { outcome }).inc();
    }

    /// Says how many listeners are in which state.
    pub fn listeners(&self, states: impl Iterator<Item = ListenerState>) {
        let states: Vec<_> = states.collect();
        for state in ListenerState::ALL {
            let count = states.iter().filter(|own| **own == state).count();
            let state = Word(state);
            let gauge = self.listeners.get_or_create(&StateLabel { state });
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }
}

/// The word for a carrier in logs and metrics.
#[must_use]
pub fn carrier_word(carrier: Carrier) -> &'static str {
    match carrier {
        Carrier::Udp => "udp",
        Carrier::Ethernet => "ethernet",
        Carrier::EthernetUdp => "ethernet-udp",
    }
}
