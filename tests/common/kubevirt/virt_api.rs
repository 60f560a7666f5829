//! virt-api: the subresources `start` and `unpause`, and the discovery of their group.

use std::sync::Arc;

use axum::{
    Json, Router,
    body::Bytes,
    extract::{Path, State},
    http::{HeaderMap, header::ACCEPT},
    response::Response,
    routing::{get, put},
};
use kube::{
    Api, Client,
    api::{DynamicObject, Patch, PatchParams},
};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{sync::oneshot, time::Instant};

use super::{
    answer::Answer,
    definition::resource,
    view::View,
    world::{Fault, Instance, Key, Phase, Start, World},
};

#[derive(Clone)]
struct VirtApi {
    world: Arc<World>,
    client: Client,
}

/// The options that a start may carry; others are ignored.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct StartOptions {
    paused: bool,
}

/// Serves both versions of the group.
pub fn router(world: Arc<World>, client: Client) -> Router {
    let in_group = "/apis/subresources.kubevirt.io/{version}";
    let not_allowed = async || Answer::Plain(405, "405: Method Not Allowed".into()).into_response();
    Router::new()
        .route("/apis/subresources.kubevirt.io", get(group))
        .route(in_group, get(resources))
        .route(
            &format!("{in_group}/namespaces/{{namespace}}/virtualmachines/{{name}}/start"),
            put(start).fallback(not_allowed),
        )
        .route(
            &format!(
                "{in_group}/namespaces/{{namespace}}/virtualmachineinstances/{{name}}/unpause"
            ),
            put(unpause).fallback(not_allowed),
        )
        .with_state(VirtApi { world, client })
}

async fn group() -> Json<Value> {
    let version =
        |v: &str| json!({"groupVersion": format!("subresources.kubevirt.io/{v}"), "version": v});
    Json(json!({
        "kind": "APIGroup", "apiVersion": "v1", "name": "subresources.kubevirt.io",
        "versions": [version("v1"), version("v1alpha3")], "preferredVersion": version("v1"),
    }))
}

async fn resources(Path(version): Path<String>) -> Json<Value> {
    let resource = |name: &str| json!({"name": name, "singularName": "", "namespaced": true, "kind": "", "verbs": []});
    Json(json!({
        "kind": "APIResourceList", "apiVersion": "v1",
        "groupVersion": format!("subresources.kubevirt.io/{version}"),
        "resources": [resource("virtualmachines/start"), resource("virtualmachineinstances/unpause")],
    }))
}

