//! Who an agent is: what the manager makes of tokens, as agents send them. What one server alone
//! can be told to do is on the stand-in; the rest runs on it and, where `KUBEBUILDER_ASSETS` names
//! one, unchanged on a real API server, with tokens that it has made.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::unchecked_time_subtraction,
    reason = "a test bed that breaks has to fail the test"
)]

#[path = "identity/answers.rs"]
mod answers;
#[path = "manager/bed.rs"]
#[allow(dead_code, reason = "a part of what the tests of the manager share")]
mod bed;
#[path = "identity/certificates.rs"]
mod certificates;
mod common;
#[path = "identity/legacy.rs"]
mod legacy;
#[path = "identity/load.rs"]
mod load;
#[path = "identity/pods.rs"]
mod pods;
#[path = "identity/real.rs"]
mod real;
#[path = "identity/scenarios.rs"]
mod scenarios;
#[path = "identity/world.rs"]
mod world;

/// Makes a test on the stand-in of each scenario, and one on a real API server of all.
macro_rules! on_both {
    ($($name:ident),* $(,)?) => {
        $(
            #[tokio::test]
            async fn $name() {
                scenarios::$name(world::Api::stand_in().await).await;
            }
        )*

        #[tokio::test]
        async fn all_on_a_real_api_server() {
            $(
                let Some(api) = world::Api::real(stringify!($name)).await else { return };
                Box::pin(scenarios::$name(api)).await;
                println!("{} on a real API server: ok", stringify!($name));
            )*
        }
    };
}

on_both!(
    the_node_is_what_the_token_says_and_not_what_the_agent_says,
    who_proves_nothing_is_refused_and_told_why,
    the_token_of_a_deleted_pod_opens_nothing_and_what_it_opened_ends,
    while_the_api_is_away_sessions_go_on_and_new_ones_wait,
    a_ban_ends_sessions_at_once_and_is_taken_back_as_fast,
    a_newer_token_takes_the_place_of_the_first_in_the_session,
    a_newer_token_of_another_node_or_of_nobody_ends_the_session,
    the_original_agents_service_asks_for_a_token_too,
);
