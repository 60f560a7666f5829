//! Owns what of an answer counts: times, versions, identifiers and random orders do not.

use std::sync::LazyLock;

use regex::Regex;
use serde_json::{Map, Value, json};

/// A body that can be compared: a value, the list of a stream, or the text.
pub(crate) fn body(text: &str) -> Value {
    let mut body = if let Ok(value) = serde_json::from_str(text) {
        value
    } else {
        let lines = text.lines().map(serde_json::from_str);
        let lines: Result<Vec<Value>, _> = lines.collect();
        lines.map_or_else(|_| text.into(), Value::Array)
    };
    walk(&mut body);
    body
}

fn walk(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(walk),
        Value::Object(fields) => object(fields),
        Value::String(text) => *text = masked(text),
        _ => {}
    }
}

fn object(fields: &mut Map<String, Value>) {
    // The real server writes them into the answers of reviews, which nobody can read again.
    if fields
        .get("kind")
        .is_some_and(|kind| kind.as_str().is_some_and(|k| k.ends_with("Review")))
    {
        fields.remove("metadata");
    }
    // Nor the owners of a request's fields, which is as soon forgotten.
    if fields.get("kind") == Some(&json!("TokenRequest"))
        && let Some(Value::Object(metadata)) = fields.get_mut("metadata")
    {
        metadata.remove("managedFields");
    }
    // What the real server gives its objects beyond what the client said.
    fields.remove("storageVersionHash");
    // Owners come in the order of their times, and two writes may fall into one second or not.
    if let Some(Value::Array(owners)) = fields.get_mut("managedFields") {
        owners.sort_by_key(|owner| {
            let text = |field: &str| owner[field].to_string();
            (text("manager"), text("operation"), text("subresource"))
        });
    }
    // Whom a field belongs to that was sent and is a default, too, is not told apart by ours.
    if fields
        .get("annotations")
        .is_some_and(|annotations| annotations[GENERATION].is_string())
    {
        fields.remove("managedFields");
    }
    for name in ["uid", "resourceVersion", "continue"] {
        if let Some(Value::String(text)) = fields.get_mut(name)
            && !text.is_empty()
        {
            *text = format!("<{name}>");
        }
    }
    if let Some(Value::Array(verbs)) = fields.get_mut("verbs") {
        verbs.sort_by_key(Value::to_string);
    }
    // A group's resources come in the order in which their definitions were found.
    if let Some(Value::Array(resources)) = fields.get_mut("resources") {
        resources.sort_by_key(|resource| resource["name"].to_string());
    }
    if let Some(Value::Array(columns)) = fields.get_mut("columnDefinitions") {
        for column in columns {
            column["description"] = Value::Null;
        }
    }
    // Set by a controller, sooner or later than the answer.
    if let Some(Value::Array(conditions)) = fields.get_mut("conditions") {
        conditions.retain(|condition| condition["type"] != "Terminating");
    }
    if fields.get("reason") == Some(&json!("Invalid")) {
        sort_causes(fields);
    }
    fields.values_mut().for_each(walk);
}

/// The real server checks fields in random order.
fn sort_causes(status: &mut Map<String, Value>) {
    let details = status
        .get_mut("details")
        .and_then(|details| details.get_mut("causes"));
    if let Some(Value::Array(causes)) = details {
        causes.sort_by_key(Value::to_string);
    }
    if let Some(Value::String(message)) = status.get_mut("message")
        && let Some((start, list)) = message.split_once(": [")
    {
        let mut parts: Vec<&str> = list.trim_end_matches(']').split(", ").collect();
        parts.sort_unstable();
        *message = format!("{start}: {}", parts.join(", "));
    }
}

/// What only a `DaemonSet` has.
const GENERATION: &str = "deprecated.daemonset.template.generation";

/// The day that the requests' own times are of, which servers have to keep.
const OURS: &str = "2026-01-01T";

/// Times, ages, random names and identifiers, and what stands for them.
static MASKS: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
    let masks = [
        (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "<time>"),
        (
            r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
            "<uid>",
        ),
        (r"^eyJ[\w-]+\.[\w-]+\.[\w-]+$", "<token>"),
        (r"^\d+[smhd](\d+s)?$", "<age>"),
        (r"^random-[a-z0-9]{5}$", "random-<suffix>"),
        (
            r"too old resource version: \d+ \(\d+\)",
            "too old resource version",
        ),
        (
            r"match the ResourceVersion in record \(\d+\)",
            "match the ResourceVersion in record",
        ),
        (
            r"Too large resource version: \d+, current: \d+",
            "Too large resource version",
        ),
    ];
    let compiled = |(pattern, mask)| (Regex::new(pattern).expect("the pattern is one"), mask);
    masks.map(compiled).into()
});

fn masked(text: &str) -> String {
    if text.starts_with(OURS) {
        return text.to_owned();
    }
    let mut text = text.to_owned();
    for (pattern, mask) in &*MASKS {
        text = pattern.replace_all(&text, *mask).into_owned();
    }
    text
}
