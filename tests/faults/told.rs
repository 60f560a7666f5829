//! Owns what the processes of a run told of wakes, and when they may have been late to.

use super::{
    bed::{Bed, Seat},
    plan::{Plan, Who},
    record::{Line, Record, Spans},
};
use crate::common::process;

/// The lines of agents about wakes that they gave up, with the agent.
pub(crate) fn losses(bed: &Bed) -> Vec<(usize, process::Line)> {
    let seats = bed.agents.iter().map(|agent| &agent.seat);
    lines(seats, "no manager took these wakes in time")
}

/// The lines of managers about decided wakes, with the manager.
pub(crate) fn decisions(bed: &Bed) -> Vec<(usize, process::Line)> {
    lines(bed.managers.iter().map(|manager| &manager.seat), "wake")
}

/// The lines with this message, with the number of the seat.
fn lines<'b>(seats: impl Iterator<Item = &'b Seat>, message: &str) -> Vec<(usize, process::Line)> {
    let lines = seats.enumerate().flat_map(|(one, seat)| {
        let processes = seat.old.iter().chain(&seat.process);
        let lines = processes.flat_map(process::Process::lines);
        lines.map(move |line| (one, line))
    });
    lines
        .filter(|(_, line)| line.message() == message)
        .collect()
}

/// For each agent, when its word may have come later than the program could know: frozen processes and
/// silent lines on the way.
pub(crate) fn held(plan: &Plan, record: &Record) -> Vec<Vec<Spans>> {
    let managers = || 0..plan.managers;
    let of = |agent: usize| {
        let mut held = vec![record.frozen(Who::Agent(agent))];
        held.extend(managers().map(|one| record.frozen(Who::Manager(one))));
        held.extend(managers().map(|one| record.api(one, Line::Silent)));
        held.extend(managers().map(|one| record.link(agent, one, Line::Silent)));
        held
    };
    (0..plan.agents).map(of).collect()
}
