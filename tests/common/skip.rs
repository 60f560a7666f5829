//! Owns how a test says that it cannot run here.

use std::io::Write as _;

/// Says on stderr which test is skipped and why; panics where `WOL_TEST_NO_SKIP` is set.
pub fn skipped(reason: &str) {
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test");
    // Not `eprintln!`, which the harness shows for failed tests only.
    // In one piece, on a line of its own.
    let line = format!("\nSKIPPED {test}: {reason}\n");
    let _ = std::io::stderr().write_all(line.as_bytes());
    assert!(
        std::env::var_os("WOL_TEST_NO_SKIP").is_none(),
        "WOL_TEST_NO_SKIP is set, and this test would be skipped: {reason}"
    );
}
