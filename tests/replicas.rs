//! Several managers at work: the copies of a wake meet in one of them, and one that is killed costs
//! no wake. Every scenario runs on the API stand-in and, where `KUBEBUILDER_ASSETS` names one,
//! unchanged on a real API server.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that breaks has to fail"
)]

mod common;
#[path = "replicas/scenarios.rs"]
mod scenarios;

use common::scenarios::scenarios;

scenarios!(
    scenarios:
    the_copies_of_a_wake_meet_in_one_of_three_managers,
    a_manager_that_is_killed_costs_no_wake,
    the_status_counts_the_agents_of_all_managers_once,
);
