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
        if *outcome == Outcome::Started || self.is_news(report, true, *outcome, now) {
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
        if self.is_news(report, vm.is_some(), outcome, now) {
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

    fn is_news(&self, report: &Report, vm: bool, outcome: Outcome, now: Instant) -> bool {
        let mut limits = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        let told = (report.wake.target, outcome);
        if limits.told.admit(told, now) != Verdict::First {
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
    use tokio::sync::mpsc;

    use super::*;
    use crate::{
        manager::report::Reply,
        packet::Trailing,
        telemetry::tests::logged,
        wake::{Carrier, Origin, Wake},
    };

    fn report(low: u16) -> Report {
        let [high, low] = low.to_be_bytes();
        Report {
            node: "node-1".into(),
            wake: Wake {
                target: MacAddr::new([2, 0, 0, 0, high, low]),
                trailing: Trailing::default(),
                origin: Origin {
                    carrier: Carrier::Udp,
                    interface: "eth0".into(),
                    vlan: None,
                    source_mac: None,
                    source: None,
                    source_port: 9,
                    length: 102,
                },
            },
            heard_at: Instant::now(),
            deferred: false,
            reply: Reply::new(1, mpsc::channel(1).0),
        }
    }

    #[test]
    fn a_flood_of_unknown_addresses_hides_no_virtual_machine() {
        let (journal, now) = (Journal::default(), Instant::now());
        let log = logged("info", || {
            for low in 0..1_000 {
                journal.rejected(&report(low), None, Outcome::NotFound, "unknown", now);
            }
            let vm = VmKey::new("home", "desktop");
            let why = "could not be started in time";
            journal.rejected(&report(1_000), Some(&vm), Outcome::Expired, why, now);
        });
        assert_eq!(log.matches("unknown").count(), 100, "{log}");
        assert!(log.contains("desktop"), "{log}");
    }
}
