//! Owns which resources there are: the built-in ones, and those of the CRDs.

use std::{borrow::Cow, sync::Arc};

use serde_json::{Value, json};

use super::{
    built_in::{AUTHENTICATION, BUILT_IN, Row},
    store::Store,
};

/// The table of CRDs.
pub const CRDS: &str = "customresourcedefinitions.apiextensions.k8s.io";
/// The table of namespaces.
pub const NAMESPACES: &str = "namespaces.";

/// One resource in one version, as it is served.
#[derive(Debug, Clone)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "each is told by discovery or the CRD by itself"
)]
pub struct Resource {
    pub group: String,
    pub version: String,
    pub kind: String,
    pub list_kind: String,
    pub plural: String,
    pub singular: String,
    pub short_names: Vec<String>,
    pub categories: Vec<String>,
    pub namespaced: bool,
    /// Whether the status is a subresource.
    pub status: bool,
    /// Whether a spec has a generation.
    pub generation: bool,
    /// Answers to `create` only, and nothing is stored.
    pub review: bool,
    /// Of a custom resource only.
    pub custom: Option<Custom>,
}

/// What only custom resources have.
#[derive(Debug, Clone)]
pub struct Custom {
    pub schema: Value,
    /// `additionalPrinterColumns`.
    pub columns: Vec<Value>,
    /// What clients of a deprecated version are told.
    pub warning: Option<String>,
    /// The version in which objects are kept.
    pub storage: String,
}

impl Resource {
    /// The name of the table: `<plural>.<group>`.
    pub fn table(&self) -> String {
        format!("{}.{}", self.plural, self.group)
    }

    /// As messages name it: `<plural>` or `<plural>.<group>`.
    pub fn qualified(&self) -> String {
        match self.group.as_str() {
            "" => self.plural.clone(),
            group => format!("{}.{group}", self.plural),
        }
    }

    /// Whether an update makes an object that is not there.
    pub fn upserts(&self) -> bool {
        self.custom.is_none() && ["Lease", "Event"].contains(&self.kind.as_str())
    }

    /// `<version>` or `<group>/<version>`.
    pub fn api_version(&self) -> String {
        match self.group.as_str() {
            "" => self.version.clone(),
            group => format!("{group}/{}", self.version),
        }
    }

    /// The details of an error about an object.
    pub fn details(&self, name: &str) -> Value {
        let mut details = json!({"name": name, "kind": self.plural});
        if !self.group.is_empty() {
            details["group"] = self.group.as_str().into();
        }
        details
    }

    /// The object as this version serves it.
    pub fn present<'a>(&self, object: &'a Value) -> Cow<'a, Value> {
        let version = self.api_version();
        if object["apiVersion"] == version && object["kind"] == self.kind {
            return Cow::Borrowed(object);
        }
        let mut object = object.clone();
        object["apiVersion"] = version.into();
        object["kind"] = self.kind.as_str().into();
        Cow::Owned(object)
    }

    /// What discovery says of it, the subresource included.
    pub fn discovery(&self) -> Vec<Value> {
        let verbs: &[&str] = if self.review {
            &["create"]
        } else {
            &[
                "create",
                "delete",
                "deletecollection",
                "get",
                "list",
                "patch",
                "update",
                "watch",
            ]
        };
        let mut entry = json!({
            "name": self.plural, "singularName": self.singular, "namespaced": self.namespaced,
            "kind": self.kind, "verbs": verbs,
        });
        if !self.short_names.is_empty() {
            entry["shortNames"] = json!(self.short_names);
        }
        if !self.categories.is_empty() {
            entry["categories"] = json!(self.categories);
        }
        let mut all = vec![entry];
        if self.status {
            all.push(json!({
                "name": format!("{}/status", self.plural), "singularName": "",
                "namespaced": self.namespaced, "kind": self.kind,
                "verbs": ["get", "patch", "update"],
            }));
        }
        if self.kind == "ServiceAccount" {
            all.push(json!({
                "name": "serviceaccounts/token", "singularName": "", "namespaced": true,
                "group": "authentication.k8s.io", "version": "v1", "kind": "TokenRequest",
                "verbs": ["create"],
            }));
        }
        all
    }

    /// Whether it has this subresource.
    pub fn has(&self, subresource: &str) -> bool {
        match subresource {
            "status" => self.status,
            "token" => self.kind == "ServiceAccount" && self.custom.is_none(),
            _ => false,
        }
    }
}

/// A CRD, read.
#[derive(Debug)]
pub struct Definition {
    /// One for each served version, the preferred first.
    pub resources: Vec<Arc<Resource>>,
}

