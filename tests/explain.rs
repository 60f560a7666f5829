//! `kubevirt-wol explain`, as a person meets it: what would happen to a packet, and that the manager
//! agrees. Every scenario runs on the API stand-in and, where `KUBEBUILDER_ASSETS` names one, unchanged
//! on a real API server.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that breaks has to fail"
)]

mod common;
#[path = "explain/elsewhere.rs"]
mod elsewhere;
#[path = "explain/scenarios.rs"]
mod scenarios;

use common::scenarios::scenarios;

scenarios!(
    scenarios:
    a_vm_that_is_off_would_start_and_one_that_is_on_is_on,
    what_is_explained_is_what_the_manager_does,
    without_a_manager_or_an_agent_nothing_would_wake,
    two_vms_with_one_address_are_both_named,
    it_is_told_which_config_lets_a_packet_in_and_why_others_do_not,
    the_password_in_the_packet_has_to_be_the_vms,
    why_no_packet_can_name_a_vm_is_told,
    a_port_where_no_agent_listens_is_noted,
);
