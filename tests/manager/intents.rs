//! What becomes of a wake, step by step.

use std::{sync::Arc, time::Duration};

use kubevirt_wol::{
    manager::{
        intents::Call,
        start::{Answered, Reread},
        vm::{Power, RunStrategy, Vm},
    },
    wake::{Answer, Outcome},
};

use crate::world::{MINUTE, SECOND, World, limits, vm};

fn world() -> World {
    World::new(limits())
}

fn recheck(effective: bool) -> Answered {
    let why = "KubeVirt answered 500".into();
    Answered::Recheck { why, effective }
}

fn unavailable(after: Option<Duration>) -> Answered {
    let (why, effective) = ("KubeVirt answered 503".into(), false);
    Answered::Retry {
        after,
        why,
        effective,
    }
}

#[test]
fn a_vm_that_is_off_is_started_by_one_call_and_reported_when_it_shows() {
    let mut world = world();
    let report = world.wake(&vm("a", Power::Off));
    assert_eq!(
        world.calls.len(),
        1,
        "called at once, and nothing was read before"
    );
    assert_eq!(world.call().0, Call::Start);
    world.answered(Answered::Accepted);
    assert_eq!(
        world.outcome(report),
        None,
        "an accepted start is not yet a start"
    );
    world.changed(&vm("a", Power::On));
    assert_eq!(world.outcome(report), Some(Outcome::Started));
    assert_eq!((world.calls.len(), world.deferrals(report)), (1, 0));
    assert!(world.intents.is_empty());
}

#[test]
fn copies_share_one_intent_and_its_outcome_and_later_ones_are_duplicates() {
    let mut world = world();
    let off = vm("a", Power::Off);
    let copies: Vec<u64> = (0..50).map(|_| world.wake(&off)).collect();
    world.answered(Answered::Accepted);
    let late = world.wake(&off);
    world.changed(&vm("a", Power::On));
    for report in copies.into_iter().chain([late]) {
        assert_eq!(world.outcome(report), Some(Outcome::Started));
    }
    world.pass(9 * SECOND);
    let repeat = world.wake(&vm("a", Power::On));
    assert_eq!(world.outcome(repeat), Some(Outcome::Duplicate));
    world.pass(SECOND);
    let next = world.wake(&vm("a", Power::On));
    assert_eq!(
        world.outcome(next),
        Some(Outcome::AlreadyOn),
        "the window is fixed"
    );
    assert_eq!((world.starts(), world.settled[0].reporters), (1, 51));
}

#[test]
fn a_late_copy_does_not_start_a_vm_that_was_shut_down_meanwhile() {
    let mut world = world();
    world.wake(&vm("a", Power::Off));
    world.answered(Answered::Accepted);
    world.changed(&vm("a", Power::On));
    world.pass(20 * SECOND);
    let (copy, _) = world.wake_aged(&vm("a", Power::Off), 15 * SECOND);
    assert_eq!(world.outcome(copy), Some(Outcome::Duplicate));
    let fresh = world.wake(&vm("a", Power::Off));
    assert_eq!((world.outcome(fresh), world.starts()), (None, 2));
}

#[test]
fn a_wake_from_before_the_vm_went_on_starts_nothing() {
    let mut world = world();
    let mut off = (*vm("a", Power::Off)).clone();
    off.on_since = Some(world.now - 5 * SECOND);
    let (report, _) = world.wake_aged(&off.into(), 6 * SECOND);
    assert_eq!(world.outcome(report), Some(Outcome::AlreadyOn));
    assert_eq!(world.starts(), 0);
}

#[test]
fn a_vm_that_needs_or_allows_no_start_is_answered_at_once() {
    for (power, outcome) in [
        (Power::On, Outcome::AlreadyOn),
        (Power::Paused, Outcome::AlreadyOn),
        (Power::Stuck("ErrorUnschedulable"), Outcome::Stuck),
        (Power::Unsupported("runStrategy Once"), Outcome::Unsupported),
        (Power::Receiver, Outcome::Unsupported),
        (Power::Gone, Outcome::Gone),
    ] {
        let mut world = world();
        let report = world.wake(&vm("a", power));
        assert_eq!(world.outcome(report), Some(outcome), "{power:?}");
        assert_eq!(
            (world.calls.len(), world.settled.len()),
            (0, 1),
            "{power:?}"
        );
        let again = world.wake(&vm("a", Power::Off));
        assert_eq!(world.outcome(again), None, "{power:?} left no mark");
    }
}

#[test]
fn a_stopping_vm_is_started_as_soon_as_it_has_stopped() {
    let mut world = world();
    let report = world.wake(&vm("a", Power::Stopping));
    world.pass(MINUTE);
    assert_eq!((world.calls.len(), world.deferrals(report)), (0, 1));
    world.changed(&vm("a", Power::Off));
    world.answered(Answered::Accepted);
    world.changed(&vm("a", Power::On));
    assert_eq!(world.outcome(report), Some(Outcome::Started));
    assert_eq!(world.calls.len(), 1);
}

