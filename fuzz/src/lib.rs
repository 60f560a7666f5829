//! Owns the border between the fuzz targets and the checks that `cargo test` runs as well.

#[path = "../../tests/packets/checks.rs"]
mod checks;
#[path = "../../tests/packets/reference.rs"]
mod reference;

/// A frame, behind the three bytes that say what tag the kernel took out of it.
pub fn frame(input: &[u8]) {
    checks::frame(input);
}

/// The payload of a frame or datagram.
pub fn scan(bytes: &[u8]) {
    checks::scan(bytes);
}

/// A message of a session between an agent and a manager.
pub fn session(bytes: &[u8]) {
    checks::session(bytes);
}
