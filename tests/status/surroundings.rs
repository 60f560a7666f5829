//! What a config's status tells of what is around it: KubeVirt, the API server, the agents.

use std::{net::UdpSocket, time::Duration};

use k8s_openapi::{
    api::apps::v1::DaemonSet,
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api,
    api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams},
};
use kubevirt_wol::crd::WolConfig;
use serde_json::{Value, json};

use super::view::{MAC, NS, condition, config, is, prepared, status};
use crate::common::{
    apiserver::{Failure, Fault, WatchEnd, When},
    cluster::{Cluster, SOON, eventually},
    kubevirt::{Fault as KubeVirtFault, vm::vm},
    process::{free_tcp, free_udp},
};

/// Requests of managers for this resource, and nobody else's.
fn ours(resource: &'static str) -> When {
    When::matching(move |request| {
        let agent = request.headers.get("user-agent");
        let ours = agent.is_some_and(|agent| agent.as_bytes().starts_with(b"kubevirt-wol/"));
        ours && request.uri.path().ends_with(resource)
    })
}

pub(crate) async fn a_cluster_without_kubevirt_is_told(c: &Cluster) {
    prepared(c, json!({})).await;
    let _manager = c.manager(&[]).await;
    status(c, "default", "KubeVirt", |s| {
        is(s, "KubeVirtMissing", "False")
    })
    .await;
    c.kubevirt.uninstall().await;
    let seen = status(c, "default", "no KubeVirt", |s| {
        is(s, "KubeVirtMissing", "True")
    })
    .await;
    assert_eq!(condition(&seen, "Ready")["reason"], "KubeVirtMissing");
    c.kubevirt.install().await;
    let seen = status(c, "default", "KubeVirt", |s| {
        is(s, "KubeVirtMissing", "False")
    })
    .await;
    assert!(is(&seen, "Ready", "True"), "{seen:#}");
}

pub(crate) async fn agents_that_cannot_listen_are_named(c: &Cluster) {
    let holder = UdpSocket::bind("[::]:0").expect("a port is free");
    let taken = holder.local_addr().expect("it is bound").port();
    let port = free_udp();
    prepared(c, json!({"wolPorts": [taken, port]})).await;
    c.config("other", json!({"wolPort": port})).await;
    let manager = c.manager(&[]).await;
    let _agent = c.free_agent("node-1", &manager);
    let seen = status(c, "default", "the trouble", |s| {
        s["agentStatus"]["troubled"][0]["node"] == "node-1"
    })
    .await;
    let reason = seen["agentStatus"]["troubled"][0]["reason"]
        .as_str()
        .unwrap();
    assert!(reason.contains(&format!("udp/{taken}")), "{reason}");
    assert!(
        is(&seen, "Degraded", "True") && is(&seen, "Ready", "True"),
        "{seen:#}"
    );
    let other = status(c, "other", "an agent", |s| {
        s["agentStatus"]["configured"] == 1
    })
    .await;
    assert!(
        is(&other, "Degraded", "False"),
        "its own port is open: {other:#}"
    );
}

pub(crate) async fn the_numbers_of_the_daemon_set_are_shown(c: &Cluster) {
    prepared(c, json!({})).await;
    let labels = json!({"app": "wol-agent"});
    let set: DaemonSet = serde_json::from_value(json!({
        "metadata": {"name": "kubevirt-wol-agent"},
        "spec": {"selector": {"matchLabels": labels}, "template": {
            "metadata": {"labels": labels},
            "spec": {"containers": [{"name": "agent", "image": "example.test/wol:1"}]},
        }},
    }))
    .unwrap();
    let api = Api::<DaemonSet>::namespaced(c.client.clone(), "default");
    api.create(&PostParams::default(), &set)
        .await
        .expect("it is taken");
    let numbers = json!({"status": {
        "currentNumberScheduled": 3, "desiredNumberScheduled": 3, "numberMisscheduled": 0,
        "numberReady": 3, "numberAvailable": 2,
    }});
    let params = PatchParams::default();
    let patched = api
        .patch_status("kubevirt-wol-agent", &params, &Patch::Merge(numbers))
        .await;
    patched.expect("its status is taken");
    let _manager = c.manager(&[]).await;
    let seen = status(c, "default", "the DaemonSet", |s| {
        s["agentStatus"]["desiredNumberScheduled"] == 3
    })
    .await;
    assert_eq!(
        seen["agentStatus"],
        json!({
            "daemonSetName": "kubevirt-wol-agent", "desiredNumberScheduled": 3, "numberReady": 3,
            "numberAvailable": 2, "connected": 0, "configured": 0,
        })
    );
    // A node is lost, or a new one gets no agent: no session tells.
    let numbers = json!({"status": {"desiredNumberScheduled": 4, "numberReady": 2}});
    let patched = api
        .patch_status("kubevirt-wol-agent", &params, &Patch::Merge(numbers))
        .await;
    patched.expect("its status is taken");
    status(c, "default", "the new numbers", |s| {
        s["agentStatus"]["desiredNumberScheduled"] == 4 && s["agentStatus"]["numberReady"] == 2
    })
    .await;
    let gone = api
        .delete("kubevirt-wol-agent", &DeleteParams::default())
        .await;
    gone.expect("it can be deleted");
    status(c, "default", "no DaemonSet", |s| {
        s["agentStatus"]["daemonSetName"].is_null()
    })
    .await;
}

