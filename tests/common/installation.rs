//! What else an installation has, beside the managers and agents that tests run: a Deployment, a
//! DaemonSet and a Service, as a cluster's controllers would keep them. The same on both API servers.

use std::process::{Command, Output};

use kube::{
    Api,
    api::{DeleteParams, DynamicObject, Patch, PatchParams},
    core::{ApiResource, GroupVersionKind},
};
use serde_json::{Value, json};

use super::{
    cluster::{Cluster, eventually},
    trust::NAMESPACE,
};

pub const DEPLOYMENT: &str = "kubevirt-wol-controller-manager";
pub const DAEMON_SET: &str = "kubevirt-wol-agent";
pub const SERVICE: &str = "kubevirt-wol-grpc";

/// Makes everything as it should be: two managers, and agents on `nodes` nodes.
pub async fn install(c: &Cluster, nodes: i64) {
    deployment(c, 2).await;
    daemon_set(c, nodes, nodes).await;
    service(c, true).await;
}

/// The managers' Deployment, with so many of two that are ready.
pub async fn deployment(c: &Cluster, ready: i64) {
    let mut object = workload("Deployment", DEPLOYMENT);
    object["spec"]["replicas"] = json!(2);
    let status = json!({"replicas": 2, "readyReplicas": ready});
    apply(c, "apps/v1", &object, Some(status)).await;
}

/// The agents' DaemonSet.
pub async fn daemon_set(c: &Cluster, desired: i64, ready: i64) {
    let mut object = workload("DaemonSet", DAEMON_SET);
    object["spec"]["template"]["spec"]["hostNetwork"] = json!(true);
    let status = json!({
        "currentNumberScheduled": desired, "numberMisscheduled": 0,
        "desiredNumberScheduled": desired, "numberReady": ready, "numberAvailable": ready,
    });
    apply(c, "apps/v1", &object, Some(status)).await;
}

fn workload(kind: &str, name: &str) -> Value {
    json!({
        "kind": kind, "metadata": {"name": name},
        "spec": {
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "main", "image": "kubevirt-wol"}]},
            },
        },
    })
}

/// The Service, and whether its one endpoint is ready. Nobody is at its address.
pub async fn service(c: &Cluster, ready: bool) {
    let service = json!({
        "kind": "Service", "metadata": {"name": SERVICE},
        "spec": {"clusterIP": "None", "selector": {"app": DEPLOYMENT}, "ports": [{"port": 9090}]},
    });
    apply(c, "v1", &service, None).await;
    let slice = json!({
        "kind": "EndpointSlice",
        "metadata": {"name": SERVICE, "labels": {"kubernetes.io/service-name": SERVICE}},
        "addressType": "IPv4", "ports": [{"name": "grpc", "port": 9090, "protocol": "TCP"}],
        "endpoints": [{"addresses": ["192.0.2.1"], "conditions": {"ready": ready}}],
    });
    apply(c, "discovery.k8s.io/v1", &slice, None).await;
}

fn api(c: &Cluster, version: &str, kind: &str) -> Api<DynamicObject> {
    let (group, version) = version.split_once('/').unwrap_or(("", version));
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
    Api::namespaced_with(c.client.clone(), NAMESPACE, &kind)
}

async fn apply(c: &Cluster, version: &str, object: &Value, status: Option<Value>) {
    let mut object = object.clone();
    object["apiVersion"] = version.into();
    let api = api(c, version, object["kind"].as_str().expect("a kind"));
    let name = object["metadata"]["name"]
        .as_str()
        .expect("a name")
        .to_owned();
    let params = PatchParams::apply("test").force();
    let applied = api.patch(&name, &params, &Patch::Apply(&object)).await;
    applied.expect("the object is taken");
    if let Some(status) = status {
        let (params, patch) = (PatchParams::default(), json!({"status": status}));
        let patched = api
            .patch_status(&name, &params, &Patch::Merge(&patch))
            .await;
        patched.expect("the status is taken");
    }
}

/// Deletes one of the objects, where it is there.
pub async fn remove(c: &Cluster, version: &str, kind: &str, name: &str) {
    let api = api(c, version, kind);
    // Absent is as good.
    let _ = api
        .delete(name, &DeleteParams::background().grace_period(0))
        .await;
    eventually("the object is gone", async || {
        api.get_opt(name).await.expect("the API answers").is_none()
    })
    .await;
}

/// A command of the program for people, with the kubeconfig of an administrator.
pub fn command(c: &Cluster, name: &str, args: &[&str]) -> Command {
    let mut command = Command::new(c.program());
    for (key, _) in std::env::vars_os() {
        let ours = |key: &str| {
            ["WOL_", "POD_", "KUBERNETES_"]
                .iter()
                .any(|it| key.starts_with(it))
        };
        if key.to_str().is_some_and(ours) {
            command.env_remove(key);
        }
    }
    command.env("KUBECONFIG", c.kubeconfig());
    command.args([name, "--namespace", NAMESPACE]).args(args);
    command
}

/// What a command prints as JSON, and its exit code. It runs beside this runtime's tasks.
pub fn json_of(mut command: Command) -> (Value, Option<i32>) {
    command.arg("--json");
    let output = run(command);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    let value = serde_json::from_slice(&output.stdout);
    (
        value.unwrap_or_else(|error| panic!("{error}: {told}")),
        output.status.code(),
    )
}

/// Runs a command beside this runtime's tasks.
pub fn run(mut command: Command) -> Output {
    tokio::task::block_in_place(|| command.output().expect("the program can be started"))
}
