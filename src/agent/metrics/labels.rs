//! Owns the words of the agent's metrics: every value that a label can have.

use std::fmt;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};

use crate::{
    agent::{budget::Limit, connect::Failure},
    frame::FrameRejection,
    packet::Rejection,
    telemetry::Word,
    wake::{Carrier, Outcome},
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
    /// More came than may be reported.
    Limited,
    /// It was not read before it was too old to start anything.
    Stale,
    /// It is no magic packet.
    Invalid,
}

/// How a packet came, as far as that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Way {
    Udp,
    Ethernet,
    EthernetUdp,
    /// In a frame that cannot be read.
    Unknown,
}

impl Way {
    pub(super) const KNOWN: [Self; 3] = [Self::Udp, Self::Ethernet, Self::EthernetUdp];
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

    pub(super) fn all() -> impl Iterator<Item = Self> {
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
    /// One target had as many places as one may have.
    Crowded,
    /// No manager took it in time, or the agent itself did not.
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
    pub(super) const ALL: [Self; 5] = [
        Self::Open,
        Self::PortTaken,
        Self::PortDenied,
        Self::RawDenied,
        Self::Failed,
    ];
}

/// What a manager answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Reply {
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
pub(super) struct PacketLabels {
    pub(super) carrier: Word<Way>,
    pub(super) verdict: Word<Verdict>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct InvalidLabel {
    pub(super) reason: Invalid,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct LossLabel {
    pub(super) reason: Word<Loss>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct LimitLabel {
    pub(super) limit: Word<Limit>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct SocketLabel {
    pub(super) socket: Word<Socket>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct AnswerLabel {
    pub(super) outcome: Reply,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct StateLabel {
    pub(super) state: Word<ListenerState>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct FailureLabel {
    pub(super) reason: Word<Failure>,
}
