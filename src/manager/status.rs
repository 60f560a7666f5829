//! Owns what a `WolConfig`'s status says: pure, from what is known to the words.

mod conditions;
mod secure_on;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    crd::{
        WolConfig, WolConfigStatus,
        status::{
            AgentStatus, Conflict, MAX_MAPPINGS, MAX_PROBLEMS, MAX_TROUBLED, Mapping, TroubledNode,
            Unwakeable,
        },
    },
    manager::{
        census::{Findings, Most},
        grant::{self, Problem},
        passwords::Passwords,
        sessions::{Agent, AgentId, Trouble},
        watch::Unreadable,
    },
};

use conditions::Judge;
pub use conditions::{INVALID_FIELDS, SHARED_ADDRESS};

/// How much of the census a status shows.
pub const SHOWN: Most = Most {
    mappings: MAX_MAPPINGS,
    problems: MAX_PROBLEMS,
};

/// What is known beside the config itself.
#[derive(Debug)]
pub struct Facts<'a> {
    /// What it makes of the VMs; none where the config as a whole allows nothing.
    pub findings: Option<Findings>,
    /// What of it makes no sense.
    pub problems: Vec<&'a Problem>,
    /// The agents with a session, and the configuration that they should have.
    pub agents: &'a [(AgentId, Agent)],
    /// The generation of that configuration.
    pub newest: u64,
    /// Whether every agent has had the time to connect.
    pub settled: bool,
    /// The agents' DaemonSet, where there is one.
    pub daemon_set: Option<DaemonSetSeen>,
    /// Whether the API server knows `VirtualMachine`s.
    pub kubevirt: bool,
    /// Whether what is known is older than this config allows.
    pub stale: bool,
    /// Why VMs may not be started, where KubeVirt said so.
    pub forbidden: Option<String>,
    /// What is known of the SecureOn Secrets.
    pub passwords: Arc<Passwords>,
}

/// The numbers of the agents' DaemonSet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DaemonSetSeen {
    /// Its name.
    pub name: String,
    /// Nodes that should have an agent.
    pub desired: i32,
    /// Nodes whose agent is ready.
    pub ready: i32,
    /// Nodes whose agent is available.
    pub available: i32,
}

/// The status of a config as it should be at `now`. Times stay as they are in the `present` one
/// where nothing changed, so that the same facts give the same status.
#[must_use]
pub fn status(
    config: &WolConfig,
    present: &WolConfigStatus,
    facts: &Facts<'_>,
    now: Timestamp,
) -> WolConfigStatus {
    let now = Time(seconds(now));
    let found = facts.findings.clone().unwrap_or_default();
    let ports = grant::ports_of(&config.spec);
    let (agents, troubled) = agents(facts, &ports);
    let mut status = WolConfigStatus {
        observed_generation: config.metadata.generation,
        managed_vms: count(found.managed),
        ports: ports.into_iter().map(i32::from).collect(),
        conditions: Judge {
            config,
            present,
            facts,
            agents: &agents,
            troubled,
        }
        .conditions(&now),
        agent_status: Some(agents),
        mappings_total: Some(count(found.mappings_total)),
        conflicts_total: Some(count(found.conflicts_total)),
        unwakeable_total: Some(count(found.unwakeable_total)),
        last_wake: present.last_wake.clone(),
        ..lists(found)
    };
    let same = is_same_list(&status, present);
    status.last_sync = present.last_sync.clone().filter(|_| same).or(Some(now));
    status
}

/// The status of a config that cannot be read.
#[must_use]
pub fn unreadable(config: &Unreadable, now: Timestamp) -> WolConfigStatus {
    WolConfigStatus {
        observed_generation: config.generation,
        conditions: vec![conditions::unreadable(config, &Time(seconds(now)))],
        ..WolConfigStatus::default()
    }
}

