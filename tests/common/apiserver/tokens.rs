//! Owns service account tokens: how they are asked for, and what a review says of them. A token is
//! bound to its account and, where that is asked for, to a pod, and ends with either.
//!
//! Simplified: it can be bound to pods only, and a review always looks afresh; the real server
//! remembers for 10 s whom it has told to be authenticated.

use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    State, admit, clock,
    failure::{Cause, Failure, Invalid},
    kinds,
    reviews::TokenUser,
    route::Call,
    store::{Key, Store},
    write,
};
use crate::common::jwt;

/// Who issues the tokens, and for whom they are where nobody says it.
pub const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// How far clocks may be apart, in seconds: so much longer than it says is a token taken.
const LEEWAY: i64 = 60;

/// The shortest life that can be asked for, and the one of a token for which none is, in seconds.
const LIFE: (i64, i64) = (600, 3600);

/// The claims of a service account token.
pub struct Claims<'a> {
    pub namespace: &'a str,
    pub account: &'a Value,
    pub audiences: &'a Value,
    /// The pod that it is bound to, and its node.
    pub pod: Option<(&'a Value, Value)>,
    /// When it is issued, in seconds since 1970, and for how long.
    pub from: i64,
    pub life: i64,
}

impl Claims<'_> {
    pub fn json(&self) -> Value {
        let named = |object: &Value| {
            let metadata = &object["metadata"];
            json!({"name": metadata["name"], "uid": metadata["uid"]})
        };
        let (namespace, account) = (self.namespace, named(self.account));
        let name = account["name"].as_str().unwrap_or_default();
        let subject = format!("system:serviceaccount:{namespace}:{name}");
        let mut bound = json!({"namespace": namespace, "serviceaccount": account});
        if let Some((pod, node)) = &self.pod {
            bound["pod"] = named(pod);
            if !node.is_null() {
                bound["node"] = node.clone();
            }
        }
        json!({
            "iss": ISSUER, "sub": subject, "aud": self.audiences, "jti": clock::uid(),
            "iat": self.from, "nbf": self.from, "exp": self.from + self.life,
            "kubernetes.io": bound,
        })
    }
}

/// The node of a pod as its tokens name it: with its UID where there is such an object.
pub fn node_claim(pod: &Value, node: Option<&Value>) -> Value {
    match (&pod["spec"]["nodeName"], node) {
        (Value::String(name), None) => json!({"name": name}),
        (Value::String(name), Some(node)) => json!({"name": name, "uid": node["metadata"]["uid"]}),
        _ => Value::Null,
    }
}

/// Answers a `TokenRequest`.
///
/// # Errors
///
/// As the real server: the account or the pod is not there, or is another one.
pub fn request(state: &State, call: &Call) -> Result<Value, Failure> {
    let kind = kinds::token_requests();
    let mut request = call.object()?;
    admit::check_type(&kind, &mut request)?;
    let key = call.key();
    let store = state.store();
    write::check_namespace(&store, &call.resource, &key)?;
    let account = find(&store, "serviceaccounts.", &key.namespace, &key.name);
    let account = account.ok_or_else(|| Failure::not_found(&call.resource, &key.name))?;
    let spec = &mut request["spec"];
    if spec["audiences"].as_array().is_none_or(Vec::is_empty) {
        spec["audiences"] = json!([ISSUER]);
    }
    let life = spec["expirationSeconds"].as_i64().unwrap_or(LIFE.1);
    spec["expirationSeconds"] = life.into();
    check_life(life)?;
    spec["boundObjectRef"] = spec["boundObjectRef"].take();
    if let Value::Object(bound) = &mut spec["boundObjectRef"] {
        bound.retain(|_, value| *value != "");
    }
    let pod = bound_pod(&store, &key, &spec["boundObjectRef"])?;
    let node = pod.as_ref().map(|pod| {
        let name = pod["spec"]["nodeName"].as_str().unwrap_or_default();
        node_claim(pod, find(&store, "nodes.", "", name).as_deref())
    });
    let from = Timestamp::now().as_second();
    let claims = Claims {
        namespace: &key.namespace,
        account: &account,
        audiences: &spec["audiences"],
        pod: pod.as_deref().zip(node),
        from,
        life,
    };
    let token = state.signer.sign(&claims.json());
    let ends = Timestamp::from_second(from + life).unwrap_or(Timestamp::MAX);
    let ends = ends.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    request["metadata"] = json!({
        "name": key.name, "namespace": key.namespace, "uid": clock::uid(),
        "creationTimestamp": clock::now(),
    });
    request["status"] = json!({"token": token, "expirationTimestamp": ends});
    Ok(request)
}

fn check_life(life: i64) -> Result<(), Failure> {
    if life >= LIFE.0 {
        return Ok(());
    }
    let why = "may not specify a duration less than 10 minutes";
    let cause = Cause::invalid("spec.expirationSeconds", &life.into(), why);
    let who = Invalid {
        group: "authentication.k8s.io",
        kind: "TokenRequest",
        name: "",
    };
    Err(Failure::invalid(&who, &[cause]))
}

