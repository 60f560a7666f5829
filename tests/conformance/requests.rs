//! Owns the list of requests, in the order in which both servers get them.

use http::Method;
use serde_json::{Value, json};

use super::{authority, custom, manager, tokens};

/// One request.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) media_type: Option<&'static str>,
    pub(crate) accept: Option<&'static str>,
    pub(crate) body: String,
    /// Not compared, but sent again until it has this code.
    pub(crate) until: Option<u16>,
    /// Whether path and body refer to what the server said before; see [`super::memory`].
    pub(crate) recalls: bool,
}

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
pub(crate) const MERGE: &str = "application/merge-patch+json";
const JSON_PATCH: &str = "application/json-patch+json";
pub(crate) const APPLY: &str = "application/apply-patch+yaml";
pub(crate) const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";
pub(crate) const METADATA: &str = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io";
pub(crate) const METADATA_LIST: &str =
    "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";

fn step(method: Method, path: impl Into<String>) -> Step {
    Step {
        method,
        path: path.into(),
        media_type: None,
        accept: None,
        body: String::new(),
        until: None,
        recalls: false,
    }
}

pub(crate) fn get(path: impl Into<String>) -> Step {
    step(Method::GET, path)
}

pub(crate) fn delete(path: impl Into<String>) -> Step {
    step(Method::DELETE, path)
}

pub(crate) fn with(method: Method, path: impl Into<String>, body: &Value) -> Step {
    Step {
        media_type: Some("application/json"),
        body: body.to_string(),
        ..step(method, path)
    }
}

pub(crate) fn post(path: impl Into<String>, body: &Value) -> Step {
    with(Method::POST, path, body)
}

pub(crate) fn put(path: impl Into<String>, body: &Value) -> Step {
    with(Method::PUT, path, body)
}

pub(crate) fn patch(path: impl Into<String>, media_type: &'static str, body: &Value) -> Step {
    Step {
        media_type: Some(media_type),
        ..with(Method::PATCH, path, body)
    }
}

pub(crate) fn accepting(accept: &'static str, step: Step) -> Step {
    Step {
        accept: Some(accept),
        ..step
    }
}

fn raw(method: Method, path: &str, media_type: &'static str, body: &str) -> Step {
    Step {
        media_type: Some(media_type),
        body: body.to_owned(),
        ..step(method, path)
    }
}

pub(crate) fn until(code: u16, step: Step) -> Step {
    Step {
        until: Some(code),
        ..step
    }
}

pub(crate) fn recalling(step: Step) -> Step {
    Step {
        recalls: true,
        ..step
    }
}

/// All of them.
pub(crate) fn all() -> Vec<Step> {
    let parts = [
        paths(),
        config_maps(),
        patches(),
        ownership(),
        lists(),
        watches(),
        custom::definitions(),
        custom::objects(),
        custom::ownership(),
        manager::status(),
        manager::identities(),
        custom::values(),
        built_in(),
        manager::leases(),
        manager::events(),
        manager::versions(),
        tokens::all(),
        authority::all(),
        manager::daemon_sets(),
        custom::deletions(),
    ];
    parts.concat()
}

fn paths() -> Vec<Step> {
    let paths = [
        "/foo",
        "/healthz",
        "/readyz",
        "/apis/foo.bar",
        "/apis/foo.bar/v1",
        "/apis/foo.bar/v1/x",
        "/apis/coordination.k8s.io",
        "/apis/coordination.k8s.io/v1",
        "/apis/apiextensions.k8s.io/v1",
        "/apis/coordination.k8s.io/v1/foos",
        "/api/v1/foos",
        "/api/v1/namespaces/default/configmaps/x",
        "/api/v1/namespaces/default/configmaps/x/status",
        "/api/v1/namespaces/none",
        "/api/v1/namespaces/none/configmaps",
    ];
    let xml = accepting("application/xml", get(MAPS));
    paths.into_iter().map(get).chain([xml]).collect()
}

fn map(name: &str, data: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data})
}

