//! Owns the plan of one run: what is sent, what strikes, and when. A pure function of the seed.

use std::{ops::Range, time::Duration};

use fastrand::Rng;
use kubevirt_wol::{agent::route::weight, mac::MacAddr};

use super::seeds::setting;

/// The program's times are divided by this: 10, or less where a machine has too much to do for that.
pub(crate) fn pace() -> u32 {
    setting("WOL_FAULT_PACE").unwrap_or(10).clamp(1, 20)
}

/// A time that is so many milliseconds long at the usual pace. Those of a plan are.
pub(crate) fn paced(milliseconds: u64) -> Duration {
    Duration::from_millis(10 * milliseconds / u64::from(pace()))
}

/// A wake older than this is stale.
pub(crate) fn ttl() -> Duration {
    paced(3_000)
}

/// Repeats within this time of the first packet are one wake.
pub(crate) fn window() -> Duration {
    paced(1_000)
}

/// VMs that nobody wakes.
pub(crate) const BYSTANDERS: usize = 2;

/// What is done at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// A magic packet for a VM, heard by all agents or sent to one alone.
    Wake { vm: usize, only: Option<usize> },
    /// The VM is switched off as soon as it is seen on, unless it stays off for a second.
    PowerOff { vm: usize },
    /// A fault begins or ends.
    Fault { fault: Fault, begins: bool },
}

/// One thing that goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// SIGKILL; at the end it is started again.
    Kill(Who),
    /// SIGSTOP, and SIGCONT at the end.
    Freeze(Who),
    /// SIGTERM; at the end it is started again.
    Terminate(Who),
    /// The connections between an agent and a manager break, and none can be made.
    Cut(Between),
    /// They stay, and nothing gets through.
    Silence(Between),
    /// The same between a manager, or all of them, and the API server.
    ApiCut(Option<usize>),
    ApiSilence(Option<usize>),
    /// What the API server, or virt-api behind it, answers to starts.
    Start(Refusal),
    /// Every request to the API server is answered 500.
    ApiErrors,
    /// All watches end, and their versions are forgotten.
    WatchReset,
    /// Somebody else holds the Lease.
    LeaseTheft,
    /// The agent's token has run out.
    TokenExpiry(usize),
    /// The interface by which the node hears is deleted, and made again at the end.
    Unplug(usize),
    /// Junk, and wakes for addresses that nobody has.
    Flood,
}

/// A process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Who {
    Agent(usize),
    Manager(usize),
}

/// Lines between agents and managers; none stands for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Between {
    pub(crate) agent: Option<usize>,
    pub(crate) manager: Option<usize>,
}

/// How starts fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// virt-api is not there.
    Away,
    /// 500, and nothing is done.
    Error,
    /// 429, come again in a second.
    Busy,
    /// It is done, and not answered.
    Swallow,
    /// Each call takes 300 ms.
    Slow,
}

impl Fault {
    /// The word for it in the report.
    pub(crate) fn kind(self) -> &'static str {
        match self {
            Self::Kill(Who::Agent(_)) => "agent killed",
            Self::Kill(Who::Manager(_)) => "manager killed",
            Self::Freeze(Who::Agent(_)) => "agent frozen",
            Self::Freeze(Who::Manager(_)) => "manager frozen",
            Self::Terminate(Who::Agent(_)) => "agent drained",
            Self::Terminate(Who::Manager(_)) => "manager drained",
            Self::Cut(_) => "network cut",
            Self::Silence(_) => "network silent",
            Self::ApiCut(_) => "API cut off",
            Self::ApiSilence(_) => "API silent",
            Self::Start(Refusal::Away) => "virt-api away",
            Self::Start(Refusal::Error) => "start answered 500",
            Self::Start(Refusal::Busy) => "start answered 429",
            Self::Start(Refusal::Swallow) => "start never answered",
            Self::Start(Refusal::Slow) => "virt-api slow",
            Self::ApiErrors => "API answers 500",
            Self::WatchReset => "watches reset",
            Self::LeaseTheft => "lease stolen",
            Self::TokenExpiry(_) => "token expired",
            Self::Unplug(_) => "interface deleted",
            Self::Flood => "flood",
        }
    }
}

/// All that will be done in one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) agents: usize,
    pub(crate) managers: usize,
    /// VMs that may be woken; the bystanders come after them.
    pub(crate) vms: usize,
    /// How long a deferred wake is kept.
    pub(crate) patience: Duration,
    /// Whether each node is to be a network namespace of its own.
    pub(crate) namespaces: bool,
    /// Whether the managers' CA is to be renewed all the time.
    pub(crate) rotation: bool,
    /// In the order of their times since the beginning.
    pub(crate) steps: Vec<(Duration, Step)>,
}

/// The address of a VM.
pub(crate) fn mac(vm: usize) -> MacAddr {
    let low = u8::try_from(vm).unwrap_or(u8::MAX);
    MacAddr::new([0x52, 0x54, 0, 0, 2, low])
}

/// The name of a manager.
pub(crate) fn replica(manager: usize) -> String {
    format!("manager-{manager}")
}

impl Plan {
    /// The plan of a seed.
    pub(crate) fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let mut draw = Draw {
            plan: Self {
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
        let mut plan = draw.plan;
        plan.steps.sort_by_key(|(at, _)| *at);
        plan
    }
}

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
        let (begins, ends) = (true, false);
        self.at(at, Step::Fault { fault, begins });
        self.at(
            at + time,
            Step::Fault {
                fault,
                begins: ends,
            },
        );
    }

    /// What is worth a look, each with VMs of its own.
    fn scenes(&mut self) {
        for _ in 0..self.rng.usize(2..=4) {
            self.plain();
        }
        type Scene = fn(&mut Draw);
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
