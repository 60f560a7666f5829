//! Wakes of VMs that may have changed, because the API server tells of no changes: nobody is told that a VM
//! is on by a manager that cannot know it.

use std::{sync::Arc, time::Duration};

use kubevirt_wol::{
    manager::{
        intents::{Admission, Call},
        start::Reread,
        vm::{Power, RunStrategy, Vm},
    },
    wake::Outcome,
};

use crate::world::{SECOND, World, limits, vm};

fn cut_off() -> World {
    let mut world = World::new(limits());
    world.unsure = true;
    world
}

/// The VM as it is now.
fn now(power: Power) -> Vm {
    Vm {
        resource_version: "2".into(),
        ..(*vm("a", power)).clone()
    }
}

fn failed() -> Reread {
    Reread::Failed("the API server cannot be reached".into())
}

#[test]
fn a_vm_that_was_on_is_read_before_anybody_is_told_so() {
    let mut world = cut_off();
    let (report, admission) = world.wake_aged(&vm("a", Power::On), Duration::ZERO);
    assert_eq!(admission, Admission::Opened);
    assert_eq!((world.reads(), world.starts()), (1, 0));
    world.pass(SECOND);
    assert_eq!((world.outcome(report), world.deferrals(report)), (None, 1));
    assert!(world.waiting[0].why.contains("tells of no changes"));
    world.read(Reread::Vm(now(Power::On).into()));
    assert_eq!(world.outcome(report), Some(Outcome::AlreadyOn));
    assert_eq!(&*world.settled[0].vm.resource_version, "2");
    assert_eq!((world.starts(), world.intents.len()), (0, 0));
}

#[test]
fn a_vm_that_went_off_unseen_is_started_at_once_whoever_stopped_it_and_how() {
    let mut world = cut_off();
    let known = Vm {
        strategy: RunStrategy::Always,
        ..(*vm("a", Power::On)).clone()
    };
    let report = world.wake(&Arc::new(known));
    let stopped = Vm {
        strategy: RunStrategy::Halted,
        ..now(Power::Off)
    };
    world.read(Reread::Vm(stopped.into()));
    assert_eq!((world.outcome(report), world.starts()), (None, 1));
}

#[test]
fn it_is_read_again_until_that_succeeds_and_soon_after_the_api_server_is_back() {
    let mut world = cut_off();
    let report = world.wake(&vm("a", Power::On));
    world.read(failed());
    for _ in 0..4 {
        world.pass(2 * SECOND);
        assert_eq!(world.call().0, Call::Read);
        world.read(failed());
    }
    let reads = world.reads();
    world.intents.hasten(world.now);
    world.pass(Duration::from_millis(200));
    assert_eq!((world.reads(), world.starts()), (reads + 1, 0));
    assert_eq!(world.outcome(report), None);
    world.read(Reread::Vm(now(Power::Off).into()));
    assert_eq!(world.starts(), 1);
}

#[test]
fn that_it_is_off_may_come_by_the_watch_as_well() {
    let mut world = cut_off();
    let known = vm("a", Power::On);
    let report = world.wake(&known);
    let (_, read, _) = world.call();
    world.changed(&now(Power::Off).into());
    assert_eq!((world.outcome(report), world.starts()), (None, 1));
    // The read is still under way, and nobody waits for it.
    world.intents.reread(&known.uid, read, failed(), world.now);
    world.act();
    assert_eq!((world.outcome(report), world.starts()), (None, 1));
}

#[test]
fn that_it_is_on_is_not_taken_from_a_watch_that_tells_of_the_past() {
    let mut world = cut_off();
    let report = world.wake(&vm("a", Power::On));
    world.changed(&now(Power::On).into());
    assert_eq!(world.outcome(report), None);
    let stopped = Vm {
        resource_version: "3".into(),
        ..now(Power::Off)
    };
    world.read(Reread::Vm(stopped.into()));
    assert_eq!(world.starts(), 1);
}

#[test]
fn a_vm_that_was_off_is_started_without_a_read() {
    let mut world = cut_off();
    world.wake(&vm("a", Power::Off));
    assert_eq!((world.reads(), world.starts()), (0, 1));
}

#[test]
fn a_paused_vm_is_not_unpaused_before_it_is_known_to_be_paused_still() {
    let mut world = cut_off();
    world.unpause = true;
    world.wake(&vm("a", Power::Paused));
    assert_eq!((world.reads(), world.unpausings()), (1, 0));
    world.read(Reread::Vm(now(Power::Paused).into()));
    assert_eq!(world.unpausings(), 1);
}

#[test]
fn a_manager_that_ends_leaves_the_wake_to_another_one() {
    let mut world = cut_off();
    let report = world.wake(&vm("a", Power::On));
    world.read(failed());
    world.intents.close(world.now);
    world.act();
    assert_eq!((world.outcome(report), world.deferrals(report)), (None, 1));
    assert!(!world.intents.is_at_work());
}

#[test]
fn what_cannot_be_read_in_time_is_not_said_to_be_on() {
    let mut world = cut_off();
    let report = world.wake(&vm("a", Power::On));
    world.read(failed());
    while world.outcome(report).is_none() {
        world.pass(SECOND);
        if world.call().0 == Call::Read && world.intents.under_way() > 0 {
            world.read(failed());
        }
    }
    assert_eq!(world.outcome(report), Some(Outcome::Expired));
    let settled = &world.settled[0];
    assert!(
        settled.message.contains("cannot be reached"),
        "{}",
        settled.message
    );
}