fn config_maps() -> Vec<Step> {
    let a = map("a", &json!({"x": "1"}));
    let secret = json!({"kind": "Secret", "apiVersion": "v1", "metadata": {"name": "b"}});
    let elsewhere = json!({"metadata": {"name": "c", "namespace": "other"}});
    let stale = json!({"metadata": {"name": "a", "resourceVersion": "1"}});
    vec![
        post(MAPS, &a),
        post(MAPS, &a),
        get(format!("{MAPS}/a")),
        post(MAPS, &json!({"data": {"x": "1"}})),
        post(MAPS, &secret),
        post(MAPS, &map("B_", &json!({}))),
        post(MAPS, &elsewhere),
        raw(Method::POST, MAPS, "text/foo", "x"),
        post("/api/v1/namespaces/none/configmaps", &a),
        post("/api/v1/configmaps", &a),
        post(format!("{MAPS}/a"), &a),
        post(
            format!("{MAPS}?dryRun=All"),
            &json!({"metadata": {"generateName": "random-"}}),
        ),
        put(format!("{MAPS}/a"), &map("b", &json!({}))),
        put(format!("{MAPS}/zz"), &map("zz", &json!({}))),
        put(format!("{MAPS}/a"), &stale),
        put(
            format!("{MAPS}/a"),
            &json!({"metadata": {"name": "a", "uid": "1"}}),
        ),
        put(format!("{MAPS}/a"), &map("a", &json!({"x": "1", "y": "2"}))),
        put(format!("{MAPS}/a"), &map("a", &json!({"x": "1", "y": "2"}))),
        delete(format!("{MAPS}/zz")),
        with(
            Method::DELETE,
            format!("{MAPS}/a"),
            &json!({"preconditions": {"uid": "x"}}),
        ),
        with(
            Method::DELETE,
            format!("{MAPS}/a"),
            &json!({"preconditions": {"resourceVersion": "1"}}),
        ),
    ]
}

fn patches() -> Vec<Step> {
    let a = format!("{MAPS}/a");
    let json = |body: Value| patch(&a, JSON_PATCH, &body);
    vec![
        json(
            json!([{"op": "test", "path": "/data/x", "value": "1"}, {"op": "replace", "path": "/data/x", "value": "3"}]),
        ),
        json(json!([{"op": "test", "path": "/data/x", "value": "2"}])),
        json(json!([{"op": "remove", "path": "/data/q"}])),
        json(json!({"a": 1})),
        patch(
            &a,
            MERGE,
            &json!({"data": {"y": null, "z": "4"}, "metadata": {"labels": {"l": "1"}}}),
        ),
        patch(&a, MERGE, &json!({"data": {"z": "4"}})),
        patch(
            &a,
            MERGE,
            &json!({"data": {"y": "2"}, "metadata": {"resourceVersion": "1"}}),
        ),
        patch(
            &a,
            "application/strategic-merge-patch+json",
            &json!({"data": {"s": "5"}}),
        ),
        patch(&a, "application/json", &json!({})),
        patch(format!("{MAPS}/zz"), MERGE, &json!({})),
        patch(
            &a,
            MERGE,
            &json!({"metadata": {"finalizers": ["conf.test/hold"]}}),
        ),
        delete(&a),
        delete(&a),
        patch(&a, MERGE, &json!({"metadata": {"finalizers": null}})),
        get(&a),
    ]
}

fn ownership() -> Vec<Step> {
    let path = |name: &str, query: &str| format!("{MAPS}/{name}?{query}");
    let apply = |path: String, body: &Value| patch(path, APPLY, body);
    let o = |data: Value| map("o", &data);
    vec![
        post(MAPS, &o(json!({"x": "1"}))),
        apply(path("o", ""), &o(json!({"x": "2"}))),
        apply(path("o", "fieldManager=m"), &json!({"data": {"y": "2"}})),
        apply(path("o", "fieldManager=m"), &o(json!({"x": "2"}))),
        apply(
            path("o", "fieldManager=m&force=true"),
            &o(json!({"x": "2", "z": "3"})),
        ),
        apply(path("o", "fieldManager=m"), &o(json!({"x": "2"}))),
        apply(path("o", "fieldManager=m"), &o(json!({"x": "2"}))),
        apply(path("o", "fieldManager=n"), &o(json!({"x": "2"}))),
        apply(path("o", "fieldManager=n"), &o(json!({"x": "3"}))),
        apply(path("o", "fieldManager=m"), &o(json!({}))),
        patch(format!("{MAPS}/o"), MERGE, &json!({"data": {"x": "9"}})),
        apply(path("p", "fieldManager=m"), &map("p", &json!({"x": "1"}))),
        delete(format!("{MAPS}/o")),
        delete(format!("{MAPS}/p")),
    ]
}

