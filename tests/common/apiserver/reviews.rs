//! Owns what is asked and not stored: whom a token belongs to, and who may do what.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{State, failure::Failure, route::Call};

/// Whom a token belongs to.
#[derive(Debug, Clone, Default)]
pub struct TokenUser {
    pub username: String,
    pub uid: String,
    pub groups: Vec<String>,
    /// Such as `authentication.kubernetes.io/node-name`.
    pub extra: BTreeMap<String, Vec<String>>,
    /// For whom the token is.
    pub audiences: Vec<String>,
}

/// For whom a token has to be where the review does not say it.
const DEFAULT_AUDIENCE: &str = "https://kubernetes.default.svc.cluster.local";

/// Answers a review.
///
/// # Errors
///
/// It is malformed.
pub fn answer(state: &State, call: &Call) -> Result<Value, Failure> {
    let mut review = call.object()?;
    super::admit::check_type(&call.resource, &mut review)?;
    review["status"] = if call.resource.kind == "TokenReview" {
        let token = review["spec"]["token"].as_str().unwrap_or_default();
        if token.is_empty() {
            return Err(Failure::bad_request(
                "token is required for TokenReview in authentication",
            ));
        }
        let audiences = review["spec"]["audiences"].as_array().into_iter().flatten();
        let audiences: Vec<&str> = audiences.filter_map(Value::as_str).collect();
        let audiences = if audiences.is_empty() {
            vec![DEFAULT_AUDIENCE]
        } else {
            audiences
        };
        token_status(state.token(token).as_ref(), &audiences)
    } else {
        json!({"allowed": true})
    };
    Ok(review)
}

fn token_status(user: Option<&TokenUser>, asked: &[&str]) -> Value {
    let Some(user) = user else {
        return json!({"user": {}, "error": "invalid bearer token"});
    };
    let both = user
        .audiences
        .iter()
        .filter(|audience| asked.contains(&audience.as_str()));
    let audiences: Vec<&String> = both.collect();
    if audiences.is_empty() {
        let has: Vec<String> = user
            .audiences
            .iter()
            .map(|one| format!("{one:?}"))
            .collect();
        let wants: Vec<String> = asked.iter().map(|one| format!("{one:?}")).collect();
        let error = format!(
            "[invalid bearer token, token audiences [{}] is invalid for the target audiences [{}]]",
            has.join(" "),
            wants.join(" ")
        );
        return json!({"user": {}, "error": error});
    }
    json!({
        "authenticated": true, "audiences": audiences,
        "user": {
            "username": user.username, "uid": user.uid, "groups": user.groups, "extra": user.extra,
        },
    })
}
