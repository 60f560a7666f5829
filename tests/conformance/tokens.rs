//! Owns the requests about service account tokens, as a kubelet asks for them and managers have
//! them reviewed: each server makes tokens of its own, and takes them, or says why not.

use http::Method;
use serde_json::{Value, json};

use super::requests::{Step, delete, get, post, recalling, until, with};

const REVIEWS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";
const CORE: &str = "/api/v1/namespaces/default";

fn review(spec: &Value) -> Step {
    recalling(post(
        REVIEWS,
        &json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": spec}),
    ))
}

/// A request for a token of `conf-agent`.
fn request(spec: &Value) -> Step {
    let path = format!("{CORE}/serviceaccounts/conf-agent/token");
    recalling(post(path, &json!({"spec": spec})))
}

/// A request for a token that is bound to a pod of this name and UID.
fn bound(name: &str, uid: &str) -> Step {
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid});
    request(&json!({"audiences": ["conf", "more"], "boundObjectRef": pod}))
}

/// A pod of an account on a node; what a real server adds to it is not compared.
fn pod(name: &str, account: &str, node: Option<&str>) -> Step {
    let pod = json!({
        "metadata": {"name": name},
        "spec": {
            "serviceAccountName": account, "nodeName": node,
            "containers": [{"name": "agent", "image": "agent"}],
        },
    });
    until(201, post(format!("{CORE}/pods"), &pod))
}

/// Ends a pod as its kubelet does.
fn end(name: &str) -> Step {
    let now = json!({"gracePeriodSeconds": 0});
    until(
        200,
        with(Method::DELETE, format!("{CORE}/pods/{name}"), &now),
    )
}

/// Lets a second go by, in which the real server hears of a deletion.
fn pause() -> Step {
    get(format!(
        "{CORE}/pods?watch=1&timeoutSeconds=1&labelSelector=nobody"
    ))
}

pub(crate) fn all() -> Vec<Step> {
    [accounts(), requests(), reviews(), ends()].concat()
}

fn accounts() -> Vec<Step> {
    let account = |name: &str| {
        post(
            format!("{CORE}/serviceaccounts"),
            &json!({"metadata": {"name": name}}),
        )
    };
    vec![
        account("conf-agent"),
        account("conf-agent"),
        account("conf-other"),
        get(format!("{CORE}/serviceaccounts/conf-agent")),
        until(
            201,
            post("/api/v1/nodes", &json!({"metadata": {"name": "conf-node"}})),
        ),
    ]
}

fn requests() -> Vec<Step> {
    let token = format!("{CORE}/serviceaccounts/conf-agent/token");
    let node = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "conf-node"});
    vec![
        request(&json!({})),
        review(&json!({"token": "<token>"})),
        request(&json!({"audiences": ["conf"], "expirationSeconds": 600})),
        request(&json!({"audiences": ["conf"], "expirationSeconds": 599})),
        request(&json!({"boundObjectRef": node})),
        bound("conf-nobody", ""),
        pod("conf-strange", "conf-other", None),
        bound("conf-strange", ""),
        post(
            format!("{CORE}/serviceaccounts/conf-nobody/token"),
            &json!({"spec": {}}),
        ),
        post(
            "/api/v1/namespaces/none/serviceaccounts/x/token",
            &json!({}),
        ),
        get(&token),
        delete(&token),
        post(
            &token,
            &json!({"kind": "TokenReview", "apiVersion": "authentication.k8s.io/v1"}),
        ),
        pod("conf-agent-1", "conf-agent", Some("conf-node")),
        bound("conf-agent-1", "00000000-0000-4000-a000-000000000000"),
    ]
}

fn reviews() -> Vec<Step> {
    vec![
        bound("conf-agent-1", "<uid>"),
        review(&json!({"token": "<token>", "audiences": ["conf"]})),
        review(&json!({"token": "<token>", "audiences": ["more", "conf"]})),
        review(&json!({"token": "<token>", "audiences": ["other", "conf"]})),
        review(&json!({"token": "<token>", "audiences": ["other"]})),
        review(&json!({"token": "<token>"})),
        review(&json!({"token": "<token>AAAA", "audiences": ["conf"]})),
        review(&json!({"token": "x"})),
        review(&json!({"token": "x.y.z"})),
        review(&json!({"audiences": ["conf"]})),
        post(
            REVIEWS,
            &json!({"kind": "TokenReview", "apiVersion": "authentication.k8s.io/v1"}),
        ),
        post(REVIEWS, &json!({"kind": "Secret", "apiVersion": "v1"})),
        pod("conf-agent-2", "conf-agent", Some("conf-no-node")),
        bound("conf-agent-2", ""),
        review(&json!({"token": "<token>", "audiences": ["conf"]})),
        pod("conf-agent-3", "conf-agent", None),
        bound("conf-agent-3", ""),
        review(&json!({"token": "<token>", "audiences": ["conf"]})),
    ]
}

/// Tokens that are reviewed for the first time when what they are bound to has gone: the real
/// server remembers others for 10 s.
fn ends() -> Vec<Step> {
    let conf = || review(&json!({"token": "<token>", "audiences": ["conf"]}));
    vec![
        bound("conf-agent-1", ""),
        end("conf-agent-1"),
        pause(),
        conf(),
        review(&json!({"token": "<token>", "audiences": ["other"]})),
        pod("conf-agent-1", "conf-agent", Some("conf-node")),
        pause(),
        conf(),
        request(&json!({"audiences": ["conf"]})),
        until(200, delete(format!("{CORE}/serviceaccounts/conf-agent"))),
        pause(),
        conf(),
        until(
            201,
            post(
                format!("{CORE}/serviceaccounts"),
                &json!({"metadata": {"name": "conf-agent"}}),
            ),
        ),
        pause(),
        conf(),
    ]
}
