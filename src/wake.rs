//! Owns the words that agent and manager share about one wake: what was heard ([`Wake`]), the way
//! it came ([`Origin`]), and what became of it ([`Answer`]). Plain data, no I/O.

use std::{fmt, net::IpAddr, sync::Arc, time::Duration};

use crate::{mac::MacAddr, packet::Trailing};

/// One target named by a packet, and how that packet came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wake {
    /// The address that the packet repeats sixteen times.
    pub target: MacAddr,
    /// What followed the repetitions: a SecureOn password, or nothing of note.
    pub trailing: Trailing,
    /// The way the packet came.
    pub origin: Origin,
}

/// The way a packet reached the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The kind of socket and frame.
    pub carrier: Carrier,
    /// The interface that heard it; empty where unknown. Of a bridge and its port, the port.
    pub interface: Arc<str>,
    /// The outermost VLAN id, where the frame was tagged.
    pub vlan: Option<u16>,
    /// The sender's MAC address, where a frame was seen.
    pub source_mac: Option<MacAddr>,
    /// The sender's IP address; none for a frame without IP. An IPv4 sender is never written as
    /// an IPv4-mapped IPv6 address.
    pub source: Option<IpAddr>,
    /// The sender's UDP port, or 0.
    pub source_port: u16,
    /// Bytes read: of the frame, or of the payload for [`Carrier::Udp`].
    pub length: u32,
}

/// The kind of socket and frame by which a packet was heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Carrier {
    /// A datagram from a UDP socket.
    Udp,
    /// A frame of EtherType 0x0842 from the packet socket.
    Ethernet,
    /// A UDP datagram inside a frame from the packet socket.
    EthernetUdp,
}

impl fmt::Display for Origin {
    /// Names the sender and the interface, as Events and logs do: `10.0.0.7 on eth0 (VLAN 5)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.source, self.source_mac) {
            (Some(ip), _) => write!(f, "{ip}")?,
            (None, Some(mac)) => write!(f, "{mac}")?,
            (None, None) => f.write_str("an unknown sender")?,
        }
        if !self.interface.is_empty() {
            write!(f, " on {}", self.interface)?;
        }
        match self.vlan {
            Some(id) => write!(f, " (VLAN {id})"),
            None => Ok(()),
        }
    }
}

/// What became of a wake, for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The VM was off and is starting.
    Started,
    /// The VM was on, or on its way.
    AlreadyOn,
    /// A repeat of a wake that was settled moments ago.
    Duplicate,
    /// No VM has this address.
    NotFound,
    /// A VM has it, but no `WolConfig` makes it wakeable by this packet.
    NotSelected,
    /// Several VMs have it; none is started.
    Ambiguous,
    /// The VM cannot be started by a wake, whatever is done.
    Unsupported,
    /// The SecureOn password was wrong or missing.
    WrongPassword,
    /// The manager may not start the VM.
    Forbidden,
    /// The wake was too old, or its VM could not be started in time.
    Expired,
    /// The event was malformed.
    Invalid,
    /// The VM is on its way but stuck, or refuses to start.
    Stuck,
    /// The VM was deleted before it could be started.
    Gone,
    /// One that this version does not know, of a newer manager. It is final, and its message says what
    /// it means. No manager of this version gives it.
    Unknown,
}

impl Outcome {
    /// Every outcome that a manager gives, for metrics that exist before they count.
    pub const ALL: [Self; 13] = [
        Self::Started,
        Self::AlreadyOn,
        Self::Duplicate,
        Self::NotFound,
        Self::NotSelected,
        Self::Ambiguous,
        Self::Unsupported,
        Self::WrongPassword,
        Self::Forbidden,
        Self::Expired,
        Self::Invalid,
        Self::Stuck,
        Self::Gone,
    ];

    /// The word for it in logs and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::AlreadyOn => "already-on",
            Self::Duplicate => "duplicate",
            Self::NotFound => "not-found",
            Self::NotSelected => "not-selected",
            Self::Ambiguous => "ambiguous",
            Self::Unsupported => "unsupported",
            Self::WrongPassword => "wrong-password",
            Self::Forbidden => "forbidden",
            Self::Expired => "expired",
            Self::Invalid => "invalid",
            Self::Stuck => "stuck",
            Self::Gone => "gone",
            Self::Unknown => "unknown",
        }
    }
}

/// The manager's answer to one reported wake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Settled, with a reason for people.
    Final(Outcome, String),
    /// Not settled yet: worth keeping for this long. A final answer follows.
    Deferred(Duration, String),
}
