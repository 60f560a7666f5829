//! Owns the forms in which objects are served: whole, metadata only, or as tables.

use std::borrow::Cow;

use serde_json::{Value, json};

use super::{
    failure::Failure,
    kinds::Resource,
    list::Page,
    route::Call,
    table::{Include, partial, table},
};

/// How a client wants objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Form {
    Whole,
    /// `PartialObjectMetadata`.
    Metadata,
    /// `Table`.
    Table(Include),
}

impl Form {
    /// # Errors
    ///
    /// The client accepts nothing that is served here.
    pub fn accepted(call: &Call) -> Result<Self, Failure> {
        let accept = call.header("accept");
        for range in accept.split(',') {
            let form = if range.contains("as=Table") {
                Self::Table(match call.param("includeObject") {
                    Some("None") => Include::None,
                    Some("Object") => Include::Object,
                    _ => Include::Metadata,
                })
            } else if range.contains("as=PartialObjectMetadataList") {
                Self::Metadata
            } else if range.contains("as=PartialObjectMetadata") {
                if call.name.is_none() && !call.flag("watch") {
                    return Err(not_a_list(&call.resource));
                }
                Self::Metadata
            } else {
                Self::Whole
            };
            let media = range.split(';').next().unwrap_or_default().trim();
            if matches!(media, "" | "application/json" | "*/*" | "application/*") {
                return Ok(form);
            }
        }
        let text = "406: Not Acceptable\n\nAvailable representations: application/json, \
            application/yaml, application/vnd.kubernetes.protobuf, application/json;stream=watch, \
            application/vnd.kubernetes.protobuf;stream=watch";
        Err(Failure::new(406, "NotAcceptable", text, json!({})))
    }

    /// One object, as JSON.
    pub fn one(&self, resource: &Resource, object: &Value) -> String {
        match self {
            Self::Whole => resource.present(object).to_string(),
            Self::Metadata => partial(object).to_string(),
            Self::Table(include) => {
                let version = &object["metadata"]["resourceVersion"];
                let metadata = json!({"resourceVersion": version});
                table(resource, [object], &metadata, *include).to_string()
            }
        }
    }

    /// A list, as JSON. It is put together as text, as copies of 10,000 objects take their time.
    pub fn list(&self, resource: &Resource, page: &Page) -> String {
        let objects = page.items.iter().map(AsRef::as_ref);
        let (kind, version, metadata, items): (_, _, _, Vec<String>) = match self {
            Self::Table(include) => {
                return table(resource, objects, &brief(&page.metadata), *include).to_string();
            }
            Self::Metadata => (
                "PartialObjectMetadataList",
                "meta.k8s.io/v1".to_owned(),
                brief(&page.metadata),
                objects.map(|object| partial(object).to_string()).collect(),
            ),
            Self::Whole => (
                resource.list_kind.as_str(),
                resource.api_version(),
                page.metadata.clone(),
                objects
                    .map(|object| item(resource, object).to_string())
                    .collect(),
            ),
        };
        format!(
            r#"{{"kind":"{kind}","apiVersion":"{version}","metadata":{metadata},"items":[{}]}}"#,
            items.join(",")
        )
    }
}

/// An object as it is in a list, where those of built-in kinds do not say what they are.
fn item<'a>(resource: &Resource, object: &'a Value) -> Cow<'a, Value> {
    if resource.custom.is_some() {
        return resource.present(object);
    }
    let mut bare = object.clone();
    if let Value::Object(fields) = &mut bare {
        fields.remove("apiVersion");
        fields.remove("kind");
    }
    Cow::Owned(bare)
}

/// What one gets who asks for the metadata of one object at the path of many.
fn not_a_list(resource: &Resource) -> Failure {
    let list = match &resource.custom {
        Some(_) => "unstructured.UnstructuredList".to_owned(),
        None => format!("{}.{}", resource.version, resource.list_kind),
    };
    let text = format!(
        "you requested PartialObjectMetadata, but the requested object is a list (*{list})"
    );
    Failure::new(406, "NotAcceptable", text, Value::Null)
}

/// The metadata of a list; only custom resources say that there is no more, and only when whole.
fn brief(metadata: &Value) -> Value {
    let mut metadata = metadata.clone();
    if let Value::Object(fields) = &mut metadata
        && fields.get("continue") == Some(&json!(""))
    {
        fields.remove("continue");
    }
    metadata
}