fn lists(found: Findings) -> WolConfigStatus {
    let mappings = found.mappings.into_iter().map(|(mac, vm)| Mapping {
        mac_address: mac.to_string(),
        vm_name: vm.name.to_string(),
        namespace: vm.namespace.to_string(),
    });
    let conflicts = found.conflicts.into_iter().map(|(mac, vms)| Conflict {
        mac_address: mac.to_string(),
        vms: vms
            .iter()
            .take(MAX_PROBLEMS)
            .map(ToString::to_string)
            .collect(),
    });
    let unwakeable = found.unwakeable.into_iter().map(|(vm, why)| Unwakeable {
        vm_name: vm.name.to_string(),
        namespace: vm.namespace.to_string(),
        reason: why.as_str().into(),
    });
    WolConfigStatus {
        mappings: mappings.collect(),
        conflicts: conflicts.collect(),
        unwakeable: unwakeable.collect(),
        ..WolConfigStatus::default()
    }
}

fn is_same_list(status: &WolConfigStatus, present: &WolConfigStatus) -> bool {
    status.managed_vms == present.managed_vms
        && status.mappings == present.mappings
        && status.mappings_total == present.mappings_total
        && status.conflicts == present.conflicts
        && status.conflicts_total == present.conflicts_total
        && status.unwakeable == present.unwakeable
        && status.unwakeable_total == present.unwakeable_total
}

/// What the agents make of a config that asks for these ports, and how many nodes are troubled. A
/// node whose old and new agent are both connected counts once, and well where one of them is.
fn agents(facts: &Facts<'_>, ports: &BTreeSet<u16>) -> (AgentStatus, usize) {
    let mut connected = BTreeSet::<&str>::new();
    let mut nodes = BTreeMap::<&str, Option<String>>::new();
    for (id, agent) in facts.agents {
        connected.insert(&id.node);
        if agent.answered != Some(facts.newest) {
            continue;
        }
        let trouble = agent.trouble.as_ref();
        let reason = trouble.and_then(|trouble| trouble_with(trouble, ports));
        // The same one, in whatever order they come; none is the least.
        let known = nodes.entry(&id.node).or_insert_with(|| reason.clone());
        if reason < *known {
            *known = reason;
        }
    }
    let configured = nodes.values().filter(|reason| reason.is_none()).count();
    let troubled = nodes.iter().filter_map(|(node, reason)| {
        Some(TroubledNode {
            node: (*node).to_owned(),
            reason: reason.clone()?,
        })
    });
    let seen = facts.daemon_set.as_ref();
    let status = AgentStatus {
        daemon_set_name: seen.map(|seen| seen.name.clone()),
        desired_number_scheduled: seen.map(|seen| seen.desired),
        number_ready: seen.map(|seen| seen.ready),
        number_available: seen.map(|seen| seen.available),
        connected: small(connected.len()),
        configured: small(configured),
        troubled: troubled.take(MAX_TROUBLED).collect(),
    };
    (status, nodes.len() - configured)
}

/// What of an agent's trouble concerns a config that asks for these ports.
fn trouble_with(trouble: &Trouble, ports: &BTreeSet<u16>) -> Option<String> {
    let mut own = trouble.clone();
    own.listeners.retain(|name, _| {
        let port = name.strip_prefix("udp/").and_then(|port| port.parse().ok());
        port.is_none_or(|port: u16| ports.contains(&port))
    });
    own.is_any().then(|| own.to_string())
}

/// The API server keeps times as they are written; whole seconds are what others write.
fn seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn small(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

/// The body of a server-side apply of a part of a status; with a resource version, to that version
/// and no other.
#[must_use]
pub fn applied(resource_version: Option<&str>, status: &impl Serialize) -> Value {
    let metadata = resource_version.map_or_else(
        || json!({}),
        |resource_version| json!({"resourceVersion": resource_version}),
    );
    json!({
        "apiVersion": "wol.pillon.org/v1beta1",
        "kind": "WolConfig",
        "metadata": metadata,
        "status": status,
    })
}
