//! Owns the border between the fuzz targets and the checks that `cargo test` runs as well.
//!
//! It is built from the very files of the program that read bytes from outside, and from no others,
//! which is why it goes by the program's name.

extern crate self as kubevirt_wol;

#[path = "../../tests/packets/checks.rs"]
mod checks;
#[path = "../../tests/packets/reference.rs"]
mod reference;

#[path = "../../src/filter.rs"]
pub mod filter;
#[path = "../../src/frame.rs"]
pub mod frame;
#[path = "../../src/mac.rs"]
pub mod mac;
#[path = "../../src/pace.rs"]
pub mod pace;
#[path = "../../src/packet.rs"]
pub mod packet;
#[path = "../../src/rpc.rs"]
pub mod rpc;
#[path = "../../src/settings.rs"]
pub mod settings;
#[path = "../../src/wake.rs"]
pub mod wake;
#[path = "../../src/wakeable.rs"]
pub mod wakeable;

/// A frame, behind the three bytes that say what tag the kernel took out of it.
pub fn check_frame(input: &[u8]) {
    checks::frame(input);
}

/// The payload of a frame or datagram.
pub fn check_scan(bytes: &[u8]) {
    checks::scan(bytes);
}

/// A message of a session between an agent and a manager.
pub fn check_session(bytes: &[u8]) {
    checks::session(bytes);
}
