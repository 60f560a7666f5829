//! Owns how a plan is drawn: scenes that are worth a look, and faults that strike by chance.

use std::{ops::Range, time::Duration};

use fastrand::Rng;
use kubevirt_wol::agent::route::weight;

use super::plan::{Between, Fault, Plan, Refusal, Step, Who, mac, paced, replica};

/// Draws the plan of a seed, whose steps are in no order. What a real API server cannot be told to do is
/// its death there, and it dies at least once.
pub(crate) fn draw(seed: u64, real: bool) -> Plan {
    let mut rng = Rng::with_seed(seed);
    let mut draw = Draw {
        plan: Plan {
            seed,
            agents: rng.usize(2..=3),
            managers: rng.usize(2..=3),
            vms: 0,
            patience: paced(if rng.bool() { 3_000 } else { 30_000 }),
            namespaces: rng.u8(..4) == 0,
            rotation: rng.u8(..4) == 0,
            steps: Vec::new(),
        },
        rng,
    };
    draw.scenes();
    draw.faults();
    if real {
        draw.for_a_real_server();
    }
    draw.plan
}

/// Draws what is worth a look.
type Scene = fn(&mut Draw);

/// A plan being drawn.
struct Draw {
    rng: Rng,
    plan: Plan,
}

impl Draw {
    /// A time between these milliseconds.
    fn ms(&mut self, range: Range<u64>) -> Duration {
        paced(self.rng.u64(range))
    }

    fn chance(&mut self, percent: u8) -> bool {
        self.rng.u8(..100) < percent
    }

    fn vm(&mut self) -> usize {
        self.plan.vms += 1;
        self.plan.vms - 1
    }

    fn at(&mut self, at: Duration, step: Step) {
        self.plan.steps.push((at, step));
    }

    fn wake(&mut self, at: Duration, vm: usize, only: Option<usize>) {
        self.at(at, Step::Wake { vm, only });
    }

    fn fault(&mut self, fault: Fault, at: Duration, time: Duration) {
        let begins = true;
        self.at(at, Step::Fault { fault, begins });
        self.at(
            at + time,
            Step::Fault {
                fault,
                begins: false,
            },
        );
    }

    /// What is worth a look, each with VMs of its own.
    fn scenes(&mut self) {
        for _ in 0..self.rng.usize(2..=4) {
            self.plain();
        }
        let scenes: [(u8, Scene); 5] = [
            (80, Self::quick_repeat),
            (70, Self::late_copy),
            (70, Self::hand_over),
            (50, Self::isolation),
            (50, Self::heard_while_on),
        ];
        for (percent, scene) in scenes {
            if self.chance(percent) {
                scene(self);
            }
        }
    }

    /// A person wakes a VM, perhaps with repeats, perhaps once more after it went off.
    fn plain(&mut self) {
        let (vm, mut at) = (self.vm(), self.ms(200..4_000));
        for _ in 0..self.rng.usize(1..=2) {
            for _ in 0..self.rng.usize(1..=3) {
                self.wake(at, vm, None);
                at += self.ms(1..60);
            }
            if self.chance(30) {
                let later = at + self.ms(200..900);
                self.wake(later, vm, None);
            }
            if self.chance(60) {
                self.at(at, Step::PowerOff { vm });
            }
            at += self.ms(1_300..2_500);
        }
    }

    /// A VM that goes off at once, and a sender that goes on sending within the window.
    fn quick_repeat(&mut self) {
        let (vm, at) = (self.vm(), self.ms(300..3_500));
        self.wake(at, vm, None);
        self.at(at, Step::PowerOff { vm });
        for _ in 0..self.rng.usize(2..=3) {
            let later = at + self.ms(300..850);
            self.wake(later, vm, None);
        }
        if self.chance(50) {
            let later = at + self.ms(1_400..2_000);
            self.wake(later, vm, None);
        }
    }

    /// One agent is cut off, and reports what all had heard when the VM has been on and off, to a
    /// manager that had not been asked before.
    fn late_copy(&mut self) {
        let (vm, at) = (self.vm(), self.ms(500..3_000));
        let late = self.rng.usize(..self.plan.agents);
        let cut = Fault::Cut(Between {
            agent: Some(late),
            manager: None,
        });
        let first = self.best(vm);
        let kill = Fault::Kill(Who::Manager(first));
        let ms = paced;
        let heals = self.ms(1_000..1_800);
        self.fault(cut, at.saturating_sub(ms(100)), heals + ms(100));
        self.wake(at, vm, None);
        self.at(at, Step::PowerOff { vm });
        self.fault(kill, at + ms(800), ms(1_700));
    }

