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
        token_status(state.token(token).as_ref(), &audiences)
    } else {
        json!({"allowed": true})
    };
    Ok(review)
}

fn token_status(user: Option<&TokenUser>, asked: &[&str]) -> Value {
    let Some(user) = user else {
        return json!({"user": {}, "error": "[invalid bearer token, token lookup failed]"});
    };
    let common: Vec<&String> = user
        .audiences
        .iter()
        .filter(|audience| asked.contains(&audience.as_str()))
        .collect();
    if !asked.is_empty() && common.is_empty() {
        let error = format!(
            "[invalid bearer token, token audiences {:?} is invalid for the target audiences {asked:?}]",
            user.audiences
        );
        return json!({"user": {}, "error": error});
    }
    let audiences = if asked.is_empty() {
        user.audiences.iter().collect()
    } else {
        common
    };
    json!({
        "authenticated": true, "audiences": audiences,
        "user": {
            "username": user.username, "uid": user.uid, "groups": user.groups, "extra": user.extra,
        },
    })
}
