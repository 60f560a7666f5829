//! Owns what happens to an object between the client and the store: its type and names are
//! checked, the server's own fields set, the status kept apart, the schema applied.

use serde_json::{Map, Value, json};

use super::{
    clock,
    failure::{Cause, Failure, Invalid},
    kinds::Resource,
    managed,
    route::Call,
    schema,
};

/// The fields of the metadata that clients cannot change.
const SYSTEM: [&str; 5] = [
    "uid",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generation",
];

/// Whose object is invalid, for error texts.
pub fn who<'a>(resource: &'a Resource, name: &'a str) -> Invalid<'a> {
    Invalid {
        group: &resource.group,
        kind: &resource.kind,
        name,
    }
}

/// Checks kind and version of what a client sent, and sets them where a built-in one lacks them.
///
/// # Errors
///
/// They are another's.
pub fn check_type(resource: &Resource, object: &mut Value) -> Result<(), Failure> {
    let sent = object.to_string();
    let Value::Object(fields) = object else {
        return Err(Failure::bad_request("the object provided is unrecognized"));
    };
    let kind = fields
        .get("kind")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned();
    let version = fields
        .get("apiVersion")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned();
    if resource.custom.is_some() && (kind.is_empty() || version.is_empty()) {
        let what = if kind.is_empty() {
            "Kind"
        } else {
            "apiVersion"
        };
        return Err(Failure::bad_request(format!(
            "the object provided is unrecognized (must be of type {}): Object '{what}' is missing \
             in '{sent}' ({sent})",
            resource.kind
        )));
    }
    let wrong_kind = !kind.is_empty() && kind != resource.kind;
    let wrong_version = !version.is_empty() && version != resource.api_version();
    if wrong_kind || wrong_version {
        return Err(wrong_type(resource, &kind, &version));
    }
    fields.insert("kind".to_owned(), resource.kind.as_str().into());
    fields.insert("apiVersion".to_owned(), resource.api_version().into());
    if resource.kind == "Lease" {
        check_times(&fields["spec"])?;
    }
    let metadata = fields.entry("metadata").or_insert_with(|| json!({}));
    if !metadata.is_object() {
        return Err(Failure::bad_request("metadata must be an object"));
    }
    Ok(())
}

/// A Lease has times with six digits after the point, neither more nor fewer.
fn check_times(spec: &Value) -> Result<(), Failure> {
    for text in ["acquireTime", "renewTime"].map(|field| spec[field].as_str()) {
        let Some((text, rest)) = text.and_then(|text| Some((text, text.get(19..)?))) else {
            continue;
        };
        let fraction = rest.strip_prefix('.').unwrap_or_default();
        let digits = fraction.bytes().take_while(u8::is_ascii_digit).count();
        if digits != 6 {
            return Err(Failure::bad_request(format!(
                "Lease in version \"v1\" cannot be handled as a Lease: parsing time \"{text}\" as \
                 \"2006-01-02T15:04:05.000000Z07:00\": cannot parse \"{rest}\" as \".000000\""
            )));
        }
    }
    Ok(())
}

fn wrong_type(resource: &Resource, kind: &str, version: &str) -> Failure {
    let (group, version) = version.rsplit_once('/').unwrap_or(("", version));
    let ours = match resource.group.split('.').next() {
        None | Some("") => "core",
        Some(word) => word,
    };
    let expected = resource.api_version();
    let message = match &resource.custom {
        Some(_) => format!(
            "the API version in the data ({}) does not match the expected API version ({expected})",
            if group.is_empty() {
                version.to_owned()
            } else {
                format!("{group}/{version}")
            },
        ),
        None => format!(
            "{kind} in version \"{version}\" cannot be handled as a {}: converting ({version}.{kind}) \
             to ({ours}.{}): unknown conversion",
            resource.kind, resource.kind
        ),
    };
    Failure::bad_request(message)
}

