//! The test bed itself: pods with what a kubelet gives them, and sessions without agents, the same
//! on the stand-in and on a real API server.

#![allow(clippy::unwrap_used, reason = "a test that breaks has to fail")]

mod common;
#[path = "bed/scenarios.rs"]
mod scenarios;

use common::scenarios::scenarios;

scenarios! { scenarios:
    a_pod_has_a_token_of_its_account_and_node,
    a_token_is_refused_that_is_for_others_or_has_ended,
    fifty_sessions_get_every_event_settled,
    the_bundle_reaches_the_pod_and_leaves_it,
}
