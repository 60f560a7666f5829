//! Wakes that something else came before: what a late copy, a replay or a thawed manager must not start.

use std::{sync::Arc, time::Duration};

use kubevirt_wol::{
    manager::{
        intents::Call,
        start::{Answered, Reread},
        vm::{Power, Vm},
    },
    wake::Outcome,
};

use crate::world::{MINUTE, SECOND, World, limits, vm};

fn world() -> World {
    World::new(limits())
}

/// A VM that is off; it was seen to go on, and to go off, so long ago.
fn off(world: &World, on: Option<Duration>, off: Option<Duration>) -> Arc<Vm> {
    let ago = |time: Option<Duration>| time.map(|time| world.now - time);
    Arc::new(Vm {
        on_since: ago(on),
        off_since: ago(off),
        ..(*vm("a", Power::Off)).clone()
    })
}

#[test]
fn a_wake_heard_while_the_vm_was_on_does_not_start_what_its_owner_stopped_since() {
    let mut world = world();
    let stopped = off(&world, None, Some(3 * SECOND));
    let (report, _) = world.wake_aged(&stopped, 4 * SECOND);
    assert_eq!(world.outcome(report), Some(Outcome::AlreadyOn));
    assert_eq!((world.starts(), world.intents.len()), (0, 0));
    let (after, _) = world.wake_aged(&stopped, 2 * SECOND);
    assert_eq!(world.outcome(after), None);
    assert_eq!(
        world.starts(),
        1,
        "heard after the stop: somebody wants it on"
    );
}

#[test]
fn a_wake_that_another_manager_deferred_is_not_lost_to_a_stop_that_both_saw() {
    for (age, starts) in [(4_500, 1), (6_000, 0)] {
        let mut world = world();
        // The other saw the VM go off a moment earlier, and deferred a wake heard just after that.
        let stopped = off(&world, None, Some(3 * SECOND));
        world.deferred = true;
        let (report, _) = world.wake_aged(&stopped, Duration::from_millis(age));
        assert_eq!(world.starts(), starts, "{age} ms");
        assert_eq!(world.outcome(report).is_none(), starts == 1);
    }
}

#[test]
fn a_manager_that_saw_nothing_of_the_past_decides_by_age_alone() {
    let mut world = world();
    let unknown = off(&world, None, None);
    world.wake_aged(&unknown, 29 * SECOND);
    assert_eq!(world.starts(), 1);
}

#[test]
fn a_vm_that_went_on_and_off_while_its_wake_waited_is_left_off() {
    let mut world = world();
    let report = world.wake(&vm("a", Power::Off));
    world.answered(Answered::Retry {
        after: Some(10 * SECOND),
        why: "KubeVirt answered 503".into(),
        effective: false,
    });
    world.pass(5 * SECOND);
    // Of several changes at once only the last is seen.
    let stopped = off(&world, Some(2 * SECOND), Some(SECOND));
    world.changed(&stopped);
    assert_eq!(world.outcome(report), Some(Outcome::AlreadyOn));
    world.pass(MINUTE);
    assert_eq!(world.starts(), 1, "the one that came to nothing");
}

#[test]
fn a_vm_that_we_started_and_its_owner_stopped_at_once_is_not_started_again() {
    let mut world = world();
    let report = world.wake(&vm("a", Power::Off));
    world.answered(Answered::Accepted);
    world.pass(2 * SECOND);
    let stopped = off(&world, Some(SECOND), Some(Duration::ZERO));
    world.changed(&stopped);
    assert_eq!(world.outcome(report), Some(Outcome::Started));
    world.pass(2 * MINUTE);
    assert_eq!(world.starts(), 1);
}

#[test]
fn a_copy_that_was_heard_after_the_vm_went_off_again_still_wants_it_on() {
    let mut world = world();
    let first = world.wake(&vm("a", Power::Off));
    world.answered(Answered::Retry {
        after: Some(10 * SECOND),
        why: "KubeVirt answered 503".into(),
        effective: false,
    });
    world.pass(5 * SECOND);
    let stopped = off(&world, Some(2 * SECOND), Some(SECOND));
    let second = world.wake(&stopped);
    world.changed(&stopped);
    assert_eq!((world.outcome(first), world.outcome(second)), (None, None));
    world.pass(10 * SECOND);
    assert_eq!(world.starts(), 2);
}

#[test]
fn a_read_does_not_forget_what_the_watch_has_seen() {
    let mut world = world();
    let seen = off(&world, Some(9 * SECOND), Some(8 * SECOND));
    let report = world.wake(&seen);
    world.answered(Answered::Recheck {
        why: "KubeVirt answered 500".into(),
        effective: false,
    });
    let (call, id, vm) = world.call();
    assert_eq!(call, Call::Read);
    let read = Vm {
        resource_version: "7".into(),
        ..(*off(&world, None, None)).clone()
    };
    world
        .intents
        .reread(&vm.uid, id, Reread::Vm(read.into()), world.now);
    world.act();
    world.pass(SECOND);
    assert_eq!(world.starts(), 2);
    let (_, _, known) = world.call();
    assert_eq!(
        (known.on_since, known.off_since),
        (seen.on_since, seen.off_since)
    );
    assert_eq!(world.outcome(report), None);
}

