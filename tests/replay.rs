//! The delivery contract, with managers that are killed, frozen or cut off and wakes that are old: each
//! ends in one start or in a told reason. Every scenario runs on the API stand-in and, where
//! `KUBEBUILDER_ASSETS` names one, unchanged on a real API server.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that breaks has to fail"
)]

mod common;
#[path = "replay/scenarios.rs"]
mod scenarios;

use common::scenarios::scenarios;

scenarios!(
    scenarios:
    a_manager_killed_before_it_starts_the_vm_costs_no_wake,
    a_manager_killed_after_its_start_and_before_its_answer_costs_no_second_start,
    a_wake_that_waits_for_its_vm_outlives_its_manager,
    every_agent_that_reported_a_wake_learns_how_it_ended,
    a_manager_that_is_frozen_costs_two_seconds_and_starts_nothing_when_it_thaws,
    a_manager_that_froze_with_a_wake_in_hand_does_not_come_back_to_it,
    an_agent_that_was_frozen_reports_nothing_that_is_stale,
    a_way_that_falls_silent_costs_less_than_five_seconds,
    a_wake_that_is_too_old_starts_nothing_and_is_told,
    a_wake_heard_while_the_vm_was_on_does_not_start_it_after_its_owner_has_stopped_it,
    a_flood_while_no_manager_is_there_does_not_cost_the_wake_of_a_known_vm,
);
