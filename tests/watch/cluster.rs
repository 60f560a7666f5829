//! The API stand-in with the CRDs, the watches beside it, and what they have brought about.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use k8s_openapi::{
    api::core::v1::Namespace,
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client,
    api::{
        ApiResource, DeleteParams, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams,
    },
};
use kubevirt_wol::{
    admin::{Liveness, Readiness},
    mac::MacAddr,
    manager::{
        config::Windows,
        directory::{Directory, Lookup},
        pulse::Pulse,
        vm::{Vm, VmKey},
        watch::{Contact, Metrics, Observer, Watch},
    },
    packet::Trailing,
    settings::{Rates, Settings},
    shutdown::Tasks,
    telemetry,
    wake::{Carrier, Origin, Wake},
};
use prometheus_client::{encoding::text::encode, registry::Registry};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::common::apiserver::ApiServer;

/// What the watches watch.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum ResourceKind {
    Vm,
    Config,
}

pub(crate) struct Cluster {
    pub(crate) server: ApiServer,
    pub(crate) directory: Arc<Directory>,
    pub(crate) contact: Contact,
    pub(crate) windows: Windows,
    client: Client,
    told: Arc<Told>,
    readiness: Readiness,
    settings: watch::Sender<(u64, Arc<Settings>)>,
    registry: Registry,
    /// Ends the watches when it is dropped.
    tasks: Option<Tasks>,
}

#[derive(Default)]
struct Told(Mutex<Vec<String>>);

impl Observer for Told {
    fn changed(&self, _before: Option<&Arc<Vm>>, vm: &Arc<Vm>) {
        self.0.lock().unwrap().push(format!("changed {}", vm.key));
    }

    fn deleted(&self, vm: &Arc<Vm>) {
        self.0.lock().unwrap().push(format!("deleted {}", vm.key));
    }
}

impl Cluster {
    /// An empty cluster, which nobody watches yet.
    pub(crate) async fn new() -> Self {
        let server = ApiServer::start().await;
        let client = server.client();
        let shop = serde_json::from_value(json!({"metadata": {"name": "shop"}})).unwrap();
        let namespaces: Api<Namespace> = Api::all(client.clone());
        let created = namespaces.create(&PostParams::default(), &shop).await;
        created.unwrap();
        Self {
            client,
            server,
            directory: Arc::default(),
            contact: Contact::new(Instant::now()),
            windows: Windows {
                dedup: Duration::from_secs(1),
                event_ttl: Duration::from_secs(7),
                rates: Rates::default(),
            },
            told: Arc::default(),
            readiness: Readiness::default(),
            settings: watch::Sender::default(),
            registry: telemetry::registry(),
            tasks: None,
        }
    }

    /// A watched cluster with both CRDs and a config that selects every VM.
    pub(crate) async fn with_everything() -> Self {
        let mut cluster = Self::new().await;
        cluster.install(ResourceKind::Vm).await;
        cluster.install(ResourceKind::Config).await;
        cluster.create(crate::config("default", &json!({}))).await;
        cluster.watch();
        cluster.ready().await;
        cluster
    }

    /// Starts the watches.
    pub(crate) fn watch(&mut self) {
        let token = CancellationToken::new();
        let watch = Watch {
            client: as_the_program(&self.server),
            directory: Arc::clone(&self.directory),
            contact: self.contact.clone(),
            pulse: Pulse::new(),
            metrics: Metrics::register(&mut self.registry),
            kubevirt: watch::Sender::new(true),
            stale: watch::Sender::default(),
            in_force: watch::Sender::default(),
            passwords: watch::Sender::default(),
            liveness: Liveness::default(),
            token: token.clone(),
        };
        self.contact.register(&mut self.registry);
        let mut tasks = Tasks::new(token);
        let gate = self.readiness.gate("the first list of VirtualMachines");
        let observer = Arc::clone(&self.told);
        tasks.spawn("vms", watch.clone().virtual_machines(vec![observer], gate));
        let gate = self.readiness.gate("the first list of WolConfigs");
        let settings = self.settings.clone();
        let configs = watch.wol_configs(self.windows, settings, gate);
        tasks.spawn("configs", configs);
        self.tasks = Some(tasks);
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.readiness.waiting_for().is_empty()
    }

    pub(crate) async fn ready(&self) {
        self.until("the manager is ready", || self.is_ready()).await;
    }

    /// Waits until every change is sure to be heard of.
    pub(crate) async fn in_contact(&self) {
        let well = || self.contact.age(Instant::now()).is_zero();
        self.until("the directory is kept true", well).await;
    }

    /// Waits until changes are known to escape.
    pub(crate) async fn out_of_contact(&self) {
        let old = || !self.contact.age(Instant::now()).is_zero();
        self.until("the directory grows old", old).await;
    }

    /// Waits for the outcome of a wake, named by the last byte of its address.
    pub(crate) async fn eventually(&self, last: u8, outcome: &str) {
        self.until(outcome, || self.look_up(last) == outcome).await;
    }

