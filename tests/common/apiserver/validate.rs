//! Owns the checks of a CRD's schema: types, bounds, lists, and the rules in CEL.

use std::collections::HashSet;

use kube::core::cel::{RootContext, ValidationError, Validator};
use serde_json::Value;

use super::{
    admit,
    failure::{Cause, Failure},
    kinds::Resource,
};

/// The reasons after which the real server does not look at the rules.
const BLOCKING: [&str; 5] = [
    "FieldValueRequired",
    "FieldValueNotSupported",
    "FieldValueTooLong",
    "FieldValueTooMany",
    "FieldValueTypeInvalid",
];

/// Checks an object against its schema.
///
/// # Errors
///
/// It breaks the schema; all causes are named.
pub fn check(
    resource: &Resource,
    schema: &Value,
    object: &Value,
    old: Option<&Value>,
) -> Result<(), Failure> {
    let mut causes = Vec::new();
    let root = without_metadata(object);
    value(schema, &root, "", &mut causes);
    let blocked = causes.iter().any(|cause| BLOCKING.contains(&cause.reason));
    if has_rules(schema) {
        if blocked {
            let why = "some validation rules were not checked because the object was invalid; \
                correct the existing errors to complete validation";
            causes.push(Cause::invalid("", &Value::Null, why));
        } else {
            let changed = without_unchanged(schema, object, old);
            causes.extend(rules(resource, schema, &changed, old));
        }
    }
    if causes.is_empty() {
        return Ok(());
    }
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    Err(Failure::invalid(&admit::who(resource, name), &causes))
}

fn without_metadata(object: &Value) -> Value {
    let mut object = object.clone();
    if let Value::Object(fields) = &mut object {
        for name in ["apiVersion", "kind", "metadata"] {
            fields.remove(name);
        }
    }
    object
}

/// The real server does not ask the rules again about what was accepted and has not changed, such as
/// the spec where a status is written.
fn without_unchanged(schema: &Value, object: &Value, old: Option<&Value>) -> Value {
    let mut changed = object.clone();
    if let (Value::Object(fields), Some(old)) = (&mut changed, old)
        && schema.get("x-kubernetes-validations").is_none()
    {
        fields.retain(|name, value| name != "spec" && name != "status" || old[name] != *value);
    }
    changed
}

fn has_rules(schema: &Value) -> bool {
    match schema {
        Value::Object(fields) => {
            fields.contains_key("x-kubernetes-validations") || fields.values().any(has_rules)
        }
        Value::Array(items) => items.iter().any(has_rules),
        _ => false,
    }
}

fn below(path: &str, field: &str) -> String {
    if path.is_empty() {
        field.to_owned()
    } else {
        format!("{path}.{field}")
    }
}

