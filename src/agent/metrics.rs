//! Owns what the agent counts. No label names a MAC address, a VM or a node.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use crate::{
    frame::FrameRejection,
    packet::Rejection,
    wake::{Answer, Carrier, Outcome},
};

/// What became of one packet in the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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

impl Verdict {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Reported => "reported",
            Self::Repeat => "repeat",
            Self::Filtered => "filtered",
            Self::Invalid => "invalid",
        }
    }
}

/// Why an event left the ring without an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// The ring was full.
    Overflow,
    /// No manager took it in time.
    Stale,
}

impl Loss {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Overflow => "overflow",
            Self::Stale => "stale",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PacketLabels {
    carrier: &'static str,
    verdict: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SocketLabel {
    socket: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabel {
    state: &'static str,
}

/// The agent's counters. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    packets: Family<PacketLabels, Counter>,
    invalid: Family<Reason, Counter>,
    kernel_drops: Family<SocketLabel, Counter>,
    lost: Family<Reason, Counter>,
    answers: Family<OutcomeLabel, Counter>,
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
    /// Registers all of them, those with fixed labels at zero.
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
            "Sockets by state; all but open are failed",
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
            "reconnects",
            "Attempts to connect to a manager after the first",
            self.reconnects.clone(),
        );
        r.register(
            "session_connected",
            "1 while a manager has welcomed this agent",
            self.session_connected.clone(),
        );
        r.register(
            "unsettled_events",
            "Events that wait for their final answer",
            self.unsettled.clone(),
        );
        self.start_at_zero();
    }

    fn start_at_zero(&self) {
        for outcome in Outcome::ALL
            .map(Outcome::as_str)
            .into_iter()
            .chain([DEFERRED])
        {
            let _ = self.answers.get_or_create(&OutcomeLabel { outcome });
        }
        for reason in [Loss::Overflow, Loss::Stale].map(Loss::as_str) {
            let _ = self.lost.get_or_create(&Reason { reason });
        }
        let frames = FrameRejection::ALL.map(FrameRejection::as_str);
        for reason in Rejection::ALL
            .map(Rejection::as_str)
            .into_iter()
            .chain(frames)
        {
            let _ = self.invalid.get_or_create(&Reason { reason });
        }
        for socket in ["raw", "udp"] {
            let _ = self.kernel_drops.get_or_create(&SocketLabel { socket });
        }
    }

    /// Counts a packet; the carrier is not known of a frame that could not be read.
    pub fn packet(&self, carrier: Option<Carrier>, verdict: Verdict) {
        let carrier = carrier.map_or("unknown", carrier_word);
        let verdict = verdict.as_str();
        self.packets
            .get_or_create(&PacketLabels { carrier, verdict })
            .inc();
    }

    /// Counts a packet that is no magic packet.
    pub fn invalid(&self, carrier: Option<Carrier>, reason: &'static str) {
        self.packet(carrier, Verdict::Invalid);
        self.invalid.get_or_create(&Reason { reason }).inc();
    }

    /// Counts packets that the kernel dropped for a kind of socket.
    pub fn kernel_dropped(&self, socket: &'static str, packets: u64) {
        if packets > 0 {
            self.kernel_drops
                .get_or_create(&SocketLabel { socket })
                .inc_by(packets);
        }
    }

    /// Counts an event that was given up.
    pub fn lost(&self, loss: Loss) {
        let reason = loss.as_str();
        self.lost.get_or_create(&Reason { reason }).inc();
    }

    /// Counts an answer.
    pub fn answered(&self, answer: &Answer) {
        let outcome = match answer {
            Answer::Final(outcome, _) => outcome.as_str(),
            Answer::Deferred(..) => DEFERRED,
        };
        self.answers.get_or_create(&OutcomeLabel { outcome }).inc();
    }

    /// Says how many listeners are in which state.
    pub fn listeners(&self, states: impl Iterator<Item = &'static str>) {
        self.listeners.clear();
        for state in states {
            self.listeners.get_or_create(&StateLabel { state }).inc();
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

const DEFERRED: &str = "deferred";
