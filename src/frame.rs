//! Owns the way from an Ethernet frame, as a packet socket reads it, to the bytes that may hold a
//! magic packet ([`parse`]).
//!
//! Every length comes from a header and is checked against the bytes that are there; what lies
//! beyond it, such as the padding of a short frame, is not payload. Checksums are not checked: a
//! packet socket sees frames before the network card's offload has filled them in.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::{mac::MacAddr, wake::Carrier};

/// The `EtherType` of Wake-on-LAN.
pub const ETHERTYPE_WOL: u16 = 0x0842;

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
/// The `EtherType` of a VLAN tag (802.1Q).
pub const ETHERTYPE_VLAN: u16 = 0x8100;
/// 802.1ad, the outer tag of `QinQ`.
const ETHERTYPE_SERVICE_VLAN: u16 = 0x88a8;

/// A service tag and a customer tag.
const MAX_TAGS: u8 = 2;

const PROTOCOL_UDP: u8 = 17;

/// What a frame carries, and the way it says it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Payload<'a> {
    /// [`Carrier::Ethernet`] or [`Carrier::EthernetUdp`].
    pub carrier: Carrier,
    /// The outermost VLAN id. A priority tag (id 0) names no VLAN.
    pub vlan: Option<u16>,
    /// The station that the frame is addressed to, or a group of them.
    pub destination_mac: MacAddr,
    /// The station that sent it.
    pub source_mac: MacAddr,
    /// The addresses of the datagram; none for [`Carrier::Ethernet`].
    pub datagram: Option<Datagram>,
    /// The bytes that may hold a magic packet.
    pub bytes: &'a [u8],
}

/// The addresses of a UDP datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Datagram {
    /// The sender; 0.0.0.0 is legal and real.
    pub source: IpAddr,
    /// The sender's port.
    pub source_port: u16,
    /// Whom it is addressed to.
    pub destination: IpAddr,
    /// The port it is addressed to.
    pub destination_port: u16,
}

/// Why a frame has no payload to look at. [`parse`] finds most of it; the last two a socket knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum FrameRejection {
    /// Shorter than an Ethernet header.
    #[error("shorter than an Ethernet header")]
    Short,
    /// Ends within a VLAN tag.
    #[error("ends within a VLAN tag")]
    TruncatedTag,
    /// More than two VLAN tags.
    #[error("more than two VLAN tags")]
    TooManyTags,
    /// Neither Wake-on-LAN nor IP.
    #[error("neither Wake-on-LAN nor IP")]
    EtherType,
    /// An IP header that is cut short or contradicts itself.
    #[error("malformed IP header")]
    IpHeader,
    /// An IP length that is less than the header or more than the frame.
    #[error("the IP length does not fit the frame")]
    IpLength,
    /// A fragment of a datagram; the node's own UDP socket gets the whole.
    #[error("fragment of a datagram")]
    Fragment,
    /// An IPv6 extension header; the node's own UDP socket gets past it.
    #[error("IPv6 extension header")]
    ExtensionHeader,
    /// IP, but not UDP.
    #[error("not UDP")]
    Protocol,
    /// A UDP length that is less than the header or more than the IP payload.
    #[error("the UDP length does not fit the IP payload")]
    UdpLength,
    /// A source address that no sender on a network can have.
    #[error("impossible source address")]
    Martian,
    /// This node sends it.
    #[error("sent by this node")]
    Outgoing,
    /// Larger than any that a sender makes, so that only a part of it was read.
    #[error("larger than can be read")]
    Oversized,
}

impl FrameRejection {
    /// Every reason, for metrics that exist before they count.
    pub const ALL: [Self; 13] = [
        Self::Short,
        Self::TruncatedTag,
        Self::TooManyTags,
        Self::EtherType,
        Self::IpHeader,
        Self::IpLength,
        Self::Fragment,
        Self::ExtensionHeader,
        Self::Protocol,
        Self::UdpLength,
        Self::Martian,
        Self::Outgoing,
        Self::Oversized,
    ];

    /// The word for it in logs and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Short => "frame-short",
            Self::TruncatedTag => "truncated-tag",
            Self::TooManyTags => "too-many-tags",
            Self::EtherType => "ethertype",
            Self::IpHeader => "ip-header",
            Self::IpLength => "ip-length",
            Self::Fragment => "fragment",
            Self::ExtensionHeader => "extension-header",
            Self::Protocol => "protocol",
            Self::UdpLength => "udp-length",
            Self::Martian => "martian",
            Self::Outgoing => "outgoing",
            Self::Oversized => "oversized",
        }
    }
}

/// Finds the payload of a frame. `outer_vlan` is the id of the tag that the kernel took out of the
/// frame, if it did: a packet socket tells it beside the bytes. Of a whole tag (TCI), the id counts.
///
/// # Errors
///
/// The frame is malformed, or carries what cannot be a magic packet.
pub fn parse(frame: &[u8], outer_vlan: Option<u16>) -> Result<Payload<'_>, FrameRejection> {
    let (destination, rest) = frame.split_first_chunk().ok_or(FrameRejection::Short)?;
    let (source, rest) = rest.split_first_chunk().ok_or(FrameRejection::Short)?;
    let (ethertype, vlan, body) = untag(rest, outer_vlan)?;
    let (datagram, bytes) = match ethertype {
        ETHERTYPE_WOL => (None, body),
        ETHERTYPE_IPV4 => ipv4(body)?,
        ETHERTYPE_IPV6 => ipv6(body)?,
        _ => return Err(FrameRejection::EtherType),
    };
    Ok(Payload {
        carrier: match datagram {
            None => Carrier::Ethernet,
            Some(_) => Carrier::EthernetUdp,
        },
        vlan,
        destination_mac: MacAddr::new(*destination),
        source_mac: MacAddr::new(*source),
        datagram,
        bytes,
    })
}

