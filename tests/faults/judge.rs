//! Owns the judgement of a run: the promise of the delivery contract, checked from what the API server
//! was asked to do. A wake is a VM and a window, not a packet.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use super::{
    bed::{Bed, name},
    heard::{Exclusion, Hearing, Ways},
    plan::{BYSTANDERS, Plan, Who, mac, paced, replica, ttl, window},
    record::{Line, Record, Spans, What},
    told::{decisions, held, losses},
};
use crate::common::{apiserver::ApiServer, process};

/// What lies between the program's clock and the log of starts.
const SLACK: Duration = Duration::from_millis(700);
/// What lies between two clocks that nobody keeps waiting.
const BLINK: Duration = Duration::from_millis(100);
/// With everything in order for so long, nothing may be given up.
const EASY: u64 = 2_700;

/// What came of a run.
#[derive(Debug, Default)]
pub(crate) struct Judgement {
    /// Where the promise was broken.
    pub(crate) broken: Vec<String>,
    /// Packets that the promise covers and that have come to nothing yet.
    pub(crate) pending: Vec<String>,
    pub(crate) packets: usize,
    pub(crate) covered: usize,
    pub(crate) excluded: BTreeMap<Exclusion, usize>,
    /// By the word for it, what was told of wakes that started nothing.
    pub(crate) told: BTreeMap<String, usize>,
    pub(crate) starts: usize,
    /// Second starts that a lost mark, or a change that nobody saw, excuses.
    pub(crate) excused: Vec<String>,
    /// From the first packet to the start.
    pub(crate) worst: Duration,
}

/// A packet, and who heard it.
struct Packet {
    at: Instant,
    hearings: Vec<Hearing>,
}

/// Effective starts of one VM.
struct Start {
    asked: Instant,
    at: Instant,
    /// When the VM had been started before, and had gone off since, if it had.
    last: Option<Instant>,
    off: Option<Instant>,
    /// The manager that told of it.
    maker: Option<usize>,
}

/// What is wrong with a start.
enum Fault {
    Broken(&'static str),
    Excused(&'static str),
}

/// All that is known of a run.
pub(crate) struct Judge<'a> {
    plan: &'a Plan,
    record: &'a Record,
    began: Instant,
    ways: Ways,
    /// When they were asked for, and when they took effect.
    starts: Vec<(Instant, Instant, String)>,
    /// The lines about decided wakes, by manager.
    lines: Vec<(usize, process::Line)>,
    /// The lines about wakes that no manager took.
    losses: Vec<(usize, process::Line)>,
    /// By agent, what may have come later than the program could know: silent lines and frozen processes.
    held: Vec<Vec<Spans>>,
    judgement: Judgement,
}

/// Judges a run, at its end or before.
pub(crate) fn judge(bed: &Bed) -> Judgement {
    let record = bed.record();
    let dropped = |one: usize| {
        let seat = &bed.agents[one].seat;
        let processes = seat.old.iter().chain(&seat.process);
        let mut lines = processes.flat_map(process::Process::lines);
        lines.any(|line| line.message().starts_with("the kernel dropped"))
    };
    let dropped: Vec<_> = (0..bed.plan.agents).map(dropped).collect();
    let starts = bed.cluster.kubevirt.starts().into_iter();
    let starts = starts.filter(|start| start.code == 202);
    let mut judge = Judge {
        plan: &bed.plan,
        began: record.0.first().map_or_else(Instant::now, |(at, _)| *at),
        ways: Ways::new(&bed.plan, &record, &dropped),
        starts: starts
            .map(|one| (one.asked.into_std(), one.at.into_std(), one.vm.name))
            .collect(),
        lines: decisions(bed),
        losses: losses(bed),
        held: held(&bed.plan, &record),
        judgement: Judgement::default(),
        record: &record,
    };
    judge.bystanders(bed);
    for vm in 0..bed.plan.vms {
        judge.vm(vm);
    }
    judge.judgement
}

impl Judge<'_> {
    /// Nobody is called that no packet named.
    fn bystanders(&mut self, bed: &Bed) {
        for vm in self.plan.vms..self.plan.vms + BYSTANDERS {
            let path = format!("/virtualmachines/{}/start", name(vm));
            let requests = bed.cluster.server().map(ApiServer::requests);
            let mut requests = requests.iter().flatten();
            let mut starts = bed.cluster.kubevirt.starts().into_iter();
            if requests.any(|one| one.path.ends_with(&path))
                || starts.any(|start| start.vm.name == name(vm))
            {
                let broken = format!("{} was called, and nobody asked for it", name(vm));
                self.judgement.broken.push(broken);
            }
        }
    }

