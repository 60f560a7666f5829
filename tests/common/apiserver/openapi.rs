//! Owns the schemas as kubectl reads them: OpenAPI v3 of what CRDs define, and no more.

use serde_json::{Value, json};

use super::{State, failure::Failure, kinds};

/// What is below `/openapi`.
///
/// # Errors
///
/// Nothing is there.
pub fn answer(state: &State, path: &[&str]) -> Result<Value, Failure> {
    match path {
        ["v2"] => Ok(json!({
            "swagger": "2.0", "info": {"title": "stand-in", "version": "v1"}, "paths": {},
        })),
        ["v3"] => Ok(index(state)),
        ["v3", "apis", group, version] => document(state, group, version),
        _ => Err(Failure::page_not_found()),
    }
}

fn index(state: &State) -> Value {
    let mut paths = json!({});
    for resource in kinds::all(&state.store()) {
        if resource.custom.is_some() {
            let path = format!("apis/{}", resource.api_version());
            let url = format!("/openapi/v3/{path}?hash={}", state.store().revision());
            paths[path] = json!({"serverRelativeURL": url});
        }
    }
    json!({"paths": paths})
}

fn document(state: &State, group: &str, version: &str) -> Result<Value, Failure> {
    let all = kinds::all(&state.store());
    let mut document = json!({
        "openapi": "3.0.0", "info": {"title": "stand-in", "version": "v1"},
        "paths": {}, "components": {"schemas": {}},
    });
    let mut found = false;
    for resource in all {
        let here = resource.group == group && resource.version == version;
        let Some(custom) = resource.custom.as_ref().filter(|_| here) else {
            continue;
        };
        found = true;
        let kind = json!({"group": group, "version": version, "kind": resource.kind});
        let reversed: Vec<&str> = group.split('.').rev().collect();
        let name = format!("{}.{version}.{}", reversed.join("."), resource.kind);
        let mut schema = custom.schema.clone();
        schema["x-kubernetes-group-version-kind"] = json!([kind]);
        for (field, what) in [
            ("apiVersion", "string"),
            ("kind", "string"),
            ("metadata", "object"),
        ] {
            schema["properties"][field]["type"] = what.into();
        }
        document["components"]["schemas"][name] = schema;
        let scope = if resource.namespaced {
            "/namespaces/{namespace}"
        } else {
            ""
        };
        let path = format!("/apis/{group}/{version}{scope}/{}", resource.plural);
        document["paths"][path]["get"] = json!({
            "x-kubernetes-action": "list", "x-kubernetes-group-version-kind": kind,
        });
    }
    if found {
        Ok(document)
    } else {
        Err(Failure::page_not_found())
    }
}
