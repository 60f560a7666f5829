//! Owns the API's error answers: their codes, reasons and texts are those of the real one.

use serde_json::{Value, json};

use super::kinds::Resource;

/// An error answer: a `Status` object, or plain text where the real server sends that.
#[derive(Debug, Clone)]
pub struct Failure {
    pub code: u16,
    pub body: Body,
    /// Seconds, as in the header of that name.
    pub retry_after: Option<u32>,
}

/// What an error answer carries.
#[derive(Debug, Clone)]
pub enum Body {
    Status(Value),
    Text(String),
}

impl Failure {
    /// A `Status` with `reason`, `message` and `details`, of which null means none.
    pub fn new(code: u16, reason: &str, message: impl Into<String>, details: Value) -> Self {
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": message.into(), "reason": reason, "code": code,
        });
        if !details.is_null() {
            status["details"] = details;
        }
        Self {
            code,
            body: Body::Status(status),
            retry_after: None,
        }
    }

    /// The `Status` object, also of a plain text.
    pub fn status(&self) -> Value {
        match &self.body {
            Body::Status(status) => status.clone(),
            Body::Text(text) => json!({
                "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                "message": text, "code": self.code,
            }),
        }
    }

    /// A `Status` without a reason.
    pub fn unexplained(code: u16, message: &str) -> Self {
        let mut failure = Self::new(code, "", message, Value::Null);
        if let Body::Status(Value::Object(fields)) = &mut failure.body {
            fields.remove("reason");
        }
        failure
    }

    pub fn text(code: u16, text: impl Into<String>) -> Self {
        Self {
            code,
            body: Body::Text(text.into()),
            retry_after: None,
        }
    }

    /// What unknown paths get, and with them all groups that nobody serves.
    pub fn page_not_found() -> Self {
        Self::text(404, "404 page not found\n")
    }

    /// What unknown resources of a known group get.
    pub fn no_such_resource() -> Self {
        let text = "the server could not find the requested resource";
        Self::new(404, "NotFound", text, json!({}))
    }

    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message, Value::Null)
    }

    pub fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized", Value::Null)
    }

    pub fn internal(message: &str) -> Self {
        let details = json!({"causes": [{"message": message}]});
        let message = format!("Internal error occurred: {message}");
        Self::new(500, "InternalError", message, details)
    }

    pub fn method_not_allowed() -> Self {
        let text = "the server does not allow this method on the requested resource";
        Self::new(405, "MethodNotAllowed", text, json!({}))
    }

    pub fn unsupported_media_type(accepted: &str) -> Self {
        let text = format!(
            "the body of the request was in an unknown format - accepted media types include: {accepted}"
        );
        Self::new(415, "UnsupportedMediaType", text, Value::Null)
    }

    /// The answer of a server that is asked too often.
    pub fn too_many_requests(retry_after: u32) -> Self {
        let text = "Too many requests, please try again later.\n";
        Self {
            retry_after: Some(retry_after),
            ..Self::text(429, text)
        }
    }

    pub fn not_found(resource: &Resource, name: &str) -> Self {
        let message = format!("{} \"{name}\" not found", resource.qualified());
        Self::new(404, "NotFound", message, resource.details(name))
    }

    pub fn already_exists(resource: &Resource, name: &str) -> Self {
        let message = format!("{} \"{name}\" already exists", resource.qualified());
        Self::new(409, "AlreadyExists", message, resource.details(name))
    }

    pub fn conflict(resource: &Resource, name: &str, why: &str) -> Self {
        let what = resource.qualified();
        let message = format!("Operation cannot be fulfilled on {what} \"{name}\": {why}");
        Self::new(409, "Conflict", message, resource.details(name))
    }

    pub fn stale(resource: &Resource, name: &str) -> Self {
        let why = "the object has been modified; please apply your changes to the latest version \
                   and try again";
        Self::conflict(resource, name, why)
    }

    /// What a watch from a forgotten version gets.
    pub fn expired(asked: u64, oldest: u64) -> Self {
        let message = format!("too old resource version: {asked} ({oldest})");
        Self::new(410, "Expired", message, Value::Null)
    }

    /// What a page of a forgotten version gets.
    pub fn expired_page(again: &str) -> Self {
        let message = "The provided continue parameter is too old to display a consistent list \
            result. You can start a new list without the continue parameter, or use the continue \
            token in this response to retrieve the remainder of the results. Continuing with the \
            provided token results in an inconsistent list - objects that were created, modified, \
            or deleted between the time the first chunk was returned and now may show up in the \
            list.";
        let mut failure = Self::new(410, "Expired", message, Value::Null);
        if let Body::Status(status) = &mut failure.body {
            status["metadata"]["continue"] = again.into();
        }
        failure
    }

    /// What a version gets that is not there yet.
    pub fn too_large_version(asked: u64, current: u64) -> Self {
        let message = format!("Timeout: Too large resource version: {asked}, current: {current}");
        let cause =
            json!({"reason": "ResourceVersionTooLarge", "message": "Too large resource version"});
        let details = json!({"causes": [cause], "retryAfterSeconds": 1});
        let failure = Self::new(504, "Timeout", message, details);
        Self {
            retry_after: Some(1),
            ..failure
        }
    }

    /// What an object gets that breaks the rules for its fields.
    pub fn invalid(who: &Invalid<'_>, causes: &[Cause]) -> Self {
        let mut texts: Vec<String> = causes.iter().map(Cause::text).collect();
        texts.dedup();
        let kind = match who.group {
            "" => who.kind.to_owned(),
            group => format!("{}.{group}", who.kind),
        };
        let all = match texts.as_slice() {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        let mut details = json!({"kind": who.kind});
        if !who.name.is_empty() {
            details["name"] = who.name.into();
        }
        if !who.group.is_empty() {
            details["group"] = who.group.into();
        }
        details["causes"] = causes.iter().map(Cause::json).collect();
        let message = format!("{kind} \"{}\" is invalid: {all}", who.name);
        Self::new(422, "Invalid", message, details)
    }
}

/// Whose object is invalid.
pub struct Invalid<'a> {
    pub group: &'a str,
    pub kind: &'a str,
    pub name: &'a str,
}

/// What is wrong with one field.
#[derive(Debug, Clone, PartialEq)]
pub struct Cause {
    pub reason: &'static str,
    pub message: String,
    pub field: String,
}

impl Cause {
    pub fn new(reason: &'static str, field: &str, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
            field: if field.is_empty() { "<nil>" } else { field }.to_owned(),
        }
    }

    pub fn required(field: &str) -> Self {
        Self::new("FieldValueRequired", field, "Required value")
    }

    /// `value` is printed as it is.
    pub fn invalid(field: &str, value: &Value, why: &str) -> Self {
        Self::new(
            "FieldValueInvalid",
            field,
            format!("Invalid value: {value}: {why}"),
        )
    }

    fn text(&self) -> String {
        format!("{}: {}", self.field, self.message)
    }

    fn json(&self) -> Value {
        json!({"reason": self.reason, "message": self.message, "field": self.field})
    }
}