async fn start(
    State(api): State<VirtApi>,
    Path((_, namespace, name)): Path<(String, String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let (asked, key) = (Instant::now(), Key { namespace, name });
    let deed = {
        let (api, headers) = (api.clone(), headers.clone());
        async move {
            let answer = api.start(&key, &body).await;
            api.log((asked, key), &headers, &answer);
            answer
        }
    };
    api.serve(headers, deed).await
}

async fn unpause(
    State(api): State<VirtApi>,
    Path((_, namespace, name)): Path<(String, String, String)>,
    headers: HeaderMap,
) -> Response {
    let key = Key { namespace, name };
    let deed = {
        let api = api.clone();
        async move { api.unpause(&key).await }
    };
    api.serve(headers, deed).await
}

/// The routes name no media type that they produce, so that only an open wish can be met.
fn is_acceptable(headers: &HeaderMap) -> bool {
    let mut wishes = headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .peekable();
    wishes.peek().is_none() || wishes.any(|wish| wish.contains("*/*"))
}

impl VirtApi {
    /// Does what is asked, unless a fault keeps it from that. Like the real one it goes on with a
    /// call whose caller has hung up.
    async fn serve<F>(self, headers: HeaderMap, deed: F) -> Response
    where
        F: Future<Output = Answer> + Send + 'static,
    {
        let (sender, receiver) = oneshot::channel();
        let world = self.world.clone();
        world.spawn(async move {
            let answer = self.through_faults(&headers, deed).await;
            // Fails where the caller has hung up.
            let _ = sender.send(answer);
        });
        match receiver.await {
            Ok(answer) => answer.into_response(),
            Err(_) => Answer::Plain(503, "virt-api was ended".into()).into_response(),
        }
    }

    async fn through_faults(
        &self,
        headers: &HeaderMap,
        deed: impl Future<Output = Answer>,
    ) -> Answer {
        let delay = self.world.state().delay;
        tokio::time::sleep(delay).await;
        if !is_acceptable(headers) {
            let text = "406: Not Acceptable\n\nAvailable representations: ";
            return Answer::Plain(406, text.into());
        }
        match self.world.next_fault() {
            None => deed.await,
            Some(Fault::Hang) => {
                self.world.fault_lifted().await;
                deed.await
            }
            Some(Fault::Swallow) => {
                let answer = deed.await;
                self.world.fault_lifted().await;
                answer
            }
            Some(Fault::Refuse(code, message)) => {
                Answer::refused(code, reason(code), "virtualmachine", "", message)
            }
            Some(Fault::Busy(seconds)) => Answer::Busy(seconds),
            Some(Fault::Away) => {
                let why = "dial tcp 127.0.0.1:443: connect: connection refused";
                Answer::Plain(503, format!("error trying to reach service: {why}"))
            }
            Some(Fault::Denied) => Answer::Plain(401, "unauthorized\n".into()),
        }
    }

    fn log(&self, (asked, vm): (Instant, Key), headers: &HeaderMap, answer: &Answer) {
        let user = headers.get("x-remote-user").and_then(|v| v.to_str().ok());
        self.world.state().starts.push(Start {
            asked,
            at: Instant::now(),
            vm,
            user: user.map(Into::into),
            code: answer.code(),
            message: answer.message().into(),
        });
    }

    /// The steps and their order are those of virt-api.
    async fn start(&self, key: &Key, body: &[u8]) -> Answer {
        let vm = match self.read(key).await {
            Ok(vm) => vm,
            Err(answer) => return answer,
        };
        let conflict = |why: &str| Answer::conflict("virtualmachine", &key.name, why);
        let instance = self.world.state().instances.get(key).cloned();
        if instance.as_ref().is_some_and(|i| !i.phase.is_final()) {
            return conflict("VM is already running");
        }
        if vm.has_condition("ManualRecoveryRequired") {
            return conflict(
                "VM recovery required: Volume migration failed, leaving some volumes pointing to non-consistent targets",
            );
        }
        // JSON is YAML too; nothing at all reads as null.
        let Ok(options) = serde_yaml::from_slice::<Option<StartOptions>>(body) else {
            let text = "Can not unmarshal Request body to struct, error: cannot unmarshal";
            return Answer::refused(400, "BadRequest", "", "", text.into());
        };
        let options = options.unwrap_or_default();
        match vm.strategy() {
            Err(why) => Answer::internal(why),
            Ok("Halted") if options.paused => self.request_start(key, &vm, None, true).await,
            Ok("Halted") => self.switch_on(key, &vm).await,
            Ok("Manual") => {
                let finished = instance.filter(|i| i.phase.is_final());
                self.request_start(key, &vm, finished, options.paused).await
            }
            Ok("RerunOnFailure") => match instance {
                Some(i) if i.phase == Phase::Failed => {
                    conflict("RerunOnFailure does not support starting VM from failed state")
                }
                finished => self.request_start(key, &vm, finished, options.paused).await,
            },
            Ok(strategy @ ("Always" | "Once")) => conflict(&format!(
                "{strategy} does not support manual start requests"
            )),
            // Nothing is done, and nobody is told.
            Ok(_) => Answer::Accepted,
        }
    }

    /// Start of a halted VM: it becomes one that always runs.
    async fn switch_on(&self, key: &Key, vm: &View) -> Answer {
        // The webhook lets nobody change how a VM runs while its disks are in use.
        let denied = "admission webhook \"virtualmachine-validator.kubevirt.io\" denied the request: Cannot update";
        if let Some(snapshot) = vm.status_text("snapshotInProgress") {
            return Answer::internal(&format!(
                "{denied} vm running state until snapshot \"{snapshot}\" completes"
            ));
        }
        if let Some(restore) = vm.status_text("restoreInProgress") {
            return Answer::internal(&format!(
                "{denied} VM runStrategy until restore \"{restore}\" completes"
            ));
        }
        let (field, old, new) = match vm.running() {
            Some(running) => ("/spec/running", json!(running), json!(true)),
            None => ("/spec/runStrategy", json!("Halted"), json!("Always")),
        };
        let patch = json!([
            {"op": "test", "path": field, "value": old},
            {"op": "replace", "path": field, "value": new},
        ]);
        let patch = Patch::Json::<()>(serde_json::from_value(patch).expect("this is a patch"));
        let params = PatchParams::default();
        let result = self.vms(key).patch(&key.name, &params, &patch).await;
        self.patched(key, result)
    }

    /// Start of other VMs: the controller is asked, and first to clear away what has finished.
    async fn request_start(
        &self,
        key: &Key,
        vm: &View,
        finished: Option<Instance>,
        paused: bool,
    ) -> Answer {
        if vm.requests().next().is_some() {
            return Answer::internal("unable to complete request: stop/start already underway");
        }
        let stop = finished.map(|i| json!({"action": "Stop", "uid": i.uid}));
        let mut start = json!({"action": "Start"});
        if paused {
            start["data"] = json!({"paused": "true"});
        }
        let requests: Vec<Value> = stop.into_iter().chain([start]).collect();
        let (field, value) = if vm.has_status() {
            ("/status/stateChangeRequests", json!(requests))
        } else {
            ("/status", json!({"stateChangeRequests": requests}))
        };
        let patch = json!([{"op": "add", "path": field, "value": value}]);
        let patch = Patch::Json::<()>(serde_json::from_value(patch).expect("this is a patch"));
        let params = PatchParams::default();
        let result = self.vms(key).patch_status(&key.name, &params, &patch).await;
        self.patched(key, result)
    }

    fn patched(&self, key: &Key, result: kube::Result<DynamicObject>) -> Answer {
        match result {
            Ok(_) => {
                self.world.poke(key);
                Answer::Accepted
            }
            Err(kube::Error::Api(status)) if matches!(status.code, 409 | 422) => {
                Answer::lost_race()
            }
            Err(error) => Answer::internal(&error.to_string()),
        }
    }

    async fn unpause(&self, key: &Key) -> Answer {
        if !self.world.state().instances.contains_key(key) {
            return Answer::not_found("virtualmachineinstance", &key.name);
        }
        match self.read(key).await {
            Ok(vm) if vm.status_text("snapshotInProgress").is_some() => {
                return Answer::conflict("virtualmachine", &key.name, "VM snapshot is in progress");
            }
            _ => {}
        }
        let conflict = |why: &str| Answer::conflict("virtualmachineinstance", &key.name, why);
        {
            let mut state = self.world.state();
            match state.instances.get_mut(key) {
                None => return Answer::not_found("virtualmachineinstance", &key.name),
                Some(i) if i.phase != Phase::Running => return conflict("VMI is not running"),
                Some(i) if !i.paused => return conflict("VMI is not paused"),
                Some(i) => i.paused = false,
            }
        }
        self.world.poke(key);
        Answer::Done
    }

    async fn read(&self, key: &Key) -> Result<View, Answer> {
        match self.vms(key).get_opt(&key.name).await {
            Ok(Some(vm)) => Ok(View(vm)),
            Ok(None) => Err(Answer::not_found("virtualmachine", &key.name)),
            Err(error) => Err(Answer::internal(&format!("unable to retrieve vm: {error}"))),
        }
    }

    fn vms(&self, key: &Key) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), &key.namespace, &resource())
    }
}

/// The reason that goes with a code.
fn reason(code: u16) -> &'static str {
    match code {
        400 => "BadRequest",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "NotFound",
        409 => "Conflict",
        429 => "TooManyRequests",
        503 => "ServiceUnavailable",
        504 => "Timeout",
        _ => "InternalError",
    }
}
