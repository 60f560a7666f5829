//! Owns the record of a run: what was really done, and when; and spans of time, to ask it.

use std::time::{Duration, Instant};

use super::plan::Who;

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum What {
    /// A packet for a VM left for these agents.
    Sent { vm: usize, to: Vec<usize> },
    /// What became of a process.
    Life(Who, Life),
    /// The line between an agent and a manager.
    Link(usize, usize, Line),
    /// The line between a manager and the API server.
    Api(usize, Line),
    /// Whether starts are answered as they should be.
    Starts(bool),
    /// Whether an agent can prove who it is.
    Token(usize, bool),
    /// Whether a node's interface is there.
    Cable(usize, bool),
    /// A VM was switched off.
    Off(usize),
    /// All watches ended, and what happened until they were back may have been missed.
    WatchReset,
}

/// What became of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Life {
    Spawned,
    /// An agent listens and is configured; a manager says that it is ready.
    Ready,
    Frozen,
    Continued,
    /// It was asked to end.
    Asked,
    Ended,
    Killed,
}

/// How a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Line {
    Whole,
    Silent,
    Cut,
}

/// All that happened, in order.
#[derive(Debug, Default)]
pub(crate) struct Record(pub(crate) Vec<(Instant, What)>);

impl Record {
    pub(crate) fn add(&mut self, what: What) {
        self.0.push((Instant::now(), what));
    }

    /// The spans in which something holds: from the events of which `turn` says true to those of which
    /// it says false.
    fn spans(&self, initially: bool, turn: impl Fn(&What) -> Option<bool>) -> Spans {
        let mut spans = Vec::new();
        let first = self.0.first().map(|(at, _)| *at);
        let mut since = first.filter(|_| initially);
        for (at, what) in &self.0 {
            match (turn(what), since) {
                (Some(true), None) => since = Some(*at),
                (Some(false), Some(from)) => {
                    spans.push((from, *at));
                    since = None;
                }
                _ => {}
            }
        }
        // What holds at the end holds for good.
        spans.extend(since.map(|from| (from, from + FOR_GOOD)));
        Spans(spans)
    }

    /// When a process was ready to serve and ran.
    pub(crate) fn up(&self, who: Who) -> Spans {
        let ready = self.spans(false, |what| match what {
            What::Life(one, life) if *one == who => match life {
                Life::Ready => Some(true),
                Life::Asked | Life::Ended | Life::Killed => Some(false),
                Life::Spawned | Life::Frozen | Life::Continued => None,
            },
            _ => None,
        });
        ready.and(&self.running(who))
    }

    /// When a process ran at all.
    pub(crate) fn running(&self, who: Who) -> Spans {
        self.spans(false, |what| match what {
            What::Life(one, life) if *one == who => match life {
                Life::Spawned | Life::Continued => Some(true),
                Life::Frozen | Life::Ended | Life::Killed => Some(false),
                Life::Ready | Life::Asked => None,
            },
            _ => None,
        })
    }

    /// When a process stood still, though it was there.
    pub(crate) fn frozen(&self, who: Who) -> Spans {
        self.spans(false, |what| match what {
            What::Life(one, life) if *one == who => match life {
                Life::Frozen => Some(true),
                Life::Continued | Life::Ended | Life::Killed | Life::Spawned => Some(false),
                Life::Ready | Life::Asked => None,
            },
            _ => None,
        })
    }

    pub(crate) fn link(&self, agent: usize, manager: usize, wanted: Line) -> Spans {
        self.spans(wanted == Line::Whole, |what| match what {
            What::Link(a, m, line) if (*a, *m) == (agent, manager) => Some(*line == wanted),
            _ => None,
        })
    }

    pub(crate) fn api(&self, manager: usize, wanted: Line) -> Spans {
        self.spans(wanted == Line::Whole, |what| match what {
            What::Api(m, line) if *m == manager => Some(*line == wanted),
            _ => None,
        })
    }

    pub(crate) fn starts_answered(&self) -> Spans {
        self.spans(true, |what| match what {
            What::Starts(well) => Some(*well),
            _ => None,
        })
    }

    pub(crate) fn known(&self, agent: usize) -> Spans {
        self.spans(true, |what| match what {
            What::Token(a, valid) if *a == agent => Some(*valid),
            _ => None,
        })
    }

    pub(crate) fn plugged(&self, agent: usize) -> Spans {
        self.spans(true, |what| match what {
            What::Cable(a, there) if *a == agent => Some(*there),
            _ => None,
        })
    }

    /// The moments of which `wanted` holds.
    pub(crate) fn times(&self, wanted: impl Fn(&What) -> bool) -> Vec<Instant> {
        let found = self.0.iter().filter(|(_, what)| wanted(what));
        found.map(|(at, _)| *at).collect()
    }
}

const FOR_GOOD: Duration = Duration::from_secs(3_600);

/// Spans of time, in order and apart.
#[derive(Debug, Clone, Default)]
pub(crate) struct Spans(pub(crate) Vec<(Instant, Instant)>);

impl Spans {
    /// When both hold.
    pub(crate) fn and(&self, other: &Self) -> Self {
        let mut both = Vec::new();
        for (from, to) in &self.0 {
            for (start, end) in &other.0 {
                let (from, to) = ((*from).max(*start), (*to).min(*end));
                if from < to {
                    both.push((from, to));
                }
            }
        }
        Self(both)
    }

    /// Of each span what comes from the first moment on at which `other` holds, too, and will for at least
    /// so long.
    pub(crate) fn from(&self, other: &Self, least: Duration) -> Self {
        let later = self.0.iter().filter_map(|(from, to)| {
            let mut others = other.0.iter();
            let both = others.find_map(|(start, end)| {
                let first = (*from).max(*start);
                (first + least < (*to).min(*end)).then_some(first)
            });
            both.map(|first| (first, *to))
        });
        Self(later.collect())
    }

    pub(crate) fn contains(&self, at: Instant) -> bool {
        self.0.iter().any(|(from, to)| *from <= at && at < *to)
    }

    /// The longest part of one span that lies between these moments.
    pub(crate) fn longest(&self, from: Instant, to: Instant) -> Duration {
        let parts = self.within(from, to);
        parts.max().unwrap_or_default()
    }

    /// How long it holds between these moments.
    pub(crate) fn total(&self, from: Instant, to: Instant) -> Duration {
        self.within(from, to).sum()
    }

    fn within(&self, from: Instant, to: Instant) -> impl Iterator<Item = Duration> {
        let parts = self.0.iter();
        parts.map(move |(start, end)| (*end).min(to).saturating_duration_since((*start).max(from)))
    }

    /// Whether it holds at any time between these moments.
    pub(crate) fn touches(&self, from: Instant, to: Instant) -> bool {
        let mut spans = self.0.iter();
        spans.any(|(start, end)| *start < to && from < *end)
    }

    /// Whether it holds all the time between these moments.
    pub(crate) fn covers(&self, from: Instant, to: Instant) -> bool {
        let mut spans = self.0.iter();
        spans.any(|(start, end)| *start <= from && to <= *end)
    }

    /// The first beginning of a span from this moment on.
    pub(crate) fn next_begin(&self, at: Instant) -> Option<Instant> {
        self.0
            .iter()
            .map(|(from, _)| *from)
            .find(|from| *from >= at)
    }
}
