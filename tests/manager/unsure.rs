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
    assert!(world.waiting[0].why.contains("is read first"));
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
        world.read(failed());
    }
    assert_eq!(world.reads(), 5);
    let reads = world.reads();
    world.intents.hasten(world.now);
    world.pass(Duration::from_millis(200));
    assert_eq!((world.reads(), world.starts()), (reads + 1, 0));
    assert_eq!(world.outcome(report), None);
    world.read(Reread::Vm(now(Power::Off).into()));
    assert_eq!(world.starts(), 1);
}

#[test]
fn a_watch_that_tells_of_the_past_is_no_read() {
    for power in [Power::On, Power::Off] {
        let mut world = cut_off();
        let report = world.wake(&vm("a", Power::On));
        world.changed(&now(power).into());
        assert_eq!((world.outcome(report), world.starts()), (None, 0));
        let stopped = Vm {
            resource_version: "3".into(),
            ..now(Power::Off)
        };
        world.read(Reread::Vm(stopped.into()));
        assert_eq!(world.starts(), 1);
    }
}

#[test]
fn what_its_owner_stopped_after_the_packet_is_left_off_where_the_watch_tells() {
    for (deferred, stopped_after, starts) in [(false, 1, 0), (true, 1, 1), (true, 3, 0)] {
        let mut world = cut_off();
        world.deferred = deferred;
        let report = world.wake(&vm("a", Power::On));
        let heard = world.now;
        world.pass(4 * SECOND);
        let stopped = Vm {
            off_since: Some(heard + stopped_after * SECOND),
            ..now(Power::Off)
        };
        world.changed(&stopped.clone().into());
        world.read(Reread::Vm(now(Power::Off).into()));
        assert_eq!(world.starts(), starts, "{deferred} {stopped_after}");
        assert_eq!(world.outcome(report).is_none(), starts == 1);
    }
}

#[test]
fn versions_that_went_back_are_read_as_they_are() {
    let mut world = cut_off();
    let known = Vm {
        resource_version: "1000".into(),
        ..now(Power::On)
    };
    let report = world.wake(&known.into());
    world.read(Reread::Vm(now(Power::On).into()));
    assert_eq!(world.outcome(report), Some(Outcome::AlreadyOn));
}

#[test]
fn a_read_that_hangs_is_made_again_when_the_api_server_is_back() {
    let mut world = cut_off();
    world.wake(&vm("a", Power::On));
    let (_, hung, known) = world.call();
    world.pass(3 * SECOND);
    assert_eq!(world.reads(), 1);
    world.intents.hasten(world.now);
    world.act();
    assert_eq!(world.reads(), 2);
    world.read(Reread::Vm(now(Power::Off).into()));
    world.intents.reread(&known.uid, hung, failed(), world.now);
    world.act();
    assert_eq!((world.reads(), world.starts()), (2, 1));
}

#[test]
fn reads_of_vms_that_are_on_keep_no_start_waiting() {
    let mut world = cut_off();
    for n in 0..60 {
        world.wake(&vm(&format!("on-{n}"), Power::On));
    }
    assert_eq!(world.reads(), 8, "half of the places");
    for n in 0..8 {
        world.wake(&vm(&format!("off-{n}"), Power::Off));
    }
    assert_eq!((world.reads(), world.starts()), (8, 8));
}

#[test]
fn no_more_is_read_than_may_be_started() {
    let mut world = cut_off();
    for n in 0..90 {
        world.wake(&vm(&format!("on-{n}"), Power::On));
    }
    let mut seen = 0;
    for _ in 0..100 {
        while let Some((_, id, vm)) = world.calls.get(seen).cloned() {
            seen += 1;
            world.intents.reread(&vm.uid, id, failed(), world.now);
            world.act();
        }
    }
    assert_eq!(world.reads(), 50, "all that is let through at once");
    world.pass(SECOND);
    assert!((58..=70).contains(&world.reads()), "{}", world.reads());
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
    world.pass(10 * SECOND);
    assert!(!world.intents.is_at_work());
    assert_eq!(world.reads(), 1);

    let mut world = cut_off();
    world.wake(&vm("a", Power::On));
    world.intents.close(world.now);
    assert!(!world.intents.is_at_work(), "a read hangs");
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
