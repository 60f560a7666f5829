//! Owns the magic packet: finding it in any bytes ([`scan`]) and making one ([`MagicPacket`]).
//!
//! The format is AMD's (white paper 20213): at least six bytes of 0xFF, then the target's address
//! sixteen times without a break, anywhere in the frame; what stands around it does not matter.

use crate::mac::MacAddr;

/// Bytes of a magic packet without a password: six of 0xFF and sixteen addresses.
pub const MAGIC_LEN: usize = SYNC_LEN + BLOCK_LEN;

/// How many targets one packet may name. Real senders name one; a datagram has room for 642.
pub const MAX_TARGETS: usize = 8;

/// The shortest synchronisation stream. A longer one is as good: network cards wait for the first
/// byte that is not 0xFF.
const SYNC_LEN: usize = 6;

/// Sixteen addresses.
const BLOCK_LEN: usize = 16 * ADDRESS_LEN;

const ADDRESS_LEN: usize = 6;

/// The first bytes after the sixteenth repetition, at most six: a SecureOn password, if anything.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Trailing {
    bytes: [u8; 6],
    len: u8,
}

impl Trailing {
    /// Keeps the first six bytes of what follows the repetitions.
    #[must_use]
    pub fn cut(rest: &[u8]) -> Self {
        let mut bytes = [0; 6];
        let len = rest.len().min(6);
        bytes[..len].copy_from_slice(&rest[..len]);
        Self {
            bytes,
            len: u8::try_from(len).unwrap_or(6),
        }
    }

    /// The bytes kept.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl std::fmt::Debug for Trailing {
    /// Says only how many bytes there are: they may be a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Trailing({} bytes)", self.len)
    }
}

/// One wake-up pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MagicPacket {
    /// The station that shall wake; never a group address, never zero.
    pub target: MacAddr,
    /// What followed the sixteenth repetition.
    pub trailing: Trailing,
}

/// Why a magic packet cannot be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPacket {
    /// The target is a multicast or broadcast address.
    #[error("{0} is a group address; only a single station can be woken")]
    Group(MacAddr),
    /// The target is 00:00:00:00:00:00.
    #[error("00:00:00:00:00:00 is no station's address")]
    Zero,
    /// The password has the wrong number of bytes.
    #[error("a SecureOn password has 4 or 6 bytes, not {0}")]
    Password(usize),
}

impl MagicPacket {
    /// Makes a packet that wakes `target`; an empty `password` means none.
    ///
    /// # Errors
    ///
    /// The target is a group address or zero, or the password has neither 0, 4 nor 6 bytes.
    pub fn new(target: MacAddr, password: &[u8]) -> Result<Self, InvalidPacket> {
        if target.is_group() {
            return Err(InvalidPacket::Group(target));
        }
        if target.is_zero() {
            return Err(InvalidPacket::Zero);
        }
        match password.len() {
            0 | 4 | 6 => Ok(Self {
                target,
                trailing: Trailing::cut(password),
            }),
            other => Err(InvalidPacket::Password(other)),
        }
    }

    /// The bytes to send as the payload of a datagram or of a frame: 102 and the password.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0xff; SYNC_LEN];
        bytes.extend(self.target.octets().repeat(16));
        bytes.extend(self.trailing.as_bytes());
        bytes
    }
}

/// What [`scan`] found: at least one target, each once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// The places from `len` on repeat the first packet.
    packets: [MagicPacket; MAX_TARGETS],
    len: usize,
    capped: bool,
}

impl Found {
    fn first(packet: MagicPacket) -> Self {
        Self {
            packets: [packet; MAX_TARGETS],
            len: 1,
            capped: false,
        }
    }

    fn add(&mut self, packet: MagicPacket) {
        if self.packets().iter().any(|p| p.target == packet.target) {
            return;
        }
        match self.packets.get_mut(self.len) {
            Some(place) => {
                *place = packet;
                self.len += 1;
            }
            None => self.capped = true,
        }
    }

    /// The targets in the order of the bytes; of several patterns for one target, the first.
    #[must_use]
    pub fn packets(&self) -> &[MagicPacket] {
        &self.packets[..self.len]
    }

    /// Whether there were more than [`MAX_TARGETS`] targets; those beyond are left out.
    #[must_use]
    pub fn capped(&self) -> bool {
        self.capped
    }
}

/// Why bytes hold no magic packet: the most specific reason met, which is the greatest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum Rejection {
    /// Fewer than [`MAGIC_LEN`] bytes.
    #[error("shorter than 102 bytes")]
    Short,
    /// No six bytes of 0xFF in a row.
    #[error("no six bytes of 0xff in a row")]
    NoSync,
    /// Too few bytes after the synchronisation stream.
    #[error("ends before the sixteenth repetition")]
    Truncated,
    /// What follows the synchronisation stream is not sixteen times the same address.
    #[error("not sixteen times the same address")]
    Repetition,
    /// The address is a multicast or broadcast address.
    #[error("names a group address")]
    GroupTarget,
    /// The address is 00:00:00:00:00:00.
    #[error("names the address 00:00:00:00:00:00")]
    ZeroTarget,
}

