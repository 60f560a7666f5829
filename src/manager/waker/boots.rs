//! Owns [`Boots`]: the VMs that were started and do not run yet, to learn how long they take. Pure;
//! the caller brings the clock.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use crate::manager::{
    metrics::Unseen,
    vm::{Power, Vm},
};

/// Started VMs that are looked after at most; past this many the oldest is let go.
const MAX_BOOTS: usize = 4_096;
/// A VM that does not run after so long is let go.
const PATIENCE: Duration = Duration::from_secs(600);
/// On its way a VM may look off for a moment; one that does for longer is off.
const FLICKER: Duration = Duration::from_secs(3);

/// The VMs that were started and do not run yet, by uid.
#[derive(Debug, Default)]
pub(super) struct Boots {
    open: HashMap<Arc<str>, Boot>,
    /// In the order of their starts; those that are not open any more are skipped.
    order: VecDeque<(Arc<str>, Instant)>,
}

#[derive(Debug)]
struct Boot {
    accepted: Instant,
    /// Since when it looks off again.
    off: Option<Instant>,
}

/// What became of a boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Booted {
    /// It runs, so long after KubeVirt had accepted the start.
    Running(Duration),
    /// Nothing more will be learnt of it.
    Unseen(Unseen),
}

impl Boots {
    /// Looks after a VM whose start was accepted.
    pub(super) fn begin(&mut self, uid: &Arc<str>, accepted: Instant) {
        let boot = Boot {
            accepted,
            off: None,
        };
        self.open.insert(uid.clone(), boot);
        self.order.push_back((uid.clone(), accepted));
    }

    /// Whether this VM is looked after.
    pub(super) fn contains(&self, uid: &str) -> bool {
        self.open.contains_key(uid)
    }

    /// Takes what a VM looks like now, or that it is no more. Says how its boot ended, if it did.
    pub(super) fn saw(&mut self, uid: &str, vm: Option<&Vm>, now: Instant) -> Option<Booted> {
        let boot = self.open.get_mut(uid)?;
        let end = match vm.map(|vm| (vm.power, vm.running)) {
            None | Some((Power::Gone, _)) => Some(Booted::Unseen(Unseen::Gone)),
            Some((Power::Stopping, _)) => Some(Booted::Unseen(Unseen::Off)),
            Some((power, running)) => {
                let looks_off = !running && !power.is_started();
                let since = boot.off.or(looks_off.then_some(now));
                if since.is_some_and(|since| now > since + crate::pace::of(FLICKER)) {
                    Some(Booted::Unseen(Unseen::Off))
                } else {
                    boot.off = since.filter(|_| looks_off);
                    running.then(|| Booted::Running(now - boot.accepted))
                }
            }
        };
        if end.is_some() {
            self.open.remove(uid);
        }
        end
    }

    /// Lets those go that take too long, or that there is no room for.
    pub(super) fn let_go(&mut self, now: Instant) -> Vec<(Arc<str>, Unseen)> {
        let mut gone = Vec::new();
        while let Some((uid, accepted)) = self.order.front() {
            // Started anew since, or ended.
            let open = self.open.get(uid).is_some_and(|b| b.accepted == *accepted);
            let late = now >= *accepted + crate::pace::of(PATIENCE);
            if open && !late && self.order.len() <= MAX_BOOTS {
                break;
            }
            if open {
                self.open.remove(uid);
                let reason = if late { Unseen::Late } else { Unseen::Evicted };
                gone.push((uid.clone(), reason));
            }
            self.order.pop_front();
        }
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubevirt::VirtualMachine;

    const SECOND: Duration = Duration::from_secs(1);

    fn vm(power: Power, running: bool) -> Vm {
        Vm {
            power,
            running,
            ..VirtualMachine::default().into()
        }
    }

    fn begun() -> (Boots, Instant) {
        let (mut boots, start) = (Boots::default(), Instant::now());
        boots.begin(&"a".into(), start);
        (boots, start)
    }

    #[test]
    fn a_boot_lasts_from_the_accepted_start_to_the_vm_that_runs() {
        let (mut boots, start) = begun();
        let starting = vm(Power::On, false);
        assert_eq!(boots.saw("a", Some(&starting), start + SECOND), None);
        let running = vm(Power::On, true);
        let seen = boots.saw("a", Some(&running), start + 40 * SECOND);
        assert_eq!(seen, Some(Booted::Running(40 * SECOND)));
        assert_eq!(boots.saw("a", Some(&running), start + 41 * SECOND), None);
        assert!(!boots.contains("a"));
    }

    #[test]
    fn looking_off_for_a_moment_is_part_of_a_boot_and_being_off_ends_it() {
        for (pause, expected) in [
            (SECOND, Booted::Running(2 * SECOND)),
            (60 * SECOND, Booted::Unseen(Unseen::Off)),
        ] {
            let (mut boots, start) = begun();
            let off = vm(Power::Off, false);
            assert_eq!(boots.saw("a", Some(&off), start + SECOND), None);
            let running = vm(Power::On, true);
            let seen = boots.saw("a", Some(&running), start + SECOND + pause);
            assert_eq!(seen, Some(expected));
        }
    }

    #[test]
    fn a_vm_that_is_stopped_or_deleted_before_it_runs_is_not_timed() {
        for (vm, reason) in [
            (Some(vm(Power::Stopping, true)), Unseen::Off),
            (Some(vm(Power::Gone, false)), Unseen::Gone),
            (None, Unseen::Gone),
        ] {
            let (mut boots, start) = begun();
            let seen = boots.saw("a", vm.as_ref(), start + SECOND);
            assert_eq!(seen, Some(Booted::Unseen(reason)));
            assert!(!boots.contains("a"));
        }
    }

    #[test]
    fn memory_is_bounded_by_number_and_by_time() {
        let (mut boots, start) = begun();
        assert!(boots.let_go(start + SECOND).is_empty());
        assert_eq!(boots.let_go(start + PATIENCE), [("a".into(), Unseen::Late)]);
        for n in 0..=MAX_BOOTS {
            boots.begin(&n.to_string().into(), start);
        }
        assert_eq!(boots.let_go(start), [("0".into(), Unseen::Evicted)]);
        assert_eq!(boots.open.len(), MAX_BOOTS);
        // Started again and again, it takes one place.
        for _ in 0..2 * MAX_BOOTS {
            boots.begin(&"a".into(), start + SECOND);
            boots.let_go(start + SECOND);
        }
        assert!(boots.order.len() <= MAX_BOOTS);
    }
}
