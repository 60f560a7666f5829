//! Owns server-side apply.

use serde_json::Value;

use super::{admit, failure::Failure, route::Call};

/// Reads an applied configuration.
///
/// # Errors
///
/// It is malformed.
pub fn parse(call: &Call) -> Result<Value, Failure> {
    let mut object = serde_yaml::from_slice(&call.body)
        .map_err(|error| Failure::bad_request(format!("error decoding YAML: {error}")))?;
    admit::check_type(&call.resource, &mut object)?;
    Ok(object)
}

/// # Errors
///
/// A field belongs to another.
pub fn merge(_call: &Call, old: &Value, wanted: &Value) -> Result<Value, Failure> {
    let mut new = old.clone();
    json_patch::merge(&mut new, wanted);
    Ok(new)
}
