//! Owns the question who heard a packet, and whether the promise covers it: a surviving agent heard it,
//! and could bring it to a ready manager in time.

use std::time::{Duration, Instant};

use super::{
    plan::{Plan, Who, paced, ttl},
    record::{Life, Line, Record, Spans, What},
};

/// A process that ends so soon after a packet may not have read it.
const READ_WITHIN: Duration = Duration::from_millis(60);
/// A new interface is heard from so soon.
const LISTENS_WITHIN: Duration = Duration::from_millis(500);
/// Within this time of a way to a manager being there a session is there, too, and the wake is taken:
/// a pause of half a second, a handshake, and a machine that has much to do.
const SESSION_WITHIN: u64 = 1_300;

/// Who comes is known where the API server could be asked for so long meanwhile: a pause of half a second,
/// and a review.
const KNOWN_WITHIN: u64 = 650;

/// One agent and one packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hearing {
    pub(crate) agent: usize,
    /// When it was read at the earliest.
    pub(crate) at: Instant,
    /// Whether it was read for sure.
    pub(crate) sure: bool,
}

/// Why the promise does not cover a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Exclusion {
    /// No agent ran and listened.
    Unheard,
    /// Every agent that heard it ended before it was settled.
    NoSurvivor,
    /// No manager that was ready and knew the agent could be reached in time.
    NoManager,
}

/// What everybody was up to.
pub(crate) struct Ways {
    agents: Vec<AgentSpans>,
    /// Any manager was on its way out, frozen, or away from the API.
    managers_ailing: Vec<Spans>,
    /// From each agent to each manager: when there may have been a session, and when there was.
    possible: Vec<Vec<Spans>>,
    pairs: Vec<Vec<Spans>>,
    /// The same, with the API behind the manager in order.
    whole: Vec<Vec<Spans>>,
    ends: Vec<Vec<(Instant, Life)>>,
    patience: Duration,
}

struct AgentSpans {
    up: Spans,
    running: Spans,
    frozen: Spans,
    plugged: Spans,
    dropped: bool,
}

impl Ways {
    /// Reads the record; `dropped` says of which agents the kernel dropped packets.
    pub(crate) fn new(plan: &Plan, record: &Record, dropped: &[bool]) -> Self {
        let agents = (0..plan.agents).map(|one| AgentSpans {
            up: record.up(Who::Agent(one)),
            running: record.running(Who::Agent(one)),
            frozen: record.frozen(Who::Agent(one)),
            plugged: record.plugged(one),
            dropped: dropped[one],
        });
        let (mut possible, mut pairs, mut whole) = (Vec::new(), Vec::new(), Vec::new());
        for agent in 0..plan.agents {
            let able = record.up(Who::Agent(agent)).and(&record.known(agent));
            let pair = |manager, known: Duration| {
                let way = able.and(&record.up(Who::Manager(manager)));
                let way = way.and(&record.link(agent, manager, Line::Whole));
                // Without the API server nobody can say who comes.
                way.from(&record.api(manager, Line::Whole), known)
            };
            let pairs_after = |known| (0..plan.managers).map(move |one| pair(one, known));
            possible.push(pairs_after(Duration::ZERO).collect());
            let row: Vec<_> = pairs_after(paced(KNOWN_WITHIN)).collect();
            let served = row.iter().enumerate().map(|(manager, pair)| {
                let api = record.api(manager, Line::Whole);
                pair.and(&api).and(&record.starts_answered())
            });
            whole.push(served.collect());
            pairs.push(row);
        }
        let ailing = |one| {
            let who = Who::Manager(one);
            let sound = record.up(who).and(&record.api(one, Line::Whole));
            sound.and(&record.starts_answered())
        };
        Self {
            agents: agents.collect(),
            managers_ailing: (0..plan.managers).map(ailing).collect(),
            possible,
            pairs,
            whole,
            ends: (0..plan.agents).map(|one| ends(record, one)).collect(),
            patience: plan.patience.max(ttl()),
        }
    }

    /// Who heard a packet that was sent at this moment to these agents.
    pub(crate) fn hearings(&self, at: Instant, to: &[usize]) -> Vec<Hearing> {
        let heard = to.iter().filter_map(|agent| self.hearing(*agent, at));
        heard.collect()
    }

