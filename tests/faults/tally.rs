//! Owns the count of what struck, and of what was judged, over many runs.

use std::{collections::BTreeMap, fmt, time::Duration};

use super::{heard::Exclusion, judge::Judgement};

/// Counts of one run, or of many.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    runs: usize,
    /// Of which so many cannot be judged.
    void: usize,
    /// By kind, how often a fault struck, and how often there was nothing to strike.
    faults: BTreeMap<&'static str, (usize, usize)>,
    packets: usize,
    covered: usize,
    excluded: BTreeMap<Exclusion, usize>,
    told: BTreeMap<String, usize>,
    starts: usize,
    excused: usize,
    worst: Duration,
    /// How late a step was at most.
    late: Duration,
}

impl Tally {
    /// Counts a fault.
    pub(crate) fn struck(&mut self, kind: &'static str, struck: bool) {
        let (struck_so_far, missed) = self.faults.entry(kind).or_default();
        *(if struck { struck_so_far } else { missed }) += 1;
    }

    /// One run cannot be judged.
    pub(crate) fn void(&mut self) {
        self.void += 1;
    }

    /// Runs that were judged.
    pub(crate) fn valid(&self) -> usize {
        self.runs.saturating_sub(self.void)
    }

    /// Notes by how much a step was late.
    pub(crate) fn late(&mut self, late: Duration) {
        self.late = self.late.max(late);
    }

    /// By how much a step was late at most.
    pub(crate) fn was_late(&self) -> Duration {
        self.late
    }

    /// Counts a run that has been judged.
    pub(crate) fn judged(&mut self, judgement: &Judgement) {
        self.runs += 1;
        self.packets += judgement.packets;
        self.covered += judgement.covered;
        self.starts += judgement.starts;
        self.excused += judgement.excused.len();
        self.worst = self.worst.max(judgement.worst);
        add(&mut self.excluded, &judgement.excluded);
        add(&mut self.told, &judgement.told);
    }

    /// Adds the counts of other runs.
    pub(crate) fn add(&mut self, other: &Self) {
        for (kind, (struck, missed)) in &other.faults {
            let sum = self.faults.entry(kind).or_default();
            *sum = (sum.0 + struck, sum.1 + missed);
        }
        self.runs += other.runs;
        self.void += other.void;
        self.packets += other.packets;
        self.covered += other.covered;
        self.starts += other.starts;
        self.excused += other.excused;
        self.worst = self.worst.max(other.worst);
        self.late = self.late.max(other.late);
        add(&mut self.excluded, &other.excluded);
        add(&mut self.told, &other.told);
    }
}

fn add<K: Clone + Ord>(sum: &mut BTreeMap<K, usize>, more: &BTreeMap<K, usize>) {
    for (key, number) in more {
        *sum.entry(key.clone()).or_default() += number;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<22}{:>8}{:>22}",
            "fault", "struck", "nothing to strike"
        )?;
        for (kind, (struck, missed)) in &self.faults {
            writeln!(f, "{kind:<22}{struck:>8}{missed:>22}")?;
        }
        let (runs, void) = (self.runs, self.void);
        writeln!(f, "runs {runs}, not judged on a busy machine {void}")?;
        writeln!(f, "packets {}", self.packets)?;
        writeln!(f, "  covered by the promise {}", self.covered)?;
        for (why, number) in &self.excluded {
            let why = match why {
                Exclusion::Unheard => "not heard for sure",
                Exclusion::NoSurvivor => "heard by agents that ended",
                Exclusion::NoManager => "no manager in time",
            };
            writeln!(f, "  excluded, {why} {number}")?;
        }
        writeln!(f, "effective starts {}", self.starts)?;
        for (outcome, number) in &self.told {
            writeln!(f, "not started, but told: {outcome} {number}")?;
        }
        writeln!(
            f,
            "second starts excused, as docs/faults.md tells {}",
            self.excused
        )?;
        writeln!(f, "longest from packet to start {:.2?}", self.worst)?;
        write!(f, "a step of a plan was late by {:.2?} at most", self.late)
    }
}
