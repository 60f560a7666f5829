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

    /// Whether one machine can have this address: it is neither a group's nor zero.
    #[must_use]
    pub fn is_station(self) -> bool {
        !self.is_group() && !self.is_zero()
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

/// Tells the notation by its separators; it then says how many groups of how many digits follow.
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
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VM: MacAddr = MacAddr::new([0x52, 0x54, 0x00, 0xab, 0xcd, 0x0e]);

    #[test]
    fn every_notation_reads_as_the_same_address() {
        for text in [
            "52:54:00:ab:cd:0e",
            "52:54:00:AB:CD:0E",
            "52:54:0:aB:cD:e",
            "52-54-00-ab-cd-0e",
            "52-54-0-AB-CD-E",
            "5254.00ab.cd0e",
            "5254.00AB.CD0E",
            "525400-abcd0e",
            "525400abcd0e",
            "525400ABCD0E",
        ] {
            assert_eq!(text.parse(), Ok(VM), "{text}");
        }
    }

    #[test]
    fn one_digit_octets_are_small_numbers() {
        let expected = MacAddr::new([2, 4, 6, 8, 10, 12]);
        assert_eq!("2:4:6:8:a:c".parse(), Ok(expected));
    }

    #[test]
    fn what_is_no_address_is_refused_and_named() {
        for text in [
            "",
            ":::::",
            "52:54:00:ab:cd",
            "52:54:00:ab:cd:0e:11",
            "52:54:00:ab:cd:",
            ":52:54:00:ab:cd",
            "52:54:00:ab:cd:00e",
            "52:54:00:ab:cd:0g",
            "52:54:00:ab:cd:+e",
            "52:54:00:ab:cd:-e",
            "52:54:00:ab-cd-0e",
            "52:54:00:ab:cd:0e ",
            " 52:54:00:ab:cd:0e",
            "52 54 00 ab cd 0e",
            "52:54:00:ab:cd:0é",
            "5254.00ab.cd0",
            "5254.00ab.cd0e.0000",
            "5254-00ab-cd0e",
            "525400.abcd0e",
            "525400-abcd0",
            "525400:abcd0e",
            "525400abcd0",
            "525400abcd0e0",
            "0x525400abcd0e",
        ] {
            let error = text.parse::<MacAddr>().unwrap_err().to_string();
            assert!(error.starts_with(&format!("{text:?} is not a MAC address")));
        }
    }

    #[test]
    fn a_long_text_is_cut_in_the_error() {
        let error = "é".repeat(10_000).parse::<MacAddr>().unwrap_err();
        assert!(error.to_string().chars().count() < 150);
    }

    #[test]
    fn an_address_is_written_in_lower_case_with_colons_and_reads_back() {
        assert_eq!(VM.to_string(), "52:54:00:ab:cd:0e");
        assert_eq!(format!("{VM:?}"), "52:54:00:ab:cd:0e");
        assert_eq!(VM.to_string().parse(), Ok(VM));
    }

    #[test]
    fn json_holds_the_text_and_accepts_any_notation() {
        assert_eq!(
            serde_json::to_string(&VM).unwrap(),
            r#""52:54:00:ab:cd:0e""#
        );
        let read: MacAddr = serde_json::from_str(r#""5254.00AB.CD0E""#).unwrap();
        assert_eq!(read, VM);
        let escaped: MacAddr = serde_json::from_str(r#""52:54:00:ab:cd:0\u0065""#).unwrap();
        assert_eq!(escaped, VM);
        let error = serde_json::from_str::<MacAddr>(r#""eth0""#).unwrap_err();
        assert!(error.to_string().contains(r#""eth0" is not a MAC address"#));
    }

    #[test]
    fn groups_and_zero_are_told_apart_from_stations() {
        let parse = |text: &str| text.parse::<MacAddr>().unwrap();
        for group in [
            "01:00:5e:00:00:fb",
            "33:33:00:00:00:01",
            "ff:ff:ff:ff:ff:ff",
        ] {
            assert!(parse(group).is_group(), "{group}");
            assert!(!parse(group).is_station(), "{group}");
        }
        assert!(!VM.is_group());
        assert!(VM.is_station());
        assert!(!parse("00:00:00:00:00:00").is_station());
        assert!(!parse("02:ff:ff:ff:ff:ff").is_group());
        assert!(parse("00:00:00:00:00:00").is_zero());
        assert!(!parse("00:00:00:00:00:01").is_zero());
        assert!(MacAddr::BROADCAST.is_group());
    }
}
