//! Owns what happens to CRDs besides being stored.

use serde_json::{Value, json};

use super::{
    clock,
    failure::{Cause, Failure, Invalid},
    kinds::{CRDS, Resource},
    managed,
    store::{Key, Store},
};

/// Checks what a CRD needs to be served.
///
/// # Errors
///
/// It lacks something, or its name is not that of its parts.
pub fn check(crd: &Value) -> Result<(), Failure> {
    let spec = &crd["spec"];
    let name = crd["metadata"]["name"].as_str().unwrap_or_default();
    let mut causes = Vec::new();
    let required = [
        ("spec.group", &spec["group"]),
        ("spec.scope", &spec["scope"]),
    ];
    let names = ["plural", "kind"].map(|part| (part, &spec["names"][part]));
    for (field, value) in required {
        if value.as_str().is_none_or(str::is_empty) {
            causes.push(Cause::required(field));
        }
    }
    for (part, value) in names {
        if value.as_str().is_none_or(str::is_empty) {
            causes.push(Cause::required(&format!("spec.names.{part}")));
        }
    }
    let versions = spec["versions"].as_array().map_or(&[][..], Vec::as_slice);
    for (index, version) in versions.iter().enumerate() {
        if !version["schema"]["openAPIV3Schema"].is_object() {
            let field = format!("spec.versions[{index}].schema.openAPIV3Schema");
            let message = "Required value: schemas are required";
            causes.push(Cause::new("FieldValueRequired", &field, message));
        }
    }
    let plural = spec["names"]["plural"].as_str().unwrap_or_default();
    let expected = format!("{plural}.{}", spec["group"].as_str().unwrap_or_default());
    if causes.is_empty() && name != expected {
        let why = "must be spec.names.plural+\".\"+spec.group";
        causes.push(Cause::invalid("metadata.name", &name.into(), why));
    }
    if versions
        .iter()
        .filter(|version| version["storage"] == true)
        .count()
        != 1
    {
        let why = "must have exactly one version marked as storage version";
        let message = format!("Invalid value: {why}");
        causes.push(Cause::new("FieldValueInvalid", "spec.versions", message));
    }
    if causes.is_empty() {
        return Ok(());
    }
    let who = Invalid {
        group: "apiextensions.k8s.io",
        kind: "CustomResourceDefinition",
        name,
    };
    Err(Failure::invalid(&who, &causes))
}

/// A CRD as it is right after its creation.
pub fn initial(mut crd: Value) -> Value {
    let versions = crd["spec"]["versions"].as_array().into_iter().flatten();
    let stored = versions.filter(|version| version["storage"] == true);
    let stored: Vec<Value> = stored.map(|version| version["name"].clone()).collect();
    crd["status"] = json!({
        "conditions": null, "acceptedNames": {"plural": "", "kind": ""}, "storedVersions": stored,
    });
    crd
}

/// Accepts the names of a new CRD. The real server does it in a controller, a moment later.
pub fn establish(store: &mut Store, resource: &Resource, key: &Key) {
    let Some(old) = store.get(CRDS, key).cloned() else {
        return;
    };
    let mut crd = Value::clone(&old);
    crd["status"]["conditions"] = json!([
        condition("NamesAccepted", "NoConflicts", "no conflicts found"),
        condition(
            "Established",
            "InitialNamesAccepted",
            "the initial names have been accepted"
        ),
    ]);
    crd["status"]["acceptedNames"] = crd["spec"]["names"].clone();
    // Nobody owns which versions are stored.
    let mut blank = Value::clone(&old);
    blank["status"] = json!({
        "acceptedNames": {}, "conditions": [], "storedVersions": old["status"]["storedVersions"],
    });
    managed::by_server(resource, Some("status"), &blank, &mut crd);
    store.put(CRDS, key, crd);
}

fn condition(kind: &str, reason: &str, message: &str) -> Value {
    json!({
        "type": kind, "status": "True", "lastTransitionTime": clock::now(), "reason": reason,
        "message": message,
    })
}

/// A CRD as it is while its objects go.
pub fn ending(crd: &Value) -> Value {
    let mut crd = crd.clone();
    crd["metadata"]["deletionTimestamp"] = clock::now().into();
    let message = "CustomResourceDefinition marked for deletion; CustomResource deletion will \
        begin soon";
    if let Value::Array(conditions) = &mut crd["status"]["conditions"] {
        conditions.push(condition("Terminating", "InstanceDeletionPending", message));
    }
    crd["metadata"]["finalizers"] = json!(["customresourcecleanup.apiextensions.k8s.io"]);
    crd
}

/// Removes all objects of a CRD that goes.
pub fn remove_objects(store: &mut Store, crd: &str) {
    let keys: Vec<Key> = store.table(crd).into_keys().collect();
    for key in keys {
        store.remove(crd, &key);
    }
}
