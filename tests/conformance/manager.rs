//! Owns the requests that a manager makes beyond watches and starts: a Lease that changes hands,
//! Events that are counted up, status that two managers write, versions that are long past or not
//! there yet, tokens, and the agents' `DaemonSet`.

use serde_json::{Value, json};

use super::requests::{
    APPLY, MERGE, Step, TABLE, accepting, delete, get, patch, post, put, recalling,
};

const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/default/leases";
const EVENTS: &str = "/api/v1/namespaces/default/events";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const SETS: &str = "/apis/apps/v1/namespaces/default/daemonsets";
const THINGS: &str = "/apis/conf.test/v1/namespaces/default/things";

/// What a leader election does, and what two electors get who do it at once.
pub(crate) fn leases() -> Vec<Step> {
    let path = format!("{LEASES}/elected");
    let lease = |holder: &str, transitions: i32, version: &str| {
        json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": "elected", "namespace": "default", "resourceVersion": version},
            "spec": {
                "holderIdentity": holder, "leaseDurationSeconds": 15, "leaseTransitions": transitions,
                "acquireTime": "2026-01-01T00:00:00.000000Z", "renewTime": "2026-01-01T00:00:00.123456Z",
            },
        })
    };
    let taken = lease("a", 0, "");
    let mut mistimed = lease("a", 0, "");
    mistimed["spec"]["renewTime"] = "2026-01-01T00:00:07Z".into();
    let renew = |time: &str| patch(&path, MERGE, &json!({"spec": {"renewTime": time}}));
    vec![
        get(&path),
        put(&path, &lease("a", 0, "1")),
        post(LEASES, &lease("a", 0, "1")),
        post(LEASES, &taken),
        post(LEASES, &taken),
        get(&path),
        recalling(put(&path, &lease("a", 0, "<version>"))),
        recalling(put(&path, &lease("b", 1, "<version>"))),
        recalling(put(&path, &lease("a", 0, "<before>"))),
        get(&path),
        // Released: nobody holds it.
        recalling(put(&path, &lease("", 1, "<version>"))),
        put(&path, &mistimed),
        renew("2026-01-01T00:00:07.000007Z"),
        recalling(patch(
            &path,
            MERGE,
            &json!({"metadata": {"resourceVersion": "<before>"}, "spec": {"holderIdentity": "c"}}),
        )),
        recalling(patch(
            &path,
            MERGE,
            &json!({"metadata": {"resourceVersion": "<version>"}, "spec": {"holderIdentity": "c"}}),
        )),
        accepting(TABLE, get(&path)),
        delete(&path),
    ]
}

/// An Event that two replicas make, that counts up, and Events on what has no namespace.
pub(crate) fn events() -> Vec<Step> {
    let path = format!("{EVENTS}/desktop.1");
    let event = |name: &str, object: &Value| {
        json!({
            "apiVersion": "v1", "kind": "Event", "metadata": {"name": name},
            "type": "Normal", "reason": "WakeOnLanStarted", "message": "woken", "count": 1,
            "firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": "2026-01-01T00:00:00Z",
            "source": {"component": "kubevirt-wol"}, "reportingComponent": "kubevirt-wol",
            "reportingInstance": "replica-1", "involvedObject": object,
        })
    };
    let vm = json!({
        "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine", "name": "desktop",
        "namespace": "default", "uid": "1", "resourceVersion": "1",
    });
    let config =
        json!({"apiVersion": "wol.pillon.org/v1beta1", "kind": "WolConfig", "name": "default"});
    let elsewhere = json!({"kind": "VirtualMachine", "name": "desktop", "namespace": "other"});
    let again =
        json!({"count": 2, "lastTimestamp": "2026-01-01T00:01:00Z", "message": "woken again"});
    vec![
        post(EVENTS, &event("desktop.1", &vm)),
        post(EVENTS, &event("desktop.1", &vm)),
        patch(&path, MERGE, &again),
        patch(&path, MERGE, &again),
        get(&path),
        patch(format!("{EVENTS}/none"), MERGE, &again),
        post(EVENTS, &event("config.1", &config)),
        post(EVENTS, &event("elsewhere.1", &elsewhere)),
        post(
            "/api/v1/namespaces/kube-public/events",
            &event("config.2", &config),
        ),
        get(format!("{EVENTS}?fieldSelector=reason%3DWakeOnLanStarted")),
        delete(&path),
        delete(format!("{EVENTS}/config.1")),
    ]
}

