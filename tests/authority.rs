//! The managers' CA as an admin meets it: in a Secret and a ConfigMap that may be raced for, emptied,
//! deleted and applied again. Every scenario runs on the API stand-in and, where `KUBEBUILDER_ASSETS`
//! names one, unchanged on a real API server.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that breaks has to fail"
)]

#[path = "authority/bed.rs"]
mod bed;
mod common;
#[path = "authority/manifests.rs"]
mod manifests;
#[path = "authority/scenarios.rs"]
mod scenarios;

use common::scenarios::scenarios;

scenarios!(
    scenarios:
    replicas_that_race_end_with_one_ca,
    an_emptied_secret_gets_the_same_ca_back,
    a_replica_that_starts_on_an_emptied_secret_leaves_it_to_one_that_serves,
    where_nobody_knows_the_ca_any_more_a_new_one_is_made_after_a_while,
    an_emptied_bundle_gets_the_same_ca_back,
    deleted_objects_are_told_and_filled_when_they_are_back,
    a_secret_that_makes_no_sense_is_told_and_never_written_over,
    a_restarted_replica_goes_on_with_the_ca_and_publishes_it,
    a_rotation_publishes_then_signs_then_drops,
    applying_the_manifests_again_takes_nothing_away,
    upgrading_with_helm_takes_nothing_away,
);
