//! Owns the requests by which managers keep their CA and find out where a pod is: objects that are
//! shipped empty, read and watched by name alone, and replaced in the version that was read, or not
//! at all where somebody else was first.

use serde_json::{Value, json};

use super::requests::{
    MERGE, METADATA, METADATA_LIST, Step, accepting, delete, get, patch, post, put, recalling,
    until, with,
};

const CORE: &str = "/api/v1/namespaces/default";

pub(crate) fn all() -> Vec<Step> {
    [
        kept("Secret", "secrets", &["a2V5", "bmV4dA=="]),
        kept("ConfigMap", "configmaps", &["first", "second"]),
        pods(),
    ]
    .concat()
}

/// An object of the CA, from its installation to its end.
fn kept(kind: &str, plural: &str, values: &[&str; 2]) -> Vec<Step> {
    let collection = format!("{CORE}/{plural}");
    let path = format!("{collection}/conf-ca");
    let object = |version: &str, data: Value| {
        let mut object = json!({
            "apiVersion": "v1", "kind": kind,
            "metadata": {
                "name": "conf-ca", "namespace": "default", "resourceVersion": version,
                "annotations": {"conf.test/since": "2026-01-01T00:00:00Z"},
            },
            "data": data,
        });
        if kind == "Secret" {
            object["type"] = "Opaque".into();
        }
        object
    };
    let replace = |version: &str, value: &str| {
        let object = object(version, json!({"ca.crt": value, "kept": values[0]}));
        recalling(put(
            format!("{path}?fieldManager=kubevirt-wol-manager"),
            &object,
        ))
    };
    let by_name = |query: &str| {
        let path = format!("{collection}?fieldSelector=metadata.name%3Dconf-ca{query}");
        recalling(get(path))
    };
    let watch = |version: &str| {
        let query = format!(
            "&watch=true&timeoutSeconds=1&allowWatchBookmarks=true&resourceVersion={version}"
        );
        accepting(METADATA, by_name(&query))
    };
    let empty = json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": "conf-ca"}});
    vec![
        get(&path),
        replace("1", values[0]),
        by_name(""),
        post(&collection, &empty),
        post(&collection, &empty),
        get(&path),
        accepting(METADATA_LIST, by_name("&limit=500")),
        accepting(METADATA_LIST, by_name("&limit=500&resourceVersion=0")),
        // Two managers have read it empty, and one is first.
        replace("<version>", values[0]),
        replace("<before>", values[1]),
        get(&path),
        replace("<version>", values[1]),
        replace("<version>", values[1]),
        watch("<before>"),
        watch("1"),
        accepting(METADATA, get(&path)),
        // Somebody empties it, and it is refilled.
        patch(&path, MERGE, &json!({"data": null})),
        replace("<before>", values[0]),
        replace("<version>", values[0]),
        watch("<before>"),
        delete(&path),
        replace("<version>", values[1]),
        by_name(""),
    ]
}

/// Where the pod is that a token names. What else a real server says of it is not compared.
fn pods() -> Vec<Step> {
    let pod = json!({
        "metadata": {"name": "conf-placed"},
        "spec": {
            "nodeName": "conf-placed", "serviceAccountName": "conf-placed",
            "containers": [{"name": "agent", "image": "agent"}],
        },
    });
    let named = json!({"metadata": {"name": "conf-placed"}});
    let now = json!({"gracePeriodSeconds": 0});
    let path = format!("{CORE}/pods/conf-placed");
    vec![
        get(&path),
        get("/api/v1/namespaces/nowhere/pods/conf-placed"),
        until(201, post("/api/v1/nodes", &named)),
        until(201, post(format!("{CORE}/serviceaccounts"), &named)),
        until(201, post(format!("{CORE}/pods"), &pod)),
        until(200, get(&path)),
        until(200, with(http::Method::DELETE, &path, &now)),
        get(&path),
        until(200, delete(format!("{CORE}/serviceaccounts/conf-placed"))),
    ]
}
