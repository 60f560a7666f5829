//! Owns [`WakeableMacs`]: which addresses a packet can wake a VM by, so compactly that every agent
//! can hold it. Says yes to every such address, and by mistake to some others. Pure.
//!
//! It is a Bloom filter. Managers and agents of different versions share it, so its hash is fixed by
//! `proto/wol/v1/wol.proto`, and by the golden vector of the tests.

use crate::mac::MacAddr;

/// Bytes at most, whatever the number of VMs.
pub const MAX_BYTES: usize = 64 * 1024;
/// Bytes at least.
const MIN_BYTES: usize = 64;
/// Bits for each address, as long as [`MAX_BYTES`] allows: one in 1,700 others is taken for one.
const BITS_PER_ADDRESS: usize = 16;
/// Bits looked at for each address at most; more would make it slower and hardly better.
const MAX_HASHES: u32 = 8;

/// A set of addresses that never denies a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WakeableMacs {
    bits: Vec<u8>,
    hashes: u32,
}

/// Why a filter cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a filter of {bytes} bytes and {hashes} hashes makes no sense")]
pub struct BadFilter {
    /// Its length.
    pub bytes: usize,
    /// Bits that it would look at.
    pub hashes: u32,
}

impl WakeableMacs {
    /// An empty one with room for so many addresses.
    #[must_use]
    pub fn for_addresses(count: usize) -> Self {
        let wanted = count.saturating_mul(BITS_PER_ADDRESS) / 8;
        let bytes = wanted.clamp(MIN_BYTES, MAX_BYTES).next_power_of_two();
        Self {
            bits: vec![0; bytes],
            hashes: best_hashes(bytes * 8, count.max(1)),
        }
    }

    /// One that holds these.
    #[must_use]
    pub fn of(macs: &[MacAddr]) -> Self {
        let mut filter = Self::for_addresses(macs.len());
        for mac in macs {
            filter.insert(*mac);
        }
        filter
    }

    /// Reads one from the wire.
    ///
    /// # Errors
    ///
    /// It is empty or too long, or looks at no bit or at too many.
    pub fn from_parts(bits: Vec<u8>, hashes: u32) -> Result<Self, BadFilter> {
        let sound = (1..=MAX_BYTES).contains(&bits.len()) && (1..=MAX_HASHES).contains(&hashes);
        if sound {
            Ok(Self { bits, hashes })
        } else {
            let bytes = bits.len();
            Err(BadFilter { bytes, hashes })
        }
    }

    /// Its bits, the lowest of each byte first.
    #[must_use]
    pub fn bits(&self) -> &[u8] {
        &self.bits
    }

    /// How many of them are set for each address.
    #[must_use]
    pub fn hashes(&self) -> u32 {
        self.hashes
    }

    /// Adds an address.
    pub fn insert(&mut self, mac: MacAddr) {
        for position in positions(mac, self.bits.len(), self.hashes) {
            self.bits[position / 8] |= 1 << (position % 8);
        }
    }

    /// False only where the address was never added.
    #[must_use]
    pub fn contains(&self, mac: MacAddr) -> bool {
        positions(mac, self.bits.len(), self.hashes)
            .all(|position| self.bits[position / 8] >> (position % 8) & 1 == 1)
    }
}

/// The number of hashes with the fewest mistakes: ln 2 of the bits for each address, rounded.
fn best_hashes(bits: usize, addresses: usize) -> u32 {
    let best = (bits * 69 + addresses * 50) / (addresses * 100);
    u32::try_from(best)
        .unwrap_or(MAX_HASHES)
        .clamp(1, MAX_HASHES)
}

/// The bits of an address.
fn positions(mac: MacAddr, bytes: usize, hashes: u32) -> impl Iterator<Item = usize> {
    let hash = mix(mac);
    let (first, step) = (hash & 0xffff_ffff, (hash >> 32) | 1);
    let bits = bytes as u64 * 8;
    (0..u64::from(hashes)).map(move |n| {
        let position = (first + n * step) % bits;
        // Below the number of bits, of which there are few.
        usize::try_from(position).unwrap_or(0)
    })
}

/// The last step of `SplitMix64`, over the address as a number.
fn mix(mac: MacAddr) -> u64 {
    let octets = mac.octets().into_iter();
    let number = octets.fold(0, |number, octet| number << 8 | u64::from(octet));
    let first = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let second = (first ^ (first >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    second ^ (second >> 31)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn mac(number: u64) -> MacAddr {
        let [_, _, octets @ ..] = number.to_be_bytes();
        MacAddr::new(octets)
    }

    fn filled(count: u64) -> WakeableMacs {
        let mut filter = WakeableMacs::for_addresses(usize::try_from(count).unwrap());
        (0..count).for_each(|n| filter.insert(mac(n)));
        filter
    }

    #[test]
    fn managers_and_agents_of_all_versions_agree_on_the_bits() {
        let mut filter = WakeableMacs::from_parts(vec![0; 8], 3).unwrap();
        filter.insert("52:54:00:12:34:56".parse().unwrap());
        filter.insert("02:00:00:00:00:01".parse().unwrap());
        assert_eq!(filter.bits(), GOLDEN);
    }

    const GOLDEN: [u8; 8] = [0x00, 0x10, 0x00, 0x0a, 0x08, 0x00, 0x00, 0x60];

    #[test]
    fn mistakes_are_rare_until_the_largest_size_is_full() {
        for (addresses, bytes, most) in [
            (0, 64, 0),
            (1_000, 2_048, 100),
            (10_000, 32_768, 100),
            (30_000, MAX_BYTES, 100),
            (100_000, MAX_BYTES, 9_000),
            (200_000, MAX_BYTES, 30_000),
        ] {
            let filter = filled(addresses);
            assert_eq!(filter.bits().len(), bytes, "{addresses}");
            let others = (0..100_000).map(|n| mac(0x0200_0000_0000 + n));
            let mistakes = others.filter(|other| filter.contains(*other)).count();
            assert!(mistakes <= most, "{addresses}: {mistakes} in 100,000");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (bytes, hashes) in [(0, 1), (MAX_BYTES + 1, 1), (64, 0), (64, 9), (64, u32::MAX)] {
            let error = BadFilter { bytes, hashes };
            assert_eq!(WakeableMacs::from_parts(vec![0; bytes], hashes), Err(error));
        }
    }

    proptest! {
        #[test]
        fn no_member_is_ever_denied(
            numbers in prop::collection::vec(0..1_u64 << 48, 0..200),
            bytes in 1..100_usize,
            hashes in 1..=MAX_HASHES,
        ) {
            let mut filter = WakeableMacs::from_parts(vec![0; bytes], hashes).unwrap();
            for number in &numbers {
                filter.insert(mac(*number));
            }
            for number in numbers {
                prop_assert!(filter.contains(mac(number)));
            }
        }
    }
}
