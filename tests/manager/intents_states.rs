//! Every order in which a few things can happen to the intents of one VM, and of two that compete.

mod machine;

use std::{fmt, sync::Arc, time::Duration};

use kubevirt_wol::{
    manager::{
        intents::{Admission, Call, Limits, Settled},
        start::{Answered, Reread},
        vm::{Power, Vm},
    },
    wake::{Answer, Outcome},
};

use self::machine::{Finds, Machine, Reported, Says, Step};
use crate::{
    explore::{self, Explored, World as _, explore},
    world::{self, MINUTE, SECOND, limits, vm},
};

/// Each reporter hears something within this time.
const FIRST_ANSWER: Duration = Duration::from_millis(800);
/// An accepted start is not made again sooner.
const CONFIRMED_WITHIN: Duration = Duration::from_secs(30);

#[derive(Clone)]
struct World {
    bed: world::World,
    limits: Limits,
    vms: Vec<Machine>,
    reported: Vec<Reported>,
    version: u64,
    closed: bool,
    most: usize,
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What was asked for and answered is taken out of the world after each step.
        let (intents, now) = (&self.bed.intents, self.bed.now);
        (intents, now, &self.vms, &self.reported, self.closed).fmt(f)
    }
}

impl World {
    fn new(limits: Limits, powers: &[Power], most: usize) -> Self {
        let machine = |(n, power): (usize, &Power)| {
            let vm = vm(&format!("vm-{n}"), *power);
            Machine {
                real: vm.clone(),
                seen: vm.clone(),
                told: vm,
                deleted: false,
                calling: None,
                orphans: Vec::new(),
                effective: false,
                accepted: None,
                woken: None,
                unsure: false,
            }
        };
        Self {
            bed: world::World::new(limits.clone()),
            limits,
            vms: powers.iter().enumerate().map(machine).collect(),
            reported: Vec::new(),
            version: 1,
            closed: false,
            most,
        }
    }

    fn change(&mut self, n: usize, power: Power) {
        self.version += 1;
        let (old, now) = (&self.vms[n].real, self.bed.now);
        let mut new = (**old).clone();
        new.resource_version = self.version.to_string().into();
        if power.is_started() && !old.power.is_started() {
            new.on_since = Some(now);
        }
        (new.power, new.running) = (power, power == Power::On);
        self.vms[n].real = Arc::new(new);
    }

    /// The watch catches up.
    fn show(&mut self, n: usize) {
        let machine = &mut self.vms[n];
        machine.seen = machine.real.clone();
        machine.told = machine.real.clone();
        self.bed.intents.changed(&machine.seen, self.bed.now);
    }

    fn wake(&mut self, n: usize, age: u64) {
        let (seen, now) = (self.vms[n].seen.clone(), self.bed.now);
        let age = Duration::from_secs(age);
        let open = self.bed.intents.contains(&seen.uid);
        if !open {
            self.vms[n].told = seen.clone();
        }
        let (_, admission) = self.bed.wake_aged(&seen, age);
        assert!(!open || admission == Admission::Joined);
        if admission == Admission::Opened {
            self.vms[n].unsure = self.bed.unsure && seen.power.is_started();
        }
        self.reported.push(Reported {
            vm: n,
            at: now,
            heard_at: now - age,
            admission,
            deferrals: 0,
            outcome: None,
        });
    }

    fn answer(&mut self, n: usize, says: Says) {
        let why = String::from("why");
        let answer = match says {
            Says::Accepted => Answered::Accepted,
            Says::Recheck(effective) => Answered::Recheck { why, effective },
            Says::Retry => Answered::Retry {
                after: None,
                why,
                effective: false,
            },
            Says::Forbidden => Answered::Forbidden(why),
            Says::Gone => Answered::Gone,
        };
        let machine = &mut self.vms[n];
        let own = matches!(machine.calling, Some((Call::Start, _)));
        let (_, id) = machine.take(Call::Start).unwrap();
        if own && answer.may_have_started() {
            machine.effective = true;
        }
        if let (true, Says::Accepted) = (own, says) {
            machine.accepted = Some(self.bed.now);
        }
        let uid = machine.real.uid.clone();
        self.bed.intents.answered(&uid, id, answer, self.bed.now);
    }

