//! docs/configuration.md against the definition: no field is missing, none is made up, types and
//! defaults are right, and every example, of the other pages too, is one that a cluster takes.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod common;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use common::{
    apiserver::ApiServer,
    envtest::Envtest,
    pages::{blocks, pages},
};
use http::Request;
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
    runtime::{conditions, wait::await_condition},
};
use kubevirt_wol::{crd, filter::DEFAULT_INTERFACES};
use serde::Deserialize as _;
use serde_json::{Value, json};

fn text() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
    fs::read_to_string(path).unwrap()
}

fn schema() -> Value {
    let definition = serde_json::to_value(crd::definition()).unwrap();
    definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
}

/// One row of a table of fields: what stands below each heading.
type Row = BTreeMap<String, String>;

/// The rows of all tables whose first column is `field`, by field.
fn rows(text: &str) -> BTreeMap<String, Row> {
    let mut rows = BTreeMap::new();
    let mut headings: Vec<String> = Vec::new();
    for line in text.lines() {
        let Some(line) = line.strip_prefix("| ").and_then(|l| l.strip_suffix(" |")) else {
            if !line.starts_with("|---") {
                headings.clear();
            }
            continue;
        };
        let cells = line.split(" | ").map(str::to_owned);
        if headings.is_empty() {
            headings = cells.collect();
        } else if headings[0] == "field" {
            let cells: Vec<String> = cells.collect();
            assert_eq!(cells.len(), headings.len(), "cells of: {line}");
            let row: Row = headings.iter().cloned().zip(cells).collect();
            let field = code(&row["field"]).unwrap_or_else(|| panic!("no field: {line}"));
            let twice = rows.insert(field.to_owned(), row.clone());
            assert!(twice.is_none(), "{field} has two rows");
        }
    }
    rows
}

/// What a cell has in backticks, where it is all of the cell.
fn code(cell: &str) -> Option<&str> {
    let inner = cell.strip_prefix('`')?.strip_suffix('`')?;
    (!inner.contains('`')).then_some(inner)
}

/// A field as the schema has it.
struct Field {
    kind: String,
    default: Option<String>,
    required: bool,
}

fn fields(schema: &Value) -> BTreeMap<String, Field> {
    fn walk(prefix: &str, schema: &Value, fields: &mut BTreeMap<String, Field>) {
        let required = schema["required"].as_array().into_iter().flatten();
        let required: BTreeSet<&str> = required.filter_map(Value::as_str).collect();
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{prefix}{name}");
            walk(&format!("{path}."), field, fields);
            walk(&format!("{path}[]."), &field["items"], fields);
            let default = field.get("default");
            let field = Field {
                kind: kind(field),
                default: default.map(|d| d.as_str().map_or_else(|| d.to_string(), str::to_owned)),
                required: required.contains(name.as_str()),
            };
            fields.insert(path, field);
        }
    }
    let mut fields = BTreeMap::new();
    walk("", schema, &mut fields);
    fields
}

/// A type in the words of the page.
fn kind(schema: &Value) -> String {
    match (schema["type"].as_str().unwrap(), &schema["format"]) {
        ("array", _) => format!("[]{}", kind(&schema["items"])),
        ("object", _) if schema["additionalProperties"].is_object() => {
            format!("map[string]{}", kind(&schema["additionalProperties"]))
        }
        ("string", format) if format == "date-time" => "time".into(),
        (name, _) => name.into(),
    }
}

/// Whether a value is of a type in the words of the page.
fn is_of(value: &Value, kind: &str) -> bool {
    if let Some(item) = kind.strip_prefix("[]") {
        let items = value.as_array();
        return items.is_some_and(|all| all.iter().all(|one| is_of(one, item)));
    }
    if let Some(item) = kind.strip_prefix("map[string]") {
        let fields = value.as_object();
        return fields.is_some_and(|all| all.values().all(|one| is_of(one, item)));
    }
    match kind {
        "object" => value.is_object(),
        "integer" => value.is_i64(),
        "boolean" => value.is_boolean(),
        _ => value.is_string(),
    }
}

/// The `WolConfig`s of all YAML blocks of all pages.
fn examples() -> Vec<Value> {
    let mut examples = Vec::new();
    for page in pages() {
        for (language, lines) in blocks(&page.text) {
            if language != "yaml" {
                continue;
            }
            for document in serde_yaml::Deserializer::from_str(&lines.join("\n")) {
                let document = Value::deserialize(document);
                let document = document.unwrap_or_else(|e| panic!("{}: {e}", page.path));
                if document["kind"] == "WolConfig" {
                    examples.push(document);
                }
            }
        }
    }
    examples
}