impl Rejection {
    /// Every reason, for metrics that exist before they count.
    pub const ALL: [Self; 6] = [
        Self::Short,
        Self::NoSync,
        Self::Truncated,
        Self::Repetition,
        Self::GroupTarget,
        Self::ZeroTarget,
    ];

    /// The word for it in logs and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Short => "short",
            Self::NoSync => "no-sync",
            Self::Truncated => "truncated",
            Self::Repetition => "repetition",
            Self::GroupTarget => "group-target",
            Self::ZeroTarget => "zero-target",
        }
    }
}

/// Finds the magic packets in the payload of a frame or datagram, at any offset, in linear time
/// and without allocating.
///
/// One pass without going back misses nothing: the repetitions of an address that does not begin
/// with 0xFF never hold six bytes of 0xFF in a row, and one that does is a group's.
///
/// # Errors
///
/// There is none; the reason is the most specific one met.
pub fn scan(bytes: &[u8]) -> Result<Found, Rejection> {
    if bytes.len() < MAGIC_LEN {
        return Err(Rejection::Short);
    }
    let mut found: Option<Found> = None;
    let mut reason = Rejection::NoSync;
    let mut run = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        if byte == 0xff {
            run += 1;
            if run == MAGIC_LEN {
                // The broadcast address, which looks like a long synchronisation stream.
                reason = reason.max(Rejection::GroupTarget);
            }
            continue;
        }
        if run >= SYNC_LEN {
            match pattern(&bytes[at..]) {
                Ok(packet) => match &mut found {
                    None => found = Some(Found::first(packet)),
                    Some(found) => found.add(packet),
                },
                Err(rejection) => reason = reason.max(rejection),
            }
            if found.is_some_and(|found| found.capped) {
                break;
            }
        }
        run = 0;
    }
    if run >= SYNC_LEN {
        reason = reason.max(Rejection::Truncated);
    }
    found.ok_or(reason)
}

/// Reads sixteen times the same address, and what follows it, from the start of `bytes`.
fn pattern(bytes: &[u8]) -> Result<MagicPacket, Rejection> {
    let (Some(octets), Some((block, rest))) =
        (bytes.first_chunk(), bytes.split_first_chunk::<BLOCK_LEN>())
    else {
        return Err(Rejection::Truncated);
    };
    // Each byte equals the one an address further on: one comparison for fifteen repetitions.
    if block[ADDRESS_LEN..] != block[..BLOCK_LEN - ADDRESS_LEN] {
        return Err(Rejection::Repetition);
    }
    let target = MacAddr::new(*octets);
    if target.is_group() {
        return Err(Rejection::GroupTarget);
    }
    if target.is_zero() {
        return Err(Rejection::ZeroTarget);
    }
    Ok(MagicPacket {
        target,
        trailing: Trailing::cut(rest),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const VM: MacAddr = MacAddr::new([0x52, 0x54, 0x00, 0x12, 0x34, 0x56]);

    #[test]
    fn a_packet_is_six_times_ff_sixteen_addresses_and_the_password() {
        let mut expected = vec![0xff; 6];
        for _ in 0..16 {
            expected.extend([0x52, 0x54, 0x00, 0x12, 0x34, 0x56]);
        }
        assert_eq!(MagicPacket::new(VM, &[]).unwrap().to_bytes(), expected);
        expected.extend([192, 168, 1, 1]);
        let packet = MagicPacket::new(VM, &[192, 168, 1, 1]).unwrap();
        assert_eq!(packet.to_bytes(), expected);
        assert_eq!(scan(&expected).unwrap().packets(), [packet]);
    }

    #[test]
    fn a_packet_that_could_wake_nobody_is_not_made() {
        let multicast = MacAddr::new([0x01, 0, 0x5e, 0, 0, 0xfb]);
        for group in [multicast, MacAddr::BROADCAST] {
            let refused = Err(InvalidPacket::Group(group));
            assert_eq!(MagicPacket::new(group, &[]), refused);
        }
        let zero = MacAddr::new([0; 6]);
        assert_eq!(MagicPacket::new(zero, &[]), Err(InvalidPacket::Zero));
        for length in [1, 2, 3, 5, 7, 100] {
            let refused = Err(InvalidPacket::Password(length));
            assert_eq!(MagicPacket::new(VM, &vec![1; length]), refused);
        }
    }

    #[test]
    fn a_password_is_not_written_to_logs() {
        let packet = MagicPacket::new(VM, &[201, 202, 203, 204]).unwrap();
        let text = format!("{packet:?}");
        assert!(text.contains("4 bytes"), "{text}");
        assert!(!text.contains("201") && !text.contains("c9"), "{text}");
    }
}
