//! KubeVirt, simulated on any API server: the `VirtualMachine` definition, virt-api with `start`,
//! and virt-controller, which turns VMs on and off. No guest runs. What it answers and does, it
//! does as the real one at v1.9, including what is odd.

mod answer;
mod definition;
mod register;
mod view;
mod virt_api;
mod virt_controller;
pub mod vm;
mod world;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::Router;
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use view::View;
use world::World;

use definition::resource;
use vm::Vm;

pub use register::Exposure;
pub use world::{Fault, Key, Phase, Speed, Start};

/// A running KubeVirt; ends with this value, its VMs stay.
pub struct KubeVirt {
    client: Client,
    world: Arc<World>,
    tasks: JoinSet<()>,
    servers: Mutex<Vec<JoinSet<()>>>,
}

impl KubeVirt {
    /// Installs the definition and starts the controller. `client` needs an administrator's
    /// rights. To make `start` reachable, see [`KubeVirt::router`] and [`KubeVirt::register`].
    pub async fn start(client: Client, speed: Speed) -> Self {
        definition::install(&client).await;
        let world = Arc::new(World::new(speed));
        let mut tasks = JoinSet::new();
        tasks.spawn(virt_controller::run(world.clone(), client.clone()));
        Self {
            client,
            world,
            tasks,
            servers: Mutex::default(),
        }
    }

    /// virt-api, for an API server that forwards the group `subresources.kubevirt.io` to it by
    /// itself.
    pub fn router(&self) -> Router {
        virt_api::router(self.world.clone(), self.client.clone())
    }

    /// Serves virt-api on loopback and has a real API server on this machine forward to it.
    pub async fn register(&self) {
        self.expose(Exposure::Loopback).await;
    }

    /// Serves virt-api and has a real API server forward to it.
    pub async fn expose(&self, exposure: Exposure) {
        let server = register::register(&self.client, self.router(), exposure).await;
        self.servers().push(server);
    }

    /// Takes away what [`KubeVirt::register`] made: the group is unknown again.
    pub async fn unregister(&self) {
        register::unregister(&self.client).await;
        self.servers().clear();
    }

    /// Takes the definition away, and every VM with it.
    pub async fn uninstall(&self) {
        definition::uninstall(&self.client).await;
    }

    /// Installs the definition again.
    pub async fn install(&self) {
        definition::install(&self.client).await;
    }

    /// Creates a VM that is off, whatever its strategy would do with a new one, and waits until
    /// its status says so; `Always` starts nevertheless. Returns its uid.
    pub async fn add(&self, vm: &Vm) -> String {
        let key = Key::new(vm.namespace(), vm.name());
        self.world.state().resting.insert(key);
        let uid = self.create(vm).await;
        self.wait_for(vm.namespace(), vm.name(), "a status", |vm| {
            vm["status"]["runStrategy"].is_string()
        })
        .await;
        uid
    }

    /// Creates a VM, and leaves it to the controller. Returns its uid.
    pub async fn create(&self, vm: &Vm) -> String {
        let object = serde_json::from_value(vm.manifest()).expect("this is a manifest");
        let api = self.vms(vm.namespace());
        let vm = api.create(&PostParams::default(), &object).await;
        vm.expect("the VM is taken")
            .uid()
            .expect("a stored object has a uid")
    }

    /// Deletes a VM.
    pub async fn delete(&self, namespace: &str, name: &str) {
        let api = self.vms(namespace);
        let result = api.delete(name, &DeleteParams::default()).await;
        result.expect("the VM can be deleted");
    }

    /// The VM as it is stored.
    pub async fn get(&self, namespace: &str, name: &str) -> Value {
        let vm = self.vms(namespace).get(name).await;
        serde_json::to_value(vm.expect("the VM is there")).expect("objects are JSON")
    }

    /// Changes the VM as a user does, by a merge patch.
    pub async fn edit(&self, namespace: &str, name: &str, patch: Value) {
        let params = PatchParams::default();
        let api = self.vms(namespace);
        let result = api.patch(name, &params, &Patch::Merge(patch)).await;
        result.expect("the VM can be changed");
    }

    /// Changes fields of the VM's status, such as `snapshotInProgress`.
    pub async fn edit_status(&self, namespace: &str, name: &str, status: Value) {
        let params = PatchParams::default();
        let patch = Patch::Merge(json!({"status": status}));
        let api = self.vms(namespace);
        let result = api.patch_status(name, &params, &patch).await;
        result.expect("the status can be changed");
    }

    /// Stops the VM as `virtctl stop` does.
    pub async fn stop(&self, namespace: &str, name: &str) {
        let vm = self
            .vms(namespace)
            .get(name)
            .await
            .expect("the VM is there");
        let vm = View(vm);
        let instance = self.world.state().instances.get(&vm.key()).cloned();
        match vm.strategy().expect("the VM has a strategy") {
            "Manual" | "RerunOnFailure" => {
                let uid = instance.expect("only a VM that is on can be stopped").uid;
                let requests = json!([{"action": "Stop", "uid": uid}]);
                self.edit_status(namespace, name, json!({"stateChangeRequests": requests}))
                    .await;
            }
            _ if vm.running().is_some() => {
                self.edit(namespace, name, json!({"spec": {"running": false}}))
                    .await;
            }
            _ => {
                self.edit(namespace, name, json!({"spec": {"runStrategy": "Halted"}}))
                    .await;
            }
        }
    }