/// Skips the VLAN tags before the `EtherType`: returns it, the outermost VLAN id, and the rest.
fn untag(
    bytes: &[u8],
    outer_vlan: Option<u16>,
) -> Result<(u16, Option<u16>, &[u8]), FrameRejection> {
    let mut tags = u8::from(outer_vlan.is_some());
    let mut vlan = outer_vlan.and_then(vlan_id);
    let (ethertype, mut rest) = bytes.split_first_chunk().ok_or(FrameRejection::Short)?;
    let mut ethertype = u16::from_be_bytes(*ethertype);
    while matches!(ethertype, ETHERTYPE_VLAN | ETHERTYPE_SERVICE_VLAN) {
        if tags == MAX_TAGS {
            return Err(FrameRejection::TooManyTags);
        }
        let ([t0, t1, e0, e1], body) = rest
            .split_first_chunk()
            .ok_or(FrameRejection::TruncatedTag)?;
        tags += 1;
        vlan = vlan.or(vlan_id(u16::from_be_bytes([*t0, *t1])));
        ethertype = u16::from_be_bytes([*e0, *e1]);
        rest = body;
    }
    Ok((ethertype, vlan, rest))
}

/// The VLAN id of a tag without its priority bits. Id 0 only carries a priority.
fn vlan_id(tag: u16) -> Option<u16> {
    Some(tag & 0x0fff).filter(|id| *id != 0)
}

type UdpInIp<'a> = Result<(Option<Datagram>, &'a [u8]), FrameRejection>;

fn ipv4(packet: &[u8]) -> UdpInIp<'_> {
    let header: &[u8; 20] = packet.first_chunk().ok_or(FrameRejection::IpHeader)?;
    let header_len = usize::from(header[0] & 0x0f) * 4;
    if header[0] >> 4 != 4 || header_len < header.len() || header_len > packet.len() {
        return Err(FrameRejection::IpHeader);
    }
    let total_len = usize::from(u16::from_be_bytes([header[2], header[3]]));
    let body = packet
        .get(header_len..total_len)
        .ok_or(FrameRejection::IpLength)?;
    // More fragments follow, or this is not the first.
    if u16::from_be_bytes([header[6], header[7]]) & 0x3fff != 0 {
        return Err(FrameRejection::Fragment);
    }
    if header[9] != PROTOCOL_UDP {
        return Err(FrameRejection::Protocol);
    }
    let address =
        |at: usize| Ipv4Addr::new(header[at], header[at + 1], header[at + 2], header[at + 3]);
    let source = address(12);
    if source.is_loopback() || source.is_multicast() || source.is_broadcast() {
        return Err(FrameRejection::Martian);
    }
    udp(body, source.into(), address(16).into())
}

fn ipv6(packet: &[u8]) -> UdpInIp<'_> {
    let (header, rest) = packet
        .split_first_chunk::<40>()
        .ok_or(FrameRejection::IpHeader)?;
    if header[0] >> 4 != 6 {
        return Err(FrameRejection::IpHeader);
    }
    let body_len = usize::from(u16::from_be_bytes([header[4], header[5]]));
    let body = rest.get(..body_len).ok_or(FrameRejection::IpLength)?;
    match header[6] {
        PROTOCOL_UDP => {}
        // Hop-by-hop, routing, fragment, destination options.
        0 | 43 | 44 | 60 => return Err(FrameRejection::ExtensionHeader),
        _ => return Err(FrameRejection::Protocol),
    }
    let address = |at: usize| {
        let mut octets = [0; 16];
        octets.copy_from_slice(&header[at..at + 16]);
        Ipv6Addr::from(octets)
    };
    let source = address(8);
    // An IPv4-mapped source would pass for an IPv4 sender; the kernel drops it, too.
    if source.is_loopback() || source.is_multicast() || source.to_ipv4_mapped().is_some() {
        return Err(FrameRejection::Martian);
    }
    udp(body, source.into(), address(24).into())
}

fn udp(segment: &[u8], source: IpAddr, destination: IpAddr) -> UdpInIp<'_> {
    let header: &[u8; 8] = segment.first_chunk().ok_or(FrameRejection::UdpLength)?;
    let [s0, s1, d0, d1, l0, l1, _, _] = *header;
    let bytes = segment
        .get(header.len()..usize::from(u16::from_be_bytes([l0, l1])))
        .ok_or(FrameRejection::UdpLength)?;
    let datagram = Datagram {
        source,
        source_port: u16::from_be_bytes([s0, s1]),
        destination,
        destination_port: u16::from_be_bytes([d0, d1]),
    };
    Ok((Some(datagram), bytes))
}
