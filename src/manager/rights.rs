//! Owns [`RIGHTS`]: all that a manager may do at the API server, each with its reason. No part of
//! the manager reads it; `just manifests` makes `deploy/base/rbac.yaml` of it, the tests' managers
//! run under it, and `docs/security.md` shows it.
//!
//! A right is there because the code cannot do without it; `tests/rights.rs` finds those that
//! nothing uses. Deleting, and everything about workloads, is not there on purpose: whoever may
//! create a workload is root on every node.

mod manifest;

use std::fmt;

use super::leader;

pub use manifest::{AGENT, MANAGER, manifest};

/// Something that a manager may do.
#[derive(Debug, Clone, Copy)]
pub struct Right {
    /// Where.
    pub scope: Scope,
    /// The group of the resource; empty for the core.
    pub group: &'static str,
    /// The resource, or one of its parts, such as `virtualmachines/start`.
    pub resource: &'static str,
    /// The only object that it is about, if it is about one.
    pub name: Option<&'static str>,
    /// What may be done with it.
    pub verbs: &'static [Verb],
    /// What the manager could not do without it.
    pub why: &'static str,
}

/// Where a right holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// In the whole cluster.
    Cluster,
    /// In the namespace of the installation only.
    Namespace,
}

/// What may be done. There is no other verb: no right can be more than this, and none can be `*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "these are the verbs of Kubernetes")]
pub enum Verb {
    Get,
    List,
    Watch,
    Create,
    Update,
    Patch,
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Watch => "watch",
            Self::Create => "create",
            Self::Update => "update",
            Self::Patch => "patch",
        })
    }
}

use Scope::{Cluster, Namespace};
use Verb::{Create, Get, List, Patch, Update, Watch};

const OURS: &str = "wol.pillon.org";
const CORE: &str = "";
const KUBEVIRT: &str = "kubevirt.io";
const VIRT_API: &str = "subresources.kubevirt.io";
const LEASES: &str = "coordination.k8s.io";

/// All rights of a manager.
pub const RIGHTS: &[Right] = &[
    in_cluster(OURS, "wolconfigs", &[List, Watch])
        .to("know which VMs packets may wake, and which packets"),
    in_cluster(OURS, "wolconfigs/status", &[Patch])
        .to("tell what a WolConfig does. The spec stays the admin's"),
    in_cluster(KUBEVIRT, "virtualmachines", &[List, Watch])
        .to("know which VM has a MAC address, and whether it is on"),
    in_cluster(KUBEVIRT, "virtualmachines", &[Get])
        .to("look at a VM again when KubeVirt's answer to a start leaves open what became of it, or when \
             the watch may have missed that it went off"),
    in_cluster(VIRT_API, "virtualmachines/start", &[Update])
        .to("start a VM. No right to change the VM itself, or to stop it, goes with it"),
    in_cluster(VIRT_API, "virtualmachineinstances/unpause", &[Update])
        .to("unpause a VM, where a WolConfig says wakePaused"),
    in_cluster(CORE, "events", &[Create, Patch])
        .to("tell on a VM or a WolConfig what a packet did, and count repeats in the same Event"),
    in_cluster("authentication.k8s.io", "tokenreviews", &[Create])
        .to("ask whether an agent's token is one, for whom, and on which node"),
    in_namespace(LEASES, "leases", &[Create]).to(
        "make the Lease of the leader, also after somebody deleted it. RBAC cannot narrow this \
             to a name, and no other program reads a Lease here",
    ),
    in_namespace(LEASES, "leases", &[Get, Update])
        .of(leader::NAME)
        .to("become the leader, which alone writes statuses and renews the CA, and stay it"),
    in_namespace("apps", "daemonsets", &[List, Watch])
        .of("kubevirt-wol-agent")
        .to(
            "show in the status on how many nodes an agent should run. There is no right to \
             change it: that would be root on every node",
        ),
    in_namespace(CORE, "secrets", &[Get, List, Watch, Update])
        .of("kubevirt-wol-ca")
        .to(
            "keep the CA by which agents know a manager. The manifests ship it empty, so that no \
             Secret has to be created",
        ),
    in_namespace(CORE, "configmaps", &[Get, List, Watch, Update])
        .of("kubevirt-wol-ca-bundle")
        .to("publish the CA's certificate, never its key, where agents mount it"),
    in_namespace(CORE, "secrets", &[List, Watch])
        .of("kubevirt-wol-secureon")
        .to("compare SecureOn passwords. Other Secrets that WolConfigs name need a rule like this"),
    in_namespace(CORE, "configmaps", &[List, Watch])
        .of("kubevirt-wol-banned-nodes")
        .to("shut out the agents of the nodes that an admin bans"),
    in_namespace(CORE, "pods", &[Get]).to(
        "learn the node of an agent's pod, where a token does not say it (before Kubernetes 1.30)",
    ),
];

const fn in_cluster(group: &'static str, resource: &'static str, verbs: &'static [Verb]) -> Right {
    Right {
        scope: Cluster,
        group,
        resource,
        name: None,
        verbs,
        why: "",
    }
}

const fn in_namespace(
    group: &'static str,
    resource: &'static str,
    verbs: &'static [Verb],
) -> Right {
    Right {
        scope: Namespace,
        ..in_cluster(group, resource, verbs)
    }
}

impl Right {
    /// Narrows it to one object.
    const fn of(self, name: &'static str) -> Self {
        Self {
            name: Some(name),
            ..self
        }
    }

    /// Says what it is for.
    const fn to(self, why: &'static str) -> Self {
        Self { why, ..self }
    }

    /// The verbs, as `get, list, watch`.
    #[must_use]
    pub fn verbs(&self) -> String {
        let verbs: Vec<_> = self.verbs.iter().map(Verb::to_string).collect();
        verbs.join(", ")
    }
}
