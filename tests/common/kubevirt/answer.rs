//! The answers of virt-api, word for word.

use axum::{
    http::{
        StatusCode,
        header::{CONTENT_TYPE, RETRY_AFTER},
    },
    response::{IntoResponse as _, Response},
};
use serde_json::json;

/// What virt-api says to a call.
#[derive(Debug, Clone)]
pub enum Answer {
    /// The request is recorded: 202 without a body or a type.
    Accepted,
    /// Done: 200 without a body.
    Done,
    /// A refusal with a `Status` body.
    Refused {
        code: u16,
        reason: &'static str,
        message: String,
        kind: &'static str,
        name: String,
    },
    /// A refusal for so many seconds.
    Busy(u64),
    /// A refusal in plain text, which comes from the layers around the handlers.
    Plain(u16, String),
}

impl Answer {
    pub fn conflict(kind: &'static str, name: &str, why: &str) -> Self {
        Self::refused(
            409,
            "Conflict",
            kind,
            name,
            format!("Operation cannot be fulfilled on {kind}.kubevirt.io \"{name}\": {why}"),
        )
    }

    pub fn not_found(kind: &'static str, name: &str) -> Self {
        Self::refused(
            404,
            "NotFound",
            kind,
            name,
            format!("{kind}.kubevirt.io \"{name}\" not found"),
        )
    }

    pub fn internal(why: &str) -> Self {
        Self::refused(
            500,
            "InternalError",
            "",
            "",
            format!("Internal error occurred: {why}"),
        )
    }

    /// Another replica, or the controller, was faster: what the API server says to a patch whose
    /// test does not hold.
    pub fn lost_race() -> Self {
        Self::internal("the server rejected our request due to an error in our request")
    }

    pub fn refused(
        code: u16,
        reason: &'static str,
        kind: &'static str,
        name: &str,
        message: String,
    ) -> Self {
        Self::Refused {
            code,
            reason,
            message,
            kind,
            name: name.into(),
        }
    }

    pub fn code(&self) -> u16 {
        match self {
            Self::Accepted => 202,
            Self::Done => 200,
            Self::Busy(_) => 429,
            Self::Refused { code, .. } | Self::Plain(code, _) => *code,
        }
    }

    /// Why it was refused, or nothing.
    pub fn message(&self) -> &str {
        match self {
            Self::Accepted | Self::Done => "",
            Self::Busy(_) => "too many requests, please try again later",
            Self::Refused { message, .. } | Self::Plain(_, message) => message,
        }
    }

    pub fn into_response(self) -> Response {
        let code = StatusCode::from_u16(self.code()).expect("the code is one of HTTP's");
        match self {
            Self::Accepted | Self::Done => code.into_response(),
            Self::Plain(_, text) => (code, text).into_response(),
            Self::Busy(seconds) => {
                let message = self.message().to_owned();
                let status = Self::refused(429, "TooManyRequests", "", "", message);
                let mut response = status.into_response();
                response.headers_mut().insert(RETRY_AFTER, seconds.into());
                response
            }
            Self::Refused {
                reason,
                message,
                kind,
                name,
                ..
            } => {
                let details = match kind {
                    // The inner text is told twice.
                    "" => {
                        json!({"causes": [{"message": message.trim_start_matches("Internal error occurred: ")}]})
                    }
                    kind => json!({"name": name, "group": "kubevirt.io", "kind": kind}),
                };
                let status = json!({
                    "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                    "message": message, "reason": reason, "details": details, "code": code.as_u16(),
                });
                (
                    code,
                    [(CONTENT_TYPE, "application/json")],
                    status.to_string(),
                )
                    .into_response()
            }
        }
    }
}
