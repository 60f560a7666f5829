//! What can happen to one VM, and what is to be true of it and of each report.

use std::{sync::Arc, time::Instant};

use kubevirt_wol::{
    manager::{
        intents::{Admission, Call},
        vm::{Power, Vm},
    },
    wake::Outcome,
};

/// What KubeVirt answers to a start.
#[derive(Debug, Clone, Copy)]
pub(super) enum Says {
    Accepted,
    Recheck(bool),
    Retry,
    Forbidden,
    Gone,
}

/// What reading a VM brings.
#[derive(Debug, Clone, Copy)]
pub(super) enum Finds {
    Vm(Power),
    Gone,
    Failed,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Step {
    /// A packet for a VM, heard so many seconds ago.
    Wake(usize, u64),
    /// The VM changes, and the watch brings it.
    Change(usize, Power),
    /// The watch brings what a read had brought before.
    Catch(usize),
    Delete(usize),
    Answer(usize, Says),
    Read(usize, Finds),
    Withdraw(usize),
    /// Time passes until something is due.
    Due,
    Pass(u64),
    /// Time passes, and nobody looks at the clock.
    Freeze(u64),
    Close,
}

/// One VM, and what is to be true of it.
#[derive(Debug, Clone)]
pub(super) struct Machine {
    /// As it is.
    pub(super) real: Arc<Vm>,
    /// As the watch has shown it.
    pub(super) seen: Arc<Vm>,
    /// The newest view that the intents were given.
    pub(super) told: Arc<Vm>,
    pub(super) deleted: bool,
    /// The call that the open intent waits for.
    pub(super) calling: Option<(Call, u64)>,
    /// Calls of intents that were settled before the answer came.
    pub(super) orphans: Vec<(Call, u64)>,
    /// Whether an answered call of the open intent may have started it.
    pub(super) effective: bool,
    pub(super) accepted: Option<Instant>,
    /// When a wake that left it on was heard first.
    pub(super) woken: Option<Instant>,
    /// Whether the open intent has to read it before it says that it is on.
    pub(super) unsure: bool,
}

/// One report, and what became of it.
#[derive(Debug, Clone)]
pub(super) struct Reported {
    pub(super) vm: usize,
    pub(super) at: Instant,
    pub(super) heard_at: Instant,
    pub(super) admission: Admission,
    pub(super) deferrals: usize,
    pub(super) outcome: Option<Outcome>,
}

impl Machine {
    /// The answer to a call comes: to that of the open intent, or else to the oldest.
    pub(super) fn take(&mut self, wanted: Call) -> Option<(Call, u64)> {
        if let Some(call) = self.calling.take_if(|(call, _)| *call == wanted) {
            return Some(call);
        }
        let at = self.orphans.iter().position(|(call, _)| *call == wanted)?;
        Some(self.orphans.remove(at))
    }

    pub(super) fn waits_for(&self, wanted: Call) -> bool {
        let mut calls = self.calling.iter().chain(&self.orphans);
        calls.any(|(call, _)| *call == wanted)
    }

    pub(super) fn under_way(&self) -> usize {
        usize::from(self.calling.is_some()) + self.orphans.len()
    }

    /// What can happen to it, or be learnt of it.
    pub(super) fn steps(&self, n: usize) -> Vec<Step> {
        let powers = [Power::Off, Power::On, Power::Stopping];
        let mut steps = Vec::new();
        if !self.deleted {
            let others = powers.into_iter().filter(|one| *one != self.seen.power);
            steps.extend(others.map(|power| Step::Change(n, power)));
            steps.push(Step::Delete(n));
            if self.seen != self.real {
                steps.push(Step::Catch(n));
            }
        }
        if self.waits_for(Call::Start) {
            let says = [
                Says::Accepted,
                Says::Recheck(true),
                Says::Recheck(false),
                Says::Retry,
                Says::Forbidden,
                Says::Gone,
            ];
            steps.extend(says.map(|says| Step::Answer(n, says)));
            steps.push(Step::Withdraw(n));
        }
        if self.waits_for(Call::Read) {
            steps.extend(powers.map(|power| Step::Read(n, Finds::Vm(power))));
            steps.extend([Step::Read(n, Finds::Gone), Step::Read(n, Finds::Failed)]);
        }
        steps
    }
}

impl Reported {
    /// Whether an intent took it in.
    pub(super) fn is_in(&self) -> bool {
        matches!(self.admission, Admission::Opened | Admission::Joined)
    }

    pub(super) fn is_open_for(&self, vm: usize) -> bool {
        self.vm == vm && self.is_in() && self.outcome.is_none()
    }
}
