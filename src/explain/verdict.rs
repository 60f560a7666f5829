//! Owns what the manager would say to a packet, by the manager's own code. Pure.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    mac::MacAddr,
    manager::{
        directory::{Directory, Lookup},
        grant::Grant,
        intents,
        vm::{Power, Vm, VmKey},
    },
    wake::{Outcome, Wake},
};

/// What the manager would say to one packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Verdict {
    /// The address that the packet names.
    pub(super) mac: MacAddr,
    /// The VM that it means, where there is one.
    pub(super) vm: Option<VmKey>,
    /// What becomes of it; none where that cannot be known.
    pub(super) outcome: Option<Outcome>,
    /// Why, for people.
    pub(super) why: String,
}

impl Verdict {
    /// Whether the VM is on after the packet.
    pub(super) fn wakes(&self) -> bool {
        matches!(self.outcome, Some(Outcome::Started | Outcome::AlreadyOn))
    }
}

/// What one config makes of a packet for a VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Opinion {
    pub(super) config: Arc<str>,
    /// Whether it selects the VM, so that the address names it.
    pub(super) selects: bool,
    /// Whether it lets this packet in; none where that cannot be known.
    pub(super) admits: Option<bool>,
    /// For people.
    pub(super) why: String,
}

/// What the manager would say to a packet.
pub(super) fn judge(directory: &Directory, wake: &Wake) -> Verdict {
    let lookup = directory.look_up(wake, Duration::ZERO);
    let verdict = |vm: Option<&VmKey>, outcome, why| Verdict {
        mac: wake.target,
        vm: vm.cloned(),
        outcome,
        why,
    };
    match &lookup {
        Lookup::Wakeable { vm, unpause } => {
            let (outcome, why) = power(vm, *unpause);
            verdict(Some(&vm.key), Some(outcome), why)
        }
        Lookup::Stale | Lookup::Locked => {
            let why = "nobody but the managers can know, as the Secret with the SecureOn passwords \
                       cannot be read";
            let vm = directory.meant(wake.target, &directory.grants()).ok();
            verdict(vm.as_ref().map(|vm| &vm.key), None, why.into())
        }
        Lookup::NotSelected { vm, .. } => {
            let (outcome, why) = told(&lookup, wake.target);
            verdict(Some(&vm.key), outcome, why)
        }
        Lookup::Missing(key) => {
            let (outcome, why) = told(&lookup, wake.target);
            verdict(Some(key), outcome, why)
        }
        Lookup::NotFound | Lookup::Ambiguous(_) => {
            let (outcome, why) = told(&lookup, wake.target);
            verdict(None, outcome, why)
        }
    }
}

fn told(lookup: &Lookup, target: MacAddr) -> (Option<Outcome>, String) {
    lookup
        .refusal(target)
        .map_or_else(Default::default, |(outcome, why)| (Some(outcome), why))
}

/// What a wake does with a VM that it may wake.
fn power(vm: &Vm, unpause: bool) -> (Outcome, String) {
    if unpause && vm.power == Power::Paused {
        let why = format!("{} is paused, and would be unpaused", vm.key);
        return (Outcome::Started, why);
    }
    if let Some((outcome, why)) = intents::verdict(vm.power) {
        return (outcome, format!("{}: {why}", vm.key));
    }
    let why = match vm.power {
        Power::Stopping => "is stopping, and would be started as soon as it has stopped",
        _ => "is off, and would be started",
    };
    (Outcome::Started, format!("{} {why}", vm.key))
}

/// What each config makes of a packet for this VM: what it would say if it were the only one, and
/// the VM, too.
pub(super) fn opinions(directory: &Directory, wake: &Wake, vm: &Arc<Vm>) -> Vec<Opinion> {
    let opinion = |grant: &Grant| {
        let (admits, why) = if grant.names(wake.target, vm) {
            alone(directory, wake, vm, grant)
        } else if grant.covers(vm) {
            let why = "selects it, but not by this address";
            (Some(false), why.to_owned())
        } else {
            (Some(false), "does not select it".to_owned())
        };
        Opinion {
            config: grant.config.clone(),
            selects: grant.names(wake.target, vm),
            admits,
            why,
        }
    };
    directory.grants().iter().map(opinion).collect()
}

fn alone(
    directory: &Directory,
    wake: &Wake,
    vm: &Arc<Vm>,
    grant: &Grant,
) -> (Option<bool>, String) {
    let single = Directory::new();
    single.apply(Vm::clone(vm), Instant::now());
    single.set_grants([grant.clone()].into());
    single.set_passwords((*directory.passwords()).clone());
    match single.look_up(wake, Duration::ZERO) {
        Lookup::Wakeable { .. } => {
            let password = if grant.secure_on.is_some() {
                ", as its password is right"
            } else {
                ""
            };
            (
                Some(true),
                format!("selects it, and lets the packet in{password}"),
            )
        }
        Lookup::NotSelected { why, .. } => (
            Some(false),
            format!("selects it, and does not let the packet in: {why}"),
        ),
        Lookup::Locked | Lookup::Stale => {
            let secret = grant.secure_on.as_deref().unwrap_or_default();
            (
                None,
                format!("selects it, and wants a password of Secret {secret}"),
            )
        }
        Lookup::NotFound | Lookup::Missing(_) | Lookup::Ambiguous(_) => (
            Some(false),
            "maps the address to another VM, too".to_owned(),
        ),
    }
}

/// How a VM is, for people.
pub(super) fn state(power: Power) -> String {
    match power {
        Power::Off => "off".into(),
        Power::On => "on, or on its way".into(),
        Power::Paused => "paused".into(),
        Power::Stuck(status) => format!("on its way, but stuck in {status}"),
        Power::Stopping => "stopping".into(),
        Power::Unsupported(why) => format!("off: {why}"),
        Power::Receiver => "waiting to receive a migration".into(),
        Power::Gone => "being deleted".into(),
    }
}
