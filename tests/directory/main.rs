//! The directory: which VM a magic packet means, and which packets may wake it.

#![allow(
    clippy::unwrap_used,
    reason = "a fixture that breaks has to fail the test"
)]

mod census;
mod changes;
mod fixture;
mod model;
mod secure_on;
mod selection;
mod staleness;
