//! Owns label and field selectors.

use serde_json::Value;

use super::{failure::Failure, kinds::Resource};

/// What an object must look like to be listed.
#[derive(Debug, Default, Clone)]
pub struct Selector {
    labels: Vec<Requirement>,
    /// JSON pointer, value, and whether they must be equal.
    fields: Vec<(String, String, bool)>,
}

#[derive(Debug, Clone)]
enum Requirement {
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    Missing(String),
}

impl Selector {
    /// Reads both selectors of a query.
    ///
    /// # Errors
    ///
    /// One is malformed, or names a field by which this resource cannot be selected.
    pub fn parse(labels: &str, fields: &str, resource: &Resource) -> Result<Self, Failure> {
        let labels = split(labels).into_iter().map(requirement);
        let fields = fields.split(',').filter(|part| !part.is_empty());
        Ok(Self {
            labels: labels.collect::<Result<_, _>>()?,
            fields: fields
                .map(|part| field(part, resource))
                .collect::<Result<_, _>>()?,
        })
    }

    pub fn matches(&self, object: &Value) -> bool {
        let labels = &object["metadata"]["labels"];
        let label = |key: &String| labels.get(key).and_then(Value::as_str);
        let labels = self.labels.iter().all(|requirement| match requirement {
            Requirement::In(key, values) => {
                label(key).is_some_and(|value| values.iter().any(|one| one == value))
            }
            Requirement::NotIn(key, values) => {
                label(key).is_none_or(|value| values.iter().all(|one| one != value))
            }
            Requirement::Exists(key) => label(key).is_some(),
            Requirement::Missing(key) => label(key).is_none(),
        });
        labels
            && self.fields.iter().all(|(pointer, value, equal)| {
                let found = object.pointer(pointer).and_then(Value::as_str);
                (found.unwrap_or_default() == value) == *equal
            })
    }
}

/// Splits at the commas that are not within parentheses.
fn split(labels: &str) -> Vec<&str> {
    let mut depth = 0;
    let parts = labels.split(|letter| {
        match letter {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        letter == ',' && depth == 0
    });
    parts
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .collect()
}

fn requirement(part: &str) -> Result<Requirement, Failure> {
    let one = |value: &str| vec![value.trim().to_owned()];
    let key = |key: &str| key.trim().to_owned();
    let set = |values: &str| -> Vec<String> {
        let values = values.trim().trim_start_matches('(').trim_end_matches(')');
        values
            .split(',')
            .map(|value| value.trim().to_owned())
            .collect()
    };
    let parsed = if let Some((name, values)) = part.split_once(" notin ") {
        Requirement::NotIn(key(name), set(values))
    } else if let Some((name, values)) = part.split_once(" in ") {
        Requirement::In(key(name), set(values))
    } else if let Some((name, value)) = part.split_once("!=") {
        Requirement::NotIn(key(name), one(value))
    } else if let Some((name, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
        if value.starts_with('=') {
            return Err(Failure::bad_request(
                "unable to parse requirement: found '=', expected: identifier",
            ));
        }
        Requirement::In(key(name), one(value))
    } else if let Some(name) = part.strip_prefix('!') {
        Requirement::Missing(key(name))
    } else {
        Requirement::Exists(key(part))
    };
    Ok(parsed)
}

const EVENT_FIELDS: &[&str] = &[
    "involvedObject.kind",
    "involvedObject.namespace",
    "involvedObject.name",
    "involvedObject.uid",
    "involvedObject.apiVersion",
    "involvedObject.resourceVersion",
    "involvedObject.fieldPath",
    "reason",
    "type",
];

fn field(part: &str, resource: &Resource) -> Result<(String, String, bool), Failure> {
    let split = part
        .split_once("!=")
        .map(|(name, value)| (name, value, false));
    let split = split.or_else(|| {
        part.split_once("==")
            .map(|(name, value)| (name, value, true))
    });
    let split = split.or_else(|| {
        part.split_once('=')
            .map(|(name, value)| (name, value, true))
    });
    let (name, value, equal) = split.ok_or_else(|| {
        Failure::bad_request(format!(
            "invalid selector: '{part}'; can't understand '{part}'"
        ))
    })?;
    let known = matches!(name, "metadata.name" | "metadata.namespace")
        || match resource.plural.as_str() {
            "events" => EVENT_FIELDS.contains(&name),
            "pods" => matches!(name, "spec.nodeName" | "status.phase"),
            "secrets" => name == "type",
            "namespaces" => name == "status.phase",
            _ => false,
        };
    if !known {
        let what = match &resource.custom {
            Some(_) => format!("field label not supported: {name}"),
            None => format!(
                "\"{name}\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
            ),
        };
        return Err(Failure::bad_request(what));
    }
    Ok((
        format!("/{}", name.replace('.', "/")),
        value.to_owned(),
        equal,
    ))
}
