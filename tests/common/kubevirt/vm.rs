//! Virtual machines as users write them.

use std::{collections::BTreeMap, fmt};

use serde_json::{Value, json};

/// What KubeVirt does to keep a VM on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunStrategy {
    Always,
    RerunOnFailure,
    Manual,
    Halted,
    Once,
    WaitAsReceiver,
}

impl fmt::Display for RunStrategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// A VM to be.
#[derive(Debug, Clone)]
pub struct Vm {
    namespace: String,
    name: String,
    labels: BTreeMap<String, String>,
    interfaces: Vec<Value>,
    power: (&'static str, Value),
    finalizers: Vec<String>,
}

/// A VM without interfaces, in runStrategy Manual.
pub fn vm(namespace: &str, name: &str) -> Vm {
    Vm {
        namespace: namespace.into(),
        name: name.into(),
        labels: BTreeMap::new(),
        interfaces: Vec::new(),
        power: ("runStrategy", json!("Manual")),
        finalizers: Vec::new(),
    }
}

impl Vm {
    /// Adds an interface with this address, written as given.
    pub fn mac(self, text: &str) -> Self {
        self.interface(json!({"macAddress": text, "masquerade": {}}))
    }

    /// Adds an interface that gets its address from the network plugin, anew at each boot.
    pub fn interface_without_mac(self) -> Self {
        self.interface(json!({"masquerade": {}}))
    }

    /// Adds an interface that is unplugged.
    pub fn unplugged(self, mac: &str) -> Self {
        self.interface(json!({"macAddress": mac, "bridge": {}, "state": "absent"}))
    }

    fn interface(mut self, mut interface: Value) -> Self {
        interface["name"] = format!("net{}", self.interfaces.len()).into();
        self.interfaces.push(interface);
        self
    }

    /// Sets `spec.runStrategy`.
    pub fn run_strategy(mut self, strategy: RunStrategy) -> Self {
        self.power = ("runStrategy", strategy.to_string().into());
        self
    }

    /// Sets the deprecated `spec.running` instead.
    pub fn running(mut self, running: bool) -> Self {
        self.power = ("running", running.into());
        self
    }

    /// Adds a label.
    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.labels.insert(key.into(), value.into());
        self
    }

    /// Keeps the VM from going when it is deleted.
    pub fn finalizer(mut self, finalizer: &str) -> Self {
        self.finalizers.push(finalizer.into());
        self
    }

    /// Its namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The manifest.
    pub fn manifest(&self) -> Value {
        let (field, value) = &self.power;
        let devices = json!({"disks": [], "interfaces": self.interfaces});
        let mut manifest = json!({
            "apiVersion": "kubevirt.io/v1",
            "kind": "VirtualMachine",
            "metadata": {"namespace": self.namespace, "name": self.name, "labels": self.labels},
            "spec": {"template": {"spec": {"domain": {"devices": devices, "memory": {"guest": "1Gi"}}}}},
        });
        manifest["spec"][*field] = value.clone();
        if !self.finalizers.is_empty() {
            manifest["metadata"]["finalizers"] = json!(self.finalizers);
        }
        manifest
    }
}