#[test]
fn only_a_start_of_ours_makes_the_next_packet_a_duplicate() {
    let mut world = world();
    // Somebody else starts it while our wake waits, and stops it.
    let stopping = vm("a", Power::Stopping);
    let report = world.wake(&stopping);
    world.changed(&vm("a", Power::On));
    assert_eq!(world.outcome(report), Some(Outcome::AlreadyOn));
    world.pass(SECOND);
    let next = world.wake(&vm("a", Power::Off));
    assert_eq!((world.outcome(next), world.starts()), (None, 1));
    // Nor is one that failed a reason not to try again.
    world.answered(Answered::Forbidden("no".into()));
    assert_eq!(world.outcome(next), Some(Outcome::Forbidden));
    let again = world.wake(&vm("a", Power::Off));
    assert_eq!((world.outcome(again), world.starts()), (None, 2));
    world.answered(Answered::Accepted);
    world.changed(&vm("a", Power::On));
    let copy = world.wake(&vm("a", Power::On));
    assert_eq!(world.outcome(copy), Some(Outcome::Duplicate));
}

#[test]
fn a_manager_that_stood_still_forgets_the_wakes_that_waited_and_has_them_told_anew() {
    let mut world = world();
    let waiting = world.wake(&vm("a", Power::Stopping));
    let called = world.wake(&vm("b", Power::Off));
    assert_eq!(world.starts(), 1);
    world.now += 7 * SECOND;
    // It thaws, and the first thing it learns is from before.
    world.intents.changed(&vm("a", Power::Off), world.now);
    let left = world.intents.stood_still(world.now, world.now + 3 * SECOND);
    world.act();
    assert_eq!(left, [vm("a", Power::Off).uid.clone()]);
    assert_eq!((world.starts(), world.intents.under_way()), (1, 1));
    assert_eq!(world.outcome(waiting), None);
    assert_eq!(world.deferrals(waiting), 1, "its agent asks again");
    world.answered(Answered::Accepted);
    world.changed(&vm("b", Power::On));
    assert_eq!(
        world.outcome(called),
        Some(Outcome::Started),
        "what was called goes on"
    );
    world.pass(10 * MINUTE);
    assert_eq!((world.starts(), world.intents.len()), (1, 0));
    world.wake(&vm("a", Power::Off));
    assert_eq!(world.starts(), 2, "as if nothing had been");
}

#[test]
fn a_manager_that_stood_still_keeps_the_wakes_that_nobody_can_report_again() {
    let mut world = world();
    let stopping = vm("a", Power::Stopping);
    world.wake(&stopping);
    world.wake(&vm("b", Power::Off));
    world.answered(Answered::Accepted);
    world.pass(2 * SECOND);
    // The agents that told of them have ended: they were promised that this manager waits.
    world.agents_end();
    world.now += 7 * SECOND;
    // It thaws, and the first thing it learns is from before.
    world.intents.changed(&vm("a", Power::Off), world.now);
    let caught_up = world.now + 3 * SECOND;
    let left = world.intents.stood_still(world.now, caught_up);
    world.act();
    assert_eq!((left.len(), world.intents.len()), (0, 2));
    assert_eq!(world.starts(), 1, "nothing is started on what it knew");
    world.changed(&vm("b", Power::On));
    assert_eq!(world.settled[0].outcome, Outcome::Started, "and told");
    world.pass(2 * SECOND);
    assert_eq!(world.starts(), 1);
    world.pass(2 * SECOND);
    assert_eq!(world.starts(), 2, "once it has caught up");
    world.answered(Answered::Accepted);
    world.changed(&vm("a", Power::On));
    assert_eq!(world.settled[1].outcome, Outcome::Started);
}

#[test]
fn a_manager_that_stood_still_starts_nothing_that_others_had_on_meanwhile() {
    let mut world = world();
    world.wake(&vm("a", Power::Stopping));
    world.pass(SECOND);
    world.agents_end();
    world.now += 7 * SECOND;
    world.intents.changed(&vm("a", Power::Off), world.now);
    let caught_up = world.now + 3 * SECOND;
    world.intents.stood_still(world.now, caught_up);
    world.act();
    world.pass(SECOND);
    let stopped = off(&world, Some(2 * SECOND), Some(SECOND));
    world.changed(&stopped);
    assert_eq!(world.settled[0].outcome, Outcome::AlreadyOn);
    world.pass(10 * MINUTE);
    assert_eq!((world.starts(), world.intents.len()), (0, 0));
}

#[test]
fn repeats_of_a_wake_that_another_manager_carried_out_start_nothing() {
    // As the report finds it, or while it waits.
    for at_once in [true, false] {
        let mut world = world();
        let on = Vm {
            power: Power::On,
            resource_version: "2".into(),
            ..(*off(&world, Some(SECOND), None)).clone()
        };
        let report = if at_once {
            world.wake_aged(&on.into(), 2 * SECOND).0
        } else {
            let (report, _) = world.wake_aged(&vm("a", Power::Stopping), 2 * SECOND);
            world.changed(&on.into());
            report
        };
        assert_eq!(world.outcome(report), Some(Outcome::AlreadyOn));
        world.pass(SECOND);
        let stopped = off(&world, Some(2 * SECOND), Some(SECOND / 2));
        let repeat = world.wake(&stopped);
        assert_eq!(world.outcome(repeat), Some(Outcome::Duplicate), "{at_once}");
        world.pass(7 * SECOND);
        world.wake(&stopped);
        assert_eq!(world.starts(), 1, "after the window of the first packet");
    }
}
