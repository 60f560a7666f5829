//! What becomes of a wake of a VM that is paused, and what is told of one that takes longer.

use std::time::Duration;

use http::StatusCode;
use kubevirt_wol::{
    manager::{
        intents::Call,
        metrics::Meaning,
        start::{Answered, Reread, classify_unpause},
        vm::Power,
    },
    wake::{Answer, Outcome},
};

use crate::world::{MINUTE, SECOND, World, limits, vm};

/// A world in which packets may unpause.
fn world() -> World {
    let mut world = World::new(limits());
    world.unpause = true;
    world
}

fn recheck(effective: bool) -> Answered {
    let why = "KubeVirt answered 409: VM snapshot is in progress".into();
    Answered::Recheck { why, effective }
}

fn reread(world: &mut World, power: Power) {
    let (call, id, old) = world.call();
    assert_eq!(call, Call::Read);
    let read = Reread::Vm(vm("a", power));
    world.intents.reread(&old.uid, id, read, world.now);
    world.act();
}

fn message(world: &World, report: u64) -> &str {
    let answers = world.answers_to(report);
    let last = answers.last().expect("it was answered");
    let (Answer::Final(_, text) | Answer::Deferred(_, text)) = last;
    text
}

#[test]
fn a_paused_vm_is_unpaused_by_one_call_and_reported_when_it_runs() {
    let mut world = world();
    let report = world.wake(&vm("a", Power::Paused));
    assert_eq!((world.unpausings(), world.starts()), (1, 0));
    world.answered(Answered::Accepted);
    world.changed(&vm("a", Power::Paused));
    assert_eq!(world.outcome(report), None, "it does not run yet");
    world.changed(&vm("a", Power::On));
    assert_eq!(world.outcome(report), Some(Outcome::Started));
    assert_eq!(message(&world, report), "unpaused");
    assert_eq!(world.calls.len(), 1);
    assert!(world.settled[0].boot.is_none(), "nothing booted");
}

#[test]
fn without_the_right_to_unpause_a_paused_vm_is_left_alone() {
    let mut world = World::new(limits());
    let report = world.wake(&vm("a", Power::Paused));
    assert_eq!(world.outcome(report), Some(Outcome::AlreadyOn));
    assert!(message(&world, report).contains("paused"));
    assert!(world.calls.is_empty());
}

#[test]
fn a_snapshot_of_a_paused_vm_is_waited_for() {
    let mut world = world();
    let report = world.wake(&vm("a", Power::Paused));
    for _ in 0..5 {
        world.answered(recheck(false));
        reread(&mut world, Power::Paused);
        world.pass(20 * SECOND);
    }
    assert_eq!((world.unpausings(), world.outcome(report)), (6, None));
    world.answered(Answered::Accepted);
    world.changed(&vm("a", Power::On));
    assert_eq!(world.outcome(report), Some(Outcome::Started));
}

#[test]
fn a_call_that_may_have_unpaused_it_counts_and_one_that_did_not_does_not() {
    for (effective, outcome) in [(true, Outcome::Started), (false, Outcome::AlreadyOn)] {
        let mut world = world();
        let report = world.wake(&vm("a", Power::Paused));
        world.answered(recheck(effective));
        reread(&mut world, Power::On);
        assert_eq!(world.outcome(report), Some(outcome));
    }
}

#[test]
fn a_paused_vm_that_goes_off_meanwhile_is_started_instead() {
    let mut world = world();
    let report = world.wake(&vm("a", Power::Paused));
    world.answered(recheck(false));
    reread(&mut world, Power::Stopping);
    world.changed(&vm("a", Power::Off));
    assert_eq!((world.unpausings(), world.starts()), (1, 1));
    world.answered(Answered::Accepted);
    world.changed(&vm("a", Power::On));
    assert_eq!(message(&world, report), "started");
}

#[test]
fn a_vm_that_is_paused_as_it_starts_has_been_started() {
    let mut world = world();
    let report = world.wake(&vm("a", Power::Off));
    world.answered(Answered::Accepted);
    world.changed(&vm("a", Power::Paused));
    assert_eq!(world.outcome(report), Some(Outcome::Started));
    assert_eq!((world.starts(), world.unpausings()), (1, 0));
}

