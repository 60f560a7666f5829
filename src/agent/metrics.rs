//! Owns what the agent counts. No label names a MAC address, a VM or a node.

use std::fmt;

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::{ConstGauge, Gauge},
    },
    registry::Registry,
};

pub use super::connect::Failure;
use super::ring;
use crate::{
    frame::FrameRejection,
    packet::Rejection,
    telemetry::Word,
    wake::{Answer, Carrier, Outcome},
};

/// What became of one packet in the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// It named at least one new wake.
    Reported,
    /// All that it named was heard moments ago.
    Repeat,
    /// No `WolConfig` wants packets from there.
    Filtered,
    /// It is no magic packet.
    Invalid,
}

/// How a packet came, as far as that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Way {
    Udp,
    Ethernet,
    EthernetUdp,
    /// In a frame that cannot be read.
    Unknown,
}

impl Way {
    const KNOWN: [Self; 3] = [Self::Udp, Self::Ethernet, Self::EthernetUdp];
}

impl From<Option<Carrier>> for Way {
    fn from(carrier: Option<Carrier>) -> Self {
        match carrier {
            Some(Carrier::Udp) => Self::Udp,
            Some(Carrier::Ethernet) => Self::Ethernet,
            Some(Carrier::EthernetUdp) => Self::EthernetUdp,
            None => Self::Unknown,
        }
    }
}

/// Why a packet is no magic packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Invalid {
    /// Its payload is none.
    Payload(Rejection),
    /// Its frame has no payload.
    Frame(FrameRejection),
    /// The node itself sends it.
    Outgoing,
    /// It is longer than any that a sender makes.
    Oversized,
}

impl Invalid {
    /// The word for it in logs and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Payload(rejection) => rejection.as_str(),
            Self::Frame(rejection) => rejection.as_str(),
            Self::Outgoing => "outgoing",
            Self::Oversized => "oversized",
        }
    }

    fn all() -> impl Iterator<Item = Self> {
        let payloads = Rejection::ALL.map(Self::Payload);
        let frames = FrameRejection::ALL.map(Self::Frame);
        let rest = [Self::Outgoing, Self::Oversized];
        payloads.into_iter().chain(frames).chain(rest)
    }
}

impl EncodeLabelValue for Invalid {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        self.as_str().encode(encoder)
    }
}

/// Why an event left the ring without an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Loss {
    /// The ring was full.
    Overflow,
    /// No manager took it in time.
    Stale,
}

/// A kind of socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Socket {
    /// The packet socket.
    Raw,
    /// A UDP socket.
    Udp,
}

/// Whether a socket is open, or why not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ListenerState {
    /// It is.
    Open,
    /// Another process has the port.
    PortTaken,
    /// The port needs a capability.
    PortDenied,
    /// The packet socket needs a capability.
    RawDenied,
    /// Anything else.
    Failed,
}

impl ListenerState {
    const ALL: [Self; 5] = [
        Self::Open,
        Self::PortTaken,
        Self::PortDenied,
        Self::RawDenied,
        Self::Failed,
    ];
}

/// What a manager answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Reply {
    Final(Outcome),
    Deferred,
}

impl EncodeLabelValue for Reply {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        match self {
            Self::Final(outcome) => outcome.as_str().encode(encoder),
            Self::Deferred => "deferred".encode(encoder),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PacketLabels {
    carrier: Word<Way>,
    verdict: Word<Verdict>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct InvalidLabel {
    reason: Invalid,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FailureLabel {
    reason: Word<Failure>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LossLabel {
    reason: Word<Loss>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SocketLabel {
    socket: Word<Socket>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AnswerLabel {
    outcome: Reply,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabel {
    state: Word<ListenerState>,
}

/// The agent's counters. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    packets: Family<PacketLabels, Counter>,
    invalid: Family<InvalidLabel, Counter>,
    kernel_drops: Family<SocketLabel, Counter>,
    lost: Family<LossLabel, Counter>,
    unconnected: Family<FailureLabel, Counter>,
    answers: Family<AnswerLabel, Counter>,
    listeners: Family<StateLabel, Gauge>,
    /// Keys that left the dedup window before their time.
    pub dedup_evictions: Counter,
    /// Targets beyond the first few of one packet.
    pub capped_packets: Counter,
    /// Attempts to connect, after the first.
    pub reconnects: Counter,
    /// 1 while a manager has welcomed this agent.
    pub session_connected: Gauge,
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
        self.register_sessions(r);
        self.start_at_zero();
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
            "session_connected",
            "1 while a manager has welcomed this agent",
            self.session_connected.clone(),
        );
    }

    fn start_at_zero(&self) {
        use Verdict::{Filtered, Invalid, Repeat, Reported};
        let read = Way::KNOWN
            .into_iter()
            .flat_map(|way| [Reported, Repeat, Filtered, Invalid].map(|verdict| (way, verdict)));
        for (way, verdict) in read.chain([(Way::Unknown, Invalid)]) {
            let (carrier, verdict) = (Word(way), Word(verdict));
            let labels = PacketLabels { carrier, verdict };
            drop(self.packets.get_or_create(&labels));
        }
        for reason in self::Invalid::all() {
            drop(self.invalid.get_or_create(&InvalidLabel { reason }));
        }
        let replies = Outcome::ALL.map(Reply::Final).into_iter();
        for outcome in replies.chain([Reply::Deferred]) {
            drop(self.answers.get_or_create(&AnswerLabel { outcome }));
        }
        for reason in [Loss::Overflow, Loss::Stale].map(Word) {
            drop(self.lost.get_or_create(&LossLabel { reason }));
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

    /// Counts a session that could not be had, or broke.
    pub fn unconnected(&self, failure: Failure) {
        let reason = Word(failure);
        let counter = self.unconnected.get_or_create(&FailureLabel { reason });
        counter.inc();
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