fn lists() -> Vec<Step> {
    let labelled =
        |name: &str, value: &str| json!({"metadata": {"name": name, "labels": {"conf": value}}});
    let list = |query: &str| get(format!("{MAPS}?{query}"));
    vec![
        post(MAPS, &labelled("l1", "a")),
        post(MAPS, &labelled("l2", "b")),
        post(MAPS, &labelled("l3", "a")),
        list("labelSelector=conf"),
        list("labelSelector=conf%3Da"),
        list("labelSelector=conf!%3Da,conf"),
        list("labelSelector=conf%20in%20(a,b)"),
        list("labelSelector=conf%20notin%20(a),conf"),
        list("labelSelector=conf,!other&limit=2"),
        list("labelSelector=a%3D%3D%3D"),
        list("fieldSelector=metadata.name%3Dl1"),
        list("fieldSelector=foo%3Dbar"),
        list("continue=abc"),
        list("resourceVersion=0&labelSelector=conf"),
        list("resourceVersionMatch=Exact"),
        list("resourceVersion=x"),
        accepting(METADATA, get(format!("{MAPS}/l1"))),
        accepting(TABLE, list("labelSelector=conf")),
    ]
}

fn watches() -> Vec<Step> {
    let watch = |query: &str| get(format!("{MAPS}?watch=1&timeoutSeconds=1&{query}"));
    let streamed = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan";
    vec![
        watch("labelSelector=conf%3Da"),
        watch("labelSelector=conf%3Da&resourceVersion=0"),
        watch(&format!(
            "labelSelector=conf&allowWatchBookmarks=true&{streamed}"
        )),
        watch("sendInitialEvents=true"),
        watch("resourceVersionMatch=NotOlderThan"),
        get(format!("{MAPS}?sendInitialEvents=true")),
        delete(format!("{MAPS}?labelSelector=conf")),
    ]
}

fn built_in() -> Vec<Step> {
    let leases = "/apis/coordination.k8s.io/v1/namespaces/default/leases";
    let lease = json!({
        "metadata": {"name": "conf"},
        "spec": {"holderIdentity": "me", "leaseDurationSeconds": 15, "renewTime": "2026-01-01T00:00:00.000001Z"},
    });
    let events = "/api/v1/namespaces/default/events";
    let event = json!({
        "metadata": {"name": "conf"}, "reason": "R", "message": "M", "type": "Normal", "count": 2,
        "involvedObject": {"kind": "Thing", "name": "a", "namespace": "default"},
        "lastTimestamp": "2026-01-01T00:00:00Z",
    });
    let secrets = "/api/v1/namespaces/default/secrets";
    let secret = json!({"metadata": {"name": "conf"}, "stringData": {"a": "b"}});
    let review = json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": "x", "audiences": ["a"]},
    });
    let access = json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": {"verb": "get", "resource": "pods"}},
    });
    let reviews = "/apis/authentication.k8s.io/v1/tokenreviews";
    vec![
        post(leases, &lease),
        patch(
            format!("{leases}/conf"),
            MERGE,
            &json!({"spec": {"holderIdentity": "you"}}),
        ),
        accepting(TABLE, get(leases)),
        delete(format!("{leases}/conf")),
        post(events, &event),
        get(format!(
            "{events}?fieldSelector=involvedObject.name%3Da,involvedObject.kind%3DThing"
        )),
        get(format!(
            "{events}?fieldSelector=involvedObject.name%3Dother"
        )),
        accepting(
            TABLE,
            get(format!("{events}?fieldSelector=metadata.name%3Dconf")),
        ),
        delete(format!("{events}/conf")),
        post(secrets, &secret),
        delete(format!("{secrets}/conf")),
        post(reviews, &review),
        post(reviews, &json!({"spec": {}})),
        get(reviews),
        post(
            "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
            &access,
        ),
        get("/api/v1/namespaces/default"),
    ]
}
