//! What an API server may answer to a review that neither test server does.

use std::{sync::Arc, time::Duration};

use http::{Request, Response};
use kube::{Client, Error, client::Body};
use kubevirt_wol::manager::identity::{
    Authenticator, Bans, Metrics, Refusal, Refused, Standing, TokenRules,
};
use serde_json::{Value, json};
use tonic::{Code, Status};
use tower::service_fn;

const HOUR: Duration = Duration::from_secs(3_600);

/// What becomes of an agent where the API server answers so.
async fn admitted(code: u16, answer: Value) -> Result<Standing, Refusal> {
    let service = service_fn(move |_: Request<Body>| {
        let body = Body::from(answer.to_string().into_bytes());
        let answer = Response::builder().status(code).body(body);
        async { Ok::<_, Error>(answer.unwrap()) }
    });
    let rules = TokenRules {
        namespace: "wol".into(),
        account: "agent".into(),
        audience: "kubevirt-wol.wol".into(),
        cache: HOUR,
        interval: HOUR,
    };
    let client = Client::new(service, "wol");
    let authenticator = Authenticator::tokens(client, &rules, Bans::none(), Metrics::default());
    let mut call = tonic::Request::new(());
    let header = "Bearer s3cret".parse().unwrap();
    call.metadata_mut().insert("authorization", header);
    Arc::new(authenticator).admit(&call).await
}

/// A review that went well, but for what `change` makes of it.
async fn reviewed(change: Value) -> Result<Standing, Refusal> {
    let mut status = json!({
        "authenticated": true, "audiences": ["kubevirt-wol.wol"],
        "user": {
            "username": "system:serviceaccount:wol:agent",
            "extra": {"authentication.kubernetes.io/node-name": ["node-1"]},
        },
    });
    for (key, value) in change.as_object().unwrap() {
        status[key] = value.clone();
    }
    let kind = json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "metadata": {},
        "spec": {}, "status": status,
    });
    admitted(201, kind).await
}

async fn refused(change: Value) -> Refused {
    reviewed(change).await.err().expect("it is refused").kind()
}

#[tokio::test]
async fn every_part_of_a_review_has_to_hold() {
    let standing = reviewed(json!({})).await.unwrap();
    assert_eq!(standing.node().map(|node| &**node), Some("node-1"));
    let user = |name: &str, node: &str| {
        let extra = json!({"authentication.kubernetes.io/node-name": [node]});
        json!({"user": {"username": name, "extra": extra}})
    };
    let agent = "system:serviceaccount:wol:agent";
    for (change, kind) in [
        (json!({"authenticated": false}), Refused::Token),
        (json!({"authenticated": null}), Refused::Token),
        // Of a server, or a webhook behind it, that does not look at audiences.
        (json!({"audiences": null}), Refused::Audience),
        (json!({"audiences": []}), Refused::Audience),
        (
            json!({"audiences": ["kubevirt-wol.other"]}),
            Refused::Audience,
        ),
        (json!({"user": null}), Refused::Account),
        (
            user("system:serviceaccount:wol:agent2", "node-1"),
            Refused::Account,
        ),
        (
            user("system:serviceaccount:other:agent", "node-1"),
            Refused::Account,
        ),
        (user("agent", "node-1"), Refused::Account),
        (user(agent, ""), Refused::Unbound),
        (user(agent, "Node\n1"), Refused::Unbound),
    ] {
        assert_eq!(refused(change.clone()).await, kind, "{change}");
    }
}

#[tokio::test]
async fn a_manager_without_the_right_to_review_says_so_in_its_log_and_not_to_the_caller() {
    let forbidden = json!({
        "apiVersion": "v1", "kind": "Status", "status": "Failure", "reason": "Forbidden",
        "message": "tokenreviews is forbidden: User \"wol\" cannot create", "code": 403,
    });
    let refusal = admitted(403, forbidden).await.err().unwrap();
    let told = refusal.to_string();
    assert!(
        told.contains("cannot create (403)") && told.contains("manifests"),
        "{told}"
    );
    let status = Status::from(refusal);
    assert_eq!(status.code(), Code::Unavailable);
    assert!(!status.message().contains("tokenreviews"), "{status:?}");
}

#[tokio::test]
async fn no_answer_shows_the_token() {
    for answer in [json!("s3cret"), json!({"spec": {"token": "s3cret"}})] {
        let refusal = admitted(201, answer).await.err().unwrap();
        let shown = format!("{refusal} {refusal:?} {:?}", Status::from(refusal.clone()));
        assert!(!shown.contains("s3cret"), "{shown}");
    }
}
