//! What a cluster admin reads of a `WolConfig`: its status, its columns and its Events. Every
//! scenario runs on the API stand-in and, where `KUBEBUILDER_ASSETS` names one, unchanged on a real
//! API server.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that breaks has to fail"
)]

mod common;
#[path = "status/leaders.rs"]
mod leaders;
#[path = "status/scenarios.rs"]
mod scenarios;
#[path = "status/surroundings.rs"]
mod surroundings;
#[path = "status/view.rs"]
mod view;

use common::scenarios::scenarios;

scenarios!(
    scenarios:
    a_status_tells_what_a_config_does,
    the_columns_show_what_an_admin_asks_for,
    two_vms_with_one_address_are_told_until_one_is_gone,
    what_nobody_changes_is_not_written_again,
    the_last_wake_is_told_by_who_served_it_and_not_too_often,
    what_makes_no_sense_is_told_and_the_rest_works,
    a_cluster_without_kubevirt_is_told,
    a_mapping_waits_for_its_vm,
    selections_follow_labels_and_configs,
    a_cache_that_is_too_old_is_told_when_that_can_be_written,
    who_does_not_know_all_vms_writes_no_status,
    a_right_that_is_missing_is_told_until_it_is_given,
    a_config_of_a_newer_version_is_told_to_be_unreadable,
    agents_that_cannot_listen_are_named,
    the_numbers_of_the_daemon_set_are_shown,
    one_replica_leads_and_another_follows_when_it_is_killed,
    a_leader_that_was_frozen_is_none_any_more,
    a_leader_that_ends_hands_over_at_once,
    wakes_are_served_without_a_leader,
);
