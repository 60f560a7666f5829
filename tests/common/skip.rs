//! Owns what a test says when the machine lacks what it needs.

/// Says loudly that a test proves nothing here. Where nothing may be skipped, as in a complete run,
/// that is a failure.
///
/// # Panics
///
/// `WOL_TEST_NO_SKIP` is set.
pub fn skipped(reason: &str) {
    eprintln!("SKIPPED: {reason}");
    assert!(
        std::env::var_os("WOL_TEST_NO_SKIP").is_none(),
        "skipped although WOL_TEST_NO_SKIP is set: {reason}"
    );
}
