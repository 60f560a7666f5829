//! Owns [`MacAddr`]: the 48-bit address that a magic packet names and a VM's interface has.
//!
//! Text comes in every notation that senders, switches and KubeVirt use; it is parsed once, at the
//! border, and is six bytes from there on.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A 48-bit IEEE 802 MAC address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddr([u8; 6]);

/// Why a text is not a MAC address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a MAC address; write it like 52:54:00:12:34:56")]
pub struct ParseMacError {
    text: String,
}

impl MacAddr {
    /// The broadcast address, ff:ff:ff:ff:ff:ff.
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// Makes an address from its bytes in transmission order.
    #[must_use]
    pub const fn new(octets: [u8; 6]) -> Self {
        Self(octets)
    }

    /// The bytes in transmission order.
    #[must_use]
    pub const fn octets(self) -> [u8; 6] {
        self.0
    }

    /// Whether this is 00:00:00:00:00:00, which many tools write for "none".
    #[must_use]
    pub fn is_zero(self) -> bool {
        self.0 == [0; 6]
    }

    /// Whether this names a group of stations (multicast or broadcast): bit 0 of the first octet.
    #[must_use]
    pub const fn is_group(self) -> bool {
        self.0[0] & 1 == 1
    }
}

impl FromStr for MacAddr {
    type Err = ParseMacError;

    /// Reads `52:54:00:12:34:56`, `52-54-00-12-34-56`, `2:4:6:8:a:c`, `5254.0012.3456`,
    /// `525400-123456` and `525400123456`, in either case.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).ok_or_else(|| ParseMacError {
            text: text.chars().take(64).collect(),
        })
    }
}

/// The digits per group that each notation has.
fn parse(text: &str) -> Option<MacAddr> {
    let (separator, groups, digits) = match (
        text.matches(':').count(),
        text.matches('-').count(),
        text.matches('.').count(),
    ) {
        (5, 0, 0) => (':', 6, 1..=2),
        (0, 5, 0) => ('-', 6, 1..=2),
        (0, 1, 0) => ('-', 2, 6..=6),
        (0, 0, 2) => ('.', 3, 4..=4),
        (0, 0, 0) => (':', 1, 12..=12),
        _ => return None,
    };
    let mut address = 0_u64;
    for group in text.split(separator) {
        if !digits.contains(&group.len()) || !group.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        address = address << (48 / groups) | u64::from_str_radix(group, 16).ok()?;
    }
    let [_, _, octets @ ..] = address.to_be_bytes();
    Some(MacAddr(octets))
}

impl fmt::Display for MacAddr {
    /// Writes lower case and colons.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, octet) in self.0.iter().enumerate() {
            let separator = if position == 0 { "" } else { ":" };
            write!(f, "{separator}{octet:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for MacAddr {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for MacAddr {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}
