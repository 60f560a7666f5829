//! Owns what clients read to learn what is served.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{State, failure::Failure, kinds};

/// The Kubernetes version that is imitated.
const MINOR: &str = "35";

/// What is at a path that is not below a group's version; text answers are JSON strings.
///
/// # Errors
///
/// Nothing is there.
pub fn other(state: &State, path: &str) -> Result<Value, Failure> {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    match parts.as_slice() {
        ["version"] => Ok(json!({
            "major": "1", "minor": MINOR, "gitVersion": format!("v1.{MINOR}.4"),
            "gitCommit": "", "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z",
            "goVersion": "none", "compiler": "rustc", "platform": "linux/amd64",
        })),
        ["healthz" | "livez" | "readyz", ..] => Ok("ok".into()),
        ["api"] => Ok(json!({
            "kind": "APIVersions", "versions": ["v1"],
            "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": state.address()}],
        })),
        ["apis"] => {
            let groups: Vec<Value> = groups(state)
                .iter()
                .map(|(name, versions)| group(name, versions))
                .collect();
            Ok(json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}))
        }
        ["apis", name] => {
            let groups = groups(state);
            let found = groups.get(*name).ok_or_else(Failure::page_not_found)?;
            let mut group = group(name, found);
            group["kind"] = "APIGroup".into();
            group["apiVersion"] = "v1".into();
            Ok(group)
        }
        ["openapi", rest @ ..] => super::openapi::answer(state, rest),
        _ => Err(Failure::page_not_found()),
    }
}

/// All groups but the core one, and their versions, the preferred first.
fn groups(state: &State) -> BTreeMap<String, Vec<String>> {
    let mut groups: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut add = |group: &str, version: &str| {
        let versions = groups.entry(group.to_owned()).or_default();
        if !versions.iter().any(|known| known == version) {
            versions.push(version.to_owned());
        }
    };
    for resource in kinds::all(&state.store()) {
        add(&resource.group, &resource.version);
    }
    for (group, version) in state.aggregated() {
        add(&group, &version);
    }
    groups.remove("");
    groups
}

fn group(name: &str, versions: &[String]) -> Value {
    let version =
        |version: &String| json!({"groupVersion": format!("{name}/{version}"), "version": version});
    json!({
        "name": name, "versions": versions.iter().map(version).collect::<Vec<_>>(),
        "preferredVersion": versions.first().map(version),
    })
}

/// The resources of one version of a group.
///
/// # Errors
///
/// Nobody serves it.
pub fn version(state: &State, group: &str, version: &str) -> Result<Value, Failure> {
    let all = kinds::all(&state.store());
    let here = all.iter().filter(|resource| {
        (resource.group.as_str(), resource.version.as_str()) == (group, version)
    });
    let resources: Vec<Value> = here.flat_map(|resource| resource.discovery()).collect();
    if resources.is_empty() {
        return Err(Failure::page_not_found());
    }
    let name = if group.is_empty() {
        version.to_owned()
    } else {
        format!("{group}/{version}")
    };
    let mut list = json!({"kind": "APIResourceList", "groupVersion": name, "resources": resources});
    if !group.is_empty() {
        list["apiVersion"] = "v1".into();
    }
    Ok(list)
}