    fn read(&mut self, n: usize, finds: Finds) {
        if let Finds::Vm(power) = finds
            && power != self.vms[n].real.power
        {
            self.change(n, power);
        }
        let machine = &mut self.vms[n];
        let own = matches!(machine.calling, Some((Call::Read, _)));
        let (_, id) = machine.take(Call::Read).unwrap();
        let read = match finds {
            Finds::Vm(_) => Reread::Vm(machine.real.clone()),
            Finds::Gone => Reread::Gone,
            Finds::Failed => Reread::Failed("why".into()),
        };
        if let (true, Finds::Vm(_)) = (own, finds) {
            machine.unsure = false;
            // A read says nothing of the past.
            machine.told = Arc::new(machine.real.with_past_of(&machine.told));
        }
        let uid = machine.real.uid.clone();
        self.bed.intents.reread(&uid, id, read, self.bed.now);
    }

    fn withdraw(&mut self, n: usize) {
        let machine = &mut self.vms[n];
        let (_, id) = machine.take(Call::Start).unwrap();
        let uid = machine.real.uid.clone();
        self.bed.intents.withdrawn(&uid, id, self.bed.now);
    }

    /// Lets time pass, with the timer as the caller of the intents runs it.
    fn pass(&mut self, time: Duration) {
        let end = self.bed.now + time;
        let due = |world: &Self| world.bed.intents.next_due(world.bed.now);
        while let Some(at) = due(self).filter(|at| *at <= end) {
            self.bed.now = self.bed.now.max(at);
            self.bed.intents.tick(self.bed.now);
            self.look();
        }
        self.bed.now = end;
        for report in self.reported.iter().filter(|one| one.is_in()) {
            let silent = report.deferrals == 0 && report.outcome.is_none();
            assert!(!silent || end < report.at + FIRST_ANSWER, "{report:?}");
        }
    }

    /// Sees to what the intents decided.
    fn look(&mut self) {
        self.bed.act();
        for (call, id, vm) in std::mem::take(&mut self.bed.calls) {
            self.called(call, id, &vm);
        }
        for (seq, answer) in std::mem::take(&mut self.bed.answers) {
            self.answered(usize::try_from(seq).unwrap() - 1, &answer);
        }
        for settled in std::mem::take(&mut self.bed.settled) {
            self.settled(&settled);
        }
        self.bed.waiting.clear();
        let waited_for: usize = self.vms.iter().map(Machine::under_way).sum();
        assert_eq!(self.bed.intents.under_way(), waited_for);
        for machine in &self.vms {
            let open = self.bed.intents.contains(&machine.real.uid);
            assert!(open || machine.calling.is_none());
        }
        let due = self.bed.intents.next_due(self.bed.now);
        assert_eq!(
            due.is_none(),
            self.bed.intents.is_empty(),
            "all are looked at again"
        );
    }

    fn called(&mut self, call: Call, id: u64, vm: &Arc<Vm>) {
        let (n, now) = (self.number(vm), self.bed.now);
        let machine = &self.vms[n];
        assert!(
            !self.closed || call == Call::Read,
            "one that ends starts nobody"
        );
        assert_eq!(machine.calling, None, "one call at a time for each intent");
        assert_eq!(vm, &machine.told, "decided on the newest view");
        if call == Call::Start {
            assert_eq!(vm.power, Power::Off);
            let mut own = self.reported.iter().filter(|one| one.is_open_for(n));
            let first = own.clone().next().expect("somebody wished that");
            assert!(now < first.heard_at + self.limits.wake_deadline);
            let kept =
                own.any(|one| one.deferrals > 0 || now < one.heard_at + self.limits.event_ttl);
            assert!(kept, "what is stale and was not promised starts nothing");
            let again = machine
                .accepted
                .is_none_or(|at| now >= at + CONFIRMED_WITHIN);
            assert!(again, "an accepted start is given its time");
        }
        self.vms[n].calling = Some((call, id));
    }

    fn answered(&mut self, n: usize, answer: &Answer) {
        let report = &mut self.reported[n];
        assert_eq!(report.outcome, None, "nothing follows the final answer");
        match answer {
            Answer::Deferred(..) => report.deferrals += 1,
            Answer::Final(outcome, _) => {
                report.outcome = Some(*outcome);
                if *outcome == Outcome::Duplicate {
                    let woken = self.vms[report.vm].woken;
                    let window = self.limits.dedup_window;
                    let repeat = woken.is_some_and(|first| report.heard_at < first + window);
                    assert!(repeat, "a duplicate of what was settled");
                    assert_eq!(report.deferrals, 0, "none that was taken in");
                }
            }
        }
    }

