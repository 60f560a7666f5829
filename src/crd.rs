//! Owns `WolConfig`, the resource by which a cluster admin says which VMs a packet may wake.

#![allow(
    clippy::doc_markdown,
    reason = "these comments are what kubectl explain prints"
)]

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{ResourceRequirements, Toleration},
    apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector, Time},
};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which virtual machines Wake-on-LAN packets may start, and which packets count.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "wol.pillon.org",
    version = "v1beta1",
    kind = "WolConfig",
    plural = "wolconfigs",
    shortname = "wolcfg",
    status = "WolConfigStatus",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase", default)]
pub struct WolConfigSpec {
    /// Which VMs this config makes wakeable.
    pub discovery_mode: DiscoveryMode,
    /// Names of the namespaces whose VMs are wakeable; empty means all.
    pub namespace_selectors: Vec<String>,
    /// Labels that a VM must have in mode LabelSelector.
    pub vm_selector: Option<LabelSelector>,
    /// MAC addresses and their VMs.
    pub explicit_mappings: Vec<ExplicitMapping>,
    /// UDP ports where agents listen.
    pub wol_ports: Vec<i32>,
    /// One more UDP port.
    pub wol_port: Option<i32>,
    /// Seconds.
    #[serde(rename = "cacheTTL")]
    pub cache_ttl: Option<i64>,
    /// Networks whose packets count.
    pub source_ranges: Vec<String>,
    /// Interfaces whose packets count.
    pub interfaces: Vec<String>,
    /// SecureOn.
    pub secure_on: Option<SecureOn>,
    /// Whether a paused VM is unpaused.
    pub wake_paused: bool,
    /// Ignored.
    pub agent: Option<AgentFields>,
}

/// How a config finds its VMs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DiscoveryMode {
    /// Every VM of the selected namespaces.
    #[default]
    All,
    /// VMs whose labels match.
    LabelSelector,
    /// Only what `explicitMappings` names.
    Explicit,
}

/// One MAC address and its VM.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExplicitMapping {
    /// The MAC address.
    pub mac_address: String,
    /// The VM's name.
    pub vm_name: String,
    /// The VM's namespace.
    pub namespace: String,
}

/// Where the SecureOn passwords are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecureOn {
    /// A Secret in the manager's namespace.
    pub secret_name: String,
}

/// Fields of the original implementation, accepted and not acted on.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct AgentFields {
    /// Belongs to the DaemonSet.
    pub node_selector: BTreeMap<String, String>,
    /// Belongs to the DaemonSet.
    pub tolerations: Vec<Toleration>,
    /// Belongs to the DaemonSet.
    pub resources: Option<ResourceRequirements>,
    /// Belongs to the DaemonSet.
    pub image: Option<String>,
    /// Belongs to the DaemonSet.
    pub image_pull_policy: Option<String>,
    /// Belongs to the DaemonSet.
    pub priority_class_name: Option<String>,
}

/// What the managers found.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct WolConfigStatus {
    /// VMs that this config makes wakeable.
    #[serde(rename = "managedVMs")]
    pub managed_vms: i64,
    /// When the VMs were last counted.
    pub last_sync: Option<Time>,
    /// Ready, Degraded and others.
    pub conditions: Vec<Condition>,
}

/// Prints the `CustomResourceDefinition` as YAML, byte for byte the same each time.
///
/// # Errors
///
/// `out` cannot be written.
pub fn print(_out: &mut impl std::io::Write) -> anyhow::Result<()> {
    anyhow::bail!("not built yet")
}
