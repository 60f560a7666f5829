//! What a wake makes of everything that KubeVirt answers and of every state that a VM may be in,
//! seen from outside: the calls, the Events on the VM, the log, the metrics, and whether the VM
//! starts. Every scenario runs on the API stand-in and, where `KUBEBUILDER_ASSETS` names one,
//! unchanged on a real API server.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that breaks has to fail"
)]

mod common;
#[path = "answers/scenarios.rs"]
mod scenarios;

use common::scenarios::scenarios;

scenarios!(
    scenarios:
    every_answer_to_a_start_has_its_consequence,
    every_state_of_a_vm_has_its_consequence,
    a_snapshot_or_a_restore_is_waited_for,
    what_will_pass_is_waited_for,
    what_happens_during_a_call_counts,
    a_kubevirt_that_hangs_starts_the_vm_once,
    a_kubevirt_that_is_away_is_waited_for,
    a_wake_ends_at_its_deadline_and_says_why,
    a_paused_vm_is_unpaused_where_a_config_says_so,
    unpausing_copes_with_what_kubevirt_answers,
    a_snapshot_of_a_paused_vm_is_waited_for,
    of_many_managers_that_race_one_starts_the_vm,
    starts_keep_to_the_rate_and_the_places_that_were_set,
    a_flood_for_known_vms_starts_each_once_and_no_faster_than_the_throttle,
    a_boot_is_timed_until_the_vm_runs,
);