    fn vm(&mut self, vm: usize) {
        let packets = self.packets(vm);
        let starts = self.starts(vm);
        for (index, start) in starts.iter().enumerate() {
            let before = index.checked_sub(1).map(|index| &starts[index]);
            let story = || self.story(vm, &packets, &starts);
            match self.start(start, before, &packets) {
                Ok(()) => {}
                Err(Fault::Broken(why)) => {
                    let story = story();
                    self.judgement.broken.push(format!("{why}: {story}"));
                }
                Err(Fault::Excused(why)) => {
                    let story = story();
                    self.judgement.excused.push(format!("{why}: {story}"));
                }
            }
            let first = self.causes(start, &packets).iter().map(|one| one.at).min();
            let delay = first.map(|first| start.at.saturating_duration_since(first));
            self.judgement.worst = self.judgement.worst.max(delay.unwrap_or_default());
        }
        for packet in &packets {
            self.judgement.packets += 1;
            match self.ways.covered(&packet.hearings) {
                Err(why) => *self.judgement.excluded.entry(why).or_default() += 1,
                Ok(()) => self.outcome(vm, packet, &packets, &starts),
            }
        }
    }

    fn packets(&self, vm: usize) -> Vec<Packet> {
        let sent = self.record.0.iter().filter_map(|(at, what)| match what {
            What::Sent { vm: one, to } if *one == vm => Some(Packet {
                at: *at,
                hearings: self.ways.hearings(*at, to),
            }),
            _ => None,
        });
        sent.collect()
    }

    /// The starts that changed something: one that is accepted for a VM that is on does not.
    fn starts(&mut self, vm: usize) -> Vec<Start> {
        let offs = self.record.times(|what| *what == What::Off(vm));
        let mut starts: Vec<Start> = Vec::new();
        let times = self.starts.iter().filter(|(.., one)| *one == name(vm));
        let times: Vec<_> = times.map(|(asked, at, _)| (*asked, *at)).collect();
        for (index, (asked, at)) in times.iter().enumerate() {
            let off = offs.iter().copied().rfind(|off| off < at);
            let first = starts
                .last()
                .is_none_or(|last| off.is_some_and(|off| last.at < off));
            if first {
                let next = times.get(index + 1).map(|(_, at)| *at);
                let maker = self.maker(vm, *at, next);
                let last = starts.last().map(|start| start.at);
                starts.push(Start {
                    asked: *asked,
                    at: *at,
                    last,
                    off,
                    maker,
                });
            }
        }
        self.judgement.starts += starts.len();
        starts
    }

    /// Who told of a start; else the only one that decided anything about the VM until the next.
    fn maker(&self, vm: usize, at: Instant, next: Option<Instant>) -> Option<usize> {
        let lines = self.lines.iter().filter(|(_, line)| {
            line.field("vm") == name(vm)
                && line.at + BLINK >= at
                && next.is_none_or(|next| line.at < next)
        });
        let lines: Vec<_> = lines.collect();
        let started = lines
            .iter()
            .filter(|(_, line)| line.field("outcome") == "started");
        let first = started.min_by_key(|(_, line)| line.at);
        let deciders: BTreeSet<_> = lines.iter().map(|(one, _)| *one).collect();
        let only = deciders.first().filter(|_| deciders.len() == 1);
        first.map(|(one, _)| *one).or(only.copied())
    }

