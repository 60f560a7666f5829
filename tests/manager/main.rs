//! The manager: what becomes of a wake, and what agents see of it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::unchecked_time_subtraction,
    unreachable_pub,
    reason = "a test bed that breaks has to fail the test"
)]

mod bed;
#[path = "../common/explore.rs"]
#[allow(unreachable_pub, reason = "a part of what other tests share")]
mod explore;
mod intents;
mod intents_bounds;
mod intents_ends;
mod intents_model;
mod intents_states;
mod legacy;
mod overtaken;
#[path = "../common/raw.rs"]
mod raw;
mod room;
mod service;
mod skew;
mod start;
mod unpause;
mod unsure;
mod wakeable;
mod waker;
mod world;
