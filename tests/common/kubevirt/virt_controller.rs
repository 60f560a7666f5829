//! virt-controller: carries out what the spec and the requests of each VM ask for, and tells its
//! status.

use std::{collections::BTreeMap, pin::pin, sync::Arc, time::Duration};

use futures::{StreamExt as _, TryStreamExt as _};
use kube::{
    Api, Client,
    api::{DynamicObject, Patch, PatchParams},
    runtime::{WatchStreamExt as _, watcher},
};
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::time::DelayQueue;

use super::{
    definition::resource,
    view::View,
    world::{Key, Phase, State, World},
};

/// Runs until it is dropped.
pub async fn run(world: Arc<World>, client: Client) {
    let api = Api::<DynamicObject>::all_with(client.clone(), &resource());
    let config = watcher::Config::default();
    let mut events = pin!(watcher(api, config).default_backoff());
    let mut controller = Controller {
        world: world.clone(),
        client,
        vms: BTreeMap::new(),
        later: DelayQueue::new(),
    };
    loop {
        let due = tokio::select! {
            event = events.try_next() => match event {
                Ok(Some(event)) => controller.learn(event),
                // The stream never ends; it says what went wrong and goes on.
                _ => Vec::new(),
            },
            Some(key) = controller.later.next(), if !controller.later.is_empty() => {
                vec![key.into_inner()]
            }
            () = world.changed.notified() => std::mem::take(&mut world.state().dirty).into_iter().collect(),
        };
        for key in due {
            controller.look_at(&key).await;
        }
    }
}

struct Controller {
    world: Arc<World>,
    client: Client,
    vms: BTreeMap<Key, View>,
    later: DelayQueue<Key>,
}

/// What one look at a VM leads to.
struct Step {
    status: Value,
    /// When to look again by itself.
    again: Option<Instant>,
}

impl Controller {
    /// Takes in a change, and returns what to look at.
    fn learn(&mut self, event: watcher::Event<DynamicObject>) -> Vec<Key> {
        match event {
            watcher::Event::Apply(vm) | watcher::Event::InitApply(vm) => {
                let vm = View(vm);
                let key = vm.key();
                // What this controller wrote itself may be newer than what the watch brings.
                let known = self
                    .vms
                    .get(&key)
                    .filter(|known| known.version() > vm.version());
                if known.is_none() {
                    self.vms.insert(key.clone(), vm);
                }
                vec![key]
            }
            watcher::Event::Delete(vm) => {
                let key = View(vm).key();
                self.vms.remove(&key);
                let mut state = self.world.state();
                state.instances.remove(&key);
                state.starting.remove(&key);
                Vec::new()
            }
            watcher::Event::Init | watcher::Event::InitDone => Vec::new(),
        }
    }

    async fn look_at(&mut self, key: &Key) {
        let Some(vm) = self.vms.get(key) else { return };
        let step = {
            let mut state = self.world.state();
            if state.controller_stopped {
                return;
            }
            Look {
                world: &self.world,
                state: &mut state,
                key,
                vm,
            }
            .step()
        };
        if let Some(again) = step.again {
            self.later.insert_at(key.clone(), again);
        }
        if !says(vm.status(), &step.status) {
            let version = vm.0.metadata.resource_version.clone();
            self.tell(key, version, step.status).await;
        }
    }

    /// Writes the status, unless the VM has changed: then its news comes by the watch.
    async fn tell(&mut self, key: &Key, version: Option<String>, status: Value) {
        let api =
            Api::<DynamicObject>::namespaced_with(self.client.clone(), &key.namespace, &resource());
        let patch = json!({"metadata": {"resourceVersion": version}, "status": status});
        let params = PatchParams::default();
        let result = api
            .patch_status(&key.name, &params, &Patch::Merge(patch))
            .await;
        match result {
            Ok(vm) => {
                self.vms.insert(key.clone(), View(vm));
            }
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
            // The API server is away.
            Err(_) => {
                self.later.insert(key.clone(), Duration::from_millis(50));
            }
        }
    }
}

/// Whether a status says all of this already; null stands for absence.
fn says(status: &Value, wanted: &Value) -> bool {
    wanted
        .as_object()
        .into_iter()
        .flatten()
        .all(|(field, value)| status[field] == *value)
}

/// One look at one VM.
struct Look<'a> {
    world: &'a World,
    state: &'a mut State,
    key: &'a Key,
    vm: &'a View,
}

