//! Owns the requests about custom resources, from their definitions' creation to their deletion.

use serde_json::{Value, json};

use super::{
    requests::{
        APPLY, MERGE, METADATA, Step, TABLE, accepting, delete, get, patch, post, put, until,
    },
    schemas,
};

const THINGS: &str = "/apis/conf.test/v1/namespaces/default/things";
const VALUES: &str = "/apis/conf.test/v1/vals";
const CRDS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

pub(crate) fn definitions() -> Vec<Step> {
    let thing = schemas::thing();
    let mut misnamed = thing.clone();
    misnamed["metadata"]["name"] = "wrong".into();
    vec![
        get("/apis/conf.test/v1/things"),
        post(CRDS, &misnamed),
        post(CRDS, &thing),
        post(CRDS, &schemas::value()),
        until(200, get(THINGS)),
        until(200, get(VALUES)),
        until(200, get("/apis/conf.test/v1")),
        until(200, get("/apis/conf.test")),
        get(format!("{CRDS}/things.conf.test")),
        get("/apis/conf.test"),
        get("/apis/conf.test/v1"),
        get("/apis/conf.test/v1alpha1"),
        get("/apis/conf.test/v1/bars"),
        get("/apis/conf.test/v2/things"),
        get(THINGS),
    ]
}

fn thing(name: &str, parts: &Value) -> Value {
    let mut thing =
        json!({"apiVersion": "conf.test/v1", "kind": "Thing", "metadata": {"name": name}});
    for (part, value) in parts.as_object().into_iter().flatten() {
        thing[part] = value.clone();
    }
    thing
}

pub(crate) fn objects() -> Vec<Step> {
    let a = format!("{THINGS}/a");
    let made = json!({
        "spec": {"mode": "A", "junk": 1, "o": {"a": true, "b": 1}, "list": [{"k": "1", "v": "2", "z": 3}]},
        "status": {"ready": true},
    });
    let create = |parts: Value| post(THINGS, &thing("b", &parts));
    let strict = json!({"spec": {"mode": "A", "junk": 1, "o": {"a": true, "b": 1}}});
    let mut steps = vec![
        post(THINGS, &thing("a", &made)),
        post(THINGS, &json!({"metadata": {"name": "x"}})),
        create(json!({"x": 1})),
        create(json!({"spec": {}})),
        create(json!({"spec": {"mode": "C"}})),
        create(json!({"spec": {"mode": "B"}})),
        create(
            json!({"spec": {"mode": "A", "n": 70000, "name": "ABCDE", "ports": [1, 2, 3], "o": {}}}),
        ),
        create(json!({"spec": {"mode": 1, "n": "a", "ports": {}}})),
        create(json!({"spec": {"mode": null, "nul": null, "d": null, "name": "a", "n": 0}})),
        create(
            json!({"spec": {"mode": "A", "list": [{"k": "1"}, {"k": "1"}], "set": ["a", "a"], "m": {"a": 1}}}),
        ),
        post(
            format!("{THINGS}?fieldValidation=Strict"),
            &thing("b", &strict),
        ),
        put(&a, &thing("a", &json!({"spec": {"mode": "A"}}))),
        patch(
            &a,
            MERGE,
            &json!({"spec": {"n": 3}, "status": {"ready": true}}),
        ),
        patch(&a, MERGE, &json!({"spec": {"n": 3}})),
        patch(
            format!("{a}/status"),
            MERGE,
            &json!({"spec": {"n": 4}, "status": {"ready": true}}),
        ),
        patch(
            format!("{a}/status"),
            MERGE,
            &json!({"status": {"ready": true}}),
        ),
        patch(&a, "application/strategic-merge-patch+json", &json!({})),
        patch(&a, MERGE, &json!({"spec": {"mode": "B", "n": null}})),
        get(&a),
        get(format!("{a}/status")),
        get("/apis/conf.test/v1alpha1/namespaces/default/things/a"),
        get(format!("{THINGS}?limit=1")),
        get(format!("{THINGS}?fieldSelector=spec.mode%3DA")),
    ];
    let table = |path: &str| accepting(TABLE, get(path));
    steps.extend([table(&a), table(THINGS), accepting(METADATA, get(THINGS))]);
    steps
}

pub(crate) fn ownership() -> Vec<Step> {
    let apply = |query: &str, spec: Value| {
        patch(
            format!("{THINGS}/s?{query}"),
            APPLY,
            &thing("s", &json!({"spec": spec})),
        )
    };
    let status = thing("s", &json!({"status": {"ready": true}}));
    let n = "fieldManager=n";
    vec![
        apply(
            "fieldManager=m",
            json!({"mode": "A", "list": [{"k": "1", "v": "1"}], "set": ["q"], "ports": [1]}),
        ),
        apply(
            n,
            json!({"mode": "A", "list": [{"k": "2", "v": "1"}], "set": ["r"], "ports": [2]}),
        ),
        apply(
            n,
            json!({"mode": "A", "list": [{"k": "1", "v": "3"}], "ports": [2]}),
        ),
        apply(
            n,
            json!({"mode": "A", "list": [{"k": "2", "v": "1"}, {"k": "1"}], "set": ["r"]}),
        ),
        apply(n, json!({"mode": "A", "m": {"x": "1"}})),
        apply(n, json!({"mode": "A"})),
        // An empty map that is filled later is no field that was given up.
        apply(n, json!({"mode": "A", "m": {}})),
        apply(n, json!({"mode": "A", "m": {"x": "1"}})),
        apply(n, json!({"mode": "A"})),
        apply(n, json!({"mode": "A", "junk": 1})),
        patch(format!("{THINGS}/s/status?{n}"), APPLY, &status),
        patch(
            format!("{THINGS}/none/status?{n}"),
            APPLY,
            &thing("none", &json!({"status": {}})),
        ),
        get(format!("{THINGS}?watch=1&timeoutSeconds=1")),
    ]
}

pub(crate) fn values() -> Vec<Step> {
    let specs = schemas::specs();
    let each = specs.iter().flat_map(|spec| {
        let value = json!({
            "apiVersion": "conf.test/v1", "kind": "Val", "metadata": {"name": "v"}, "spec": spec,
        });
        [post(VALUES, &value), delete(format!("{VALUES}/v"))]
    });
    each.collect()
}

pub(crate) fn deletions() -> Vec<Step> {
    vec![
        delete(format!("{THINGS}/a")),
        delete(THINGS),
        get(THINGS),
        delete(format!("{CRDS}/things.conf.test")),
        delete(format!("{CRDS}/vals.conf.test")),
        until(404, get(format!("{CRDS}/things.conf.test"))),
        until(404, get(THINGS)),
        until(404, get("/apis/conf.test")),
        get(THINGS),
        get("/apis/conf.test"),
    ]
}
