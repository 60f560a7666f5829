//! Owns the magic packet: finding it in any bytes ([`scan`]) and making one ([`MagicPacket`]).

use crate::mac::MacAddr;

/// Bytes of a magic packet without a password: six of 0xFF and sixteen addresses.
pub const MAGIC_LEN: usize = 102;

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
