//! What tests, benches and the demo share: stand-ins for what is around the program.

#![allow(
    dead_code,
    unused_imports,
    unused_macros,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "each test uses its own part, and a test bed that breaks has to fail the test"
)]

pub mod apiserver;
pub mod cluster;
pub mod envtest;
pub mod installation;
pub mod jwt;
pub mod kubectl;
pub mod kubevirt;
pub mod line;
pub mod netns;
pub mod pages;
pub mod pki;
pub mod process;
pub mod rights;
pub mod scenarios;
pub mod sessions;
pub mod skip;
pub mod trust;
pub mod volume;
