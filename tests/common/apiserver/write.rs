//! Owns the verbs that write: create, update, patch, delete.

use std::sync::Arc;

use http::Method;
use serde_json::{Value, json};

use super::{
    State, admit, apply, clock, crds,
    failure::{Cause, Failure, Invalid},
    kinds::{CRDS, NAMESPACES},
    list::Scope,
    managed, patch,
    route::Call,
    store::{Key, Store, Table},
};

/// What a write ends in: the code and the object as it is served.
pub type Written = (u16, Value);

/// # Errors
///
/// As the real server: the object is there, or malformed, or its namespace is missing.
pub fn create(state: &State, call: &Call) -> Result<Written, Failure> {
    let mut object = call.object()?;
    admit::check_type(&call.resource, &mut object)?;
    let name = admit::names(call, &mut object)?;
    create_object(state, call, &name, object)
}

fn create_object(
    state: &State,
    call: &Call,
    name: &str,
    object: Value,
) -> Result<Written, Failure> {
    let resource = &call.resource;
    if resource.namespaced && call.namespace.is_none() {
        return Err(Failure::method_not_allowed());
    }
    let key = Key {
        namespace: call.namespace.clone().unwrap_or_default(),
        name: name.to_owned(),
    };
    let mut store = state.store();
    if resource.namespaced {
        check_namespace(&store, resource, &key)?;
    }
    let table = resource.table();
    let version = object["metadata"]["resourceVersion"].as_str();
    let stored = store.get(&table, &key).is_some();
    if call.method == Method::POST && version.is_some_and(|text| !matches!(text, "" | "0")) {
        let text = "resourceVersion should not be set on objects to be created";
        return Err(Failure::unexplained(500, text));
    }
    let object = admit::for_create(call, object)?;
    if stored {
        return Err(Failure::already_exists(resource, name));
    }
    let mut object = managed::after_update(call, None, object);
    if table == CRDS {
        crds::check(&object)?;
        object = crds::initial(object);
    }
    let object = commit(&mut store, call, &key, object);
    if table == CRDS && !call.dry_run() {
        crds::establish(&mut store, resource, &key);
    }
    drop(store);
    state.announce();
    Ok((201, object))
}

/// # Errors
///
/// The namespace of a new object is not there, or is ending.
pub fn check_namespace(
    store: &Store,
    resource: &super::kinds::Resource,
    key: &Key,
) -> Result<(), Failure> {
    let namespace = Key {
        namespace: String::new(),
        name: key.namespace.clone(),
    };
    match store.get(NAMESPACES, &namespace) {
        Some(found) if found["metadata"]["deletionTimestamp"].is_null() => Ok(()),
        Some(_) => {
            let ending = &key.namespace;
            let message = format!(
                "{} \"{}\" is forbidden: unable to create new content in namespace {ending} \
                 because it is being terminated",
                resource.qualified(),
                key.name
            );
            Err(Failure::new(
                403,
                "Forbidden",
                message,
                resource.details(&key.name),
            ))
        }
        None => {
            let message = format!("namespaces \"{}\" not found", key.namespace);
            let details = json!({"name": key.namespace, "kind": "namespaces"});
            Err(Failure::new(404, "NotFound", message, details))
        }
    }
}

fn commit(store: &mut Store, call: &Call, key: &Key, object: Value) -> Value {
    if call.dry_run() {
        return call.resource.present(&object).into_owned();
    }
    let stored = store.put(&call.resource.table(), key, object);
    call.resource.present(&stored).into_owned()
}

/// # Errors
///
/// As the real server: the object is not there, or malformed, or was changed meanwhile.
pub fn update(state: &State, call: &Call) -> Result<Written, Failure> {
    let mut object = call.object()?;
    admit::check_type(&call.resource, &mut object)?;
    admit::names(call, &mut object)?;
    let version = object["metadata"]["resourceVersion"]
        .as_str()
        .unwrap_or_default();
    let must = call.resource.custom.is_some() || call.resource.table() == CRDS;
    if must && version.is_empty() {
        let name = call.key().name;
        if state
            .store()
            .get(&call.resource.table(), &call.key())
            .is_none()
        {
            return Err(Failure::not_found(&call.resource, &name));
        }
        return Err(unconditional(call, &name));
    }
    let absent = state
        .store()
        .get(&call.resource.table(), &call.key())
        .is_none();
    if call.resource.upserts() && absent {
        return create_object(state, call, &call.key().name, object);
    }
    change(state, call, |_| Ok(object.clone()))
}

