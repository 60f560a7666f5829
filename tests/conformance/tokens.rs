//! Owns a token that both servers know: the real one makes it, as a kubelet would have it made for
//! a pod on a node, and the stand-in is told whom it belongs to.

use std::collections::BTreeMap;

use http::Request;
use kube::Client;
use serde_json::{Value, json};

use crate::common::apiserver::{ApiServer, TokenUser};

async fn make(client: &Client, path: &str, object: &Value) -> Value {
    let request = Request::post(path)
        .header("content-type", "application/json")
        .body(object.to_string().into_bytes());
    client.request(request.unwrap()).await.unwrap()
}

/// The token of a pod on a node, for the audience `conf`.
pub(crate) async fn known_to_both(real: &Client, stand_in: &ApiServer) -> String {
    let namespace = "/api/v1/namespaces/kube-system";
    let accounts = format!("{namespace}/serviceaccounts");
    let node = json!({"metadata": {"name": "node-1"}});
    let node = make(real, "/api/v1/nodes", &node).await;
    let account = json!({"metadata": {"name": "agent"}});
    let account = make(real, &accounts, &account).await;
    let pod = json!({
        "metadata": {"name": "agent-1"},
        "spec": {
            "serviceAccountName": "agent", "nodeName": "node-1",
            "containers": [{"name": "agent", "image": "agent"}],
        },
    });
    let pod = make(real, &format!("{namespace}/pods"), &pod).await;
    let (pod_uid, node_uid) = (uid(&pod), uid(&node));
    let bound = json!({"apiVersion": "v1", "kind": "Pod", "name": "agent-1", "uid": pod_uid});
    let asked = json!({"spec": {"audiences": ["conf"], "boundObjectRef": bound}});
    let made = make(real, &format!("{accounts}/agent/token"), &asked).await;
    let token = made["status"]["token"].as_str().unwrap();
    let key = |name: &str| format!("authentication.kubernetes.io/{name}");
    stand_in.add_token(
        token,
        TokenUser {
            username: "system:serviceaccount:kube-system:agent".into(),
            uid: uid(&account),
            groups: [
                "system:serviceaccounts",
                "system:serviceaccounts:kube-system",
                "system:authenticated",
            ]
            .map(Into::into)
            .into(),
            extra: BTreeMap::from([
                (key("credential-id"), vec![format!("JTI={node_uid}")]),
                (key("node-name"), vec!["node-1".into()]),
                (key("node-uid"), vec![node_uid]),
                (key("pod-name"), vec!["agent-1".into()]),
                (key("pod-uid"), vec![pod_uid]),
            ]),
            audiences: vec!["conf".into()],
        },
    );
    token.to_owned()
}

fn uid(object: &Value) -> String {
    object["metadata"]["uid"].as_str().unwrap().to_owned()
}