/// Two field managers, each with parts of one status, as the leader and the others have them.
pub(crate) fn status() -> Vec<Step> {
    let apply = |name: &str, query: &str, metadata: Value, status: Value| {
        let mut metadata = metadata;
        metadata["name"] = name.into();
        let body = json!({
            "apiVersion": "conf.test/v1", "kind": "Thing", "metadata": metadata, "status": status,
        });
        let path = format!("{THINGS}/{name}/status?fieldManager={query}");
        recalling(patch(path, APPLY, &body))
    };
    let woken = |query: &str, metadata: Value, status: Value| apply("w", query, metadata, status);
    let thing = json!({
        "apiVersion": "conf.test/v1", "kind": "Thing", "metadata": {"name": "w"}, "spec": {"mode": "A"},
    });
    let other = "00000000-0000-4000-8000-000000000000";
    let when = json!({"when": "2026-01-01T00:00:00Z"});
    vec![
        post(THINGS, &thing),
        woken("leader", json!({"uid": "<uid>"}), json!({"ready": true})),
        woken("wake", json!({"uid": "<uid>"}), when.clone()),
        woken("wake", json!({"uid": "<uid>"}), when.clone()),
        woken("leader", json!({"uid": other}), json!({"ready": false})),
        woken("wake", json!({}), json!({"ready": false})),
        woken("wake&force=true", json!({}), json!({"ready": false})),
        woken("leader", json!({}), json!({"ready": true})),
        woken("leader", json!({"resourceVersion": "<before>"}), json!({})),
        woken("leader", json!({}), json!({})),
        woken("wake", json!({}), json!({"unknown": 1})),
        get(format!("{THINGS}/w")),
        get(format!("{THINGS}/w/status")),
        apply("none", "leader", json!({}), json!({"ready": true})),
        apply(
            "none",
            "leader",
            json!({"uid": other}),
            json!({"ready": true}),
        ),
        delete(format!("{THINGS}/w")),
        woken("leader", json!({"uid": "<uid>"}), json!({"ready": true})),
    ]
}

/// Versions that are long past or not there yet, pages, and a watch that goes on where one ended.
pub(crate) fn versions() -> Vec<Step> {
    let map = |name: &str| json!({"metadata": {"name": name, "labels": {"conf": "v"}}});
    let list = |query: &str| recalling(get(format!("{MAPS}?labelSelector=conf%3Dv&{query}")));
    let watch = |query: &str| list(&format!("watch=1&timeoutSeconds=1&{query}"));
    let future = 1_u64 << 40;
    vec![
        list(&format!("resourceVersion={future}")),
        list(&format!(
            "resourceVersion={future}&resourceVersionMatch=Exact"
        )),
        list(&format!(
            "resourceVersion={future}&resourceVersionMatch=NotOlderThan"
        )),
        get(format!("{MAPS}/none?resourceVersion={future}")),
        watch(&format!("resourceVersion={future}")),
        watch("resourceVersion=1"),
        watch("resourceVersion=x"),
        post(MAPS, &map("v1")),
        post(MAPS, &map("v2")),
        post(MAPS, &map("v3")),
        list("limit=2"),
        list("limit=2&continue=<continue>"),
        list("limit=2&continue=<continue>&resourceVersion=1"),
        list("resourceVersion=<version>&resourceVersionMatch=Exact"),
        list("resourceVersion=<version>&resourceVersionMatch=NotOlderThan"),
        watch("resourceVersion=<version>"),
        recalling(put(format!("{MAPS}/v1"), &map("v1"))),
        patch(format!("{MAPS}/v1"), MERGE, &json!({"data": {"x": "1"}})),
        watch("resourceVersion=<before>"),
        patch(
            format!("{MAPS}/v1"),
            MERGE,
            &json!({"metadata": {"labels": {"conf": "w"}}}),
        ),
        watch("resourceVersion=<before>"),
        watch("resourceVersion=<version>&allowWatchBookmarks=true"),
        delete(format!("{MAPS}?labelSelector=conf")),
    ]
}

