//! Owns [`Certificate`]: a certificate and the time for which it holds, read from PEM. Pure.
//!
//! Of X.509 only the validity is read here; whether a certificate is good is for rustls to say.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use rustls::pki_types::{CertificateDer, pem::PemObject as _};

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// A certificate, without its key.
#[derive(Clone, PartialEq, Eq)]
pub struct Certificate {
    der: CertificateDer<'static>,
    /// From when it holds.
    pub not_before: SystemTime,
    /// Until when it holds.
    pub not_after: SystemTime,
}

impl Certificate {
    /// Reads a certificate; none where it is none.
    #[must_use]
    pub fn from_der(der: CertificateDer<'static>) -> Option<Self> {
        let (not_before, not_after) = validity(&der)?;
        Some(Self {
            der,
            not_before,
            not_after,
        })
    }

    /// Reads PEM with nothing but one certificate.
    #[must_use]
    pub fn from_pem(pem: &[u8]) -> Option<Self> {
        let mut all = Self::all_from_pem(pem)?;
        let first = all.pop()?;
        all.is_empty().then_some(first)
    }

    /// Reads all certificates of `pem`; none where one cannot be read.
    #[must_use]
    pub fn all_from_pem(pem: &[u8]) -> Option<Vec<Self>> {
        CertificateDer::pem_slice_iter(pem)
            .map(|der| Self::from_der(der.ok()?))
            .collect()
    }

    /// The certificate as it goes over the wire.
    #[must_use]
    pub fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }

    /// How long it holds, from its first moment to its last.
    #[must_use]
    pub fn life(&self) -> Duration {
        let life = self.not_after.duration_since(self.not_before);
        life.unwrap_or_default()
    }

    /// Whether it holds no more.
    #[must_use]
    pub fn is_over(&self, now: SystemTime) -> bool {
        now >= self.not_after
    }

    /// Whether it holds: one that was made by a clock which was ahead does not yet.
    #[must_use]
    pub fn holds(&self, now: SystemTime) -> bool {
        self.not_before <= now && !self.is_over(now)
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate")
            .field("not_before", &self.not_before)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

/// One element of DER, and what follows it.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
        // No certificate is longer than three bytes can say.
        let fold = |length, byte: &u8| length << 8 | usize::from(*byte);
        (bytes.len() <= 3)
            .then(|| bytes.iter().fold(0, fold))
            .map(|length| (length, rest))?
    };
    let (value, rest) = rest.split_at_checked(length)?;
    Some((tag, value, rest))
}

/// The element of this kind that `der` begins with, and what follows it.
fn expect(wanted: u8, der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (tag, value, rest) = element(der)?;
    (tag == wanted).then_some((value, rest))
}

/// From when and until when a certificate holds (RFC 5280, 4.1).
fn validity(der: &[u8]) -> Option<(SystemTime, SystemTime)> {
    let (certificate, _) = expect(SEQUENCE, der)?;
    let (to_be_signed, _) = expect(SEQUENCE, certificate)?;
    let (_, rest) = expect(VERSION, to_be_signed)?;
    let (_serial, rest) = expect(INTEGER, rest)?;
    let (_algorithm, rest) = expect(SEQUENCE, rest)?;
    let (_issuer, rest) = expect(SEQUENCE, rest)?;
    let (validity, _) = expect(SEQUENCE, rest)?;
    let (tag, from, rest) = element(validity)?;
    let from = time(tag, from)?;
    let (tag, until, _) = element(rest)?;
    Some((from, time(tag, until)?))
}

/// Reads `YYMMDDHHMMSSZ` or `YYYYMMDDHHMMSSZ`, the only forms that a certificate may have.
fn time(tag: u8, text: &[u8]) -> Option<SystemTime> {
    let digits = text.strip_suffix(b"Z")?;
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = |digits: &[u8]| {
        let add = |number, digit: &u8| number * 10 + u64::from(digit - b'0');
        digits.iter().fold(0, add)
    };
    let (year, rest) = match (tag, digits.len()) {
        (UTC_TIME, 12) => {
            let year = number(&digits[..2]);
            (if year < 50 { 2000 } else { 1900 } + year, &digits[2..])
        }
        (GENERALIZED_TIME, 14) => (number(&digits[..4]), &digits[4..]),
        _ => return None,
    };
    let part = |at: usize| number(&rest[at..at + 2]);
    let days = days(year, part(0), part(2))?;
    let seconds = ((days * 24 + part(4)) * 60 + part(6)) * 60 + part(8);
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

/// Days from the beginning of 1970; none before.
fn days(year: u64, month: u64, day: u64) -> Option<u64> {
    if year < 1970 || !(1..=12).contains(&month) || day == 0 {
        return None;
    }
    // A year that begins in March ends with its leap day.
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let leap_days = year / 4 - year / 100 + year / 400;
    (365 * year + leap_days + (153 * month + 2) / 5 + day - 1).checked_sub(719_468)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn made(from: u64, until: u64) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        params.not_before = at(from).into();
        params.not_after = at(until).into();
        let made = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        made.der().clone()
    }

    #[test]
    fn what_is_no_certificate_is_none() {
        for pem in [
            "",
            "garbage",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        ] {
            assert_eq!(Certificate::from_pem(pem.as_bytes()), None, "{pem}");
        }
    }

    proptest! {
        // Up to the year 2255, past 2050, where the form changes.
        #[test]
        fn the_times_are_those_that_it_was_made_with(from in 0..9_000_000_000_u64, life in 1..900_000_000_u64) {
            let read = Certificate::from_der(made(from, from + life)).unwrap();
            prop_assert_eq!((read.not_before, read.not_after), (at(from), at(from + life)));
        }

        #[test]
        fn no_bytes_are_too_strange(at in 0..200_usize, byte: u8, end in 0..400_usize) {
            let mut der = made(0, 1).to_vec();
            der[at] = byte;
            der.truncate(end);
            let _ = Certificate::from_der(der.into());
        }
    }
}
