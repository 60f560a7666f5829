//! How managers and agents find out whether to talk to each other: certificates that are right,
//! wrong, missing and replaced, and clients that speak no TLS. Every scenario runs on the API
//! stand-in and, where `KUBEBUILDER_ASSETS` names one, unchanged on a real API server.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that breaks has to fail"
)]

mod common;
#[path = "tls/scenarios.rs"]
mod scenarios;

use common::scenarios::scenarios;

scenarios!(
    scenarios:
    a_wake_comes_over_tls,
    a_manager_of_a_foreign_authority_is_not_told_anything,
    an_expired_certificate_is_refused,
    a_certificate_for_another_name_is_refused,
    a_missing_bundle_is_told_and_counts_once_it_is_there,
    files_are_replaced_while_sessions_go_on,
    useless_files_change_nothing,
    an_insecure_agent_is_told_that_the_manager_speaks_only_tls,
    an_agent_tells_that_a_manager_speaks_no_tls,
    without_a_certificate_a_manager_waits_and_is_not_ready,
    agents_without_a_good_client_certificate_stay_out,
    connections_that_never_speak_keep_nobody_out,
    the_original_agents_have_a_plaintext_listener_of_their_own,
);
