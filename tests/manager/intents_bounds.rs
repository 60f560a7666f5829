//! What the intents never exceed, and how they end.

use std::time::Duration;

use kubevirt_wol::{
    manager::{
        intents::{Admission, Limits},
        start::{Answered, Reread},
        vm::Power,
    },
    wake::Outcome,
};

use crate::world::{MINUTE, SECOND, World, limits, vm};

#[test]
fn starts_keep_to_the_throttle_and_the_places() {
    let mut world = World::new(Limits {
        concurrency: 1_000,
        ..limits()
    });
    for n in 0..100 {
        world.wake(&vm(&format!("vm-{n}"), Power::Off));
    }
    assert_eq!(world.starts(), 50);
    world.pass(SECOND);
    assert_eq!(world.starts(), 70);
    world.pass(2 * SECOND);
    assert_eq!(world.starts(), 100);

    let mut world = World::new(Limits {
        concurrency: 3,
        ..limits()
    });
    for n in 0..10 {
        world.wake(&vm(&format!("vm-{n}"), Power::Off));
    }
    world.pass(SECOND);
    assert_eq!(world.starts(), 3);
    world.answered(Answered::Accepted);
    assert_eq!(world.starts(), 4);
}

#[test]
fn a_manager_that_was_frozen_starts_nothing_stale() {
    let mut world = World::new(Limits {
        concurrency: 1,
        ..limits()
    });
    world.wake(&vm("busy", Power::Off));
    let queued = world.wake(&vm("a", Power::Off));
    // No timer ran for 40 s, so nobody was told to keep the wake.
    world.now += 40 * SECOND;
    world.answered(Answered::Gone);
    assert_eq!(world.outcome(queued), Some(Outcome::Expired));
    assert_eq!(world.starts(), 1);
}

#[test]
fn what_there_is_no_room_for_is_asked_to_come_again() {
    let mut world = World::new(Limits {
        intents: 1,
        reporters: 2,
        ..limits()
    });
    let off = vm("a", Power::Off);
    let admissions = [
        world.wake_aged(&off, Duration::ZERO).1,
        world.wake_aged(&vm("b", Power::Off), Duration::ZERO).1,
        world.wake_aged(&off, Duration::ZERO).1,
        world.wake_aged(&off, Duration::ZERO).1,
    ];
    assert_eq!(
        admissions,
        [
            Admission::Opened,
            Admission::Busy,
            Admission::Joined,
            Admission::Busy,
        ]
    );
    assert_eq!((world.deferrals(2), world.deferrals(4)), (1, 1));
    world.answered(Answered::Accepted);
    world.changed(&vm("a", Power::On));
    assert_eq!(
        world.wake_aged(&vm("b", Power::Off), Duration::ZERO).1,
        Admission::Opened
    );
}

#[test]
fn a_vm_that_begins_to_stop_during_a_call_is_not_called_again_until_it_has_stopped() {
    let mut world = World::new(limits());
    world.wake(&vm("a", Power::Off));
    world.changed(&vm("a", Power::Stopping));
    world.answered(Answered::Retry {
        after: None,
        why: "KubeVirt answered 503".into(),
        effective: false,
    });
    world.pass(MINUTE);
    assert_eq!(world.starts(), 1);
    world.changed(&vm("a", Power::Off));
    assert_eq!(world.starts(), 2);
}

#[test]
fn an_accepted_start_is_not_made_again_because_the_vm_cannot_be_read() {
    let mut world = World::new(limits());
    let report = world.wake(&vm("a", Power::Off));
    world.answered(Answered::Accepted);
    for read in 1..=5 {
        world.pass(5 * SECOND);
        assert_eq!((world.reads(), world.starts()), (read, 1));
        let (_, id, off) = world.call();
        let failed = Reread::Failed("the API server answered 500".into());
        world.intents.reread(&off.uid, id, failed, world.now);
        world.act();
    }
    world.changed(&vm("a", Power::On));
    assert_eq!(world.outcome(report), Some(Outcome::Started));
}

#[test]
fn a_wake_that_nobody_was_told_of_in_time_starts_nothing_after_a_standstill() {
    let mut world = World::new(limits());
    let report = world.wake(&vm("a", Power::Off));
    world.answered(Answered::Retry {
        after: None,
        why: "KubeVirt answered 503".into(),
        effective: false,
    });
    // The process stands still: no timer runs.
    world.now += 31 * SECOND;
    world.pass(SECOND);
    assert_eq!(world.outcome(report), Some(Outcome::Expired));
    assert_eq!(world.starts(), 1);
}
