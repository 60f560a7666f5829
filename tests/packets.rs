//! Magic packets as they come over the wire: from real senders, from hostile ones, and any bytes at
//! all.

#![allow(clippy::unwrap_used, reason = "what a test cannot build must fail it")]

#[path = "packets/build.rs"]
mod build;
mod fixtures;
#[path = "packets/hostile_frames.rs"]
mod hostile_frames;
#[path = "packets/hostile_payloads.rs"]
mod hostile_payloads;
#[path = "packets/properties.rs"]
mod properties;
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
// hostile_frames, row 36 in the tests of src/mac.rs. The others are about more than bytes:
//
//  1 (the loop goes on after an empty datagram)         the agent's UDP sockets
// 19, 33, 34 (one start for many copies)                the agent's and the manager's dedup
// 22, 23 (floods: bounded memory, known targets first)  src/dedup.rs, the agent's ring, the
//                                                       manager's throttle
// 24 (0.0.0.0 reaches a UDP socket)                     the agent's UDP sockets
// 28, 29 (the UDP socket's own part)                    the agent's UDP sockets, the kernel
// 30 (buffers of 64 KiB)                                the agent's sockets
// 31, 32 (wrong SecureOn password)                      the manager's grants and dedup
// 34 (own packets looped back)                          the agent's packet socket
// 35, 37 (not selected, ambiguous)                      the manager's directory
// 38 (power states)                                     the manager's view of a VM, its intents
// 39 (strangers on the gRPC port)                       the manager's service
// 40 (quotes and line ends in names)                    telemetry, the metrics page