/// The pod that a token of the account `key` is to be bound to.
fn bound_pod(store: &Store, key: &Key, wanted: &Value) -> Result<Option<Arc<Value>>, Failure> {
    if wanted.is_null() {
        return Ok(None);
    }
    let text = |field: &str| wanted[field].as_str().unwrap_or_default();
    let (version, kind) = (text("apiVersion"), text("kind"));
    let (name, uid) = (text("name"), text("uid"));
    if kind != "Pod" {
        let message = format!("cannot bind token to object of type /{version}, Kind={kind}");
        return Err(Failure::bad_request(message));
    }
    let Some(pod) = find(store, "pods.", &key.namespace, name) else {
        let details = json!({"name": name, "kind": "pods"});
        let message = format!("pods \"{name}\" not found");
        return Err(Failure::new(404, "NotFound", message, details));
    };
    let account = &key.name;
    if pod["spec"]["serviceAccountName"] != *account {
        return Err(Failure::bad_request(format!(
            "cannot bind token for serviceaccount \"{account}\" to pod running with different \
             serviceaccount name."
        )));
    }
    if !uid.is_empty() && pod["metadata"]["uid"] != uid {
        let message = format!(
            "Operation cannot be fulfilled on Pod \"{name}\": the UID in the bound object reference \
             ({uid}) does not match the UID in record. The object might have been deleted and then \
             recreated"
        );
        let details = json!({"name": name, "kind": "Pod"});
        return Err(Failure::new(409, "Conflict", message, details));
    }
    Ok(Some(pod))
}

fn find(store: &Store, table: &str, namespace: &str, name: &str) -> Option<Arc<Value>> {
    let (namespace, name) = (namespace.to_owned(), name.to_owned());
    store.get(table, &Key { namespace, name }).cloned()
}

/// What a token of this server's claims. None where it is no such token at all.
pub fn read(state: &State, token: &str) -> Option<Result<Value, String>> {
    let claims = jwt::claims(token).filter(|claims| claims["iss"] == ISSUER)?;
    let signed = state.signer.signed(token);
    let forged = || "go-jose/go-jose: error in cryptographic primitive".to_owned();
    Some(signed.then_some(claims).ok_or_else(forged))
}

/// Why a token is not taken any more, or not yet.
pub fn ended(store: &Store, claims: &Value) -> Option<String> {
    let now = Timestamp::now().as_second();
    let time = |claim: &str| claims[claim].as_i64().unwrap_or_default();
    if now - LEEWAY > time("exp") {
        return Some("service account token has expired".into());
    }
    if now + LEEWAY < time("nbf") {
        return Some("service account token is not valid yet".into());
    }
    let bound = &claims["kubernetes.io"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let namespace = text(&bound["namespace"]);
    let (account, pod) = (&bound["serviceaccount"], &bound["pod"]);
    let (name, uid) = (text(&account["name"]), text(&account["uid"]));
    let Some(found) = find(store, "serviceaccounts.", &namespace, &name) else {
        return Some(format!("serviceaccounts \"{name}\" not found"));
    };
    let is = text(&found["metadata"]["uid"]);
    if is != uid {
        let why = format!("service account UID ({is}) does not match claim ({uid})");
        return Some(why);
    }
    if pod.is_null() {
        return None;
    }
    let Some(found) = find(store, "pods.", &namespace, &text(&pod["name"])) else {
        return Some("service account token has been invalidated".into());
    };
    let (is, uid) = (text(&found["metadata"]["uid"]), text(&pod["uid"]));
    (is != uid)
        .then(|| format!("pod UID ({is}) does not match service account pod ref claim ({uid})"))
}

/// Whose a token is.
pub fn user(claims: &Value) -> TokenUser {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let bound = &claims["kubernetes.io"];
    let id = format!("JTI={}", text(&claims["jti"]));
    let extra = [
        ("credential-id", id),
        ("node-name", text(&bound["node"]["name"])),
        ("node-uid", text(&bound["node"]["uid"])),
        ("pod-name", text(&bound["pod"]["name"])),
        ("pod-uid", text(&bound["pod"]["uid"])),
    ];
    let key = |name: &str| format!("authentication.kubernetes.io/{name}");
    let extra = extra.into_iter().filter(|(_, value)| !value.is_empty());
    let audiences = claims["aud"].as_array().into_iter().flatten();
    TokenUser {
        username: text(&claims["sub"]),
        uid: text(&bound["serviceaccount"]["uid"]),
        groups: vec![
            "system:serviceaccounts".into(),
            format!("system:serviceaccounts:{}", text(&bound["namespace"])),
            "system:authenticated".into(),
        ],
        extra: extra
            .map(|(name, value)| (key(name), vec![value]))
            .collect(),
        audiences: audiences.map(text).collect(),
    }
}
