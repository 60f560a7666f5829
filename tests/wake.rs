//! The whole path: a packet, the real agents, the real manager, and a VM that starts or does not.
//! Every scenario runs on the API stand-in and, where `KUBEBUILDER_ASSETS` names one, unchanged on
//! a real API server.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that breaks has to fail"
)]

mod common;
#[cfg(debug_assertions)]
#[path = "wake/hooks.rs"]
mod hooks;
#[path = "wake/restarts.rs"]
mod restarts;
#[path = "wake/scenarios.rs"]
mod scenarios;

use common::scenarios::scenarios;

scenarios!(
    scenarios:
    a_packet_starts_a_vm_once_and_says_so_on_it,
    two_nodes_hear_one_packet_and_one_start_follows,
    a_halted_vm_starts_and_is_warned_of_becoming_always,
    a_running_vm_is_left_alone,
    an_unknown_address_starts_nothing,
    two_vms_with_one_address_start_neither,
    a_vm_that_is_stopping_starts_when_it_has_stopped,
    a_label_selector_selects_what_it_says,
    explicit_mappings_go_before_discovery,
    several_configs_add_up_and_deleting_one_takes_its_vms_out,
    without_a_config_nothing_is_wakeable,
    sources_and_interfaces_of_a_config_hold,
    two_configs_that_map_one_address_to_two_vms_wake_neither,
    configs_that_match_nothing_do_no_harm,
    a_vm_that_several_configs_select_starts_once,
    a_mapped_vm_is_not_found_until_it_is_created,
    the_last_of_ten_thousand_mappings_wakes,
    words_of_a_newer_kubevirt_hide_no_vm,
    a_vm_that_loses_its_label_is_not_woken_any_more,
    an_address_that_is_changed_moves_the_vm,
    a_vm_that_is_deleted_is_not_found_any_more,
    a_config_that_is_deleted_wakes_nothing_any_more,
    repeats_of_a_trouble_are_counted_in_one_event,
    definitions_may_come_after_the_manager,
    a_wake_heard_before_the_manager_came_is_delivered,
    a_wake_while_the_api_is_away_starts_when_it_is_back,
    an_outage_within_the_cache_ttl_changes_no_answer,
    nobody_is_told_that_a_vm_is_on_by_a_manager_that_cannot_know_it,
    the_end_of_an_outage_is_told_although_nothing_has_changed,
    a_wake_that_waits_for_the_api_is_started_as_soon_as_it_is_back,
    a_wake_outlives_a_token_that_is_refused_for_a_while,
    a_server_that_knows_no_rights_yet_refuses_no_wake,
    past_its_cache_ttl_the_manager_waits_to_know_what_it_missed,
    each_config_counts_its_own_cache_ttl,
    an_idle_manager_asks_the_api_for_nothing_but_changes,
    an_odd_vm_does_not_hide_the_others,
    the_original_agents_protocol_wakes_too,
    who_sends_and_waits_is_told_that_the_vm_runs,
    who_sends_and_waits_is_told_why_the_vm_does_not_run,
    manager_and_agents_end_when_asked,
);
