//! Owns `kubevirt-wol explain`: what would happen to a packet now, and why. The answer is the
//! manager's own: its plan, its directory and its verdict, on the live objects of the cluster, of which
//! nothing is changed.

mod args;
mod live;
mod report;
mod verdict;

use std::{collections::BTreeSet, error::Error as _, io::Write, sync::Arc};

use anyhow::{Context as _, bail};
use tokio::runtime;

pub use args::{ExplainArgs, ParseSubjectError, Subject};
use live::Live;
use report::{Answer, Config, Machine, Report};
use verdict::{Verdict, judge, opinions, state};

use crate::{
    UsageError,
    mac::MacAddr,
    manager::{
        grant::Grant,
        vm::{Vm, VmKey},
    },
    packet::Trailing,
    password::Password,
    wake::{Carrier, Origin, Outcome, Wake},
};

/// VMs that are described at most.
const MAX_VMS: usize = 8;

/// Explains to `out` what would happen to a packet.
///
/// # Errors
///
/// A [`UsageError`] where the password is none; else the packet would not have the VM on, the cluster
/// cannot be looked at, or the explanation cannot be written.
pub fn run(args: &ExplainArgs, out: &mut impl Write) -> anyhow::Result<()> {
    let trailing = trailing(args)?;
    let live = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the async runtime")?
        .block_on(live::look(args))?;
    let report = explain(args, trailing, &live);
    report
        .write(args.json, out)
        .context("cannot write the explanation")?;
    if !report.wakes {
        bail!("such a packet wakes nothing");
    }
    Ok(())
}

/// What follows the addresses in the assumed packet.
fn trailing(args: &ExplainArgs) -> Result<Trailing, UsageError> {
    let Some(text) = &args.password else {
        return Ok(Trailing::cut(&[]));
    };
    // Says nothing of the text: it may be the password but for a typing error.
    let password = Password::from_text(text.as_str()).ok_or_else(|| {
        UsageError::new(
            "the password is neither four bytes like 192.168.1.1 nor six like 01:23:45:67:89:ab",
        )
    })?;
    Ok(Trailing::cut(password.as_bytes()))
}

fn explain(args: &ExplainArgs, trailing: Trailing, live: &Live) -> Report {
    let wake = |target: MacAddr| Wake {
        target,
        trailing,
        origin: Origin {
            carrier: Carrier::Udp,
            interface: args.interface.as_deref().unwrap_or_default().into(),
            vlan: None,
            source_mac: None,
            source: args.source.map(|address| address.to_canonical()),
            source_port: 0,
            length: 102,
        },
    };
    let wakes: Vec<Wake> = addresses(&args.subject, live)
        .into_iter()
        .map(wake)
        .collect();
    let verdicts: Vec<Verdict> = wakes
        .iter()
        .map(|wake| judge(&live.directory, wake))
        .collect();
    let (wakes_it, outcome, why) = decide(&args.subject, &verdicts, live);
    Report {
        wakes: wakes_it,
        outcome: outcome.map(Outcome::as_str),
        why,
        packet: assumed(args),
        vms: machines(&args.subject, &wakes, live),
        addresses: verdicts.into_iter().map(address).collect(),
        notes: notes(args, live),
        ports: live.settings.udp_ports.iter().copied().collect(),
        manager: live.manager,
        connected: live.connected,
    }
}

/// The addresses by which a packet may name what is asked about.
fn addresses(subject: &Subject, live: &Live) -> Vec<MacAddr> {
    let key = match subject {
        Subject::Mac(mac) => return vec![*mac],
        Subject::Vm(key) => key,
    };
    let vm = live.directory.vm(key);
    let own = vm.iter().flat_map(|vm| vm.macs.iter().copied());
    let grants = live.directory.grants();
    let mapped = grants
        .iter()
        .flat_map(|grant| grant.mapped_to(key).iter().copied());
    let all: BTreeSet<MacAddr> = own.chain(mapped).collect();
    all.into_iter().collect()
}

