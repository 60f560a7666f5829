//! Owns the manager's view of a virtual machine: who it is, its addresses, and whether a start
//! makes sense. Pure; the wire type is in `kubevirt`.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Instant};

use crate::mac::MacAddr;

/// Names a VM within the cluster.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VmKey {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
}

impl VmKey {
    /// Makes a key.
    #[must_use]
    pub fn new(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl fmt::Display for VmKey {
    /// Writes `namespace/name`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// What we keep of a VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vm {
    /// Its name.
    pub key: VmKey,
    /// Tells it from an earlier VM of the same name.
    pub uid: Arc<str>,
    /// The version that this view was made from.
    pub resource_version: Arc<str>,
    /// Its labels, for selectors.
    pub labels: BTreeMap<String, String>,
    /// The addresses in its spec that a packet can name.
    pub macs: Vec<MacAddr>,
    /// Addresses in its spec that no packet can name.
    pub bad_macs: Vec<String>,
    /// What a wake shall do with it.
    pub power: Power,
    /// When it was last seen to go from off to on; none where that was never seen.
    pub on_since: Option<Instant>,
}

/// What a wake shall do, as seen from `runStrategy` and `printableStatus` (table in
/// docs/vm-states.md).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Power {
    /// Off; a start is in order.
    Off,
    /// On, or on its way.
    On,
    /// On its way, but stuck for the reason in `printableStatus`; a start would change nothing.
    Stuck(String),
    /// Stopping: start it as soon as it has stopped.
    Stopping,
    /// Never started by a wake, for the reason given.
    Unsupported(&'static str),
    /// Being deleted.
    Gone,
}