    /// The API is away as wakes come, and a manager dies that has put them off.
    fn hand_over(&mut self) {
        let at = self.ms(500..3_000);
        let (vm, other) = (self.vm(), self.vm());
        let away = self.ms(900..1_600);
        self.fault(Fault::ApiCut(None), at, away);
        for vm in [vm, other] {
            let heard = at + self.ms(50..150);
            self.wake(heard, vm, None);
        }
        let first = self.best(vm);
        let dies = at + self.ms(250..700);
        let time = self.ms(1_500..2_500);
        self.fault(Fault::Kill(Who::Manager(first)), dies, time);
    }

    /// A wake that one agent alone heard, and kept for too long.
    fn isolation(&mut self) {
        let (vm, at) = (self.vm(), self.ms(300..2_500));
        let alone = self.rng.usize(..self.plan.agents);
        let cut = Fault::Cut(Between {
            agent: Some(alone),
            manager: None,
        });
        let time = self.ms(4_100..4_700);
        self.fault(cut, at, time);
        let heard = at + self.ms(20..120);
        self.wake(heard, vm, Some(alone));
    }

    /// A packet heard while the VM was on, and reported when its owner had switched it off.
    fn heard_while_on(&mut self) {
        let (vm, at) = (self.vm(), self.ms(300..1_500));
        let late = self.rng.usize(..self.plan.agents);
        let cut = Fault::Cut(Between {
            agent: Some(late),
            manager: None,
        });
        let ms = paced;
        self.wake(at, vm, None);
        let heard = at + self.ms(1_300..1_700);
        let heals = self.ms(600..1_200);
        self.fault(cut, heard.saturating_sub(ms(200)), heals + ms(200));
        self.wake(heard, vm, Some(late));
        self.at(heard + ms(200), Step::PowerOff { vm });
    }

    /// The manager that agents choose for a VM as long as they have a session with each.
    fn best(&self, vm: usize) -> usize {
        let managers = 0..self.plan.managers;
        let best = managers.max_by_key(|one| (weight(&replica(*one), mac(vm)), replica(*one)));
        best.unwrap_or_default()
    }

    /// What strikes by chance. One run in four has nothing but its scenes.
    fn faults(&mut self) {
        if self.chance(25) {
            return;
        }
        for _ in 0..self.rng.usize(2..=10) {
            let fault = self.one_fault();
            let (at, time) = (self.ms(0..5_000), self.ms(100..1_800));
            self.fault(fault, at, time);
        }
    }

    fn for_a_real_server(&mut self) {
        for (_, step) in &mut self.plan.steps {
            if let Step::Fault { fault, .. } = step
                && matches!(fault, Fault::ApiErrors | Fault::WatchReset)
            {
                *fault = Fault::ApiKill;
            }
        }
        let (at, time) = (self.ms(500..4_000), self.ms(100..1_000));
        self.fault(Fault::ApiKill, at, time);
    }

    fn one_fault(&mut self) -> Fault {
        let agent = self.rng.usize(..self.plan.agents);
        let manager = self.rng.usize(..self.plan.managers);
        let who = if self.chance(35) {
            Who::Agent(agent)
        } else {
            Who::Manager(manager)
        };
        let some = |all: bool, one: usize| Some(one).filter(|_| !all);
        let between = Between {
            agent: some(self.rng.bool(), agent),
            manager: some(self.chance(30), manager),
        };
        let whose = some(self.rng.bool(), manager);
        let refusals = [
            Refusal::Away,
            Refusal::Error,
            Refusal::Busy,
            Refusal::Swallow,
            Refusal::Slow,
        ];
        match self.rng.u8(..20) {
            0..=2 => Fault::Kill(who),
            3 | 4 => Fault::Freeze(who),
            5 | 6 => Fault::Terminate(who),
            7 | 8 => Fault::Cut(between),
            9 => Fault::Silence(between),
            10 => Fault::ApiCut(whose),
            11 => Fault::ApiSilence(whose),
            12 | 13 => Fault::Start(refusals[self.rng.usize(..refusals.len())]),
            14 => Fault::ApiErrors,
            15 => Fault::WatchReset,
            16 => Fault::LeaseTheft,
            17 => Fault::TokenExpiry(agent),
            18 => Fault::Flood,
            // Elsewhere there is no interface to delete.
            _ if self.plan.namespaces => Fault::Unplug(agent),
            _ => Fault::Flood,
        }
    }
}