impl Look<'_> {
    fn step(mut self) -> Step {
        let now = Instant::now();
        let mut requests: Vec<Value> = self.vm.requests().cloned().collect();
        let held = self.state.held.get(self.key).cloned();
        if held.is_none() {
            self.let_time_pass(now);
            self.carry_out(&mut requests, now);
            if self.vm.is_deleting() {
                self.state.instances.remove(self.key);
            } else if requests.is_empty() {
                self.keep_to_strategy(now);
            }
        }
        let is_held = held.is_some();
        let printable = held.flatten().unwrap_or_else(|| self.printable().into());
        if self.state.hold_at.get(self.key) == Some(&printable) {
            self.state.hold_at.remove(self.key);
            self.state.held.insert(self.key.clone(), None);
        }
        let instance = self.state.instances.get(self.key);
        let status = json!({
            "created": instance.is_some(),
            "ready": instance.is_some_and(|i| i.phase == Phase::Running && !i.deleting && !i.paused),
            "printableStatus": printable,
            "runStrategy": self.vm.strategy().unwrap_or("Halted"),
            "stateChangeRequests": if requests.is_empty() { Value::Null } else { json!(requests) },
        });
        let starting = self.state.starting.get(self.key).copied();
        let next = [instance.and_then(|i| i.due), starting];
        let again = next.into_iter().flatten().min();
        Step {
            status,
            again: again.filter(|_| !is_held),
        }
    }

    /// Moves the instance on, where it is due.
    fn let_time_pass(&mut self, now: Instant) {
        let Some(instance) = self.state.instances.get_mut(self.key) else {
            return;
        };
        if instance.due.is_none_or(|due| due > now) {
            return;
        }
        instance.due = None;
        match (instance.deleting, instance.phase) {
            (true, phase) if phase.is_final() => {
                self.state.instances.remove(self.key);
            }
            (true, _) => {
                // Finished, and there for a moment longer.
                instance.phase = Phase::Succeeded;
                instance.due = Some(now + self.world.speed.lag);
            }
            (false, Phase::Scheduling) => instance.phase = Phase::Running,
            (false, _) => {}
        }
    }

    /// Acts on the requests, and takes away those that are done.
    fn carry_out(&mut self, requests: &mut Vec<Value>, now: Instant) {
        let instance = self.state.instances.get(self.key).cloned();
        let Some(request) = requests.first() else {
            return;
        };
        let done = if request["action"] == "Stop" {
            match instance {
                Some(i) if request["uid"] == i.uid.as_str() => {
                    self.remove_instance(now);
                    false
                }
                _ => true,
            }
        } else {
            match instance {
                Some(i) => !i.deleting,
                None => self.create_instance(now),
            }
        };
        if done {
            requests.remove(0);
        }
    }

    fn keep_to_strategy(&mut self, now: Instant) {
        let strategy = self.vm.strategy().unwrap_or("Halted");
        let told = self.vm.status_text("runStrategy") == Some(strategy);
        let resting = self.state.resting.contains(self.key);
        if told && strategy == "RerunOnFailure" {
            self.state.resting.remove(self.key);
        }
        let boots = self.state.boots.get(self.key).copied().unwrap_or_default();
        let phase = self.state.instances.get(self.key).map(|i| i.phase);
        // It starts by itself when the strategy becomes this one, by creation or by a change.
        let switched = !told && !resting;
        match (strategy, phase) {
            ("Always", None) => {
                self.create_instance(now);
            }
            ("RerunOnFailure", None) if switched || self.state.starting.contains_key(self.key) => {
                self.create_instance(now);
            }
            ("Once", None) if boots == 0 && !resting => {
                self.create_instance(now);
            }
            ("RerunOnFailure", Some(Phase::Failed)) => {
                self.remove_instance(now);
                // Looked at again when it is gone.
                self.state
                    .starting
                    .insert(self.key.clone(), now + self.world.speed.lag);
            }
            ("Always", Some(phase)) if phase.is_final() => self.remove_instance(now),
            ("RerunOnFailure", Some(Phase::Succeeded)) | ("Halted", Some(_)) => {
                self.remove_instance(now);
            }
            _ => {}
        }
    }

    /// Makes an instance once the time has come; true when it is there.
    fn create_instance(&mut self, now: Instant) -> bool {
        let due = now + self.world.speed.lag;
        let due = *self.state.starting.entry(self.key.clone()).or_insert(due);
        let ready = due <= now;
        if ready {
            self.state.boot(self.key, now + self.world.speed.boot);
        }
        ready
    }

    fn remove_instance(&mut self, now: Instant) {
        if let Some(instance) = self.state.instances.get_mut(self.key)
            && !instance.deleting
        {
            instance.deleting = true;
            let time = if instance.phase.is_final() {
                self.world.speed.lag
            } else {
                self.world.speed.stop
            };
            instance.due = Some(now + time);
        }
    }

    /// The first that holds, in the order in which KubeVirt asks.
    fn printable(&self) -> &'static str {
        let instance = self.state.instances.get(self.key);
        match instance {
            _ if self.vm.is_deleting() => "Terminating",
            Some(i) if !i.phase.is_final() && i.deleting => "Stopping",
            Some(i) if i.phase == Phase::Running && i.paused => "Paused",
            Some(i) if i.phase == Phase::Running => "Running",
            Some(i) if i.phase == Phase::Scheduling => "Starting",
            _ => "Stopped",
        }
    }
}