/// Writes that mean another object of the same name: one that was deleted and made again.
pub(crate) fn identities() -> Vec<Step> {
    let other = "00000000-0000-4000-8000-000000000000";
    let metadata = |name: &str| json!({"name": name, "uid": other});
    let map = |name: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata(name), "data": {"x": "2"}});
    let thing = |name: &str| {
        json!({
            "apiVersion": "conf.test/v1", "kind": "Thing", "metadata": metadata(name),
            "spec": {"mode": "A"}, "status": {"ready": true},
        })
    };
    let versioned = |mut object: Value| {
        object["metadata"]["resourceVersion"] = "<version>".into();
        object
    };
    let i = format!("{THINGS}/i");
    let mut made = thing("i");
    made["metadata"] = json!({"name": "i"});
    vec![
        post(
            MAPS,
            &json!({"metadata": {"name": "i"}, "data": {"x": "1"}}),
        ),
        patch(format!("{MAPS}/i"), MERGE, &map("i")),
        patch(format!("{MAPS}/i?fieldManager=m"), APPLY, &map("i")),
        patch(format!("{MAPS}/none?fieldManager=m"), APPLY, &map("none")),
        delete(format!("{MAPS}/i")),
        post(THINGS, &made),
        patch(&i, MERGE, &thing("i")),
        patch(format!("{i}?fieldManager=m&force=true"), APPLY, &thing("i")),
        patch(format!("{i}/status"), MERGE, &thing("i")),
        recalling(put(&i, &versioned(thing("i")))),
        recalling(put(format!("{i}/status"), &versioned(thing("i")))),
        patch(
            format!("{THINGS}/none?fieldManager=m"),
            APPLY,
            &thing("none"),
        ),
        delete(&i),
    ]
}

/// The agents' `DaemonSet`, of which managers read the status.
pub(crate) fn daemon_sets() -> Vec<Step> {
    let path = format!("{SETS}/agents");
    let container = json!({
        "name": "agent", "image": "agent", "imagePullPolicy": "IfNotPresent", "resources": {},
        "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
    });
    let set = json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "agents"},
        "spec": {
            "revisionHistoryLimit": 10,
            "selector": {"matchLabels": {"app": "wol-agent"}},
            "template": {
                "metadata": {"labels": {"app": "wol-agent"}},
                "spec": {
                    "containers": [container], "dnsPolicy": "ClusterFirst", "restartPolicy": "Always",
                    "schedulerName": "default-scheduler", "securityContext": {},
                    "terminationGracePeriodSeconds": 30,
                },
            },
            "updateStrategy": {
                "type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1},
            },
        },
    });
    let counted = json!({"status": {
        "currentNumberScheduled": 3, "desiredNumberScheduled": 3, "numberMisscheduled": 0,
        "numberReady": 2, "numberAvailable": 2, "observedGeneration": 1,
    }});
    let absent = format!("{SETS}/none");
    vec![
        get(&absent),
        patch(format!("{absent}/status"), MERGE, &counted),
        get("/apis/apps/v1/namespaces/nowhere/daemonsets/agents"),
        post(SETS, &set),
        post(SETS, &set),
        get(&path),
        patch(format!("{path}/status"), MERGE, &counted),
        patch(
            format!("{path}/status"),
            MERGE,
            &json!({"spec": {"revisionHistoryLimit": 3}}),
        ),
        patch(&path, MERGE, &json!({"status": {"numberReady": 9}})),
        get(&path),
        get(format!("{path}/status")),
        patch(&path, MERGE, &json!({"spec": {"revisionHistoryLimit": 3}})),
        get(format!("{SETS}?fieldSelector=metadata.name%3Dagents")),
        get(format!(
            "{SETS}?fieldSelector=metadata.name%3Dagents&watch=1&timeoutSeconds=1"
        )),
        delete(&path),
    ]
}