    /// The guest powers itself off, or crashes: its instance ends in `phase`.
    pub fn guest_ends(&self, namespace: &str, name: &str, phase: Phase) {
        let key = Key::new(namespace, name);
        if let Some(instance) = self.world.state().instances.get_mut(&key) {
            instance.phase = phase;
            instance.due = None;
        }
        self.world.poke(&key);
    }

    /// Pauses the guest.
    pub fn pause(&self, namespace: &str, name: &str) {
        let key = Key::new(namespace, name);
        if let Some(instance) = self.world.state().instances.get_mut(&key) {
            instance.paused = true;
        }
        self.world.poke(&key);
    }

    /// Keeps the VM as it is, however long: a slow boot, a guest that takes its time to stop.
    pub fn hold(&self, namespace: &str, name: &str) {
        let key = Key::new(namespace, name);
        self.world.state().held.insert(key, None);
    }

    /// Keeps the VM as it is once it shows this status.
    pub fn hold_at(&self, namespace: &str, name: &str, printable: &str) {
        let key = Key::new(namespace, name);
        self.world.state().hold_at.insert(key, printable.into());
    }

    /// Keeps the VM as it is, and has its status show this, such as `CrashLoopBackOff`.
    pub fn show(&self, namespace: &str, name: &str, printable: &str) {
        let key = Key::new(namespace, name);
        let printable = Some(printable.to_owned());
        self.world.state().held.insert(key.clone(), printable);
        self.world.poke(&key);
    }

    /// Lets a VM go on that was held.
    pub fn release(&self, namespace: &str, name: &str) {
        let key = Key::new(namespace, name);
        self.world.state().held.remove(&key);
        self.world.poke(&key);
    }

    /// Stops virt-controller, or has it go on.
    pub fn stop_controller(&self, stopped: bool) {
        {
            let mut state = self.world.state();
            state.controller_stopped = stopped;
            let all: Vec<Key> = state.instances.keys().cloned().collect();
            state.dirty.extend(all);
        }
        self.world.changed.notify_one();
    }

    /// What is wrong with virt-api from now on; none lifts it.
    pub fn fault(&self, fault: Option<Fault>) {
        self.world.fault.send_replace(fault);
    }

    /// What is wrong with virt-api for one call, after those asked for before.
    pub fn fault_once(&self, fault: Fault) {
        self.world.state().faults_once.push_back(fault);
    }

    /// How long virt-api takes for each call.
    pub fn delay(&self, delay: Duration) {
        self.world.state().delay = delay;
    }

    /// Forgets every VM and every call: for a test that shares an API server with others.
    pub fn forget(&self) {
        *self.world.state() = world::State::default();
    }

    /// Every call of `start` that was handled, in order.
    pub fn starts(&self) -> Vec<Start> {
        self.world.state().starts.clone()
    }

    /// The codes that calls of `start` for this VM got.
    pub fn codes(&self, namespace: &str, name: &str) -> Vec<u16> {
        let key = Key::new(namespace, name);
        let state = self.world.state();
        let starts = state.starts.iter().filter(|start| start.vm == key);
        starts.map(|start| start.code).collect()
    }

    /// How often the VM was really started.
    pub fn boots(&self, namespace: &str, name: &str) -> usize {
        let key = Key::new(namespace, name);
        let state = self.world.state();
        state.boots.get(&key).copied().unwrap_or_default()
    }

    /// Waits until the VM shows this status.
    pub async fn wait_for_status(&self, namespace: &str, name: &str, printable: &str) -> Value {
        self.wait_for(namespace, name, printable, |vm| {
            vm["status"]["printableStatus"] == printable
        })
        .await
    }

    /// Waits until `wanted` holds of the VM.
    pub async fn wait_for(
        &self,
        namespace: &str,
        name: &str,
        what: &str,
        wanted: impl Fn(&Value) -> bool,
    ) -> Value {
        let mut vm = Value::Null;
        let waiting = async {
            loop {
                vm = self.get(namespace, name).await;
                if wanted(&vm) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let in_time = tokio::time::timeout(Duration::from_secs(30), waiting).await;
        assert!(
            in_time.is_ok(),
            "{namespace}/{name} does not show {what}: {vm:#}"
        );
        vm
    }

    fn servers(&self) -> MutexGuard<'_, Vec<JoinSet<()>>> {
        self.servers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn vms(&self, namespace: &str) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), namespace, &resource())
    }
}

impl Drop for KubeVirt {
    fn drop(&mut self) {
        self.tasks.abort_all();
        self.world.end_calls();
    }
}