/// Sets name and namespace of a new object, and returns the name.
///
/// # Errors
///
/// They are missing, malformed, or not those of the path.
pub fn names(call: &Call, object: &mut Value) -> Result<String, Failure> {
    let resource = &call.resource;
    let metadata = &mut object["metadata"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut name = text(&metadata["name"]);
    let prefix = text(&metadata["generateName"]);
    if name.is_empty() && !prefix.is_empty() {
        let letters = b"bcdfghjklmnpqrstvwxz2456789";
        let suffix = (0..5).map(|_| char::from(letters[fastrand::usize(..letters.len())]));
        name = format!("{prefix}{}", suffix.collect::<String>());
        metadata["name"] = name.as_str().into();
    }
    if let Some(expected) = call.name.as_deref().filter(|expected| *expected != name) {
        return Err(Failure::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({expected})"
        )));
    }
    let sent = text(&metadata["namespace"]);
    let expected = call.namespace.clone().unwrap_or_default();
    if !sent.is_empty() && sent != expected {
        return Err(Failure::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    if resource.namespaced {
        metadata["namespace"] = expected.into();
    }
    if name.is_empty() {
        let text = "Required value: name or generateName is required";
        let cause = Cause::new("FieldValueRequired", "metadata.name", text);
        return Err(Failure::invalid(&who(resource, ""), &[cause]));
    }
    if let Some(why) = bad_name(&name) {
        let cause = Cause::invalid("metadata.name", &name.as_str().into(), why);
        return Err(Failure::invalid(&who(resource, &name), &[cause]));
    }
    Ok(name)
}

fn bad_name(name: &str) -> Option<&'static str> {
    let part = |part: &str| {
        let ends = [part.chars().next(), part.chars().next_back()];
        let ends = ends.iter().flatten().all(char::is_ascii_alphanumeric);
        let plain =
            |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '-';
        !part.is_empty() && ends && part.chars().all(plain)
    };
    let good = name.len() <= 253 && name.split('.').all(part);
    (!good).then_some(
        "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or \
         '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used \
         for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
    )
}

/// What is left of a new object: no status where that is a subresource, the server's fields set.
///
/// # Errors
///
/// The schema refuses it.
pub fn for_create(call: &Call, mut object: Value) -> Result<Value, Failure> {
    let resource = &call.resource;
    schema::prepare(call, &mut object)?;
    if resource.status
        && let Value::Object(fields) = &mut object
    {
        fields.remove("status");
    }
    let metadata = &mut object["metadata"];
    if let Value::Object(fields) = metadata {
        for field in SYSTEM {
            fields.remove(field);
        }
        fields.remove("resourceVersion");
        fields.remove("selfLink");
        if call.content_type() != managed::APPLY {
            fields.remove("managedFields");
        }
    }
    metadata["uid"] = clock::uid().into();
    metadata["creationTimestamp"] = clock::now().into();
    if resource.generation {
        metadata["generation"] = 1.into();
    }
    default_built_in(resource, &mut object);
    if resource.kind == "Event" {
        check_event(&object)?;
    }
    schema::validate(resource, &object, None)?;
    Ok(object)
}

/// What a few built-in kinds get from the server.
fn default_built_in(resource: &Resource, object: &mut Value) {
    match (resource.group.as_str(), resource.kind.as_str()) {
        ("", "Namespace") => {
            let name = object["metadata"]["name"].clone();
            object["metadata"]["labels"]["kubernetes.io/metadata.name"] = name;
            object["spec"] = json!({"finalizers": ["kubernetes"]});
            object["status"] = json!({"phase": "Active"});
        }
        ("", "Secret") => {
            string_data(object);
            if object["type"].is_null() {
                object["type"] = "Opaque".into();
            }
        }
        ("", "Event") => default_event(object),
        ("apps", "DaemonSet") => {
            let generation = "deprecated.daemonset.template.generation";
            object["metadata"]["annotations"][generation] = "1".into();
            object["status"] = json!({
                "currentNumberScheduled": 0, "desiredNumberScheduled": 0, "numberMisscheduled": 0,
                "numberReady": 0,
            });
        }
        ("", "Pod") => object["status"] = json!({"phase": "Pending", "qosClass": "BestEffort"}),
        ("apiextensions.k8s.io", _) => {
            let names = &mut object["spec"]["names"];
            let kind = names["kind"].as_str().unwrap_or_default().to_owned();
            if names["listKind"].is_null() {
                names["listKind"] = format!("{kind}List").into();
            }
            if names["singular"].is_null() {
                names["singular"] = kind.to_lowercase().into();
            }
            object["spec"]["conversion"] = json!({"strategy": "None"});
        }
        _ => {}
    }
}

