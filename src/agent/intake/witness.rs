//! Owns [`Witness`]: who looks on while packets are judged.

use std::fmt;

use crate::{
    agent::metrics::{Invalid, Verdict},
    packet::MagicPacket,
    wake::Origin,
};

/// Looks on while packets are judged, and must not hold that up.
pub trait Witness: fmt::Debug + Send + Sync {
    /// A packet was judged: as a magic packet, or for what reason it is none. Of a frame that
    /// cannot be read there is no origin.
    fn saw(
        &self,
        origin: Option<&Origin>,
        packets: &[MagicPacket],
        verdict: Result<Verdict, Invalid>,
    );

    /// The kernel dropped so many packets, of which nothing else is known.
    fn missed(&self, packets: u64);
}