    fn hearing(&self, agent: usize, at: Instant) -> Option<Hearing> {
        let spans = &self.agents[agent];
        if !spans.plugged.contains(at) {
            return None;
        }
        let (at, listens) = if spans.frozen.contains(at) {
            (spans.running.next_begin(at)?, true)
        } else if spans.running.contains(at) {
            (at, spans.up.contains(at))
        } else {
            return None;
        };
        let plugged = at.checked_sub(LISTENS_WITHIN).unwrap_or(at);
        let sure = listens
            && !spans.dropped
            && spans.running.covers(at, at + READ_WITHIN)
            && spans.plugged.longest(plugged, at + READ_WITHIN) >= LISTENS_WITHIN;
        Some(Hearing { agent, at, sure })
    }

    /// Whether the promise covers a packet, by what those made of it who heard it.
    pub(crate) fn covered(&self, hearings: &[Hearing]) -> Result<(), Exclusion> {
        let judged = hearings.iter().map(|one| self.covered_by(one));
        let judged: Vec<_> = judged.collect();
        if judged.contains(&Ok(())) {
            return Ok(());
        }
        // Of several reasons the one that was next to none.
        judged.into_iter().max().unwrap_or(Err(Exclusion::Unheard))
    }

    fn covered_by(&self, hearing: &Hearing) -> Result<(), Exclusion> {
        if !hearing.sure {
            return Err(Exclusion::Unheard);
        }
        if !self.survives(hearing) {
            return Err(Exclusion::NoSurvivor);
        }
        if self.reaches(hearing) >= paced(SESSION_WITHIN) {
            Ok(())
        } else {
            Err(Exclusion::NoManager)
        }
    }

    /// Whether the agent outlived the wake, or could hand it over in peace before it ended.
    fn survives(&self, hearing: &Hearing) -> bool {
        let until = hearing.at + self.patience;
        let mut ends = self.ends[hearing.agent].iter();
        let Some((at, life)) = ends.find(|(at, _)| hearing.at <= *at && *at < until) else {
            return true;
        };
        let sound = self.managers_ailing.iter();
        let calm = || sound.clone().all(|sound| sound.covers(hearing.at, until));
        let reached = self.pairs[hearing.agent].iter().any(|pair| {
            let before = at.checked_sub(paced(SESSION_WITHIN)).unwrap_or(*at);
            pair.covers(before, *at)
        });
        *life == Life::Asked && reached && calm()
    }

    /// The longest time in which the agent could reach one manager, before the wake was stale.
    fn reaches(&self, hearing: &Hearing) -> Duration {
        let pairs = self.pairs[hearing.agent].iter();
        let times = pairs.map(|pair| pair.longest(hearing.at, hearing.at + ttl()));
        times.max().unwrap_or_default()
    }

    /// Whether the agent could reach any manager before the wake was stale, so that one may have put it
    /// off.
    pub(crate) fn may_be_deferred(&self, hearing: &Hearing) -> bool {
        let mut pairs = self.possible[hearing.agent].iter();
        // A session may outlast what the record knows of it, by moments.
        let from = hearing.at.checked_sub(READ_WITHIN).unwrap_or(hearing.at);
        pairs.any(|pair| pair.touches(from, hearing.at + ttl()))
    }

    /// Whether there was so much time in which everything was in order that giving up is wrong.
    pub(crate) fn was_easy(&self, hearings: &[Hearing], time: Duration) -> bool {
        let mut sure = hearings.iter().filter(|one| one.sure);
        sure.any(|one| {
            let until = one.at + self.patience;
            let mut ways = self.whole[one.agent].iter();
            ways.any(|way| way.longest(one.at, until) >= time)
        })
    }
}

/// When an agent was killed or asked to end.
fn ends(record: &Record, agent: usize) -> Vec<(Instant, Life)> {
    let ends = record.0.iter().filter_map(|(at, what)| match what {
        What::Life(Who::Agent(one), life @ (Life::Killed | Life::Asked | Life::Ended))
            if *one == agent =>
        {
            Some((*at, *life))
        }
        _ => None,
    });
    ends.collect()
}
