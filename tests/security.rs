//! Who may report a wake, and who may not: the real manager with TLS and tokens as it comes, agents
//! whom it knows, and attackers, who start nothing. Every scenario runs on the API stand-in and,
//! where `KUBEBUILDER_ASSETS` names one, unchanged on a real API server with real bound tokens.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that breaks has to fail"
)]

mod common;
#[path = "security/scenarios.rs"]
mod scenarios;

use common::scenarios::scenarios;

scenarios!(
    scenarios:
    without_a_token_nothing_starts,
    garbage_for_a_token_starts_nothing,
    a_token_for_another_audience_starts_nothing,
    a_token_of_another_account_starts_nothing,
    an_expired_token_starts_nothing,
    a_plaintext_client_starts_nothing,
    a_wake_is_of_the_node_of_the_token_whatever_the_message_says,
    the_token_of_a_deleted_pod_wakes_nothing_any_more,
    a_token_is_renewed_within_the_session,
    a_ban_ends_the_session_of_its_node_alone,
    while_no_token_can_be_reviewed_sessions_go_on_and_new_ones_wait,
    a_manager_of_a_foreign_authority_gets_neither_token_nor_wake,
    a_manager_with_an_expired_certificate_gets_neither_token_nor_wake,
    without_a_bundle_an_agent_tells_nobody_anything,
    an_agent_is_the_node_that_its_certificate_names,
    a_rotation_of_the_authority_costs_no_session_and_no_wake,
);