#[test]
fn unpausings_keep_to_the_throttle_of_starts() {
    let mut world = world();
    for n in 0..100 {
        let power = if n % 2 == 0 {
            Power::Paused
        } else {
            Power::Off
        };
        world.wake(&vm(&format!("vm-{n}"), power));
        // Answered at once, so that the places are no bound.
        if world.calls.len() > n {
            world.answered(Answered::Accepted);
        }
    }
    assert_eq!((world.unpausings(), world.starts()), (25, 25));
    world.pass(SECOND);
    assert!(
        world
            .calls
            .iter()
            .filter(|(c, ..)| *c != Call::Read)
            .count()
            <= 70
    );
}

#[test]
fn the_owner_of_a_vm_is_told_once_that_a_wake_takes_longer() {
    let mut world = World::new(limits());
    world.wake(&vm("quick", Power::Off));
    world.answered(Answered::Accepted);
    world.changed(&vm("quick", Power::On));
    assert!(world.waiting.is_empty(), "it did not take longer");
    for _ in 0..3 {
        world.wake(&vm("a", Power::Stopping));
        world.pass(MINUTE);
    }
    assert_eq!(world.waiting.len(), 1);
    let told = &world.waiting[0];
    assert_eq!(&*told.vm.key.name, "a");
    assert!(told.why.contains("to stop"), "{}", told.why);
    // At the end of this manager another one goes on with it.
    world.wake(&vm("b", Power::Stopping));
    world.intents.close(world.now);
    world.act();
    assert_eq!((world.deferrals(5), world.waiting.len()), (1, 1));
}

#[test]
fn every_answer_to_an_unpausing_has_a_meaning() {
    let object = |code: u16, message: &str| {
        serde_json::json!({"kind": "Status", "status": "Failure", "code": code, "message": message})
            .to_string()
    };
    let missing = "virtualmachineinstance.kubevirt.io \"a\" not found";
    for (code, body, expected) in [
        (200, String::new(), (Meaning::Accepted, true)),
        (400, object(400, "odd"), (Meaning::NotUnderstood, false)),
        (401, "unauthorized".into(), (Meaning::Forbidden, false)),
        (
            403,
            object(403, "cannot update"),
            (Meaning::Forbidden, false),
        ),
        (404, object(404, missing), (Meaning::Recheck, false)),
        (
            404,
            "404 page not found".into(),
            (Meaning::ApiMissing, false),
        ),
        (
            409,
            object(409, "VM snapshot is in progress"),
            (Meaning::Recheck, false),
        ),
        (
            409,
            object(409, "VMI is not running"),
            (Meaning::Recheck, false),
        ),
        (
            409,
            object(409, "VMI is not paused"),
            (Meaning::Recheck, false),
        ),
        (429, object(429, "slow down"), (Meaning::Unavailable, false)),
        (
            500,
            object(500, "denied the request"),
            (Meaning::Recheck, true),
        ),
        (
            500,
            object(500, "dialing virt-handler failed"),
            (Meaning::Recheck, true),
        ),
        (
            503,
            "error trying to reach service".into(),
            (Meaning::Unavailable, false),
        ),
        (504, object(504, "Timeout"), (Meaning::Recheck, true)),
    ] {
        let status = StatusCode::from_u16(code).unwrap();
        let answer = classify_unpause(status, &body, Some(Duration::ZERO));
        let seen = (answer.meaning(), answer.may_have_started());
        assert_eq!(seen, expected, "{code} {body}");
    }
}

#[test]
fn a_reporter_hears_what_was_in_the_way_also_while_it_is_tried_again() {
    let mut world = World::new(limits());
    let report = world.wake(&vm("a", Power::Off));
    world.answered(recheck(false));
    reread(&mut world, Power::Off);
    world.pass(SECOND);
    assert_eq!((world.starts(), world.intents.under_way()), (2, 1));
    assert!(message(&world, report).contains("snapshot"));
}
