//! Owns the scenarios, which know nothing of which API server they run on.

use crate::common::{
    cluster::{Cluster, INSECURE, eventually},
    sessions::{Crowd, Way},
    trust::{AGENT, BUNDLE, Pod, SECRET, STRANGER, Trust},
};
use k8s_openapi::api::{
    authentication::v1::{TokenReview, TokenReviewStatus},
    core::v1::{ConfigMap, Secret},
};
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::json;

async fn review(cluster: &Cluster, token: &str) -> TokenReviewStatus {
    let api = Api::<TokenReview>::all(cluster.client.clone());
    let mut review = TokenReview::default();
    review.spec.token = Some(token.to_owned());
    review.spec.audiences = Some(vec![Trust::audience()]);
    let answer = api.create(&PostParams::default(), &review).await;
    answer.unwrap().status.unwrap()
}

fn token(pod: &Pod) -> String {
    std::fs::read_to_string(pod.token_file()).unwrap()
}

/// The account and node of a token.
async fn owner(cluster: &Cluster, token: &str) -> (String, String) {
    let user = review(cluster, token).await.user.unwrap();
    let node = &user.extra.unwrap_or_default()["authentication.kubernetes.io/node-name"];
    (user.username.unwrap(), node[0].clone())
}

pub(crate) async fn a_pod_has_a_token_of_its_account_and_node(cluster: &Cluster) {
    let trust = Trust::install(&cluster.api, &cluster.client).await;
    for account in [AGENT, STRANGER] {
        let pod = trust.pod("node-1", account).await;
        let name = format!("system:serviceaccount:default:{account}");
        let first = token(&pod);
        assert_eq!(owner(cluster, &first).await, (name, "node-1".to_owned()));
        pod.refresh().await;
        assert_ne!(token(&pod), first);
    }
}

pub(crate) async fn a_token_is_refused_that_is_for_others_or_has_ended(cluster: &Cluster) {
    let trust = Trust::install(&cluster.api, &cluster.client).await;
    let pod = trust.pod("node-1", AGENT).await;
    let audience = Trust::audience();
    let lasting = trust.token_for(&pod, &audience, 5).await;
    assert_eq!(review(cluster, &lasting).await.authenticated, Some(true));
    let refused = [
        trust.token_for(&pod, &audience, -62).await,
        pod.token("somebody-else").await,
        "garbage".to_owned(),
    ];
    for token in refused {
        assert_eq!(review(cluster, &token).await.authenticated, None);
    }
    let unseen = pod.token(&audience).await;
    pod.end().await;
    eventually("its tokens are refused", async || {
        review(cluster, &unseen).await.authenticated.is_none()
    })
    .await;
}

pub(crate) async fn the_bundle_reaches_the_pod_and_leaves_it(cluster: &Cluster) {
    let trust = Trust::install(&cluster.api, &cluster.client).await;
    let secret = trust.api::<Secret>().get(SECRET).await.unwrap();
    assert_eq!(secret.data, None);
    let pod = trust.pod("node-1", AGENT).await;
    assert!(!pod.ca_file().exists());
    for content in [Some("first"), Some("second"), None] {
        let data = Patch::Merge(json!({"data": {"ca.crt": content}}));
        let bundles = trust.api::<ConfigMap>();
        let patched = bundles.patch(BUNDLE, &PatchParams::default(), &data).await;
        patched.unwrap();
        eventually("the file follows", async || {
            let found = std::fs::read_to_string(pod.ca_file()).ok();
            found.as_deref() == content
        })
        .await;
    }
    assert!(!token(&pod).is_empty());
}

pub(crate) async fn fifty_sessions_get_every_event_settled(cluster: &Cluster) {
    cluster.install_crd().await;
    let manager = cluster.manager(&[INSECURE]).await;
    let way = Way {
        manager: manager.grpc,
        tls: None,
    };
    let crowd = Crowd::open(&way, &vec![None; 50]).await;
    for round in 0..3 {
        crowd.deliver(round).await;
    }
    crowd.settled().await;
    assert!(crowd.0.iter().all(|session| session.record().sent == 3));
    drop(manager);
    eventually("every end is told", async || {
        let mut sessions = crowd.0.iter();
        sessions.all(|session| session.record().ended.is_some())
    })
    .await;
}
