//! Owns [`Password`]: a SecureOn password, and the notations in which people write one.

use std::{fmt, net::Ipv4Addr};

use subtle::ConstantTimeEq as _;

use crate::mac::MacAddr;

/// Four or six bytes that a magic packet carries after its sixteen addresses. It travels in the
/// clear; we show it nowhere all the same.
#[derive(Clone)]
pub struct Password {
    bytes: [u8; 6],
    len: usize,
}

impl Password {
    /// Reads the text that senders take: four bytes as 192.168.1.1, or six in any notation of a MAC
    /// address.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        if let Ok(quad) = text.parse::<Ipv4Addr>() {
            return Self::from_bytes(&quad.octets());
        }
        let six = text.parse::<MacAddr>().ok()?;
        Self::from_bytes(&six.octets())
    }

    /// Reads a value of a Secret. Exactly four or six bytes are the password, whatever they are.
    /// Of anything else one line end is taken off, such as an editor leaves; then four or six bytes
    /// are the password, and a text is read as by [`from_text`](Self::from_text). The shortest
    /// text has seven characters, so that none can be taken for bytes.
    #[must_use]
    pub fn from_value(value: &[u8]) -> Option<Self> {
        Self::from_bytes(value).or_else(|| {
            let line = value.strip_suffix(b"\n").unwrap_or(value);
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let text = || Self::from_text(std::str::from_utf8(line).ok()?);
            Self::from_bytes(line).or_else(text)
        })
    }

    fn from_bytes(own: &[u8]) -> Option<Self> {
        let len = own.len();
        if !matches!(len, 4 | 6) {
            return None;
        }
        let mut bytes = [0; 6];
        bytes[..len].copy_from_slice(own);
        Some(Self { bytes, len })
    }

    /// The bytes as they are sent.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// Whether what followed the addresses of a packet begins with the password. What comes after
    /// it does not count: frames are padded on their way. How long this takes tells the password's
    /// length at most.
    #[must_use]
    pub fn begins(&self, trailing: &[u8]) -> bool {
        let carried = trailing.get(..self.len);
        carried.is_some_and(|carried| carried.ct_eq(self.as_bytes()).into())
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Password;

    const SIX: &[u8] = &[0x01, 0x23, 0x45, 0x67, 0x89, 0xab];

    fn text(text: &str) -> Option<Vec<u8>> {
        Password::from_text(text).map(|password| password.as_bytes().to_vec())
    }

    fn value(value: &[u8]) -> Option<Vec<u8>> {
        Password::from_value(value).map(|password| password.as_bytes().to_vec())
    }

    #[test]
    fn a_text_is_four_or_six_bytes() {
        for (written, bytes) in [
            ("192.168.1.1", &[192, 168, 1, 1][..]),
            ("01:23:45:67:89:ab", SIX),
            ("01-23-45-67-89-AB", SIX),
            ("0123.4567.89ab", SIX),
        ] {
            assert_eq!(text(written).as_deref(), Some(bytes), "{written}");
        }
        for written in [
            "",
            "secret",
            "1.2.3",
            "1.2.3.256",
            "01:23:45:67:89",
            "fe80::1",
        ] {
            assert_eq!(text(written), None, "{written}");
        }
    }

    #[test]
    fn a_value_is_bytes_or_a_text_with_or_without_a_line_end() {
        for (written, bytes) in [
            (&b"abcd"[..], &b"abcd"[..]),
            (b"secret", b"secret"),
            (b"\x00\xff\n\r", b"\x00\xff\n\r"),
            (b"abcd\n", b"abcd"),
            (b"secret\n", b"secret"),
            (b"secret\r\n", b"secret"),
            // As they are, for passwords may end in any byte.
            (b"abcd\r\n", b"abcd\r\n"),
            (b"abcde\n", b"abcde\n"),
            (b"192.168.1.1\n", &[192, 168, 1, 1]),
            (b"01:23:45:67:89:ab\r\n", SIX),
        ] {
            assert_eq!(value(written).as_deref(), Some(bytes), "{written:?}");
        }
        for written in [
            &b""[..],
            b"\n",
            b"abc",
            b"abcde",
            b"seven77",
            b"secret\n\n",
            b" 1.2.3.4",
            b"\xff\xff\xff\xff\xff",
        ] {
            assert_eq!(value(written), None, "{written:?}");
        }
    }

    #[test]
    fn it_is_not_shown() {
        let password = Password::from_value(b"secret").unwrap();
        assert_eq!(format!("{password:?}"), "Password(..)");
    }

    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        let few = prop::collection::vec(0..3_u8, 0..8);
        prop_oneof![few, prop::collection::vec(any::<u8>(), 0..8)]
    }

    proptest! {
        #[test]
        fn what_a_sender_takes_means_the_same_in_a_secret(
            four: [u8; 4],
            six: [u8; 6],
            notation in 0..4,
            end in prop::sample::select(vec!["", "\n", "\r\n"]),
        ) {
            let [a, b, c, d, e, f] = six;
            let written = match notation {
                0 => std::net::Ipv4Addr::from(four).to_string(),
                1 => format!("{a:x}:{b:x}:{c:x}:{d:x}:{e:x}:{f:x}"),
                2 => format!("{a:02X}-{b:02X}-{c:02X}-{d:02X}-{e:02X}-{f:02X}"),
                _ => format!("{a:02x}{b:02x}{c:02x}{d:02x}{e:02x}{f:02x}"),
            };
            let sent = if notation == 0 { four.to_vec() } else { six.to_vec() };
            prop_assert_eq!(text(&written), Some(sent.clone()));
            prop_assert_eq!(value(format!("{written}{end}").as_bytes()), Some(sent));
        }

        #[test]
        fn a_packet_matches_exactly_where_it_begins_with_the_password(
            own in bytes(),
            carried in bytes(),
        ) {
            if let Some(password) = Password::from_bytes(&own) {
                prop_assert_eq!(password.begins(&carried), carried.starts_with(&own));
                prop_assert!(password.begins(&[&own[..], &carried].concat()));
            } else {
                prop_assert!(!matches!(own.len(), 4 | 6));
            }
        }
    }
}