    fn settled(&mut self, settled: &Settled) {
        let n = self.number(&settled.vm);
        let machine = &mut self.vms[n];
        let outcome = settled.outcome;
        let calling = matches!(machine.calling, Some((Call::Start, _)));
        let by_us = machine.effective || calling;
        match outcome {
            Outcome::Started => {
                // It may be off again.
                let on_since = machine.told.on_since;
                let went_on = on_since.is_some_and(|since| since > settled.report.heard_at);
                assert!(by_us && (machine.told.power == Power::On || went_on));
            }
            Outcome::AlreadyOn => {
                assert!(!by_us, "it was started by a call of this wake");
                assert!(!machine.unsure, "said of a view that may be out of date");
            }
            _ => {}
        }
        machine.orphans.extend(machine.calling.take());
        (machine.effective, machine.accepted) = (false, None);
        machine.unsure = false;
        if matches!(outcome, Outcome::Started | Outcome::AlreadyOn) {
            machine.woken = Some(settled.report.heard_at);
        }
    }

    fn number(&self, vm: &Vm) -> usize {
        let own = |machine: &Machine| machine.real.uid == vm.uid;
        self.vms.iter().position(own).unwrap()
    }
}

impl explore::World for World {
    type Step = Step;

    fn steps(&self) -> Vec<Step> {
        let mut steps = vec![Step::Pass(31), Step::Pass(330), Step::Freeze(31)];
        if !self.bed.intents.is_empty() {
            steps.push(Step::Due);
        }
        if !self.closed {
            steps.push(Step::Close);
        }
        for (n, machine) in self.vms.iter().enumerate() {
            if self.reported.len() < self.most && !machine.deleted {
                steps.extend([Step::Wake(n, 0), Step::Wake(n, 29)]);
            }
            steps.extend(machine.steps(n));
        }
        steps
    }

    fn take(&mut self, step: Step) {
        let now = self.bed.now;
        match step {
            Step::Wake(n, age) => self.wake(n, age),
            Step::Change(n, power) => {
                self.change(n, power);
                self.show(n);
            }
            Step::Catch(n) => self.show(n),
            Step::Delete(n) => {
                self.vms[n].deleted = true;
                self.bed.intents.deleted(&self.vms[n].real.uid, now);
            }
            Step::Answer(n, says) => self.answer(n, says),
            Step::Read(n, finds) => self.read(n, finds),
            Step::Withdraw(n) => self.withdraw(n),
            Step::Due => {
                if let Some(due) = self.bed.intents.next_due(now) {
                    self.pass(due.saturating_duration_since(now));
                }
            }
            Step::Pass(seconds) => self.pass(Duration::from_secs(seconds)),
            Step::Freeze(seconds) => self.bed.now += Duration::from_secs(seconds),
            Step::Close => {
                self.closed = true;
                self.bed.intents.close(now);
            }
        }
        self.look();
    }

    /// Whatever is never answered: each report is settled, once.
    fn end(mut self) {
        let late = self.bed.intents.next_due(self.bed.now);
        if late.is_some_and(|due| due < self.bed.now) {
            self.bed.intents.tick(self.bed.now);
            self.look();
        }
        self.pass(6 * MINUTE + SECOND);
        assert!(self.bed.intents.is_empty());
        for report in self.reported {
            let busy = report.admission == Admission::Busy;
            assert_eq!(report.outcome.is_none(), busy, "{report:?}");
            assert!(!busy || report.deferrals == 1, "it is told to come again");
        }
    }
}

fn told(what: &str, explored: Explored) {
    let Explored { states, steps } = explored;
    eprintln!("{what}: {states} states by {steps} steps");
    assert!(states > 2_000, "the search went nowhere: {states} states");
}

#[test]
fn in_every_order_of_what_happens_to_one_vm_each_report_is_settled_once_and_nothing_starts_late() {
    let world = World::new(limits(), &[Power::Off], 2);
    told("one that was off", explore(world, 5));
}

#[test]
fn in_every_order_of_what_happens_to_a_vm_that_was_stopping_none_is_lost_and_none_starts_early() {
    let mut world = World::new(limits(), &[Power::Stopping], 2);
    world.take(Step::Wake(0, 0));
    told("one that was stopping", explore(world, 4));
}

#[test]
fn in_every_order_of_what_happens_to_a_vm_that_went_off_unseen_none_is_called_on_by_hearsay() {
    let mut world = World::new(limits(), &[Power::On], 2);
    world.bed.unsure = true;
    world.change(0, Power::Off);
    told("one that went off unseen", explore(world, 5));
}

#[test]
fn in_every_order_of_what_happens_to_two_vms_that_compete_each_has_its_turn() {
    let limits = Limits {
        concurrency: 1,
        rate: 1,
        burst: 1,
        ..limits()
    };
    let mut world = World::new(limits, &[Power::Off; 2], 2);
    world.take(Step::Wake(0, 0));
    world.take(Step::Wake(1, 0));
    told("two that compete", explore(world, 4));
}
