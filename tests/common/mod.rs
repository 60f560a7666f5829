//! Owns what the tests and the demonstration share: stand-ins for what is around the program.

#![allow(dead_code, unused_imports, reason = "each test uses its own part")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    unreachable_pub,
    reason = "a test bed that breaks has to fail the test, and is no library"
)]

pub mod apiserver;
pub mod skip;
