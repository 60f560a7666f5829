//! SecureOn: packets that carry a VM's password wake it, and no others do. Every scenario runs on the
//! API stand-in and, where `KUBEBUILDER_ASSETS` names one, unchanged on a real API server.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that breaks has to fail"
)]

#[path = "secureon/bed.rs"]
mod bed;
mod common;
#[path = "secureon/scenarios.rs"]
mod scenarios;
#[path = "secureon/told.rs"]
mod told;
#[allow(dead_code, reason = "it serves the tests of the status, too")]
#[path = "status/view.rs"]
mod view;

use common::scenarios::scenarios;

scenarios!(
    scenarios:
    passwords_of_four_and_six_bytes_wake,
    a_wrong_password_starts_nothing_and_is_told_on_the_vm,
    a_packet_without_a_password_starts_nothing,
    a_wrong_password_never_hides_the_right_one,
    the_right_password_after_a_thousand_wrong_ones_wakes,
    the_key_of_a_vm_goes_before_the_default,
    another_password_counts_at_once,
    a_secret_may_be_made_later_and_deleted_again,
    passwords_serve_on_while_the_api_is_away,
    the_original_protocol_never_carries_a_password,
    wakes_wait_for_a_secret_that_cannot_be_read,
    only_secrets_that_the_manager_was_told_of_are_read,
    a_key_that_opens_nothing_is_named_and_its_value_is_not,
    a_config_that_opens_the_same_vms_is_told,
    no_password_is_shown_anywhere,
);
