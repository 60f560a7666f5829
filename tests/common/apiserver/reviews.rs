//! Owns what is asked and not stored: whom a token belongs to, and who may do what.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{
    State,
    failure::Failure,
    route::Call,
    tokens::{self, ISSUER},
};

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
        let audiences = if audiences.is_empty() {
            vec![ISSUER]
        } else {
            audiences
        };
        match whose(state, token, &audiences) {
            Ok((user, audiences)) => json!({
                "authenticated": true, "audiences": audiences,
                "user": {
                    "username": user.username, "uid": user.uid, "groups": user.groups,
                    "extra": user.extra,
                },
            }),
            Err(error) => json!({"user": {}, "error": error}),
        }
    } else if call.resource.kind == "SelfSubjectReview" {
        json!({"userInfo": {"username": "admin", "groups": ["system:masters", "system:authenticated"]}})
    } else {
        json!({"allowed": !is_denied(state, &review["spec"]["resourceAttributes"])})
    };
    Ok(review)
}

/// Whether a test had this taken from whoever is asked about.
fn is_denied(state: &State, what: &Value) -> bool {
    let text = |field: &str| what[field].as_str().unwrap_or_default();
    let resource = match text("subresource") {
        "" => text("resource").to_owned(),
        part => format!("{}/{part}", text("resource")),
    };
    state
        .settings()
        .denied
        .contains(&(text("verb").to_owned(), resource))
}

/// Whose a token is, and for which of the audiences that are asked for.
fn whose(state: &State, token: &str, asked: &[&str]) -> Result<(TokenUser, Vec<String>), String> {
    let refused = |why: String| format!("[invalid bearer token, {why}]");
    let claims = tokens::read(state, token).transpose().map_err(refused)?;
    let user = claims.as_ref().map(tokens::user);
    let user = user.or_else(|| state.token(token));
    let user = user.ok_or("invalid bearer token")?;
    let asked = asked.iter().copied().map(str::to_owned);
    let (both, others): (Vec<_>, Vec<_>) = asked.partition(|one| user.audiences.contains(one));
    if both.is_empty() {
        let list = |audiences: &[String]| {
            let quoted = audiences.iter().map(|one| format!("{one:?}"));
            quoted.collect::<Vec<_>>().join(" ")
        };
        return Err(refused(format!(
            "token audiences [{}] is invalid for the target audiences [{}]",
            list(&user.audiences),
            list(&others)
        )));
    }
    if let Some(why) = claims.and_then(|claims| tokens::ended(&state.store(), &claims)) {
        return Err(refused(why));
    }
    Ok((user, both))
}
