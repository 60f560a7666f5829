//! Owns the checks of the `WolConfig`s: what the managers say of them in their statuses.

use kube::{ResourceExt as _, core::DeserializeGuard};

use super::{Cause, Check, Report, words::first};
use crate::{
    cluster::{Look, Place, Unseen},
    crd::{WolConfig, WolConfigStatus, status::ConditionType},
};

/// Addresses, VMs and nodes that are named at most.
const MAX_NAMED: usize = 4;

/// Where the configs are.
pub(crate) const CONFIGS: Place<'_> = Place {
    group: "wol.pillon.org",
    version: "v1beta1",
    plural: "wolconfigs",
    namespace: None,
};

/// Which conditions are told, when, and as what.
const CONDITIONS: &[(ConditionType, &str, Cause)] = &[
    (ConditionType::Ready, "False", Cause::NotReady),
    (ConditionType::Degraded, "True", Cause::Degraded),
    (
        ConditionType::SecureOnBypassed,
        "True",
        Cause::SecureOnBypassed,
    ),
    (ConditionType::CacheStale, "True", Cause::CacheStale),
    (
        ConditionType::AgentFieldsIgnored,
        "True",
        Cause::AgentFieldsIgnored,
    ),
];

/// Looks at all configs.
pub(super) async fn configs(report: &mut Report, look: &Look) {
    let found = look.list::<DeserializeGuard<WolConfig>>(&CONFIGS, "").await;
    let found = match found {
        Ok(found) => found,
        // The definition is missing, as is told before.
        Err(Unseen::NotServed) => return,
        Err(why) => return report.unseen(Check::Configs, "the WolConfigs", &why),
    };
    let mut readable = Vec::new();
    for DeserializeGuard(config) in found {
        match config {
            Ok(config) => readable.push(config),
            Err(invalid) => {
                let name = invalid.metadata.name.unwrap_or_default();
                let seen = format!("{name} cannot be read: {}", invalid.error);
                report.bad(Check::Configs, Cause::ConfigUnreadable, seen);
            }
        }
    }
    sessions(report, &readable);
    present(report, &readable);
    conditions(report, &readable);
    conflicts(report, &readable);
    unwakeable(report, &readable);
}

/// Names and statuses of those that managers have looked at.
fn statuses(configs: &[WolConfig]) -> impl Iterator<Item = (String, &WolConfigStatus)> {
    let all = configs.iter();
    all.filter_map(|config| Some((config.name_any(), config.status.as_ref()?)))
}

fn present(report: &mut Report, configs: &[WolConfig]) {
    let check = Check::Configs;
    if configs.is_empty() {
        return report.bad(check, Cause::NoConfig, "there is no WolConfig");
    }
    let mut looked_at = Vec::new();
    for config in configs {
        let name = config.name_any();
        let status = config.status.as_ref();
        let seen = status.and_then(|status| status.observed_generation);
        if seen == config.metadata.generation {
            looked_at.push(name);
        } else {
            let seen = format!("{name} is newer than what a manager says of it");
            report.bad(check, Cause::StatusOutdated, seen);
        }
    }
    if !looked_at.is_empty() {
        let seen = format!("a manager has looked at {}", first(&looked_at, MAX_NAMED));
        report.good(check, seen);
    }
}

/// Whether agents have sessions; every status says the same of it.
fn sessions(report: &mut Report, configs: &[WolConfig]) {
    let check = Check::Sessions;
    let newest = statuses(configs).filter_map(|(_, status)| status.agent_status.as_ref());
    let Some(agents) = newest.max_by_key(|agents| agents.connected) else {
        return;
    };
    let connected = agents.connected;
    match agents.desired_number_scheduled {
        _ if connected == 0 => {
            report.bad(
                check,
                Cause::NoSession,
                "no agent has a session with a manager",
            );
        }
        Some(desired) if connected < desired => {
            let seen = format!("the agents of {connected} of {desired} nodes have a session");
            report.bad(check, Cause::SessionsMissing, seen);
        }
        _ => report.good(
            check,
            format!("the agents of {connected} nodes have a session"),
        ),
    }
    for (name, status) in statuses(configs) {
        let nodes = status.agent_status.iter().flat_map(|it| &it.troubled);
        let nodes: Vec<_> = nodes
            .map(|it| format!("{}: {}", it.node, it.reason))
            .collect();
        if !nodes.is_empty() {
            let seen = format!("as {name} asks to listen: {}", first(&nodes, MAX_NAMED));
            report.bad(check, Cause::NodesTroubled, seen);
        }
    }
}

fn conditions(report: &mut Report, configs: &[WolConfig]) {
    let mut good = Vec::new();
    for (name, status) in statuses(configs) {
        let mut told = false;
        for (kind, wrong, cause) in CONDITIONS {
            let mut all = status.conditions.iter();
            let found = all.find(|it| it.type_ == kind.as_str() && it.status == *wrong);
            if let Some(condition) = found {
                let seen = format!("{name}: {}: {}", condition.reason, condition.message);
                report.bad(Check::Conditions, *cause, seen);
                told = true;
            }
        }
        if !told {
            good.push(name);
        }
    }
    if !good.is_empty() {
        let seen = format!("{}: as they should be", first(&good, MAX_NAMED));
        report.good(Check::Conditions, seen);
    }
}

fn conflicts(report: &mut Report, configs: &[WolConfig]) {
    let check = Check::Conflicts;
    let mut any = false;
    for (name, status) in statuses(configs) {
        let all = status.conflicts.iter();
        let all: Vec<_> = all
            .map(|it| format!("{} is that of {}", it.mac_address, it.vms.join(" and ")))
            .collect();
        if !all.is_empty() {
            let seen = format!("{name}: {}", first(&all, MAX_NAMED));
            report.bad(check, Cause::SharedAddress, seen);
            any = true;
        }
    }
    if !any && statuses(configs).next().is_some() {
        report.good(check, "no two VMs have one address");
    }
}

fn unwakeable(report: &mut Report, configs: &[WolConfig]) {
    let check = Check::Unwakeable;
    let mut any = false;
    for (name, status) in statuses(configs) {
        let all = status.unwakeable.iter();
        let all: Vec<_> = all
            .map(|it| format!("{}/{}: {}", it.namespace, it.vm_name, it.reason))
            .collect();
        if !all.is_empty() {
            let total = status.unwakeable_total.unwrap_or_default();
            let seen = format!("{name}: {total} VMs: {}", first(&all, MAX_NAMED));
            report.bad(check, Cause::NoPacketStarts, seen);
            any = true;
        }
    }
    let managed: i64 = statuses(configs)
        .map(|(_, status)| status.managed_vms)
        .sum();
    if !any && statuses(configs).next().is_some() {
        report.good(
            check,
            format!("packets can start all {managed} VMs that are selected"),
        );
    }
}
