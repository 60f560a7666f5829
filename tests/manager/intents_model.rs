//! The promises of the intents under any order of events.

use std::{sync::Arc, time::Duration};

use kubevirt_wol::{
    manager::{
        intents::{Call, Limits},
        start::{Answered, Reread},
        vm::{Power, Vm},
    },
    wake::Outcome,
};
use proptest::prelude::*;

use crate::world::{MINUTE, SECOND, World, limits, vm};

#[derive(Debug, Clone)]
enum Step {
    /// Of this VM, by a packet that may unpause it or not.
    Wake(usize, bool),
    Change(usize, Power),
    Delete(usize),
    Answer(Answered),
    Read(Power),
    Fail,
    Pass(u64),
}

fn power() -> impl Strategy<Value = Power> {
    prop::sample::select(vec![
        Power::Off,
        Power::Off,
        Power::On,
        Power::Paused,
        Power::Stopping,
        Power::Stuck("ErrImagePull"),
        Power::Gone,
    ])
}

fn answer() -> impl Strategy<Value = Answered> {
    let why = String::from("why");
    prop::sample::select(vec![
        Answered::Accepted,
        Answered::Accepted,
        Answered::Recheck {
            why: why.clone(),
            effective: true,
        },
        Answered::Recheck {
            why: why.clone(),
            effective: false,
        },
        Answered::Retry {
            after: None,
            why: why.clone(),
            effective: false,
        },
        Answered::ApiMissing {
            after: Duration::from_secs(10),
            why: why.clone(),
        },
        Answered::Forbidden(why),
    ])
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..4_usize, any::<bool>()).prop_map(|(vm, unpause)| Step::Wake(vm, unpause)),
        3 => (0..4_usize, power()).prop_map(|(vm, power)| Step::Change(vm, power)),
        1 => (0..4_usize).prop_map(Step::Delete),
        4 => answer().prop_map(Step::Answer),
        2 => power().prop_map(Step::Read),
        1 => Just(Step::Fail),
        4 => (0..20_000_u64).prop_map(Step::Pass),
    ]
}

/// The calls that nobody has answered.
#[derive(Default)]
struct Open {
    seen: usize,
    calls: Vec<(Call, u64, Arc<Vm>)>,
}

impl Open {
    fn collect(&mut self, world: &World) {
        self.calls.extend_from_slice(&world.calls[self.seen..]);
        self.seen = world.calls.len();
        assert_eq!(world.intents.under_way(), self.calls.len());
    }

    fn take(&mut self, wanted: Call) -> Option<(u64, Arc<Vm>)> {
        let at = self.calls.iter().position(|(call, ..)| *call == wanted)?;
        let (_, id, vm) = self.calls.remove(at);
        Some((id, vm))
    }

    fn any(&mut self) -> Option<(u64, Arc<Vm>)> {
        let calls = [Call::Start, Call::Unpause, Call::Read];
        calls.into_iter().find_map(|call| self.take(call))
    }
}

fn run(world: &mut World, open: &mut Open, vms: &mut [Arc<Vm>], step: Step) {
    match step {
        Step::Wake(n, unpause) => {
            world.unpause = unpause;
            world.wake(&vms[n].clone());
        }
        Step::Change(n, power) => {
            vms[n] = vm(&format!("vm-{n}"), power);
            world.changed(&vms[n].clone());
        }
        Step::Delete(n) => world.intents.deleted(&vms[n].uid, world.now),
        Step::Answer(answer) => {
            let call = open.take(Call::Start).or_else(|| open.take(Call::Unpause));
            if let Some((id, vm)) = call {
                world.intents.answered(&vm.uid, id, answer, world.now);
            }
        }
        Step::Read(power) => {
            if let Some((id, old)) = open.take(Call::Read) {
                let read = Reread::Vm(vm(&old.key.name, power));
                world.intents.reread(&old.uid, id, read, world.now);
            }
        }
        Step::Fail => {
            if let Some((id, vm)) = open.take(Call::Read) {
                let read = Reread::Failed("no".into());
                world.intents.reread(&vm.uid, id, read, world.now);
            }
        }
        Step::Pass(millis) => world.pass(Duration::from_millis(millis)),
    }
    world.act();
    open.collect(world);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Whatever happens: each report is settled exactly once, hears something within 800 ms, and
    /// nothing is left behind.
    #[test]
    fn every_report_is_settled_exactly_once(steps in prop::collection::vec(step(), 1..80)) {
        let limits = Limits { concurrency: 2, rate: 5, burst: 2, ..limits() };
        let mut world = World::new(limits);
        let mut vms: Vec<_> = (0..4).map(|n| vm(&format!("vm-{n}"), Power::Off)).collect();
        let mut open = Open::default();
        let mut reported = Vec::new();
        for step in steps {
            let before = reported.len();
            if matches!(step, Step::Wake(..)) {
                reported.push(world.now);
            }
            run(&mut world, &mut open, &mut vms, step);
            for (n, at) in reported.iter().enumerate().take(before) {
                let number = n as u64 + 1;
                let silent = world.answers_to(number).is_empty();
                prop_assert!(!silent || world.now < *at + Duration::from_millis(800));
            }
        }
        while let Some((id, vm)) = open.any() {
            world.intents.reread(&vm.uid, id, Reread::Gone, world.now);
            world.act();
            open.collect(&world);
        }
        world.pass(6 * MINUTE);
        while let Some((id, vm)) = { open.collect(&world); open.any() } {
            world.intents.reread(&vm.uid, id, Reread::Gone, world.now);
            world.act();
        }
        world.pass(6 * MINUTE + SECOND);
        for n in 0..reported.len() {
            let outcome = world.outcome(n as u64 + 1);
            prop_assert!(outcome.is_some(), "report {} was never settled", n + 1);
        }
        prop_assert!(world.intents.is_empty());
        prop_assert_eq!(world.intents.under_way(), 0);
        prop_assert_eq!(world.intents.next_due(world.now), None);
        let told: usize = world.settled.iter().map(|settled| settled.reporters).sum();
        prop_assert_eq!(told, reported.len());
        let started = world.settled.iter().filter(|s| s.outcome == Outcome::Started).count();
        let calls = world.starts() + world.unpausings();
        prop_assert!(started <= calls, "{} started by {} calls", started, calls);
        // The owner of a VM hears at most once of one wake that it takes longer.
        prop_assert!(world.waiting.len() <= world.settled.len());
    }
}
