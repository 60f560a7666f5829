//! Owns `WolConfig`, the resource by which a cluster admin says which VMs a packet may wake.
//! What it tells back is in [`status`]; what the API server refuses is in `rules`.

#![allow(
    clippy::doc_markdown,
    reason = "these comments are what kubectl explain prints"
)]

mod rules;
pub mod status;

use std::collections::BTreeMap;

use anyhow::Context as _;
use k8s_openapi::{
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
    apimachinery::pkg::apis::meta::v1::LabelSelector,
};
use kube::{CustomResource, CustomResourceExt as _};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use status::WolConfigStatus;

/// What a WolConfig asks for. A packet wakes a VM when the selection, sourceRanges, interfaces and
/// secureOn of one WolConfig all hold for it. Several WolConfigs add up, and none widens or narrows
/// another; without any, nothing is wakeable.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "wol.pillon.org",
    version = "v1beta1",
    kind = "WolConfig",
    plural = "wolconfigs",
    shortname = "wolcfg",
    category = "kubevirt",
    label("app.kubernetes.io/name", "kubevirt-wol"),
    status = "WolConfigStatus",
    derive = "PartialEq",
    doc = "WolConfig says which KubeVirt VirtualMachines a Wake-on-LAN magic packet starts, and which packets count. Give those VMs runStrategy Manual or RerunOnFailure: KubeVirt turns a Halted VM that is started into an Always one, so that powering it off inside the guest only restarts it.",
    printcolumn = r#"{"name": "Mode", "type": "string", "jsonPath": ".spec.discoveryMode", "description": "How VMs are found"}"#,
    printcolumn = r#"{"name": "Ports", "type": "string", "jsonPath": ".status.ports", "description": "UDP ports that this config asks agents to listen on"}"#,
    printcolumn = r#"{"name": "VMs", "type": "integer", "jsonPath": ".status.managedVMs", "description": "VMs that a packet can wake"}"#,
    printcolumn = r#"{"name": "Agents", "type": "integer", "jsonPath": ".status.agentStatus.connected", "description": "Nodes whose agent is connected"}"#,
    printcolumn = r#"{"name": "Ready", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].status", "description": "Whether packets wake VMs"}"#,
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#,
    printcolumn = r#"{"name": "Conflicts", "type": "integer", "jsonPath": ".status.conflictsTotal", "description": "MAC addresses that several VMs have, so that none of them is woken", "priority": 1}"#,
    printcolumn = r#"{"name": "Last Wake", "type": "date", "jsonPath": ".status.lastWake.time", "description": "When a packet last woke a VM by this config", "priority": 1}"#
)]
#[serde(rename_all = "camelCase", default)]
#[schemars(transform = rules::spec)]
pub struct WolConfigSpec {
    /// How VMs are found. All: every VM in the namespaces of namespaceSelectors. LabelSelector:
    /// those of them whose labels match vmSelector. Explicit: only what explicitMappings names.
    pub discovery_mode: DiscoveryMode,

    /// Names of the namespaces whose VMs are wakeable, without wildcards; empty means all
    /// namespaces.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1024), inner(length(max = 63)), transform = rules::namespaces)]
    pub namespace_selectors: Vec<String>,

    /// Labels that a VM must have. Required, and not empty, in mode LabelSelector; ignored in the
    /// other modes. The labels are those of the VirtualMachine, not of its template.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(transform = rules::selector)]
    pub vm_selector: Option<LabelSelector>,

    /// MAC addresses and the VMs that they wake. Required in mode Explicit. In every mode an entry
    /// here goes before what is found by discovery for the same address, and the VM need not exist
    /// yet.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10000), transform = rules::keyed_by_mac)]
    pub explicit_mappings: Vec<ExplicitMapping>,

    /// UDP ports where agents listen; agents listen on the ports of all WolConfigs. Ports 9 and 7,
    /// where most senders send, if neither this nor wolPort is given. Raw Ethernet packets
    /// (EtherType 0x0842) are heard whatever the ports.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10), inner(range(min = 1, max = 65535)))]
    pub wol_ports: Vec<i32>,

    /// One UDP port where agents listen: a short form of wolPorts. If both are given, both count.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub wol_port: Option<i32>,

    /// For how many seconds this config may be acted on while the API server is away, so that
    /// changes of VMs and configs do not arrive. After that a packet is put off, not refused, and
    /// wakes nothing by this config until the API server is back. While it is there, the time does
    /// not count.
    #[serde(rename = "cacheTTL", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = i32::MAX), extend("default" = 300))]
    pub cache_ttl: Option<i64>,

