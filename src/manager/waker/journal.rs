//! Owns the log lines about wakes: one for each decision, but a flood of packets is no flood of
//! lines.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::{
    dedup::{Verdict, Window},
    mac::MacAddr,
    manager::{
        intents::{Call, Settled},
        report::Report,
        start::Answered,
        vm::VmKey,
    },
    throttle::Throttle,
    wake::Outcome,
};

/// The same decision about the same address is written once in this time.
const REPEATED_AFTER: Duration = Duration::from_secs(10);
/// Decisions remembered for that.
const MAX_DECISIONS: usize = 4_096;
/// Lines per second about packets that woke nothing, and lines at once; so many about VMs, and so many
/// about addresses that none has: a flood of those hides no VM.
const RATE: u32 = 20;
const BURST: u32 = 100;

/// Writes log lines.
#[derive(Debug)]
pub struct Journal {
    limits: Mutex<Limits>,
}

#[derive(Debug)]
struct Limits {
    told: Window<(MacAddr, Outcome)>,
    vms: Throttle,
    strangers: Throttle,
}

impl Default for Journal {
    fn default() -> Self {
        Self {
            limits: Mutex::new(Limits {
                told: Window::new(crate::pace::of(REPEATED_AFTER), MAX_DECISIONS),
                vms: Throttle::new(RATE, BURST),
                strangers: Throttle::new(RATE, BURST),
            }),
        }
    }
}

impl Journal {
    /// A wake was decided. Starts are always written.
    pub fn settled(&self, settled: &Settled, now: Instant) {
        let Settled {
            report,
            vm,
            outcome,
            message,
            reporters,
            ..
        } = settled;
        if *outcome == Outcome::Started || self.is_news(report.wake.target, true, *outcome, now) {
            line(report, Some(&vm.key), *outcome, message, *reporters);
        }
    }

    /// A packet named nothing that it may wake.
    pub fn rejected(
        &self,
        report: &Report,
        vm: Option<&VmKey>,
        outcome: Outcome,
        message: &str,
        now: Instant,
    ) {
        if self.is_news(report.wake.target, vm.is_some(), outcome, now) {
            line(report, vm, outcome, message, 1);
        }
    }

    /// What only an admin can mend is told at once, not only when a wake is given up.
    pub fn answered(&self, call: Call, answer: &Answered) {
        match answer {
            Answered::Forbidden(why) if call == Call::Unpause => tracing::error!(
                why,
                "not allowed to unpause virtual machines; the manager's ClusterRole needs update on \
                 virtualmachineinstances/unpause in subresources.kubevirt.io"
            ),
            Answered::Forbidden(why) => tracing::error!(
                why,
                "not allowed to start virtual machines; the manager's ClusterRole needs update on \
                 virtualmachines/start in subresources.kubevirt.io"
            ),
            Answered::Bug(why) => {
                tracing::error!(why, "KubeVirt does not understand how we start machines");
            }
            _ => {}
        }
    }

    fn is_news(&self, target: MacAddr, vm: bool, outcome: Outcome, now: Instant) -> bool {
        let mut limits = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        if limits.told.admit((target, outcome), now) != Verdict::First {
            return false;
        }
        let throttle = if vm {
            &mut limits.vms
        } else {
            &mut limits.strangers
        };
        throttle.admit(now)
    }
}

fn line(report: &Report, vm: Option<&VmKey>, outcome: Outcome, reason: &str, reports: usize) {
    let origin = &report.wake.origin;
    tracing::info!(
        mac = %report.wake.target,
        vm = vm.map(|key| &*key.name),
        namespace = vm.map(|key| &*key.namespace),
        node = &*report.node,
        iface = &*origin.interface,
        source = origin.source.map(tracing::field::display),
        outcome = outcome.as_str(),
        reports,
        reason,
        "wake"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_unknown_addresses_hides_no_virtual_machine() {
        let (journal, now) = (Journal::default(), Instant::now());
        let target = |low: u16| {
            let [high, low] = low.to_be_bytes();
            MacAddr::new([2, 0, 0, 0, high, low])
        };
        let told =
            (0..1_000).filter(|low| journal.is_news(target(*low), false, Outcome::NotFound, now));
        assert_eq!(told.count(), 100);
        assert!(journal.is_news(target(1_000), true, Outcome::Expired, now));
    }
}
