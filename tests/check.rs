//! `kubevirt-wol check`, as an admin meets it: what it finds, and how it ends. Every scenario runs on
//! the API stand-in and, where `KUBEBUILDER_ASSETS` names one, unchanged on a real API server.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that breaks has to fail"
)]

mod common;
#[path = "check/docs.rs"]
mod docs;
#[path = "check/elsewhere.rs"]
mod elsewhere;
#[path = "check/found.rs"]
mod found;
#[path = "check/parts.rs"]
mod parts;
#[path = "check/scenarios.rs"]
mod scenarios;

use common::scenarios::scenarios;

scenarios!(
    scenarios:
    where_everything_is_as_it_should_be_no_problem_is_found,
    a_missing_definition_is_a_problem_and_a_differing_one_a_warning,
    without_kubevirt_nothing_can_start,
    a_right_that_managers_lack_is_named,
    what_one_may_not_look_at_is_told_and_the_rest_is_looked_at,
    managers_that_are_missing_or_not_ready_are_told,
    a_service_that_leads_nowhere_is_told,
    certificates_that_are_missing_or_expired_are_told,
    a_manager_that_agents_would_not_trust_is_told,
    agents_that_are_missing_are_told,
    without_a_config_nothing_is_wakeable,
    what_a_status_says_is_told_with_what_helps,
);
