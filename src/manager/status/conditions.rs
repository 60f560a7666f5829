//! Owns the conditions in a status: each is always there, and true or false for a reason.

use std::error::Error as _;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::{Facts, secure_on};
use crate::{
    crd::{
        WolConfig, WolConfigStatus,
        status::{AgentStatus, ConditionType},
    },
    manager::{grant::Problem, watch::Unreadable},
};

/// Problems, nodes and addresses named in a message at most.
pub(super) const MAX_NAMED: usize = 3;

/// The reason of `Degraded` where a part of the config makes no sense.
pub const INVALID_FIELDS: &str = "InvalidFields";

/// The reason of `MACConflict` where there is one.
pub const SHARED_ADDRESS: &str = "SharedAddress";
/// The reason of `Ready` where nobody hears packets.
const NO_AGENTS: &str = "NoAgents";
const NO_KUBEVIRT: &str = "the API server does not know VirtualMachines; install KubeVirt";

/// What a condition says.
pub(super) struct Verdict {
    holds: bool,
    reason: &'static str,
    message: String,
}

impl Verdict {
    pub(super) fn no(reason: &'static str, message: &str) -> Self {
        Self {
            holds: false,
            reason,
            message: message.into(),
        }
    }

    pub(super) fn yes(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            holds: true,
            reason,
            message: message.into(),
        }
    }
}

/// What the conditions are judged by.
pub(super) struct Judge<'a> {
    pub(super) config: &'a WolConfig,
    pub(super) present: &'a WolConfigStatus,
    pub(super) facts: &'a Facts<'a>,
    pub(super) agents: &'a AgentStatus,
    /// Nodes with trouble, of which `agents` names the first.
    pub(super) troubled: usize,
}

impl Judge<'_> {
    /// All conditions, in the order of their types.
    pub(super) fn conditions(&self, now: &Time) -> Vec<Condition> {
        let all = [
            (ConditionType::Ready, self.ready()),
            (ConditionType::Degraded, self.degraded()),
            (ConditionType::MacConflict, mac_conflict(self.facts)),
            (
                ConditionType::SecureOnBypassed,
                secure_on::bypassed(self.config, self.facts),
            ),
            (ConditionType::CacheStale, cache_stale(self.facts)),
            (ConditionType::AgentFieldsIgnored, agent_fields(self.config)),
            (ConditionType::KubeVirtMissing, kubevirt_missing(self.facts)),
        ];
        all.into_iter()
            .map(|(kind, verdict)| self.condition(kind, verdict, now))
            .collect()
    }

    /// The time of its last transition stays where it does not change its mind.
    fn condition(&self, kind: ConditionType, verdict: Verdict, now: &Time) -> Condition {
        let status = if verdict.holds { "True" } else { "False" };
        let present = self
            .present(kind)
            .filter(|present| present.status == status);
        let since = present.map(|present| present.last_transition_time.clone());
        Condition {
            type_: kind.as_str().into(),
            status: status.into(),
            reason: verdict.reason.into(),
            message: verdict.message,
            observed_generation: self.config.metadata.generation,
            last_transition_time: since.unwrap_or_else(|| now.clone()),
        }
    }

    fn present(&self, kind: ConditionType) -> Option<&Condition> {
        let mut present = self.present.conditions.iter();
        present.find(|condition| condition.type_ == kind.as_str())
    }

    fn ready(&self) -> Verdict {
        let Self { facts, agents, .. } = self;
        let problems = &facts.problems;
        if !facts.kubevirt {
            Verdict::no("KubeVirtMissing", NO_KUBEVIRT)
        } else if facts.findings.is_none() {
            Verdict::no("Invalid", &told(problems))
        } else if let Some((reason, why)) = secure_on::obstacle(self.config, facts) {
            Verdict::no(reason, &why)
        } else if let Some(why) = &facts.forbidden {
            Verdict::no("StartForbidden", why)
        } else if agents.connected == 0 && (facts.settled || self.lacked_agents()) {
            let message = "no agent is connected to the manager that writes this, so no packet is \
                           heard; look at the agents' pods and their logs";
            Verdict::no(NO_AGENTS, message)
        } else {
            let message = "packets that this config allows wake the VMs that it selects, but for \
                           those in conflicts and unwakeable";
            Verdict::yes("Serving", message)
        }
    }

    /// Whether there was no agent before this replica began to look.
    fn lacked_agents(&self) -> bool {
        let ready = self.present(ConditionType::Ready);
        ready.is_some_and(|ready| ready.reason == NO_AGENTS)
    }

    fn degraded(&self) -> Verdict {
        let (problems, nodes) = (&self.facts.problems, &self.agents.troubled);
        if !problems.is_empty() {
            Verdict::yes(INVALID_FIELDS, told(problems))
        } else if let Some(keys) = secure_on::unusable_keys(self.config, self.facts) {
            Verdict::yes("SecureOnKeysUnusable", keys)
        } else if self.troubled > 0 {
            let named = nodes.iter().take(MAX_NAMED);
            let named = named.map(|node| format!("{}: {}", node.node, node.reason));
            let named: Vec<String> = named.collect();
            Verdict::yes("AgentsTroubled", shortened(&named, self.troubled))
        } else {
            let message = "no part of this config is invalid, and no agent has trouble with it";
            Verdict::no("AsExpected", message)
        }
    }
}