pub(crate) async fn a_cache_that_is_too_old_is_told_when_that_can_be_written(c: &Cluster) {
    prepared(c, json!({"cacheTTL": 0})).await;
    c.config("patient", json!({})).await;
    c.kubevirt.add(&vm(NS, "desktop").mac(MAC)).await;
    let _manager = c.manager(&[]).await;
    status(c, "default", "one VM", |s| s["managedVMs"] == 1).await;
    // VMs alone cannot be watched, so that the status can still be written.
    let Some(server) = c.server() else { return };
    let refused = Fault::Answer(Failure::unauthorized());
    server.faults().add(ours("/virtualmachines"), refused);
    server.faults().end_watches(WatchEnd::Clean);
    let seen = status(c, "default", "that it is old", |s| {
        is(s, "CacheStale", "True")
    })
    .await;
    assert_eq!(condition(&seen, "CacheStale")["reason"], "NoContact");
    let patient = config(c, "patient").await;
    assert!(
        is(&patient["status"], "CacheStale", "False"),
        "its own time has not passed"
    );
    server.faults().clear();
    status(c, "default", "that it is fresh", |s| {
        is(s, "CacheStale", "False")
    })
    .await;
}

pub(crate) async fn who_does_not_know_all_vms_writes_no_status(c: &Cluster) {
    prepared(c, json!({})).await;
    c.kubevirt.add(&vm(NS, "desktop").mac(MAC)).await;
    // Only the stand-in can be told to fail for one list.
    let Some(server) = c.server() else { return };
    let failing = ours("/virtualmachines");
    let failing = server.faults().add(failing, Fault::internal_error());
    let manager = c.manager_at(free_tcp(), &[]);
    manager.process.wait_for("the configs", SOON, |line| {
        line.message() == "took in the WolConfigs"
    });
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(config(c, "default").await["status"], Value::Null);
    server.faults().remove(failing);
    status(c, "default", "one VM", |s| s["managedVMs"] == 1).await;
}

pub(crate) async fn a_right_that_is_missing_is_told_until_it_is_given(c: &Cluster) {
    prepared(c, json!({})).await;
    c.kubevirt.add(&vm(NS, "desktop").mac(MAC)).await;
    let manager = c.manager(&[]).await;
    let agent = c.agent("node-1", &manager, free_udp());
    let why = "cannot update resource \"virtualmachines/start\"";
    c.kubevirt
        .fault(Some(KubeVirtFault::Refuse(403, why.into())));
    agent.hears(MAC);
    let seen = status(c, "default", "the missing right", |s| {
        is(s, "Ready", "False")
    })
    .await;
    let ready = condition(&seen, "Ready");
    assert_eq!(ready["reason"], "StartForbidden");
    let message = ready["message"].as_str().unwrap();
    assert!(message.contains("virtualmachines/start"), "{message}");
    c.kubevirt.fault(None);
    eventually("another packet starts the VM", async || {
        agent.hears(MAC);
        tokio::time::sleep(Duration::from_millis(50)).await;
        c.kubevirt.boots(NS, "desktop") == 1
    })
    .await;
    status(c, "default", "that all is well", |s| is(s, "Ready", "True")).await;
}

pub(crate) async fn a_config_of_a_newer_version_is_told_to_be_unreadable(c: &Cluster) {
    prepared(c, json!({})).await;
    c.kubevirt.add(&vm(NS, "desktop").mac(MAC)).await;
    let _manager = c.manager(&[]).await;
    status(c, "default", "one VM", |s| s["managedVMs"] == 1).await;
    // A newer definition, with a mode that this version does not know.
    let crds = Api::<DynamicObject>::all_with(
        c.client.clone(),
        &ApiResource::erase::<CustomResourceDefinition>(&()),
    );
    let mode =
        "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/discoveryMode/enum/-";
    let newer = json!([{"op": "add", "path": mode, "value": "Tags"}]);
    let newer = Patch::Json::<()>(serde_json::from_value(newer).expect("a patch"));
    let params = PatchParams::default();
    let patched = crds
        .patch("wolconfigs.wol.pillon.org", &params, &newer)
        .await;
    patched.expect("the definition is taken");
    let api =
        Api::<DynamicObject>::all_with(c.client.clone(), &ApiResource::erase::<WolConfig>(&()));
    let tags = Patch::Merge(json!({"spec": {"discoveryMode": "Tags"}}));
    eventually("the new mode is taken", async || {
        api.patch("default", &params, &tags).await.is_ok()
    })
    .await;
    let mut seen = Value::Null;
    eventually("the status says that it is unreadable", async || {
        let config = api.get("default").await.expect("it is there");
        seen = config.data["status"].clone();
        condition(&seen, "Ready")["reason"] == "Unreadable"
    })
    .await;
    assert_eq!(seen["managedVMs"], 0, "{seen:#}");
    assert_eq!(seen.get("mappings"), None, "{seen:#}");
    let all = Patch::Merge(json!({"spec": {"discoveryMode": "All"}}));
    api.patch("default", &params, &all)
        .await
        .expect("it is taken");
    status(c, "default", "one VM", |s| {
        is(s, "Ready", "True") && s["managedVMs"] == 1
    })
    .await;
}