#[test]
fn already_running_of_a_stopping_vm_keeps_the_wake() {
    let mut world = world();
    let report = world.wake(&vm("a", Power::Off));
    world.answered(recheck(false));
    reread(&mut world, Reread::Vm(vm("a", Power::Stopping)));
    world.pass(MINUTE);
    assert_eq!((world.starts(), world.outcome(report)), (1, None));
    world.changed(&vm("a", Power::Off));
    assert_eq!(world.starts(), 2);
    world.answered(Answered::Accepted);
    world.changed(&vm("a", Power::On));
    assert_eq!(world.outcome(report), Some(Outcome::Started));
}

fn reread(world: &mut World, read: Reread) {
    let (call, id, vm) = world.call();
    assert_eq!(call, Call::Read);
    world.intents.reread(&vm.uid, id, read, world.now);
    world.act();
}

#[test]
fn who_started_it_is_told_by_the_answer_and_the_vm() {
    for (effective, outcome) in [(false, Outcome::AlreadyOn), (true, Outcome::Started)] {
        let mut world = world();
        let report = world.wake(&vm("a", Power::Off));
        world.answered(recheck(effective));
        reread(&mut world, Reread::Vm(vm("a", Power::On)));
        assert_eq!(world.outcome(report), Some(outcome));
    }
}

#[test]
fn a_vm_that_turns_on_while_the_call_hangs_is_started() {
    let mut world = world();
    let report = world.wake(&vm("a", Power::Off));
    world.changed(&vm("a", Power::On));
    assert_eq!(world.outcome(report), Some(Outcome::Started));
    assert_eq!(world.intents.under_way(), 1);
    world.answered(recheck(true));
    assert_eq!((world.intents.under_way(), world.calls.len()), (0, 1));
}

#[test]
fn a_silent_watch_is_made_up_for_by_a_read() {
    let mut world = world();
    let report = world.wake(&vm("a", Power::Off));
    world.answered(Answered::Accepted);
    world.pass(Duration::from_millis(2_999));
    assert_eq!(world.reads(), 0);
    world.pass(Duration::from_millis(1));
    assert_eq!(world.reads(), 1);
    reread(&mut world, Reread::Vm(vm("a", Power::On)));
    assert_eq!(world.outcome(report), Some(Outcome::Started));
}

#[test]
fn an_accepted_start_that_came_to_nothing_is_made_again() {
    let mut world = world();
    let report = world.wake(&vm("a", Power::Off));
    world.answered(Answered::Accepted);
    for _ in 0..40 {
        world.pass(SECOND);
        if world.call().0 == Call::Read && world.starts() == 1 && world.intents.under_way() > 0 {
            reread(&mut world, Reread::Vm(vm("a", Power::Off)));
        }
    }
    assert_eq!((world.starts(), world.outcome(report)), (2, None));
    assert!(world.reads() <= 25, "{} reads", world.reads());
}

#[test]
fn an_unavailable_api_is_asked_three_times_quickly_and_then_slowly() {
    let mut world = world();
    let report = world.wake(&vm("a", Power::Off));
    let mut at = vec![world.now];
    while world.outcome(report).is_none() {
        if world.intents.under_way() > 0 {
            world.answered(unavailable(None));
        }
        let before = world.starts();
        world.pass(Duration::from_millis(10));
        at.extend((before..world.starts()).map(|_| world.now));
    }
    let pauses: Vec<Duration> = at.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(
        pauses[..3].iter().all(|pause| *pause < SECOND / 2),
        "{pauses:?}"
    );
    assert!(
        pauses[5..].iter().all(|pause| *pause >= SECOND),
        "{pauses:?}"
    );
    assert!(
        pauses.iter().all(|pause| *pause <= 16 * SECOND),
        "{pauses:?}"
    );
    assert_eq!(world.outcome(report), Some(Outcome::Expired));
    assert!(
        world.settled[0].message.contains("503"),
        "{}",
        world.settled[0].message
    );
    let next = world.wake(&vm("a", Power::Off));
    assert_eq!(world.outcome(next), None, "a failure leaves no mark");
}

#[test]
fn a_server_that_names_a_pause_gets_it() {
    let (after, why) = (20 * SECOND, String::new());
    for answer in [
        unavailable(Some(after)),
        Answered::ApiMissing { after, why },
    ] {
        let mut world = world();
        world.wake(&vm("a", Power::Off));
        world.answered(answer);
        world.changed(&vm("a", Power::Off));
        world.pass(20 * SECOND - Duration::from_millis(1));
        assert_eq!(world.starts(), 1);
        world.pass(Duration::from_millis(1));
        assert_eq!(world.starts(), 2);
    }
}

#[test]
fn what_the_vm_stood_in_the_way_of_is_tried_again_when_the_vm_changes() {
    let mut world = world();
    world.wake(&vm("a", Power::Off));
    for _ in 0..8 {
        world.answered(recheck(false));
        reread(&mut world, Reread::Vm(vm("a", Power::Off)));
        let starts = world.starts();
        world.changed(&vm("a", Power::Off));
        world.pass(SECOND / 5);
        assert_eq!(world.starts(), starts + 1);
    }
}