/// What an update gets that does not say which version it is of, where it must.
fn unconditional(call: &Call, name: &str) -> Failure {
    let field = "metadata.resourceVersion";
    let cause = Cause::invalid(field, &json!(0), "must be specified for an update");
    let who = Invalid {
        group: &call.resource.group,
        kind: &call.resource.plural,
        name,
    };
    Failure::invalid(&who, &[cause])
}

/// # Errors
///
/// As the real server: the object is not there (for all but apply), the patch malformed or not
/// applicable, or the result malformed.
pub fn patch(state: &State, call: &Call) -> Result<Written, Failure> {
    match call.content_type() {
        managed::APPLY => {
            let wanted = apply::parse(call)?;
            if state
                .store()
                .get(&call.resource.table(), &call.key())
                .is_none()
            {
                return apply_new(state, call, wanted);
            }
            change(state, call, |old| apply::merge(call, old, &wanted))
        }
        kind => {
            let patch = patch::parse(call, kind)?;
            change(state, call, |old| patch.apply(call, old))
        }
    }
}

fn apply_new(state: &State, call: &Call, wanted: Value) -> Result<Written, Failure> {
    if call.subresource.is_some() {
        return Err(Failure::not_found(&call.resource, &call.key().name));
    }
    let mut object = wanted;
    let name = admit::names(call, &mut object)?;
    if let Some(uid) = object["metadata"]["uid"].as_str() {
        let why = format!(
            "uid mismatch: the provided object specified uid {uid}, and no existing object was found"
        );
        return Err(Failure::conflict(&call.resource, &name, &why));
    }
    create_object(state, call, &name, apply::first(call, object))
}

/// Changes an object as `make` says.
fn change(
    state: &State,
    call: &Call,
    make: impl FnOnce(&Value) -> Result<Value, Failure>,
) -> Result<Written, Failure> {
    let resource = &call.resource;
    let key = call.key();
    let table = resource.table();
    let mut store = state.store();
    let found = store.get(&table, &key).cloned();
    let old = found.ok_or_else(|| Failure::not_found(resource, &key.name))?;
    let old = resource.present(&old).into_owned();
    let mut new = make(&old)?;
    admit::check_type(resource, &mut new)?;
    check_preconditions(call, &key, &old, &new)?;
    let new = admit::for_update(call, &old, new)?;
    let mut new = managed::after_update(call, Some(&old), new);
    new["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"].clone();
    if table == CRDS {
        crds::check(&new)?;
    }
    if managed::same(&old, &new) {
        return Ok((200, old));
    }
    let object = commit(&mut store, call, &key, new);
    if !call.dry_run() {
        finish(&mut store, &table, &key);
    }
    drop(store);
    state.announce();
    Ok((200, object))
}

/// Removes an object that waits only for its last finalizer, which is gone.
fn finish(store: &mut Store, table: &str, key: &Key) {
    let Some(object) = store.get(table, key) else {
        return;
    };
    let finalizers = object["metadata"]["finalizers"].as_array();
    let waiting = finalizers.is_some_and(|finalizers| !finalizers.is_empty());
    if !object["metadata"]["deletionTimestamp"].is_null() && !waiting {
        store.remove(table, key);
    }
}