#[test]
fn every_field_has_a_row_and_every_row_a_field() {
    let (rows, fields) = (rows(&text()), fields(&schema()));
    let told: Vec<&String> = rows.keys().collect();
    let known: Vec<&String> = fields.keys().collect();
    assert_eq!(told, known, "rows of docs/configuration.md, and fields");
    for (name, field) in &fields {
        let row = &rows[name];
        assert_eq!(code(&row["type"]), Some(&*field.kind), "type of {name}");
        assert!(row["meaning"].len() > 5, "{name} has no meaning");
        // Nobody but the managers writes status.
        let Some(told) = row.get("default") else {
            assert!(name.starts_with("status"), "{name} has no default");
            continue;
        };
        match (&field.default, field.required) {
            (Some(default), _) => assert_eq!(code(told), Some(&**default), "default of {name}"),
            (None, true) => assert_eq!(told, "required", "{name}"),
            (None, false) => assert!(
                code(told).is_none() && !told.is_empty() && told != "required",
                "{name} has no default in the schema: {told}"
            ),
        }
    }
}

#[test]
fn the_example_of_a_row_is_of_its_type() {
    for (name, row) in rows(&text()) {
        let example = code(&row["example"]).unwrap_or_else(|| panic!("{name}: {row:?}"));
        let value: Value = serde_yaml::from_str(example).unwrap_or_else(|e| panic!("{name}: {e}"));
        let kind = code(&row["type"]).unwrap();
        assert!(is_of(&value, kind), "{name}: {example} is no {kind}");
    }
}

#[test]
fn it_names_the_interfaces_that_are_left_out() {
    let text = text();
    for pattern in DEFAULT_INTERFACES {
        assert!(text.contains(&format!("`{pattern}`")), "{pattern}");
    }
}

#[tokio::test]
async fn examples_are_taken() {
    let server = ApiServer::start().await;
    are_taken(&server.client()).await;
    if let Some(envtest) = Envtest::shared() {
        are_taken(&envtest.client().await).await;
    }
}

/// Installs the definition, and applies every example: none is refused or warned of.
async fn are_taken(client: &Client) {
    let name = "wolconfigs.wol.pillon.org";
    let api = Api::all(client.clone());
    let definition = Patch::Apply(crd::definition());
    api.patch(name, &PatchParams::apply("test").force(), &definition)
        .await
        .unwrap();
    let served = await_condition(api, name, conditions::is_crd_established());
    served.await.unwrap();
    let examples = examples();
    assert!(examples.len() > 6, "{examples:?}");
    for example in examples {
        let path = format!(
            "/apis/wol.pillon.org/v1beta1/wolconfigs/{}?fieldManager=test&fieldValidation=Strict",
            example["metadata"]["name"].as_str().unwrap()
        );
        let request = Request::patch(path)
            .header("content-type", "application/apply-patch+yaml")
            .body(example.to_string().into_bytes().into());
        let answer = client.send(request.unwrap()).await.unwrap();
        let (head, body) = answer.into_parts();
        let body = body.collect_bytes().await.unwrap();
        let body = String::from_utf8_lossy(&body);
        assert!(head.status.is_success(), "{example}: {body}");
        let warnings: Vec<_> = head.headers.get_all("warning").iter().collect();
        assert!(warnings.is_empty(), "{example}: {warnings:?}");
        // What is stored is what was said: nothing was dropped.
        let stored: Value = serde_json::from_str(&body).unwrap();
        let mut expected = example["spec"].clone();
        for (field, default) in [("discoveryMode", json!("All")), ("cacheTTL", json!(300))] {
            expected
                .as_object_mut()
                .unwrap()
                .entry(field)
                .or_insert(default);
        }
        assert_eq!(stored["spec"], expected);
    }
}

/// The sample that shows everything does.
#[test]
fn a_sample_has_every_field() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/samples/everything.yaml");
    let sample: Value = serde_yaml::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    for name in fields(&schema()).keys().filter(|n| n.starts_with("spec")) {
        let pointer = format!("/{}", name.replace("[]", "/0").replace('.', "/"));
        assert!(sample.pointer(&pointer).is_some(), "{name}");
    }
}
