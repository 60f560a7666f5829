//! Magic packets as they come over the wire: from real senders, from hostile ones, and any bytes at
//! all.

#![allow(clippy::unwrap_used, reason = "what a test cannot build must fail it")]

#[path = "packets/build.rs"]
mod build;
#[path = "packets/checks.rs"]
mod checks;
#[path = "packets/corpus.rs"]
mod corpus;
mod fixtures;
#[path = "packets/hostile_frames.rs"]
mod hostile_frames;
#[path = "packets/hostile_payloads.rs"]
mod hostile_payloads;
#[path = "packets/properties.rs"]
mod properties;
#[path = "packets/reference.rs"]
mod reference;
#[path = "packets/senders.rs"]
mod senders;

use kubevirt_wol::{
    mac::MacAddr,
    packet::{MagicPacket, Trailing, scan},
};

/// The targets that `bytes` wake; none if they are rejected.
fn targets(bytes: &[u8]) -> Vec<MacAddr> {
    match scan(bytes) {
        Ok(found) => found.packets().iter().map(|p| p.target).collect(),
        Err(_) => Vec::new(),
    }
}

fn packet(target: MacAddr, trailing: &[u8]) -> MagicPacket {
    MagicPacket {
        target,
        trailing: Trailing::cut(trailing),
    }
}

// The hostile inputs are numbered 1 to 40. Rows 1 to 21 are in hostile_payloads, rows 24 to 30 in
// hostile_frames, row 36 in the tests of src/mac.rs. The others are about more than bytes, and most
// have their tests where they are dealt with:
//
//  1 (the loop goes on after an empty datagram)         tests/agent.rs, hostile packets
// 19, 33 (one start for many copies)                    the agent's intake, tests/network.rs
// 22 (a flood of addresses)                             src/dedup.rs, the agent's ring, wake_path floods
// 23 (a flood for VMs that are there)                   the manager's throttle, its intents
// 28 (fragments reach the UDP socket whole)             tests/network.rs, late patterns
// 31, 32 (wrong passwords, and the right one after)     tests/secureon.rs
// 34 (own packets looped back)                          tests/network.rs
// 35, 37 (not selected, ambiguous)                      the manager's directory, tests/wake.rs
// 38 (power states)                                     tests/vm_states.rs, the manager's intents
//
// Not tested: what the kernel itself does before a UDP socket (24, 28, 29: 0.0.0.0, extension
// headers, checksums), and a frame above 64 KiB (30), which no interface here delivers. Names with
// quotes or line ends (40) are nowhere labels of metrics. Not there yet: agents that
// prove who they are (39).
