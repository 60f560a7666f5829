//! Owns what a CRD's schema does to an object before it is looked at: unknown fields go, defaults
//! come.

use serde_json::{Value, json};

use super::{failure::Failure, kinds::Resource, route::Call, validate};

/// The fields of every object, about which schemas need not say anything.
const EVERYWHERE: [&str; 3] = ["apiVersion", "kind", "metadata"];

/// Drops unknown fields and sets defaults.
///
/// # Errors
///
/// The client asked for unknown fields to be refused.
pub fn prepare(call: &Call, object: &mut Value) -> Result<(), Failure> {
    let unknown = prune(call, object);
    refuse_unknown(call, &unknown)?;
    if let Some(custom) = &call.resource.custom {
        default(&custom.schema, object);
    }
    Ok(())
}

/// Drops unknown fields and returns their paths.
pub fn prune(call: &Call, object: &mut Value) -> Vec<String> {
    let mut unknown = Vec::new();
    if let Some(custom) = &call.resource.custom {
        prune_root(&custom.schema, object, &mut unknown);
    }
    unknown
}

/// Deals with unknown fields as the client asked: refuses them, warns, or is silent.
fn refuse_unknown(call: &Call, unknown: &[String]) -> Result<(), Failure> {
    if call.param("fieldValidation") == Some("Strict") && !unknown.is_empty() {
        let kind = &call.resource.kind;
        let version = &call.resource.version;
        let fields: Vec<String> = unknown
            .iter()
            .map(|path| format!("unknown field \"{path}\""))
            .collect();
        return Err(Failure::bad_request(format!(
            "{kind} in version \"{version}\" cannot be handled as a {kind}: strict decoding error: {}",
            fields.join(", ")
        )));
    }
    if call.param("fieldValidation") != Some("Ignore") {
        let warnings = unknown
            .iter()
            .map(|path| format!("unknown field \"{path}\""));
        call.warnings.borrow_mut().extend(warnings);
    }
    Ok(())
}

/// Checks an object against the schema and its rules.
///
/// # Errors
///
/// It breaks one.
pub fn validate(resource: &Resource, object: &Value, old: Option<&Value>) -> Result<(), Failure> {
    match &resource.custom {
        Some(custom) => validate::check(resource, &custom.schema, object, old),
        None => Ok(()),
    }
}

fn prune_root(schema: &Value, object: &mut Value, unknown: &mut Vec<String>) {
    let mut kept = Vec::new();
    if let Value::Object(fields) = object {
        for name in EVERYWHERE {
            kept.push((name, fields.remove(name)));
        }
    }
    prune_value(schema, object, "", unknown);
    for (name, value) in kept {
        if let Some(value) = value {
            object[name] = value;
        }
    }
}

fn prune_value(schema: &Value, value: &mut Value, path: &str, unknown: &mut Vec<String>) {
    let keep = schema["x-kubernetes-preserve-unknown-fields"] == true;
    let embedded = schema["x-kubernetes-embedded-resource"] == true;
    match value {
        Value::Object(fields) => {
            let others = schema
                .get("additionalProperties")
                .filter(|others| **others != false);
            fields.retain(|name, field| {
                let path = if path.is_empty() {
                    name.clone()
                } else {
                    format!("{path}.{name}")
                };
                if let Some(property) = schema["properties"].get(name) {
                    prune_value(property, field, &path, unknown);
                } else if let Some(others) = others {
                    if others.is_object() {
                        prune_value(others, field, &path, unknown);
                    }
                } else {
                    let known = keep || (embedded && EVERYWHERE.contains(&name.as_str()));
                    if !known {
                        unknown.push(path);
                    }
                    return known;
                }
                true
            });
        }
        Value::Array(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                prune_value(&schema["items"], item, &format!("{path}[{index}]"), unknown);
            }
        }
        _ => {}
    }
}

/// Sets what is missing and has a default, and drops a null that is not allowed but has one.
fn default(schema: &Value, value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, property) in schema["properties"].as_object().into_iter().flatten() {
                let refused = |field: &Value| field.is_null() && property["nullable"] != true;
                let Some(initial) = property.get("default") else {
                    continue;
                };
                if fields.get(name).is_none_or(refused) {
                    fields.insert(name.clone(), initial.clone());
                }
            }
            for (name, field) in fields {
                let property = schema["properties"].get(name);
                if let Some(property) = property.or(schema.get("additionalProperties")) {
                    default(property, field);
                }
            }
        }
        Value::Array(items) => {
            for item in items {
                default(&schema["items"], item);
            }
        }
        _ => {}
    }
    drop_refused_nulls(schema, value);
}

/// Fields that are null, must not be, and need not be there, go.
fn drop_refused_nulls(schema: &Value, value: &mut Value) {
    let Value::Object(fields) = value else {
        return;
    };
    fields.retain(|name, field| {
        let property = schema["properties"].get(name);
        !field.is_null() || property.is_none_or(|property| property["nullable"] == json!(true))
    });
}
