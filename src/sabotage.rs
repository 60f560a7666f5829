//! Owns the switches by which the tests of faults show that they would notice a fault: each turns one
//! mechanism of the delivery contract off. They exist in builds for tests alone; elsewhere every
//! mechanism is on, and there is no option to say otherwise.

#[cfg(debug_assertions)]
use std::sync::atomic::{AtomicU8, Ordering};

/// What can be turned off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(debug_assertions, derive(clap::ValueEnum))]
#[repr(u8)]
pub enum Mechanism {
    /// An agent sends what is not settled again.
    Replay = 1,
    /// Repeats are one wake: of a packet to an agent, of a VM's to a manager.
    Dedup = 2,
    /// What is too old starts nothing.
    Ttl = 4,
    /// A wake from before its VM went on is none any more, and the agent says how old it is.
    Age = 8,
}

#[cfg(debug_assertions)]
static OFF: AtomicU8 = AtomicU8::new(0);

/// Turns these mechanisms off, and all others on.
#[cfg(debug_assertions)]
pub fn set(off: &[Mechanism]) {
    let bits = off.iter().fold(0, |bits, one| bits | *one as u8);
    OFF.store(bits, Ordering::Relaxed);
}

/// Whether a mechanism is turned off.
#[cfg(debug_assertions)]
#[must_use]
pub fn is(mechanism: Mechanism) -> bool {
    OFF.load(Ordering::Relaxed) & mechanism as u8 != 0
}

/// Whether a mechanism is turned off: never.
#[cfg(not(debug_assertions))]
#[must_use]
pub const fn is(_: Mechanism) -> bool {
    false
}
