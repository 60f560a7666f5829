//! Owns what a request means: its path, query, headers and body.

use std::{cell::RefCell, collections::HashMap, sync::Arc};

use axum::body::Bytes;
use http::{HeaderMap, Method};
use serde_json::Value;

use super::{failure::Failure, kinds::Resource, store::Key};

/// A path below `/api` or `/apis`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// `/version`, `/apis`, `/openapi/v3` and the like.
    Other,
    /// `/api/v1`, `/apis/<group>/<version>`.
    Version {
        group: String,
        version: String,
    },
    Resource(Address),
}

/// The path of a resource or object.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Address {
    pub group: String,
    pub version: String,
    pub namespace: Option<String>,
    pub plural: String,
    pub name: Option<String>,
    pub subresource: Option<String>,
}

impl Target {
    pub fn parse(path: &str) -> Self {
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let (group, version, rest) = match parts.as_slice() {
            ["api", version, rest @ ..] => ("", *version, rest),
            ["apis", group, version, rest @ ..] => (*group, *version, rest),
            _ => return Self::Other,
        };
        let (namespace, rest) = match rest {
            [] => {
                return Self::Version {
                    group: group.to_owned(),
                    version: version.to_owned(),
                };
            }
            ["namespaces", _, "status" | "finalize"] | ["namespaces", _] => (None, rest),
            ["namespaces", namespace, rest @ ..] => (Some((*namespace).to_owned()), rest),
            rest => (None, rest),
        };
        let part = |index: usize| rest.get(index).map(ToString::to_string);
        Self::Resource(Address {
            group: group.to_owned(),
            version: version.to_owned(),
            namespace,
            plural: part(0).unwrap_or_default(),
            name: part(1),
            subresource: (rest.len() > 2).then(|| rest[2..].join("/")),
        })
    }
}

/// A request for a resource that is served.
pub struct Call {
    pub resource: Arc<Resource>,
    pub method: Method,
    pub namespace: Option<String>,
    pub name: Option<String>,
    pub subresource: Option<String>,
    pub query: HashMap<String, String>,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// What the client is warned of.
    pub warnings: RefCell<Vec<String>>,
}

impl Call {
    /// A parameter of the query; an empty one is none.
    pub fn param(&self, name: &str) -> Option<&str> {
        self.query
            .get(name)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }

    /// Whether a parameter is there and true.
    pub fn flag(&self, name: &str) -> bool {
        matches!(self.param(name), Some("true" | "1"))
    }

    /// A version in the query.
    ///
    /// # Errors
    ///
    /// It is no number.
    pub fn revision(&self, name: &str) -> Result<Option<u64>, Failure> {
        let text = self.param(name).unwrap_or_default();
        let parsed = (!text.is_empty()).then(|| text.parse()).transpose();
        parsed.map_err(|_| {
            Failure::bad_request(format!(
                "invalid resource version: {name}: Invalid value: \"{text}\": \
                 strconv.ParseUint: parsing \"{text}\": invalid syntax"
            ))
        })
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }

    /// The object that the path names.
    pub fn key(&self) -> Key {
        Key {
            namespace: self.namespace.clone().unwrap_or_default(),
            name: self.name.clone().unwrap_or_default(),
        }
    }

    /// The media type of the body, without parameters.
    pub fn content_type(&self) -> &str {
        let value = self.header("content-type");
        value.split(';').next().unwrap_or_default().trim()
    }

    /// Who writes, as managed fields name it.
    pub fn manager(&self) -> String {
        let agent = self.header("user-agent");
        let program = agent.split('/').next().unwrap_or_default();
        let program = if program.is_empty() {
            "unknown"
        } else {
            program
        };
        self.param("fieldManager").unwrap_or(program).to_owned()
    }

    pub fn dry_run(&self) -> bool {
        self.query.contains_key("dryRun")
    }

    /// The body as an object, where one is required.
    ///
    /// # Errors
    ///
    /// It is of another media type or not readable.
    pub fn object(&self) -> Result<Value, Failure> {
        let unreadable = |error: String| {
            let body = String::from_utf8_lossy(&self.body);
            Failure::bad_request(format!(
                "the object provided is unrecognized (must be of type {}): couldn't get \
                 version/kind; json parse error: {error} ({body})",
                self.resource.kind
            ))
        };
        match self.content_type() {
            "" | "application/json" => {
                serde_json::from_slice(&self.body).map_err(|error| unreadable(error.to_string()))
            }
            "application/yaml" => {
                serde_yaml::from_slice(&self.body).map_err(|error| unreadable(error.to_string()))
            }
            _ => Err(Failure::unsupported_media_type(
                "application/json, application/yaml, application/vnd.kubernetes.protobuf",
            )),
        }
    }
}

/// The query of a URL.
pub fn query(text: Option<&str>) -> HashMap<String, String> {
    let parsed = axum::extract::Query::try_from_uri(
        &format!("/?{}", text.unwrap_or_default())
            .parse()
            .unwrap_or_default(),
    );
    parsed
        .map(|axum::extract::Query(map)| map)
        .unwrap_or_default()
}