fn check_preconditions(call: &Call, key: &Key, old: &Value, new: &Value) -> Result<(), Failure> {
    let text = |object: &Value, field: &str| {
        object["metadata"][field]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    let (uid, is) = (text(new, "uid"), text(old, "uid"));
    if uid != is && call.method == Method::PATCH {
        // What a patch of a custom resource's status says of the metadata does not count.
        if call.resource.custom.is_none() || call.subresource.is_none() {
            let value = uid.into();
            let cause = Cause::invalid("metadata.uid", &value, "field is immutable");
            let who = admit::who(&call.resource, &key.name);
            return Err(Failure::invalid(&who, &[cause.clone(), cause]));
        }
    } else if !uid.is_empty() && uid != is {
        let place = match call.resource.group.as_str() {
            "" => call.resource.plural.clone(),
            group => format!("{group}/{}", call.resource.plural),
        };
        let path = [place.as_str(), &key.namespace, &key.name];
        let path: Vec<&str> = path.into_iter().filter(|part| !part.is_empty()).collect();
        let why = format!(
            "StorageError: invalid object, Code: 4, Key: /registry/{}, ResourceVersion: 0, \
             AdditionalErrorMsg: Precondition failed: UID in precondition: {uid}, UID in object \
             meta: {is}",
            path.join("/")
        );
        return Err(Failure::conflict(&call.resource, &key.name, &why));
    }
    let version = text(new, "resourceVersion");
    if !version.is_empty() && version != text(old, "resourceVersion") {
        return Err(Failure::stale(&call.resource, &key.name));
    }
    Ok(())
}

/// # Errors
///
/// As the real server: the object is not there, or not the one meant.
pub fn delete(state: &State, call: &Call) -> Result<Written, Failure> {
    let resource = &call.resource;
    let key = call.key();
    let options = options(call)?;
    let mut store = state.store();
    let found = store.get(&resource.table(), &key).cloned();
    let object = found.ok_or_else(|| Failure::not_found(resource, &key.name))?;
    check_delete(call, &key, &object, &options)?;
    if call.dry_run() {
        return Ok((200, deleted(call, &object)));
    }
    let left = delete_one(&mut store, call, &key, &object);
    drop(store);
    state.announce();
    let answer = left.map(|left| resource.present(&left).into_owned());
    Ok((200, answer.unwrap_or_else(|| deleted(call, &object))))
}

fn options(call: &Call) -> Result<Value, Failure> {
    if call.body.is_empty() {
        return Ok(json!({}));
    }
    call.object()
}

fn check_delete(call: &Call, key: &Key, object: &Value, options: &Value) -> Result<(), Failure> {
    let wanted = |field: &str| options["preconditions"][field].as_str();
    let is = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
    let refuse = |what: &str, wanted: &str, is: &str, more: &str| {
        let kind = &call.resource.kind;
        let message = format!(
            "Operation cannot be fulfilled on {kind} \"{}\": the {what} in the precondition \
             ({wanted}) does not match the {what} in record ({is}). The object might have been {more}",
            key.name
        );
        let details = json!({"name": key.name, "kind": kind});
        Err(Failure::new(409, "Conflict", message, details))
    };
    if let Some(uid) = wanted("uid").filter(|uid| *uid != is("uid")) {
        return refuse("UID", uid, is("uid"), "deleted and then recreated");
    }
    let version = is("resourceVersion");
    if let Some(other) = wanted("resourceVersion").filter(|other| *other != version) {
        return refuse("ResourceVersion", other, version, "modified");
    }
    Ok(())
}

/// Deletes an object, or marks it where finalizers hold it: then it is returned. What is in a
/// namespace, and the objects of a CRD, go at once with it, as no controllers are here.
fn delete_one(store: &mut Store, call: &Call, key: &Key, object: &Value) -> Option<Arc<Value>> {
    let table = call.resource.table();
    let finalizers = object["metadata"]["finalizers"].as_array();
    if finalizers.is_some_and(|finalizers| !finalizers.is_empty()) {
        if !object["metadata"]["deletionTimestamp"].is_null() {
            return Some(Arc::new(object.clone()));
        }
        let mut marked = object.clone();
        marked["metadata"]["deletionTimestamp"] = clock::now().into();
        marked["metadata"]["deletionGracePeriodSeconds"] = 0.into();
        if let Some(generation) = marked["metadata"]["generation"].as_i64() {
            marked["metadata"]["generation"] = (generation + 1).into();
        }
        return Some(store.put(&table, key, marked));
    }
    if table == CRDS {
        let ending = store.put(&table, key, crds::ending(object));
        crds::remove_objects(store, &key.name);
        store.remove(&table, key);
        return Some(ending);
    } else if table == NAMESPACES {
        store.remove_namespace(&key.name);
    }
    store.remove(&table, key);
    None
}

/// The answer to a deletion that is done.
fn deleted(call: &Call, object: &Value) -> Value {
    let mut details = call.resource.details(&call.key().name);
    details["uid"] = object["metadata"]["uid"].clone();
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
        "details": details,
    })
}

/// Deletes all that match, and returns them as they were.
///
/// # Errors
///
/// A selector is malformed.
pub fn delete_collection(state: &State, call: &Call) -> Result<(Table, u64), Failure> {
    let scope = Scope::of(call)?;
    let mut store = state.store();
    let mut objects = store.table(&call.resource.table());
    objects.retain(|key, object| scope.holds(key, object));
    let revision = store.revision();
    if !call.dry_run() {
        for (key, object) in &objects {
            delete_one(&mut store, call, key, object);
        }
    }
    drop(store);
    state.announce();
    Ok((objects, revision))
}