/// What is said of a config that cannot be read.
pub(super) fn unreadable(config: &Unreadable, now: &Time) -> Condition {
    Condition {
        type_: ConditionType::Ready.as_str().into(),
        status: "False".into(),
        reason: "Unreadable".into(),
        message: format!(
            "this manager cannot read the config, so it allows nothing: {}",
            config.error
        ),
        observed_generation: config.generation,
        last_transition_time: now.clone(),
    }
}

fn mac_conflict(facts: &Facts<'_>) -> Verdict {
    let Some(found) = facts
        .findings
        .as_ref()
        .filter(|found| found.conflicts_total > 0)
    else {
        return Verdict::no("NoConflict", "no two of its VMs have the same MAC address");
    };
    let named = found.conflicts.iter().take(MAX_NAMED).map(|(mac, vms)| {
        let vms: Vec<String> = vms
            .iter()
            .take(MAX_NAMED)
            .map(ToString::to_string)
            .collect();
        format!("{mac} is that of {}", vms.join(" and "))
    });
    let all = shortened(&named.collect::<Vec<_>>(), found.conflicts_total);
    Verdict::yes(
        SHARED_ADDRESS,
        format!(
            "no packet wakes these VMs until each has an address of its own, or explicitMappings \
             names the one that is meant: {all}"
        ),
    )
}

fn cache_stale(facts: &Facts<'_>) -> Verdict {
    if facts.stale {
        let message = "VirtualMachines or WolConfigs cannot be watched, for longer than cacheTTL \
                       allows: wakes wait until they can";
        Verdict::yes("NoContact", message)
    } else {
        Verdict::no("InContact", "what is known of the VMs is recent enough")
    }
}

fn agent_fields(config: &WolConfig) -> Verdict {
    if config.spec.agent.is_some() {
        Verdict::yes(
            "SetElsewhere",
            "spec.agent has no effect: agents are a DaemonSet of their own, whose manifest or Helm \
             values say where and how they run",
        )
    } else {
        Verdict::no("NotSet", "spec.agent is not set")
    }
}

fn kubevirt_missing(facts: &Facts<'_>) -> Verdict {
    if facts.kubevirt {
        Verdict::no("Installed", "the API server knows VirtualMachines")
    } else {
        Verdict::yes("NotInstalled", NO_KUBEVIRT)
    }
}

fn told(problems: &[&Problem]) -> String {
    let named = problems.iter().take(MAX_NAMED).map(|problem| {
        problem.source().map_or_else(
            || problem.to_string(),
            |cause| format!("{problem}: {cause}"),
        )
    });
    shortened(&named.collect::<Vec<_>>(), problems.len())
}

pub(super) fn shortened(named: &[String], total: usize) -> String {
    let more = total.saturating_sub(named.len());
    let text = named.join("; ");
    if more == 0 {
        text
    } else {
        format!("{text}; and {more} more")
    }
}
