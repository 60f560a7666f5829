//! What a cluster takes and refuses as a `WolConfig`: by the rules alone, and by a real API server.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

#[path = "crd/cases.rs"]
mod cases;
mod common;
#[path = "crd/real.rs"]
mod real;

use std::{fs, path::Path, process::Command};

use cases::{accepted, refused_by_rules};
use kube::core::cel::Validator;
use kubevirt_wol::{
    crd::{self, WolConfig},
    filter::SourceFilter,
    mac::MacAddr,
};
use serde_json::{Value, json};

const SAMPLES: [&str; 4] = [
    "wol_v1beta1_wolconfig",
    "labelselector",
    "explicit",
    "everything",
];

fn wolconfig(name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "wol.pillon.org/v1beta1", "kind": "WolConfig", "metadata": {"name": name}, "spec": spec})
}

fn sample(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("deploy/samples")
        .join(name)
        .with_extension("yaml");
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_yaml::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// What the released program prints.
fn printed() -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_kubevirt-wol"))
        .arg("crd")
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The refusals of the CEL rules alone.
fn judge(object: &Value) -> Result<(), String> {
    let definition = serde_json::to_value(crd::definition()).unwrap();
    let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    Validator::new()
        .validate(schema, object, None)
        .map_err(|errors| errors.to_string())
}

#[test]
fn the_manifest_in_the_repository_is_what_the_program_prints() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/base/crd.yaml");
    let printed = printed();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, &printed).unwrap();
    }
    let kept = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        kept == printed,
        "deploy/base/crd.yaml is not what `kubevirt-wol crd` prints: run `just manifests` or `UPDATE_GOLDEN=1 cargo test --test crd`"
    );
}

#[test]
fn every_field_is_explained() {
    fn walk(path: &str, schema: &Value, bare: &mut Vec<String>) {
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}.{name}");
            if field["description"].as_str().is_none_or(str::is_empty) {
                bare.push(path.clone());
            }
            walk(&path, field, bare);
            walk(&path, &field["items"], bare);
        }
    }
    let definition = serde_json::to_value(crd::definition()).unwrap();
    let root = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    let mut bare = Vec::new();
    walk("", root, &mut bare);
    assert_eq!(bare, Vec::<String>::new());
    let text = root["description"].as_str().unwrap();
    assert!(
        text.contains("Manual or RerunOnFailure"),
        "kubectl explain warns of Halted: {text}"
    );
}

#[test]
fn rules_refuse_with_words_that_help() {
    for (spec, words) in refused_by_rules() {
        let refusal = judge(&wolconfig("x", &spec)).expect_err(&spec.to_string());
        assert!(refusal.contains(words), "{spec}: {refusal}");
    }
}

#[test]
fn rules_accept_what_makes_sense_and_so_does_the_program() {
    for spec in accepted() {
        let object = wolconfig("x", &spec);
        judge(&object).unwrap_or_else(|refusal| panic!("{spec}: {refusal}"));
        let config: WolConfig = serde_json::from_value(object).unwrap();
        SourceFilter::new(&config.spec.interfaces, &config.spec.source_ranges).unwrap();
        for mapping in config.spec.explicit_mappings {
            let mac: MacAddr = mapping.mac_address.parse().unwrap();
            assert!(!mac.is_group() && !mac.is_zero(), "{mac}");
        }
    }
}

#[test]
fn a_config_goes_through_the_program_unchanged() {
    for object in SAMPLES.map(sample) {
        judge(&object).unwrap_or_else(|refusal| panic!("{object}: {refusal}"));
        let config: WolConfig = serde_json::from_value(object).unwrap();
        let again: WolConfig =
            serde_json::from_value(serde_json::to_value(&config).unwrap()).unwrap();
        assert_eq!(config, again);
    }
}
