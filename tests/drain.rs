//! The end of managers and agents: what was under way is finished or handed on, nothing is lost, and
//! nobody stays longer than it takes. Every scenario runs on the API stand-in and, where
//! `KUBEBUILDER_ASSETS` names one, unchanged on a real API server.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that breaks has to fail"
)]

mod common;
#[path = "drain/scenarios.rs"]
mod scenarios;

use common::scenarios::scenarios;

scenarios!(
    scenarios:
    who_is_idle_ends_at_once,
    an_idle_manager_ends_at_once_although_the_api_hangs,
    an_idle_agent_ends_at_once_although_its_manager_hangs,
    a_start_under_way_is_finished_and_told_before_the_manager_ends,
    a_start_that_takes_longer_is_seen_to_its_end_by_the_manager_that_made_it,
    a_wake_that_a_manager_cannot_finish_is_finished_by_another,
    wakes_while_one_of_two_managers_drains_start_each_vm_once,
    the_next_manager_leads_as_soon_as_the_leader_has_ended,
    an_agent_ends_when_a_manager_has_what_it_heard,
    an_agent_that_no_manager_hears_ends_in_the_end,
    a_second_signal_ends_a_manager_and_an_agent_at_once,
);
