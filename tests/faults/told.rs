//! Owns what the processes of a run told of wakes, and when they may have been late to.

use super::{
    bed::Bed,
    plan::{Plan, Who},
    record::{Line, Record, Spans},
};
use crate::common::process;

/// What agents say of wakes that they gave up.
pub(crate) fn losses(bed: &Bed) -> Vec<process::Line> {
    let seats = bed.agents.iter().map(|agent| &agent.seat);
    let processes = seats.flat_map(|seat| seat.old.iter().chain(&seat.process));
    let lines = processes.flat_map(process::Process::lines);
    let lost = lines.filter(|line| line.message() == "no manager took these wakes in time");
    lost.collect()
}

/// The lines of managers about decided wakes, with the manager.
pub(crate) fn decisions(bed: &Bed) -> Vec<(usize, process::Line)> {
    let managers = bed.managers.iter().enumerate();
    let lines = managers.flat_map(|(one, manager)| {
        let processes = manager.seat.old.iter().chain(&manager.seat.process);
        let lines = processes.flat_map(process::Process::lines);
        lines.map(move |line| (one, line))
    });
    lines.filter(|(_, line)| line.message() == "wake").collect()
}

/// When something may have come later than the program could know: silent lines, frozen processes.
pub(crate) fn held(plan: &Plan, record: &Record) -> Vec<Spans> {
    let agents = (0..plan.agents).map(Who::Agent);
    let managers = (0..plan.managers).map(Who::Manager);
    let mut held: Vec<_> = agents
        .chain(managers)
        .map(|who| record.frozen(who))
        .collect();
    for manager in 0..plan.managers {
        held.push(record.api(manager, Line::Silent));
        for agent in 0..plan.agents {
            held.push(record.link(agent, manager, Line::Silent));
        }
    }
    held
}