impl Definition {
    /// Reads a CRD object. What is missing reads as empty: validation comes before.
    pub fn parse(crd: &Value) -> Self {
        let versions = crd["spec"]["versions"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let storage = versions.iter().find(|version| version["storage"] == true);
        let storage = storage.map_or("", |version| version["name"].as_str().unwrap_or_default());
        let served = versions.iter().filter(|version| version["served"] == true);
        let resources = served.map(|version| Arc::new(resource(crd, version, storage)));
        let mut resources: Vec<_> = resources.collect();
        resources.sort_by_key(|resource| std::cmp::Reverse(stability(&resource.version)));
        Self { resources }
    }
}

fn resource(crd: &Value, version: &Value, storage: &str) -> Resource {
    let spec = &crd["spec"];
    let names = &spec["names"];
    let kind = text(&names["kind"]);
    let name = text(&version["name"]);
    let warning = (version["deprecated"] == true).then(|| {
        let told = version["deprecationWarning"].as_str().map(str::to_owned);
        told.unwrap_or_else(|| deprecation(crd, &name))
    });
    let or = |value: &Value, other: String| value.as_str().map_or(other, str::to_owned);
    Resource {
        group: text(&spec["group"]),
        version: name,
        list_kind: or(&names["listKind"], format!("{kind}List")),
        plural: text(&names["plural"]),
        singular: or(&names["singular"], kind.to_lowercase()),
        short_names: texts(&names["shortNames"]),
        categories: texts(&names["categories"]),
        namespaced: spec["scope"] != "Cluster",
        status: version["subresources"]["status"].is_object(),
        generation: true,
        review: false,
        custom: Some(Custom {
            schema: version["schema"]["openAPIV3Schema"].clone(),
            columns: version["additionalPrinterColumns"]
                .as_array()
                .cloned()
                .unwrap_or_default(),
            warning,
            storage: storage.to_owned(),
        }),
        kind,
    }
}

/// What clients of a deprecated version are told where the CRD has no words for it.
fn deprecation(crd: &Value, version: &str) -> String {
    let (group, kind) = (
        text(&crd["spec"]["group"]),
        text(&crd["spec"]["names"]["kind"]),
    );
    let versions = crd["spec"]["versions"].as_array().into_iter().flatten();
    let alive = versions.filter(|other| other["served"] == true && other["deprecated"] != true);
    let newer = alive.map(|other| text(&other["name"]));
    let newer = newer.filter(|other| stability(other) > stability(version));
    let remedy = newer.max_by_key(|other| stability(other));
    let remedy = remedy.map(|newest| format!("; use {group}/{newest} {kind}"));
    format!(
        "{group}/{version} {kind} is deprecated{}",
        remedy.unwrap_or_default()
    )
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().map(text).collect()
}

/// By which versions are preferred: v2 before v1 before v1beta1 before v1alpha1.
fn stability(version: &str) -> (u8, u32, u32) {
    let number = |text: &str| text.parse().unwrap_or(0);
    let rest = version.trim_start_matches('v');
    for (word, rank) in [("alpha", 0), ("beta", 1)] {
        if let Some((major, minor)) = rest.split_once(word) {
            return (rank, number(major), number(minor));
        }
    }
    (2, number(rest), 0)
}

fn built_in(&(group, version, kind, plural, short, flags): &Row) -> Resource {
    let singular = kind.to_lowercase();
    let categories = [('a', "all"), ('x', "api-extensions")];
    let categories = categories
        .into_iter()
        .filter(|(flag, _)| flags.contains(*flag));
    let owned = |names: &[&str]| names.iter().map(ToString::to_string).collect();
    Resource {
        group: group.to_owned(),
        version: version.to_owned(),
        list_kind: format!("{kind}List"),
        kind: kind.to_owned(),
        plural: plural.to_owned(),
        singular,
        short_names: owned(short),
        categories: categories.map(|(_, name)| name.to_owned()).collect(),
        namespaced: flags.contains('n'),
        status: flags.contains('s'),
        generation: flags.contains('g'),
        review: flags.contains('r'),
        custom: None,
    }
}

/// Namespaces, which the server makes itself.
pub fn namespaces() -> Resource {
    built_in(&BUILT_IN[0])
}

/// What is asked of a service account for a token; it is nowhere served by itself.
pub fn token_requests() -> Resource {
    built_in(&(
        AUTHENTICATION,
        "v1",
        "TokenRequest",
        "tokenrequests",
        &[],
        "n",
    ))
}

/// All resources that are served, the built-in ones first.
pub fn all(store: &Store) -> Vec<Arc<Resource>> {
    let built_in = BUILT_IN.iter().map(|row| Arc::new(built_in(row)));
    let custom = store.definitions().values();
    let custom = custom.flat_map(|definition| definition.resources.iter().cloned());
    built_in.chain(custom).collect()
}

/// The resource at a path.
pub fn find(store: &Store, group: &str, version: &str, plural: &str) -> Option<Arc<Resource>> {
    let row = BUILT_IN
        .iter()
        .find(|row| (row.0, row.1, row.3) == (group, version, plural));
    if let Some(row) = row {
        return Some(Arc::new(built_in(row)));
    }
    let definition = store.definitions().get(&format!("{plural}.{group}"))?;
    let mut resources = definition.resources.iter();
    resources
        .find(|resource| resource.version == version)
        .cloned()
}

/// Whether a group and version belongs to the built-in ones.
pub fn is_built_in(group: &str, version: &str) -> bool {
    BUILT_IN
        .iter()
        .any(|row| (row.0, row.1) == (group, version))
}
