//! What becomes of wakes when the API server comes back, and when the manager ends.

use std::time::Duration;

use kubevirt_wol::{
    manager::{
        intents::Call,
        start::{Answered, Reread},
        vm::Power,
    },
    wake::Outcome,
};

use crate::world::{MINUTE, SECOND, World, limits, vm};

const TICK: Duration = Duration::from_millis(10);

fn retry(after: Option<Duration>) -> Answered {
    Answered::Retry {
        after,
        why: "the API server cannot be reached".into(),
        effective: true,
    }
}

/// Answers every start so for some time, as an outage does.
fn answering(world: &mut World, answer: &Answered, time: Duration) {
    let end = world.now + time;
    while world.now < end {
        if world.intents.under_way() > 0 {
            world.answered(answer.clone());
        }
        world.pass(TICK);
    }
}

#[test]
fn what_failed_in_an_outage_is_tried_at_once_when_it_is_over() {
    let mut world = World::new(limits());
    let report = world.wake(&vm("a", Power::Off));
    answering(&mut world, &retry(None), 30 * SECOND);
    let before = world.starts();
    world.intents.hasten(world.now);
    world.pass(SECOND / 4);
    assert_eq!(world.starts(), before + 1);
    // Where not all is back yet, attempts are quick again, too.
    world.answered(retry(None));
    world.pass(SECOND / 2);
    assert_eq!(world.starts(), before + 2);
    world.answered(Answered::Accepted);
    world.changed(&vm("a", Power::On));
    assert_eq!(world.outcome(report), Some(Outcome::Started));
}

#[test]
fn a_pause_that_the_server_asked_for_is_kept_although_it_was_away_meanwhile() {
    let mut world = World::new(limits());
    world.wake(&vm("a", Power::Off));
    world.answered(retry(Some(20 * SECOND)));
    world.intents.hasten(world.now);
    world.pass(19 * SECOND);
    assert_eq!(world.starts(), 1);
    world.pass(SECOND);
    assert_eq!(world.starts(), 2);
}

#[test]
fn an_outage_whose_end_is_told_over_and_over_makes_no_flood() {
    let mut world = World::new(limits());
    for n in 0..60 {
        world.wake(&vm(&format!("vm-{n}"), Power::Off));
    }
    let (end, mut answered) = (world.now + 10 * SECOND, 0);
    while world.now < end {
        while let Some((_, id, vm)) = world.calls.get(answered).cloned() {
            answered += 1;
            let answer = retry(None);
            world.intents.answered(&vm.uid, id, answer, world.now);
            world.act();
        }
        world.intents.hasten(world.now);
        world.pass(TICK);
    }
    // The burst of 50, and then 20 in a second.
    let starts = world.starts();
    assert!((200..=251).contains(&starts), "{starts}");
}

#[test]
fn a_vm_that_cannot_be_read_is_asked_for_again_soon() {
    let mut world = World::new(limits());
    world.wake(&vm("a", Power::Off));
    let recheck = || Answered::Recheck {
        why: "KubeVirt did not answer within 10s".into(),
        effective: true,
    };
    for starts in 1..10 {
        assert_eq!(world.starts(), starts);
        world.answered(recheck());
        let (call, id, vm) = world.call();
        assert_eq!(call, Call::Read);
        let failed = Reread::Failed("the API server does not answer".into());
        world.intents.reread(&vm.uid, id, failed, world.now);
        world.act();
        world.pass(2 * SECOND);
    }
}

#[test]
fn a_manager_that_ends_hands_on_what_is_not_under_way() {
    let mut world = World::new(limits());
    let (a, b) = (
        world.wake(&vm("a", Power::Off)),
        world.wake(&vm("b", Power::Stopping)),
    );
    world.intents.close(world.now);
    world.act();
    assert_eq!((world.deferrals(a), world.deferrals(b)), (0, 1));
    let late = world.wake(&vm("c", Power::Off));
    let joined = world.wake(&vm("b", Power::Stopping));
    world.changed(&vm("b", Power::Off));
    assert_eq!((world.deferrals(late), world.deferrals(joined)), (1, 1));
    assert_eq!(world.starts(), 1, "nothing new is started");
    assert!(world.intents.is_at_work());
    world.answered(Answered::Accepted);
    assert!(world.intents.is_at_work(), "what comes of it is waited for");
    world.changed(&vm("a", Power::On));
    assert_eq!(world.outcome(a), Some(Outcome::Started));
    assert_eq!(world.deferrals(a), 0, "it never had to be asked again");
    assert!(!world.intents.is_at_work());
}

#[test]
fn a_start_that_fails_while_the_manager_ends_is_handed_on() {
    let mut world = World::new(limits());
    let report = world.wake(&vm("a", Power::Off));
    world.intents.close(world.now);
    world.answered(retry(None));
    assert!(!world.intents.is_at_work());
    world.intents.close(world.now);
    world.act();
    assert_eq!(world.deferrals(report), 1);
    world.pass(MINUTE);
    assert_eq!(world.starts(), 1);
}

#[test]
fn a_start_without_a_clear_answer_is_looked_into_while_the_manager_ends() {
    let mut world = World::new(limits());
    let report = world.wake(&vm("a", Power::Off));
    world.intents.close(world.now);
    world.answered(Answered::Recheck {
        why: "KubeVirt answered 500".into(),
        effective: true,
    });
    let (call, id, vm_called) = world.call();
    assert_eq!(call, Call::Read);
    let read = Reread::Vm(vm("a", Power::On));
    world.intents.reread(&vm_called.uid, id, read, world.now);
    world.act();
    assert_eq!(world.outcome(report), Some(Outcome::Started));
}

#[test]
fn who_waits_for_a_slow_start_is_answered_in_time_although_the_manager_ends() {
    let mut world = World::new(limits());
    let report = world.wake(&vm("a", Power::Off));
    world.intents.close(world.now);
    world.pass(SECOND);
    assert_eq!(world.deferrals(report), 1);
}