/// Checks a value and all below it.
fn value(schema: &Value, value: &Value, path: &str, causes: &mut Vec<Cause>) {
    if !schema.is_object() || (value.is_null() && schema["nullable"] == true) {
        return;
    }
    let is = type_of(value);
    if let Some(wanted) = wanted_type(schema).filter(|wanted| !fits(wanted, value)) {
        let message =
            format!("Invalid value: \"{is}\": {path} in body must be of type {wanted}: \"{is}\"");
        causes.push(Cause::new("FieldValueTypeInvalid", path, message));
    }
    if let Some(allowed) = schema["enum"]
        .as_array()
        .filter(|allowed| !allowed.contains(value))
    {
        let allowed: Vec<String> = allowed.iter().map(Value::to_string).collect();
        let message = format!(
            "Unsupported value: {value}: supported values: {}",
            allowed.join(", ")
        );
        causes.push(Cause::new("FieldValueNotSupported", path, message));
    }
    match value {
        Value::String(text) => string(schema, text, path, causes),
        Value::Number(number) => {
            bounds(schema, number.as_f64().unwrap_or(0.0), value, path, causes);
        }
        Value::Array(items) => array(schema, items, path, causes),
        Value::Object(_) => object(schema, value, path, causes),
        _ => {}
    }
    junctors(schema, value, path, causes);
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn wanted_type(schema: &Value) -> Option<&str> {
    if schema["x-kubernetes-int-or-string"] == true {
        return Some("integer,string");
    }
    schema["type"].as_str().filter(|wanted| !wanted.is_empty())
}

fn fits(wanted: &str, value: &Value) -> bool {
    let is = type_of(value);
    wanted
        .split(',')
        .any(|one| one == is || (one == "number" && is == "integer"))
}

fn string(schema: &Value, text: &str, path: &str, causes: &mut Vec<Cause>) {
    let refuse = |why: String| Cause::invalid(path, &text.into(), &format!("{path} in body {why}"));
    let length = text.chars().count() as u64;
    if let Some(most) = schema["maxLength"].as_u64().filter(|most| length > *most) {
        let message = format!("Too long: may not be more than {most} bytes");
        causes.push(Cause::new("FieldValueTooLong", path, message));
    } else if let Some(least) = schema["minLength"].as_u64().filter(|least| length < *least) {
        causes.push(refuse(format!("should be at least {least} chars long")));
    } else if let Some(pattern) = schema["pattern"].as_str() {
        let matches = regex::Regex::new(pattern).is_ok_and(|pattern| pattern.is_match(text));
        if !matches {
            causes.push(refuse(format!("should match '{pattern}'")));
        }
    }
    let time = || text.parse::<k8s_openapi::jiff::Timestamp>();
    if schema["format"] == "date-time" && time().is_err() {
        let message = format!(
            "Invalid value: \"{text}\": {path} in body must be of type date-time: \"{text}\""
        );
        causes.push(Cause::new("FieldValueTypeInvalid", path, message));
    }
}

fn bounds(schema: &Value, number: f64, value: &Value, path: &str, causes: &mut Vec<Cause>) {
    let mut refuse = |why: String| {
        causes.push(Cause::invalid(
            path,
            value,
            &format!("{path} in body should be {why}"),
        ));
    };
    let limit = |name: &str| schema[name].as_f64();
    let exclusive = |name: &str| schema[name] == true;
    if let Some(step) = limit("multipleOf").filter(|step| number % step != 0.0) {
        refuse(format!("a multiple of {step}"));
    }
    if let Some(least) = limit("minimum") {
        if exclusive("exclusiveMinimum") && number <= least {
            refuse(format!("greater than {least}"));
        } else if number < least {
            refuse(format!("greater than or equal to {least}"));
        }
    }
    if let Some(most) = limit("maximum") {
        if exclusive("exclusiveMaximum") && number >= most {
            refuse(format!("less than {most}"));
        } else if number > most {
            refuse(format!("less than or equal to {most}"));
        }
    }
}

/// Checks how many items or properties there are.
fn size(schema: &Value, count: usize, what: &str, path: &str, causes: &mut Vec<Cause>) {
    let count = count as u64;
    let limit = |side: &str| {
        let name = if what == "items" {
            "Items"
        } else {
            "Properties"
        };
        schema[format!("{side}{name}")].as_u64()
    };
    if let Some(most) = limit("max").filter(|most| count > *most) {
        let message = format!("Too many: {count}: must have at most {most} items");
        causes.push(Cause::new("FieldValueTooMany", path, message));
    }
    if let Some(least) = limit("min").filter(|least| count < *least) {
        let why = format!("{path} in body should have at least {least} {what}");
        causes.push(Cause::invalid(path, &count.into(), &why));
    }
}

fn array(schema: &Value, items: &[Value], path: &str, causes: &mut Vec<Cause>) {
    size(schema, items.len(), "items", path, causes);
    for (index, item) in items.iter().enumerate() {
        value(&schema["items"], item, &format!("{path}[{index}]"), causes);
    }
    let keys: Vec<Value> = match schema["x-kubernetes-list-type"].as_str() {
        Some("set") => items.to_vec(),
        Some("map") => {
            let names = schema["x-kubernetes-list-map-keys"].as_array();
            let names: Vec<&str> = names
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .collect();
            let key = |item: &Value| {
                let fields = names
                    .iter()
                    .map(|name| ((*name).to_owned(), item[*name].clone()));
                Value::Object(fields.collect())
            };
            items.iter().map(key).collect()
        }
        _ => return,
    };
    let mut seen = HashSet::new();
    for (index, key) in keys.iter().enumerate() {
        if !seen.insert(key) {
            let field = format!("{path}[{index}]");
            let message = format!("Duplicate value: {key}");
            causes.push(Cause::new("FieldValueDuplicate", &field, message));
        }
    }
}

fn object(schema: &Value, object: &Value, path: &str, causes: &mut Vec<Cause>) {
    let fields = object.as_object().into_iter().flatten();
    size(schema, fields.clone().count(), "properties", path, causes);
    for name in schema["required"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
    {
        if object.get(name).is_none() {
            causes.push(Cause::required(&below(path, name)));
        }
    }
    for (name, field) in fields {
        let property = schema["properties"].get(name);
        if let Some(property) = property.or(schema.get("additionalProperties")) {
            value(property, field, &below(path, name), causes);
        }
    }
}

fn junctors(schema: &Value, it: &Value, path: &str, causes: &mut Vec<Cause>) {
    let mut refuse = |why: String| {
        causes.push(Cause::invalid("", &"".into(), &format!("\"{path}\" {why}")));
    };
    let results = |name: &str| -> Option<Vec<Vec<Cause>>> {
        let check = |schema: &Value| {
            let mut causes = Vec::new();
            value(schema, it, path, &mut causes);
            causes
        };
        Some(schema[name].as_array()?.iter().map(check).collect())
    };
    let good = |results: &[Vec<Cause>]| results.iter().filter(|causes| causes.is_empty()).count();
    let mut more = Vec::new();
    if let Some(results) = results("anyOf").filter(|results| good(results) == 0) {
        refuse("must validate at least one schema (anyOf)".to_owned());
        more.extend(results.into_iter().next().unwrap_or_default());
    }
    if let Some(results) = results("oneOf").filter(|results| good(results) != 1) {
        let found = match good(&results) {
            0 => "none valid".to_owned(),
            many => format!("{many} valid alternatives"),
        };
        refuse(format!(
            "must validate one and only one schema (oneOf). Found {found}"
        ));
        if good(&results) == 0 {
            more.extend(results.into_iter().next().unwrap_or_default());
        }
    }
    if schema["not"].is_object() {
        let mut inner = Vec::new();
        value(&schema["not"], it, path, &mut inner);
        if inner.is_empty() {
            refuse("must not validate the schema (not)".to_owned());
        }
    }
    more.extend(results("allOf").into_iter().flatten().flatten());
    causes.extend(more);
}

/// Evaluates the rules in CEL.
fn rules(resource: &Resource, schema: &Value, object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let context = RootContext {
        api_version: resource.api_version(),
        api_group: resource.group.clone(),
        kind: resource.kind.clone(),
    };
    let checked = Validator::new().validate_with_context(schema, object, old, Some(&context));
    let errors = checked
        .err()
        .map(kube::core::cel::ValidationErrors::into_vec)
        .unwrap_or_default();
    errors
        .iter()
        .map(|error| rule_cause(error, object))
        .collect()
}

fn rule_cause(error: &ValidationError, object: &Value) -> Cause {
    let pointer = format!(
        "/{}",
        error.field_path.replace(['.', '['], "/").replace(']', "")
    );
    let value = object
        .pointer(&pointer)
        .filter(|value| !value.is_object() && !value.is_array());
    let text = &error.message;
    let (reason, message) = match error.reason.as_deref() {
        Some("FieldValueRequired") => ("FieldValueRequired", format!("Required value: {text}")),
        Some("FieldValueForbidden") => ("FieldValueForbidden", format!("Forbidden: {text}")),
        Some("FieldValueDuplicate") => ("FieldValueDuplicate", format!("Duplicate value: {text}")),
        _ => {
            let value = value.map(|value| format!("{value}: ")).unwrap_or_default();
            ("FieldValueInvalid", format!("Invalid value: {value}{text}"))
        }
    };
    Cause::new(reason, &error.field_path, message)
}
