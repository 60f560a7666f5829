//! What tests, benches and the demo share.

#![allow(
    dead_code,
    unused_imports,
    reason = "each test, bench and the demo uses its own part"
)]

pub mod apiserver;
pub mod envtest;
pub mod pki;
pub mod process;
pub mod skip;
