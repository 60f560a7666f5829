//! Owns the tables in which kubectl shows objects: their columns and cells.

use serde_json::{Value, json};

use super::{clock, jsonpath, kinds::Resource};

/// What a row carries of its object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Include {
    None,
    Metadata,
    Object,
}

/// Only the metadata of an object.
pub fn partial(object: &Value) -> Value {
    json!({
        "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
        "metadata": object["metadata"],
    })
}

/// Objects as a `Table`.
pub fn table<'a>(
    resource: &Resource,
    objects: impl IntoIterator<Item = &'a Value>,
    metadata: &Value,
    include: Include,
) -> Value {
    let columns = columns(resource);
    let rows = objects.into_iter().map(|object| {
        let cells: Vec<Value> = columns.iter().map(|column| column.cell(object)).collect();
        let carried = match include {
            Include::None => Value::Null,
            Include::Metadata => partial(object),
            Include::Object => resource.present(object).into_owned(),
        };
        json!({"cells": cells, "object": carried})
    });
    let rows: Vec<Value> = rows.collect();
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata,
        "columnDefinitions": columns.iter().map(Column::definition).collect::<Vec<_>>(),
        "rows": rows,
    })
}

/// A column of a table.
struct Column {
    name: String,
    kind: String,
    format: String,
    description: String,
    priority: i64,
    cell: Cell,
}

/// Where a cell's text comes from.
enum Cell {
    /// Of a CRD: null where there is nothing.
    Path(String),
    /// Empty where there is nothing.
    Text(&'static str),
    Age(&'static str),
    Computed(fn(&Value) -> Value),
}

impl Column {
    fn new(name: &str, kind: &str, cell: Cell) -> Self {
        Self {
            name: name.to_owned(),
            kind: kind.to_owned(),
            format: if name == "Name" { "name" } else { "" }.to_owned(),
            description: name.to_owned(),
            priority: 0,
            cell,
        }
    }

    fn wide(self) -> Self {
        Self {
            priority: 1,
            ..self
        }
    }

    /// A column of a CRD.
    fn custom(column: &Value) -> Self {
        let text = |field: &str| column[field].as_str().unwrap_or_default().to_owned();
        let path = text("jsonPath");
        let told = column["description"].as_str().map(str::to_owned);
        Self {
            name: text("name"),
            kind: text("type"),
            format: text("format"),
            description: told.unwrap_or_else(|| {
                format!("Custom resource definition column (in JSONPath format): {path}")
            }),
            priority: column["priority"].as_i64().unwrap_or(0),
            cell: Cell::Path(path),
        }
    }

    fn definition(&self) -> Value {
        json!({
            "name": self.name, "type": self.kind, "format": self.format,
            "description": self.description, "priority": self.priority,
        })
    }

    fn cell(&self, object: &Value) -> Value {
        match &self.cell {
            Cell::Computed(compute) => compute(object),
            Cell::Text(path) => {
                let found = jsonpath::find(path, object);
                found
                    .first()
                    .and_then(|value| value.as_str())
                    .unwrap_or_default()
                    .into()
            }
            Cell::Age(pointer) => {
                let time = object.pointer(pointer).and_then(Value::as_str);
                time.map_or_else(|| "<unknown>".to_owned(), clock::age)
                    .into()
            }
            Cell::Path(path) => {
                let found = jsonpath::find(path, object);
                let Some(first) = found.first() else {
                    return Value::Null;
                };
                match (self.kind.as_str(), first) {
                    (_, Value::Null) => Value::Null,
                    ("date", Value::String(time)) => clock::age(time).into(),
                    ("string", _) => {
                        let text = |value: &&Value| {
                            value
                                .as_str()
                                .map_or_else(|| value.to_string(), str::to_owned)
                        };
                        found.iter().map(text).collect::<Vec<_>>().join(" ").into()
                    }
                    ("integer", Value::Number(number)) if number.is_i64() => (*first).clone(),
                    ("number", Value::Number(_)) | ("boolean", Value::Bool(_)) => (*first).clone(),
                    _ => Value::Null,
                }
            }
        }
    }
}

fn columns(resource: &Resource) -> Vec<Column> {
    let name = || Column::new("Name", "string", Cell::Path(".metadata.name".to_owned()));
    let age = || Column::new("Age", "string", Cell::Age("/metadata/creationTimestamp"));
    let path = |name: &str, path| Column::new(name, "string", Cell::Text(path));
    if let Some(custom) = &resource.custom {
        let age = Column::custom(&json!({
            "name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp",
        }));
        let own = custom.columns.iter().map(Column::custom);
        return if custom.columns.is_empty() {
            vec![name(), age]
        } else {
            std::iter::once(name()).chain(own).collect()
        };
    }
    let count = |name: &str, compute| Column::new(name, "string", Cell::Computed(compute));
    let middle = match resource.kind.as_str() {
        "Event" => return event_columns(name()),
        "Namespace" | "Pod" => vec![path("Status", ".status.phase")],
        "ConfigMap" => vec![count("Data", data)],
        "Secret" => vec![path("Type", ".type"), count("Data", data)],
        "Lease" => vec![path("Holder", ".spec.holderIdentity")],
        "Service" => vec![
            path("Type", ".spec.type"),
            path("Cluster-IP", ".spec.clusterIP"),
        ],
        "CustomResourceDefinition" => {
            return vec![
                name(),
                Column::new(
                    "Created At",
                    "date",
                    Cell::Path(".metadata.creationTimestamp".to_owned()),
                ),
            ];
        }
        _ => Vec::new(),
    };
    std::iter::once(name())
        .chain(middle)
        .chain([age()])
        .collect()
}

fn event_columns(name: Column) -> Vec<Column> {
    let path = |name: &str, path| Column::new(name, "string", Cell::Text(path));
    let computed = |name: &str, compute| Column::new(name, "string", Cell::Computed(compute));
    vec![
        computed("Last Seen", |event| {
            let newest = ["/series/lastObservedTime", "/lastTimestamp", "/eventTime"];
            ago(event, &newest)
        }),
        path("Type", ".type"),
        path("Reason", ".reason"),
        computed("Object", |event| {
            let object = &event["involvedObject"];
            let kind = object["kind"].as_str().unwrap_or_default().to_lowercase();
            format!("{kind}/{}", object["name"].as_str().unwrap_or_default()).into()
        }),
        path("Subobject", ".involvedObject.fieldPath").wide(),
        computed("Source", |event| {
            let component = event["source"]["component"].as_str();
            component
                .or(event["reportingComponent"].as_str())
                .unwrap_or_default()
                .into()
        })
        .wide(),
        computed("Message", |event| {
            event["message"].as_str().unwrap_or_default().trim().into()
        }),
        computed("First Seen", |event| {
            ago(event, &["/firstTimestamp", "/eventTime"])
        })
        .wide(),
        computed("Count", |event| event["count"].as_i64().unwrap_or(1).into()).wide(),
        name.wide(),
    ]
}

/// The age of the first of these times that is there.
fn ago(object: &Value, pointers: &[&str]) -> Value {
    let mut times = pointers
        .iter()
        .filter_map(|pointer| object.pointer(pointer)?.as_str());
    times
        .next()
        .map_or_else(|| "<unknown>".to_owned(), clock::age)
        .into()
}

fn data(object: &Value) -> Value {
    let count = |field: &str| object[field].as_object().map_or(0, serde_json::Map::len);
    (count("data") + count("binaryData")).into()
}