#[test]
fn refusals_are_final_and_leave_no_mark() {
    for (answer, outcome) in [
        (Answered::Gone, Outcome::Gone),
        (Answered::Forbidden("no".into()), Outcome::Forbidden),
        (Answered::Unsupported("once".into()), Outcome::Unsupported),
        (Answered::Refused("repair it".into()), Outcome::Stuck),
        (Answered::Bug("what?".into()), Outcome::Unsupported),
    ] {
        let mut world = world();
        let report = world.wake(&vm("a", Power::Off));
        world.answered(answer.clone());
        assert_eq!(world.outcome(report), Some(outcome), "{answer:?}");
        world.wake(&vm("a", Power::Off));
        assert_eq!(world.starts(), 2, "{answer:?}");
    }
}

#[test]
fn every_reporter_hears_something_within_800_ms_of_its_report() {
    let mut world = world();
    let off = vm("a", Power::Off);
    let first = world.wake(&off);
    world.pass(Duration::from_millis(500));
    let second = world.wake(&off);
    world.pass(Duration::from_millis(300));
    assert_eq!((world.deferrals(first), world.deferrals(second)), (1, 0));
    world.pass(Duration::from_millis(500));
    assert_eq!((world.deferrals(first), world.deferrals(second)), (1, 1));
    let [Answer::Deferred(keep, _)] = world.answers_to(first)[..] else {
        panic!("not deferred: {:?}", world.answers_to(first));
    };
    assert_eq!(*keep, 5 * MINUTE - Duration::from_millis(800));
}

#[test]
fn a_deleted_vm_ends_its_wake() {
    let mut world = world();
    let off = vm("a", Power::Stopping);
    let report = world.wake(&off);
    world.intents.deleted(&off.uid, world.now);
    world.act();
    assert_eq!(world.outcome(report), Some(Outcome::Gone));
}

/// A later version of a VM.
fn version(version: u64, power: Power) -> Arc<Vm> {
    let mut vm = (*vm("a", power)).clone();
    vm.resource_version = version.to_string().into();
    vm.into()
}

#[test]
fn a_read_that_the_watch_has_overtaken_does_not_hold_up_the_start() {
    let mut world = world();
    world.wake(&version(5, Power::Off));
    world.answered(recheck(false));
    world.changed(&version(10, Power::Off));
    // Read before it had stopped; nothing more will be heard of that.
    reread(&mut world, Reread::Vm(version(9, Power::Stopping)));
    world.pass(SECOND);
    assert_eq!(world.starts(), 2);
}

#[test]
fn a_watch_that_lags_behind_a_read_does_not_settle_the_wake() {
    let mut world = world();
    let report = world.wake(&version(5, Power::Off));
    world.answered(recheck(false));
    reread(&mut world, Reread::Vm(version(9, Power::Stopping)));
    world.changed(&version(8, Power::On));
    assert_eq!(world.outcome(report), None, "it was on before it stopped");
    world.changed(&version(10, Power::Off));
    assert_eq!(world.starts(), 2);
}

#[test]
fn a_vm_that_changes_all_the_time_is_started_again_in_the_end() {
    let mut world = world();
    world.wake(&vm("a", Power::Off));
    world.answered(Answered::Accepted);
    for _ in 0..40 {
        world.pass(SECOND);
        world.changed(&vm("a", Power::Off));
        if world.call().0 == Call::Read && world.starts() == 1 {
            reread(&mut world, Reread::Vm(vm("a", Power::Off)));
        }
    }
    assert_eq!(world.starts(), 2);
}

#[test]
fn who_changes_the_run_strategy_while_a_wake_waits_has_the_last_word() {
    for (from, to, starts) in [
        (RunStrategy::Manual, RunStrategy::Manual, 1),
        (RunStrategy::Manual, RunStrategy::Halted, 0),
        (RunStrategy::Always, RunStrategy::Halted, 0),
        (RunStrategy::Halted, RunStrategy::RerunOnFailure, 0),
    ] {
        let of = |strategy, power| {
            let vm = (*vm("a", power)).clone();
            Arc::new(Vm { strategy, ..vm })
        };
        let mut world = world();
        let report = world.wake(&of(from, Power::Stopping));
        world.changed(&of(to, Power::Stopping));
        world.changed(&of(to, Power::Off));
        assert_eq!(world.starts(), starts, "{from:?} to {to:?}");
        let expected = (starts == 0).then_some(Outcome::Expired);
        assert_eq!(world.outcome(report), expected, "{from:?} to {to:?}");
    }
    // This is what a start does, whoever made it.
    let mut world = world();
    let report = world.wake(&vm("a", Power::Off));
    world.answered(recheck(true));
    let mut on = (*vm("a", Power::On)).clone();
    on.strategy = RunStrategy::Always;
    reread(&mut world, Reread::Vm(on.into()));
    assert_eq!(world.outcome(report), Some(Outcome::Started));
}