/// Whether the VM would be on, what becomes of the packet, and why.
fn decide(subject: &Subject, verdicts: &[Verdict], live: &Live) -> (bool, Option<Outcome>, String) {
    // A packet for a VM may name another one by the same address.
    let meant = |verdict: &&Verdict| match subject {
        Subject::Mac(_) => true,
        Subject::Vm(key) => verdict.vm.as_ref() == Some(key),
    };
    let best = verdicts.iter().find(|it| meant(it) && it.wakes());
    let Some(best) = best else {
        return match (verdicts, subject) {
            ([first, ..], _) => (false, first.outcome, first.why.clone()),
            ([], Subject::Vm(key)) => (false, Some(Outcome::NotFound), nameless(key, live)),
            ([], Subject::Mac(mac)) => (false, None, mac.to_string()),
        };
    };
    let unheard = match (live.manager, live.connected) {
        (Some(false), _) => "no manager is there to take the wake",
        (_, Some(0)) => {
            "no agent has a session with a manager, so that nobody would hear the packet"
        }
        _ => return (true, best.outcome, best.why.clone()),
    };
    (false, None, format!("{unheard}; else: {}", best.why))
}

/// Why no packet can name a VM.
fn nameless(key: &VmKey, live: &Live) -> String {
    match live.directory.vm(key) {
        None => format!("there is no virtual machine {key}"),
        Some(vm) if vm.bad_macs.is_empty() => format!(
            "{key} has no MAC address in its spec, so that it has another one at each boot; set \
             spec.template.spec.domain.devices.interfaces[].macAddress"
        ),
        Some(vm) => format!(
            "no packet can name {key}: {} is no address of one machine",
            vm.bad_macs.join(", ")
        ),
    }
}

/// The packet that was assumed, for people.
fn assumed(args: &ExplainArgs) -> String {
    let source = args.source.map_or_else(
        || "any sender that WolConfigs allow (--source)".to_owned(),
        |source| source.to_string(),
    );
    let interface = args.interface.as_deref();
    let interface = interface.unwrap_or("any interface that they allow (--interface)");
    let password = if args.password.is_some() { "a" } else { "no" };
    format!(
        "for UDP port {}, from {source}, on {interface}, with {password} password",
        args.port
    )
}

fn address(verdict: Verdict) -> Answer {
    Answer {
        mac_address: verdict.mac.to_string(),
        vm: verdict.vm.map(|key| key.to_string()),
        outcome: verdict.outcome.map(Outcome::as_str),
        why: verdict.why,
    }
}

/// The VMs that are named, or that have an address in common with what is named.
fn machines(subject: &Subject, wakes: &[Wake], live: &Live) -> Vec<Machine> {
    let directory = &live.directory;
    let grants = directory.grants();
    let mut keys: BTreeSet<VmKey> = BTreeSet::new();
    if let Subject::Vm(key) = subject {
        keys.insert(key.clone());
    }
    for wake in wakes {
        keys.extend(directory.holders(wake.target));
        keys.extend(
            grants
                .iter()
                .flat_map(|grant| grant.mapped(wake.target))
                .cloned(),
        );
    }
    let vms = keys
        .iter()
        .filter_map(|key| directory.vm(key))
        .take(MAX_VMS);
    vms.map(|vm| machine(&vm, wakes, live)).collect()
}

fn machine(vm: &Arc<Vm>, wakes: &[Wake], live: &Live) -> Machine {
    let named = |wake: &&Wake| {
        let grants = live.directory.grants();
        let mapped = |grant: &Grant| grant.mapped(wake.target).contains(&vm.key);
        vm.macs.contains(&wake.target) || grants.iter().any(mapped)
    };
    let wake = wakes.iter().find(named);
    let opinions = wake.map(|wake| opinions(&live.directory, wake, vm));
    let configs = opinions.into_iter().flatten().map(|opinion| Config {
        name: opinion.config.to_string(),
        selects: opinion.selects,
        lets_in: opinion.admits,
        why: opinion.why,
    });
    Machine {
        vm: vm.key.to_string(),
        run_strategy: format!("{:?}", vm.strategy),
        state: state(vm.power),
        mac_addresses: vm.macs.iter().map(MacAddr::to_string).collect(),
        configs: configs.collect(),
    }
}

fn notes(args: &ExplainArgs, live: &Live) -> Vec<String> {
    let mut notes = live.notes.clone();
    if live.configs.is_empty() {
        notes.push("there is no WolConfig, so that nothing is wakeable".into());
    }
    for found in &live.problems {
        let cause = found.problem.source().map(|cause| format!(": {cause}"));
        let (config, problem) = (&found.config, &found.problem);
        let cause = cause.unwrap_or_default();
        notes.push(format!("WolConfig {config}: {problem}{cause}"));
    }
    if !live.settings.udp_ports.contains(&args.port) {
        notes.push(format!(
            "no WolConfig asks agents to listen on UDP port {}: only their packet socket hears it, \
             where they have one",
            args.port
        ));
    }
    notes
}
