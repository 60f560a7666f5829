//! Owns the status of a `WolConfig`: what the managers found and did. Written by the managers
//! alone, and only when it differs.

#![allow(
    clippy::doc_markdown,
    reason = "these comments are what kubectl explain prints"
)]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rules;

/// The most entries of `mappings`, the first of all that there are.
pub const MAX_MAPPINGS: usize = 64;
/// The most entries of `conflicts` and of `unwakeable`.
pub const MAX_PROBLEMS: usize = 32;
/// The most entries of `agentStatus.troubled`.
pub const MAX_TROUBLED: usize = 16;

/// What the managers found. It is written by one of them, and only when it differs; lastWake by
/// the one that served the wake.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct WolConfigStatus {
    /// The generation of the spec that this status speaks of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// The number of VMs that packets name by this config: those with at least one mapping. What is
    /// in the way of a start is in unwakeable.
    #[serde(rename = "managedVMs")]
    #[schemars(transform = rules::no_default)]
    pub managed_vms: i64,

    /// When mappings, conflicts or unwakeable last changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_sync: Option<Time>,

    /// Ready: packets wake VMs. Degraded: part of the config cannot be acted on. MACConflict:
    /// several VMs have the same address, so that none of them is woken. CacheStale: the API server
    /// has been away for longer than cacheTTL. AgentFieldsIgnored: spec.agent is set.
    /// KubeVirtMissing: the cluster has no VirtualMachines.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(transform = rules::keyed_by_type)]
    pub conditions: Vec<Condition>,

    /// UDP ports that this config asks agents to listen on.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<i32>,

    /// The agents on the nodes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_status: Option<AgentStatus>,

    /// MAC addresses and the VMs that they wake: the first 64.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mappings: Vec<Mapping>,

    /// How many mappings there are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mappings_total: Option<i64>,

    /// MAC addresses that several VMs have, so that none of them is woken: the first 32.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conflicts: Vec<Conflict>,

    /// How many conflicts there are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conflicts_total: Option<i64>,

    /// Selected VMs that no packet starts, and mapped ones that do not exist: the first 32.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unwakeable: Vec<Unwakeable>,

    /// How many VMs no packet starts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unwakeable_total: Option<i64>,

    /// The last VM that was started by this config. Written at most once in ten seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_wake: Option<LastWake>,
}

/// The agents on the nodes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct AgentStatus {
    /// The name of the agents' DaemonSet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub daemon_set_name: Option<String>,
    /// The number of nodes that should have an agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub desired_number_scheduled: Option<i32>,
    /// The number of nodes whose agent is ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub number_ready: Option<i32>,
    /// The number of nodes whose agent is available.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub number_available: Option<i32>,
    /// The number of nodes whose agent has a session with a manager.
    #[schemars(transform = rules::no_default)]
    pub connected: i32,
    /// The number of connected nodes whose agent listens as this config asks.
    #[schemars(transform = rules::no_default)]
    pub configured: i32,
    /// Nodes whose agent is connected and cannot do all that this config asks: the first 16.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub troubled: Vec<TroubledNode>,
}

/// A node whose agent cannot do all that is asked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TroubledNode {
    /// The node's name.
    pub node: String,
    /// What is wrong, such as a port that another program holds.
    pub reason: String,
}

/// A MAC address and the VM that it wakes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Mapping {
    /// The address, in lower case with colons.
    pub mac_address: String,
    /// The name of the VirtualMachine.
    pub vm_name: String,
    /// The namespace of the VirtualMachine.
    pub namespace: String,
}

/// A MAC address that several VMs have.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Conflict {
    /// The address, in lower case with colons.
    pub mac_address: String,
    /// The VMs that have it, as namespace/name.
    pub vms: Vec<String>,
}

/// A selected VM that no packet can wake.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Unwakeable {
    /// The name of the VirtualMachine.
    pub vm_name: String,
    /// The namespace of the VirtualMachine.
    pub namespace: String,
    /// Why not, such as an interface without a macAddress.
    pub reason: String,
}

/// A wake that was acted on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LastWake {
    /// When it was settled.
    pub time: Time,
    /// The address that the packet named, in lower case with colons.
    pub mac_address: String,
    /// The name of the VirtualMachine.
    pub vm_name: String,
    /// The namespace of the VirtualMachine.
    pub namespace: String,
    /// The node whose agent heard the packet.
    pub node: String,
    /// Who sent the packet, and the interface that heard it, such as 10.0.0.7 on eth0.
    pub origin: String,
    /// What became of it, such as started.
    pub outcome: String,
}

/// The types of the conditions in a status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ConditionType {
    /// Packets wake VMs.
    Ready,
    /// Part of the config cannot be acted on.
    Degraded,
    /// Several VMs have the same address.
    MacConflict,
    /// VMs that want a password wake without one by another config.
    SecureOnBypassed,
    /// The API server has been away for longer than `cacheTTL`.
    CacheStale,
    /// `spec.agent` is set.
    AgentFieldsIgnored,
    /// The cluster has no VirtualMachines.
    KubeVirtMissing,
}

impl ConditionType {
    /// The word in `conditions[].type`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "Ready",
            Self::Degraded => "Degraded",
            Self::MacConflict => "MACConflict",
            Self::SecureOnBypassed => "SecureOnBypassed",
            Self::CacheStale => "CacheStale",
            Self::AgentFieldsIgnored => "AgentFieldsIgnored",
            Self::KubeVirtMissing => "KubeVirtMissing",
        }
    }
}