    /// Networks whose packets count, such as 10.0.0.0/24 or fd00::/8; empty means all. If any is
    /// given, raw Ethernet packets, which have no IP address, do not count.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 64)), transform = rules::networks)]
    pub source_ranges: Vec<String>,

    /// Interfaces of the node whose packets count, as shell patterns: eth* includes, !veth*
    /// excludes, and exclusion wins. If only exclusions are given, all others count. Empty means
    /// all but those that network plugins make for pods, so that no pod can wake a VM over its own
    /// link: !veth*, !cali*, !lxc*, !cilium_*, !ovn-k8s-*, !antrea-*, !cni*, !docker*, !cbr*,
    /// !kube-bridge, !flannel*, !tunl0, !vxlan*.calico, !genev_sys_*.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 64)), transform = rules::interfaces)]
    pub interfaces: Vec<String>,

    /// Demands that packets carry a SecureOn password. It travels in the clear: it keeps accidents
    /// and the curious out, not someone who listens on the same network. Another WolConfig without it that
    /// selects the same VMs wakes them without a password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secure_on: Option<SecureOn>,

    /// Whether a wake unpauses a paused VM. KubeVirt itself pauses a VM whose storage fails, so
    /// leave this off unless VMs are paused on purpose.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub wake_paused: bool,

    /// Where agents run. Accepted for compatibility and not acted on: agents are a DaemonSet of
    /// their own, and these settings belong to its manifest.
    #[serde(skip_serializing_if = "Option::is_none")]
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

/// A MAC address and the VM that it wakes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExplicitMapping {
    /// The MAC address that packets name, such as 52:54:00:12:34:56. Also understood are
    /// 52-54-00-12-34-56, 5254.0012.3456 and 525400123456, in either case.
    #[schemars(length(max = 64), transform = rules::mac)]
    pub mac_address: String,
    /// The name of the VirtualMachine. It need not exist yet.
    #[schemars(length(min = 1, max = 253))]
    pub vm_name: String,
    /// The namespace of the VirtualMachine.
    #[schemars(length(min = 1, max = 63))]
    pub namespace: String,
}

/// Where the SecureOn passwords are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecureOn {
    /// The name of a Secret in the manager's namespace, one of those that the manager's Role names:
    /// kubevirt-wol-secureon, unless the installation was changed. Its keys are namespace.vm, or
    /// default for the VMs that have no key of their own; its values are the passwords: four or six
    /// bytes, or a text such as 192.168.1.1 or 01:23:45:67:89:ab.
    #[schemars(length(max = 253), transform = rules::object_name)]
    pub secret_name: String,
}

/// Settings of the agents' pods, accepted and not acted on.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct AgentFields {
    /// Not acted on; a setting of the agents' DaemonSet.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,
    /// Not acted on; a setting of the agents' DaemonSet.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "rules::any_objects")]
    pub tolerations: Vec<Value>,
    /// Not acted on; a setting of the agents' DaemonSet.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::any_object")]
    pub resources: Option<Value>,
    /// Not acted on; a setting of the agents' DaemonSet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Not acted on; a setting of the agents' DaemonSet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_pull_policy: Option<String>,
    /// Not acted on; a setting of the agents' DaemonSet.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::any_object")]
    pub update_strategy: Option<Value>,
    /// Not acted on; a setting of the agents' DaemonSet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority_class_name: Option<String>,
}

/// The `CustomResourceDefinition` as it is installed.
#[must_use]
pub fn definition() -> CustomResourceDefinition {
    let mut crd = WolConfig::crd();
    for version in &mut crd.spec.versions {
        if let Some(schema) = &mut version.schema
            && let Some(root) = &mut schema.open_api_v3_schema
        {
            rules::plain(root);
            rules::spec_may_be_absent(root);
        }
    }
    crd
}

/// Prints the `CustomResourceDefinition` as YAML, byte for byte the same each time.
///
/// # Errors
///
/// `out` cannot be written.
pub fn print(out: &mut impl std::io::Write) -> anyhow::Result<()> {
    let yaml = serde_yaml::to_string(&definition()).context("cannot write the CRD as YAML")?;
    out.write_all(yaml.as_bytes())
        .context("cannot print the CRD")
}