    /// A second is promised while the API server is well. Retries after a failure may wait for up
    /// to two, and a machine that runs many tests is slow.
    pub(crate) async fn until(&self, what: &str, holds: impl Fn() -> bool) {
        let began = Instant::now();
        while !holds() {
            assert!(
                began.elapsed() < Duration::from_secs(10),
                "not in time: {what}"
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub(crate) fn look_up(&self, last: u8) -> String {
        let wake = Wake {
            target: MacAddr::new([0x52, 0x54, 0, 0, 0, last]),
            trailing: Trailing::default(),
            origin: Origin {
                carrier: Carrier::Udp,
                interface: "eth0".into(),
                vlan: None,
                source_mac: None,
                source: None,
                source_port: 9,
                length: 102,
            },
        };
        match self.directory.look_up(&wake, Duration::ZERO) {
            Lookup::Wakeable { vm, unpause: true } => format!("wakes or unpauses {}", vm.key),
            Lookup::Wakeable { vm, .. } => format!("wakes {}", vm.key),
            Lookup::NotFound => "not found".into(),
            Lookup::NotSelected { vm, why } => format!("{}: {why:?}", vm.key),
            other => format!("{other:?}"),
        }
    }

    pub(crate) fn known(&self, name: &str) -> Option<Arc<Vm>> {
        self.directory.vm(&VmKey::new("shop", name))
    }

    /// What the observer was told, in order.
    pub(crate) fn told(&self) -> Vec<String> {
        self.told.0.lock().unwrap().clone()
    }

    pub(crate) fn settings(&self) -> (u64, Arc<Settings>) {
        self.settings.borrow().clone()
    }

    /// Whether a line of the metrics begins like this.
    pub(crate) fn has(&self, line: &str) -> bool {
        let mut text = String::new();
        encode(&mut text, &self.registry).unwrap();
        let line = format!("kubevirt_wol_{line}");
        text.lines().any(|found| found.starts_with(&line))
    }

    pub(crate) async fn install(&self, kind: ResourceKind) {
        let crd = match kind {
            ResourceKind::Vm => virtual_machines(),
            ResourceKind::Config => wol_configs(),
        };
        let crds: Api<CustomResourceDefinition> = Api::all(self.client.clone());
        let crd = serde_json::from_value(crd).unwrap();
        crds.create(&PostParams::default(), &crd).await.unwrap();
    }

    pub(crate) async fn uninstall(&self, kind: ResourceKind) {
        let name = match kind {
            ResourceKind::Vm => "virtualmachines.kubevirt.io",
            ResourceKind::Config => "wolconfigs.wol.pillon.org",
        };
        let crds: Api<CustomResourceDefinition> = Api::all(self.client.clone());
        crds.delete(name, &DeleteParams::default()).await.unwrap();
    }

    pub(crate) async fn create(&self, object: Value) {
        let kind = if object["kind"] == "VirtualMachine" {
            ResourceKind::Vm
        } else {
            ResourceKind::Config
        };
        let object = serde_json::from_value(object).unwrap();
        let api = self.api(kind);
        api.create(&PostParams::default(), &object).await.unwrap();
    }

    pub(crate) async fn patch(&self, kind: ResourceKind, name: &str, patch: Value) {
        let api = self.api(kind);
        let patch = Patch::Merge(&patch);
        api.patch(name, &PatchParams::default(), &patch)
            .await
            .unwrap();
    }

    pub(crate) async fn delete(&self, kind: ResourceKind, name: &str) {
        let api = self.api(kind);
        api.delete(name, &DeleteParams::default()).await.unwrap();
    }

    fn api(&self, kind: ResourceKind) -> Api<DynamicObject> {
        let of = |group, version, kind| {
            ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind))
        };
        let client = self.client.clone();
        match kind {
            ResourceKind::Vm => {
                let resource = of("kubevirt.io", "v1", "VirtualMachine");
                Api::namespaced_with(client, "shop", &resource)
            }
            ResourceKind::Config => {
                Api::all_with(client, &of("wol.pillon.org", "v1beta1", "WolConfig"))
            }
        }
    }
}

/// A client that does not retry by itself, as the manager's own.
fn as_the_program(server: &ApiServer) -> Client {
    let mut config = kube::Config::new(server.url().parse().unwrap());
    config.default_retry = false;
    kubevirt_wol::cluster::client(config).unwrap()
}

/// A stopped VM in namespace `shop`.
pub(crate) fn vm(name: &str, mac: &str) -> Value {
    let devices = json!({"interfaces": [{"name": "default", "macAddress": mac}]});
    json!({
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachine",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {
            "runStrategy": "Manual",
            "template": {"metadata": null, "spec": {"domain": {"devices": devices}}},
        },
        "status": {"printableStatus": "Stopped"},
    })
}

/// Admits anything, as an old or a broken installation may.
fn virtual_machines() -> Value {
    crd("kubevirt.io", "v1", "Namespaced", "VirtualMachine")
}

/// Likewise: an older schema is in force until somebody applies the new one.
fn wol_configs() -> Value {
    crd("wol.pillon.org", "v1beta1", "Cluster", "WolConfig")
}

fn crd(group: &str, version: &str, scope: &str, kind: &str) -> Value {
    let singular = kind.to_lowercase();
    let plural = format!("{singular}s");
    let anything = json!({"x-kubernetes-preserve-unknown-fields": true});
    let schema = json!({"type": "object", "properties": {"spec": anything, "status": anything}});
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.{group}")},
        "spec": {
            "group": group,
            "scope": scope,
            "names": {"kind": kind, "plural": plural, "singular": singular},
            "versions": [{
                "name": version,
                "served": true,
                "storage": true,
                "schema": {"openAPIV3Schema": schema},
            }],
        },
    })
}