    /// What may have caused a start: heard while the VM was off, and not too old.
    fn causes<'p>(&self, start: &Start, packets: &'p [Packet]) -> Vec<&'p Hearing> {
        let causes = self.fresh(start, packets).into_iter();
        let off = |one: &&Hearing| {
            start.off.is_none_or(|off| one.at + BLINK >= off)
                && start.last.is_none_or(|last| one.at >= last)
        };
        causes.filter(off).collect()
    }

    fn fresh<'p>(&self, start: &Start, packets: &'p [Packet]) -> Vec<&'p Hearing> {
        let hearings = packets.iter().flat_map(|packet| &packet.hearings);
        let fresh = hearings.filter(|one| {
            let life = if self.ways.may_be_deferred(one) {
                self.plan.patience.max(ttl())
            } else {
                ttl()
            };
            let held = self.held_up(one, start);
            one.at <= start.at + BLINK && start.at <= one.at + life + SLACK + held
        });
        fresh.collect()
    }

    /// For how long something may have held up the word of a packet: it seems to be so much younger.
    fn held_up(&self, one: &Hearing, start: &Start) -> Duration {
        let held = self.held[one.agent].iter();
        held.map(|held| held.total(one.at, start.at)).sum()
    }

    /// Whether a start keeps the promise.
    fn start(
        &self,
        start: &Start,
        before: Option<&Start>,
        packets: &[Packet],
    ) -> Result<(), Fault> {
        let causes = self.causes(start, packets);
        if before.is_some() && start.off.is_some_and(|off| start.asked <= off + BLINK) {
            return Err(Fault::Excused(
                "the call was on its way when the VM went off",
            ));
        }
        if causes.is_empty() {
            if self.fresh(start, packets).is_empty() {
                let why = "started, and nobody had asked for it within the TTL";
                return Err(Fault::Broken(why));
            }
            if before.is_some_and(|before| self.observed(before, start)) {
                let why = "started by a packet from before the VM went on and off";
                return Err(Fault::Broken(why));
            }
            return Err(Fault::Excused("nobody saw that it went on and off"));
        }
        let Some(before) = before else { return Ok(()) };
        let first = self.causes(before, packets).iter().map(|one| one.at).min();
        let Some(first) = first else { return Ok(()) };
        let after = |held: Duration, one: &Hearing| one.at + BLINK + held >= first + window();
        if causes.iter().any(|one| after(Duration::ZERO, one)) {
            Ok(())
        } else if causes
            .iter()
            .any(|one| after(self.held_up(one, start), one))
        {
            Err(Fault::Excused("what was held up seemed younger"))
        } else if self.marked(before, start) {
            Err(Fault::Broken("started a second time for one wake"))
        } else {
            Err(Fault::Excused("the mark was in another manager"))
        }
    }

    /// Whether who started the VM must have seen that it had gone on and off before.
    fn observed(&self, before: &Start, start: &Start) -> bool {
        let sees = |one: usize| {
            let all_the_time = |spans: &Spans| spans.covers(before.at, start.at);
            let resets = self.record.times(|what| *what == What::WatchReset);
            let blind = resets
                .iter()
                .any(|at| before.at < *at + SLACK && *at < start.at);
            !blind
                && all_the_time(&self.record.up(Who::Manager(one)))
                && all_the_time(&self.record.api(one, Line::Whole))
        };
        match start.maker {
            Some(one) => sees(one),
            None => (0..self.plan.managers).all(sees),
        }
    }

    /// Whether who started the VM must have known that it did so before.
    fn marked(&self, before: &Start, start: &Start) -> bool {
        before.maker.is_some_and(|one| {
            let runs = self.record.running(Who::Manager(one));
            start.maker == Some(one) && runs.covers(before.at, start.at)
        })
    }

    /// What became of a packet that the promise covers.
    fn outcome(&mut self, vm: usize, packet: &Packet, packets: &[Packet], starts: &[Start]) {
        self.judgement.covered += 1;
        let heard = packet.hearings.iter().map(|one| one.at).min();
        let heard = heard.unwrap_or(packet.at);
        let until = heard + self.plan.patience.max(ttl()) + 3 * SLACK;
        let offs = self.record.times(|what| *what == What::Off(vm));
        let is_on = |start: &Start| {
            let off = offs.iter().find(|off| **off >= start.at);
            start.at < until && off.is_none_or(|off| *off + BLINK >= heard)
        };
        let repeats = |start: &Start| {
            let causes = self.causes(start, packets);
            start.at <= heard && causes.iter().any(|one| heard < one.at + window() + BLINK)
        };
        if starts.iter().any(|start| is_on(start) || repeats(start)) {
            return;
        }
        if offs.iter().any(|off| self.unseen(*off, heard)) {
            let on = "on, as far as its manager could see".to_owned();
            *self.judgement.told.entry(on).or_default() += 1;
            return;
        }
        let told = self
            .lines
            .iter()
            .find(|(_, line)| line.field("mac") == mac(vm).to_string() && line.at + BLINK >= heard);
        let told = told.map(|(_, line)| line.field("outcome").to_owned());
        let lost = self.losses.iter().any(|(agent, line)| {
            let own = packet.hearings.iter().any(|one| one.agent == *agent);
            let named = line.field("macs").contains(&mac(vm).to_string());
            own && named && line.at + BLINK >= heard && line.at < until
        });
        let Some(outcome) = told.or_else(|| lost.then(|| "expired".to_owned())) else {
            let story = self.story(vm, packets, starts);
            let sent = self.clock(packet.at);
            let lost = format!("neither started nor told, sent at {sent}: {story}");
            return self.judgement.pending.push(lost);
        };
        if outcome == "expired" && self.ways.was_easy(&packet.hearings, paced(EASY)) {
            let story = self.story(vm, packets, starts);
            let broken = format!("given up, though nothing was in the way: {story}");
            self.judgement.broken.push(broken);
        }
        *self.judgement.told.entry(outcome).or_default() += 1;
    }

    /// Whether a VM went off before this moment, and the line that would have told a manager of it has
    /// been silent since, without a word that it is: such a manager answers that the VM is on. One that
    /// knows that it is cut off does not.
    fn unseen(&self, off: Instant, heard: Instant) -> bool {
        let (from, to) = (off + BLINK, heard.checked_sub(3 * BLINK).unwrap_or(off));
        let blind = |one: usize| self.record.api(one, Line::Silent).covers(from, to);
        off < heard && (0..self.plan.managers).any(blind)
    }

    fn clock(&self, at: Instant) -> String {
        format!(
            "{:.3}",
            at.saturating_duration_since(self.began).as_secs_f64()
        )
    }

    /// All that happened to a VM, for people.
    fn story(&self, vm: usize, packets: &[Packet], starts: &[Start]) -> String {
        let mut story: Vec<(Instant, String)> = Vec::new();
        for packet in packets {
            let heard = packet.hearings.iter().map(|one| {
                let doubt = if one.sure { "" } else { "?" };
                format!("{}{doubt}@{}", one.agent, self.clock(one.at))
            });
            let heard: Vec<_> = heard.collect();
            let covered = self.ways.covered(&packet.hearings);
            story.push((packet.at, format!("sent, heard by {heard:?}, {covered:?}")));
        }
        for start in starts {
            let maker = start.maker.map_or_else(|| "?".into(), replica);
            story.push((start.at, format!("started by {maker}")));
        }
        for off in self.record.times(|what| *what == What::Off(vm)) {
            story.push((off, "off".into()));
        }
        story.sort_by_key(|(at, _)| *at);
        let lines = story
            .iter()
            .map(|(at, what)| format!("\n    {} {what}", self.clock(*at)));
        format!("{} {}{}", name(vm), mac(vm), lines.collect::<String>())
    }
}
