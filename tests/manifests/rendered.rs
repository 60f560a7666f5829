//! Owns what the chart and the kustomizations come to: their objects, as helm and kubectl print them.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use serde::Deserialize as _;
use serde_json::Value;

use crate::common::skip::skipped;

/// Labels that helm adds to what it installs.
const OF_HELM: [&str; 4] = [
    "app.kubernetes.io/instance",
    "app.kubernetes.io/version",
    "app.kubernetes.io/managed-by",
    "helm.sh/chart",
];

/// Objects that are installed together.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Objects(pub(crate) Vec<Value>);

impl Objects {
    /// Those of a text with several documents.
    pub(crate) fn read(text: &str) -> Self {
        let documents = serde_yaml::Deserializer::from_str(text);
        let documents = documents.map(|document| Value::deserialize(document).unwrap());
        Self(documents.filter(|document| !document.is_null()).collect())
    }

    /// The one object of a kind with a name.
    pub(crate) fn get(&self, kind: &str, name: &str) -> &Value {
        self.find(kind, name)
            .unwrap_or_else(|| panic!("no {kind} {name}"))
    }

    /// The same, where there is one.
    pub(crate) fn find(&self, kind: &str, name: &str) -> Option<&Value> {
        let is = |o: &&Value| o["kind"] == kind && o["metadata"]["name"] == name;
        let found: Vec<_> = self.0.iter().filter(is).collect();
        assert!(found.len() < 2, "{} {kind} {name}", found.len());
        found.first().copied()
    }

    /// All objects of a kind.
    pub(crate) fn of(&self, kind: &str) -> Vec<&Value> {
        self.0.iter().filter(|o| o["kind"] == kind).collect()
    }

    /// The only object of a kind.
    pub(crate) fn only(&self, kind: &str) -> &Value {
        let [one] = *self.of(kind) else {
            panic!("{} {kind}", self.of(kind).len());
        };
        one
    }

    /// Without those for `helm test`.
    pub(crate) fn without_hooks(mut self) -> Self {
        self.0
            .retain(|o| o["metadata"]["annotations"]["helm.sh/hook"].is_null());
        self
    }

    /// Without what only helm, or only kustomize, says; in one order.
    pub(crate) fn normalised(mut self) -> Self {
        self.0.retain(|object| object["kind"] != "Namespace");
        self.0.iter_mut().for_each(normalise);
        self.0.sort_by_key(|object| {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            (text(&object["kind"]), text(&object["metadata"]["name"]))
        });
        self
    }
}

fn normalise(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            if let Some(Value::Object(labels)) = fields.get_mut("labels") {
                labels.retain(|name, _| !OF_HELM.contains(&name.as_str()));
            }
            if let Some(Value::Object(annotations)) = fields.get_mut("annotations") {
                annotations.retain(|name, _| name != "helm.sh/resource-policy");
                if annotations.is_empty() {
                    fields.remove("annotations");
                }
            }
            // Its default, which the chart spells out.
            fields.retain(|name, value| name != "imagePullPolicy" || value != "IfNotPresent");
            fields.values_mut().for_each(normalise);
        }
        Value::Array(items) => {
            items.iter_mut().for_each(normalise);
            // Where lists are merged, their order is the merger's.
            if items.iter().all(|item| item["name"].is_string()) {
                items.sort_by_key(|item| item["name"].as_str().map(str::to_owned));
            }
        }
        _ => {}
    }
}

/// The folder of the project.
pub(crate) fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Release and namespace as in the documents.
pub(crate) const AS_DOCUMENTED: [&str; 2] = ["kubevirt-wol", "kubevirt-wol-system"];

/// What `helm template` makes of values, as YAML, or why it refuses them. None, told loudly, without
/// helm.
pub(crate) fn chart(
    [release, namespace]: [&str; 2],
    values: &str,
) -> Option<Result<Objects, String>> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("values.yaml");
    std::fs::write(&file, values).unwrap();
    let output = Command::new("helm")
        .args(["template", release, "deploy/chart", "--namespace"])
        .arg(namespace)
        .arg("--values")
        .arg(file)
        .current_dir(project())
        .stdin(Stdio::null())
        .output();
    let Ok(output) = output else {
        skipped("there is no helm on the PATH");
        return None;
    };
    Some(text(output).map(|text| Objects::read(&text)))
}

/// What `kubectl kustomize` makes of a folder. None, told loudly, without kubectl.
pub(crate) fn kustomized(folder: &str) -> Option<Objects> {
    let assets = env::var_os("KUBEBUILDER_ASSETS").map(|assets| Path::new(&assets).join("kubectl"));
    let program = assets.filter(|program| program.is_file());
    let output = Command::new(program.unwrap_or_else(|| PathBuf::from("kubectl")))
        .args(["kustomize", folder])
        .current_dir(project())
        .stdin(Stdio::null())
        .output();
    let Ok(output) = output else {
        skipped("there is no kubectl on the PATH");
        return None;
    };
    Some(Objects::read(&text(output).unwrap()))
}

fn text(output: Output) -> Result<String, String> {
    if output.status.success() {
        Ok(String::from_utf8(output.stdout).unwrap())
    } else {
        Err(String::from_utf8(output.stderr).unwrap())
    }
}