/// The fields that an Event always has.
pub fn default_event(event: &mut Value) {
    for field in ["firstTimestamp", "lastTimestamp", "eventTime"] {
        event[field] = event[field].take();
    }
    for field in ["reportingComponent", "reportingInstance"] {
        if event[field].is_null() {
            event[field] = "".into();
        }
    }
    if event["source"].is_null() {
        event["source"] = json!({});
    }
}

/// An Event is in the namespace of what it is about, or in `default` where that has none.
fn check_event(event: &Value) -> Result<(), Failure> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (is, about) = (
        text(&event["metadata"]["namespace"]),
        text(&event["involvedObject"]["namespace"]),
    );
    if about == is || (about.is_empty() && is == "default") {
        return Ok(());
    }
    let why = "does not match event.namespace";
    let cause = Cause::invalid("involvedObject.namespace", &about.into(), why);
    let who = Invalid {
        group: "",
        kind: "Event",
        name: &text(&event["metadata"]["name"]),
    };
    Err(Failure::invalid(&who, &[cause]))
}

/// Moves `stringData` of a Secret to `data`.
fn string_data(object: &mut Value) {
    let Some(Value::Object(texts)) = object.as_object_mut().and_then(|o| o.remove("stringData"))
    else {
        return;
    };
    for (key, text) in texts {
        let bytes = k8s_openapi::ByteString(text.as_str().unwrap_or_default().into());
        object["data"][key] = serde_json::to_value(bytes).unwrap_or_default();
    }
}

/// What becomes of `old` when a client wants `new`.
///
/// # Errors
///
/// The schema refuses it, or it changes what cannot be changed.
pub fn for_update(call: &Call, old: &Value, mut new: Value) -> Result<Value, Failure> {
    let resource = &call.resource;
    schema::prepare(call, &mut new)?;
    if call.subresource.as_deref() == Some("status") {
        let status = new["status"].take();
        let managed = new["metadata"]["managedFields"].take();
        new = resource.present(old).into_owned();
        set(&mut new, "status", status);
        set(&mut new["metadata"], "managedFields", managed);
    } else {
        if resource.status {
            set(&mut new, "status", old["status"].clone());
        }
        if resource.kind == "Secret" {
            string_data(&mut new);
        }
        for field in SYSTEM {
            set(&mut new["metadata"], field, old["metadata"][field].clone());
        }
        if resource.generation && differs(resource, old, &new) {
            let generation = old["metadata"]["generation"].as_i64().unwrap_or(1) + 1;
            new["metadata"]["generation"] = generation.into();
        }
    }
    schema::validate(resource, &new, Some(old))?;
    Ok(new)
}

/// Whether anything but metadata and status differs.
fn differs(resource: &Resource, old: &Value, new: &Value) -> bool {
    let desired = |object: &Value| -> Map<String, Value> {
        let fields = object.as_object().cloned().unwrap_or_default();
        let own = |name: &str| {
            let other = matches!(name, "metadata" | "apiVersion" | "kind");
            !other && (name != "status" || !resource.status)
        };
        fields.into_iter().filter(|(name, _)| own(name)).collect()
    };
    desired(old) != desired(new)
}

fn set(object: &mut Value, field: &str, value: Value) {
    if !value.is_null() {
        object[field] = value;
    } else if let Value::Object(fields) = object {
        fields.remove(field);
    }
}
