//! Owns what kubectl reads of `OpenAPI` v3: the schemas of CRDs for `explain`, and for all resources
//! that the server checks fields, without which `apply` would want to do so itself.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{
    State,
    failure::Failure,
    kinds::{self, Resource},
};

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
        ["v3", path @ ..] => document(state, &path.join("/")),
        _ => Err(Failure::page_not_found()),
    }
}

/// `api/v1` or `apis/<group>/<version>`.
fn path(resource: &Resource) -> String {
    let root = if resource.group.is_empty() {
        "api"
    } else {
        "apis"
    };
    format!("{root}/{}", resource.api_version())
}

fn index(state: &State) -> Value {
    let store = state.store();
    let entries = kinds::all(&store).into_iter().map(|resource| {
        let path = path(&resource);
        let url = format!("/openapi/v3/{path}?hash={}", store.revision());
        (path, json!({"serverRelativeURL": url}))
    });
    json!({"paths": entries.collect::<BTreeMap<_, _>>()})
}

fn document(state: &State, wanted: &str) -> Result<Value, Failure> {
    let all = kinds::all(&state.store());
    let mut schemas = BTreeMap::new();
    let mut paths = BTreeMap::new();
    for resource in all.iter().filter(|resource| path(resource) == wanted) {
        let (group, version) = (&resource.group, &resource.version);
        let kind = json!({"group": group, "version": version, "kind": resource.kind});
        let reversed: Vec<&str> = group.split('.').rev().collect();
        let name = format!("{}.{version}.{}", reversed.join("."), resource.kind);
        schemas.insert(name, schema(resource, &kind));
        let scope = if resource.namespaced {
            "/namespaces/{namespace}"
        } else {
            ""
        };
        let place = format!("/{wanted}{scope}/{}", resource.plural);
        let parameters = ["dryRun", "fieldManager", "fieldValidation"];
        let parameters = parameters.map(|name| json!({"name": name, "in": "query"}));
        let operation = |action: &str| {
            json!({
                "x-kubernetes-action": action, "x-kubernetes-group-version-kind": kind,
                "parameters": parameters,
            })
        };
        let get = operation("list");
        let patch = operation("patch");
        paths.insert(format!("{place}/{{name}}"), json!({"patch": patch}));
        paths.insert(place, json!({"get": get}));
    }
    if paths.is_empty() {
        return Err(Failure::page_not_found());
    }
    Ok(json!({
        "openapi": "3.0.0", "info": {"title": "stand-in", "version": "v1"},
        "paths": paths, "components": {"schemas": schemas},
    }))
}

fn schema(resource: &Resource, kind: &Value) -> Value {
    let custom = resource.custom.as_ref();
    let mut schema = custom.map_or_else(|| json!({"type": "object"}), |one| one.schema.clone());
    schema["x-kubernetes-group-version-kind"] = json!([kind]);
    for (field, what) in [
        ("apiVersion", "string"),
        ("kind", "string"),
        ("metadata", "object"),
    ] {
        schema["properties"][field]["type"] = what.into();
    }
    schema
}
