//! Owns the slice of KubeVirt's API that we use: the few fields of `VirtualMachine` that are ever
//! deserialised, and the addresses in them.

mod lenient;

use std::{borrow::Cow, collections::BTreeMap, fmt, sync::Arc};

use k8s_openapi::{
    NamespaceResourceScope,
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};
use kube::Resource;
use serde::{Deserialize, Deserializer};

use crate::mac::MacAddr;
use lenient::{Field, Lenient, object};

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

/// A `VirtualMachine` (kubevirt.io/v1), as far as a wake is concerned.
///
/// Reading one never fails as long as it is JSON: a field of an unexpected type makes this one VM
/// [`malformed`](Self::malformed) instead of failing the whole list that it came with. Fields that
/// are not needed are skipped while reading, so that a VM of 50 kB costs a few hundred bytes.
#[derive(Debug, Clone, Default)]
pub struct VirtualMachine {
    /// Name, namespace, uid, resource version, labels, and the deletion timestamp; nothing else.
    pub metadata: ObjectMeta,
    /// `spec.runStrategy`
    pub run_strategy: Option<String>,
    /// `spec.running`, the deprecated form of `runStrategy`.
    pub running: Option<bool>,
    /// `spec.template.spec.domain.devices.interfaces`
    pub interfaces: Vec<Interface>,
    /// `status.printableStatus`
    pub printable_status: Option<String>,
    /// `status.ready`
    pub ready: bool,
    /// `status.created`: a VMI exists, be it a finished one.
    pub created: bool,
    /// `action` of the last of `status.stateChangeRequests`, `Start` or `Stop`: how the VM will be
    /// once KubeVirt has acted on them all.
    pub last_change_request: Option<String>,
    /// The first field that has not the type it should have.
    pub malformed: Option<&'static str>,
}

/// A network interface of a VM.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Interface {
    /// `macAddress`, in whatever notation its author used.
    pub mac_address: Option<String>,
    /// `state`
    pub state: Option<String>,
}

/// The addresses in a VM's spec.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Addresses {
    /// Those that a packet can name, each once.
    pub macs: Vec<MacAddr>,
    /// Those that no packet can name, as far as they are worth showing.
    pub unusable: Vec<String>,
}

/// At most so many unusable addresses of a VM are kept, and so many characters of each: they are
/// only shown.
const MAX_UNUSABLE: (usize, usize) = (8, 64);

impl VirtualMachine {
    /// The addresses of its interfaces.
    #[must_use]
    pub fn addresses(&self) -> Addresses {
        let mut found = Addresses::default();
        for interface in &self.interfaces {
            let Some(text) = interface.mac_address.as_deref().filter(|t| !t.is_empty()) else {
                continue;
            };
            // Unplugged, but still listed.
            if interface.state.as_deref() == Some("absent") {
                continue;
            }
            match text.parse::<MacAddr>() {
                Ok(mac) if found.macs.contains(&mac) => {}
                Ok(mac) if mac.is_station() => found.macs.push(mac),
                _ if found.unusable.len() < MAX_UNUSABLE.0 => {
                    let shown = text.chars().take(MAX_UNUSABLE.1).collect();
                    found.unusable.push(shown);
                }
                _ => {}
            }
        }
        found.macs.shrink_to_fit();
        found
    }
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Object {
    metadata: Field<Meta>,
    spec: Field<Spec>,
    status: Field<VmStatus>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Meta {
    name: Field<String>,
    namespace: Field<String>,
    uid: Field<String>,
    resource_version: Field<String>,
    labels: Field<BTreeMap<String, String>>,
    deletion_timestamp: Field<Time>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    running: Field<bool>,
    run_strategy: Field<String>,
    template: Field<Template>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Template {
    spec: Field<TemplateSpec>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct TemplateSpec {
    domain: Field<Domain>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Domain {
    devices: Field<Devices>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Devices {
    interfaces: Field<Vec<Field<Nic>>>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Nic {
    mac_address: Field<String>,
    state: Field<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct VmStatus {
    printable_status: Field<String>,
    ready: Field<bool>,
    created: Field<bool>,
    state_change_requests: Field<Vec<Field<StateChange>>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct StateChange {
    action: Field<String>,
}

object!(
    Object,
    Meta,
    Spec,
    Template,
    TemplateSpec,
    Domain,
    Devices,
    Nic,
    VmStatus,
    StateChange
);

impl<'de> Deserialize<'de> for VirtualMachine {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut vm = Self::default();
        let mut odd = None;
        let object = Field::<Object>::deserialize(deserializer)?.take("object", &mut odd);
        let object = object.unwrap_or_default();
        if let Some(metadata) = object.metadata.take("metadata", &mut odd) {
            vm.metadata = metadata.read(&mut odd);
        }
        if let Some(spec) = object.spec.take("spec", &mut odd) {
            vm.read_spec(spec, &mut odd);
        }
        if let Some(status) = object.status.take("status", &mut odd) {
            vm.read_status(status, &mut odd);
        }
        vm.malformed = odd;
        Ok(vm)
    }
}

type Odd = Option<&'static str>;

impl Meta {
    fn read(self, odd: &mut Odd) -> ObjectMeta {
        ObjectMeta {
            name: self.name.take("metadata.name", odd),
            namespace: self.namespace.take("metadata.namespace", odd),
            uid: self.uid.take("metadata.uid", odd),
            resource_version: self.resource_version.take("metadata.resourceVersion", odd),
            labels: self.labels.take("metadata.labels", odd),
            deletion_timestamp: self
                .deletion_timestamp
                .take("metadata.deletionTimestamp", odd),
            ..ObjectMeta::default()
        }
    }
}

impl VirtualMachine {
    fn read_spec(&mut self, spec: Spec, odd: &mut Odd) {
        self.running = spec.running.take("spec.running", odd);
        self.run_strategy = spec.run_strategy.take("spec.runStrategy", odd);
        let interfaces = spec
            .template
            .take("spec.template", odd)
            .and_then(|template| template.spec.take("spec.template.spec", odd))
            .and_then(|spec| spec.domain.take("spec.template.spec.domain", odd))
            .and_then(|domain| {
                domain
                    .devices
                    .take("spec.template.spec.domain.devices", odd)
            })
            .and_then(|devices| devices.interfaces.take("interfaces", odd));
        for nic in interfaces.unwrap_or_default() {
            if let Some(nic) = nic.take("interfaces", odd) {
                self.interfaces.push(Interface {
                    mac_address: nic.mac_address.take("interfaces[].macAddress", odd),
                    state: nic.state.take("interfaces[].state", odd),
                });
            }
        }
    }

    fn read_status(&mut self, status: VmStatus, odd: &mut Odd) {
        self.printable_status = status.printable_status.take("status.printableStatus", odd);
        self.ready = status.ready.take("status.ready", odd).unwrap_or_default();
        self.created = status
            .created
            .take("status.created", odd)
            .unwrap_or_default();
        self.last_change_request = status
            .state_change_requests
            .take("status.stateChangeRequests", odd)
            .and_then(|requests| requests.into_iter().next_back())
            .and_then(|request| request.take("status.stateChangeRequests", odd))
            .and_then(|request| request.action.take("status.stateChangeRequests", odd));
    }
}

impl Resource for VirtualMachine {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        "VirtualMachine".into()
    }

    fn group((): &()) -> Cow<'_, str> {
        "kubevirt.io".into()
    }

    fn version((): &()) -> Cow<'_, str> {
        "v1".into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        "virtualmachines".into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}
