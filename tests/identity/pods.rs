//! What tokens of the stand-in alone can say: of API servers that name no node in them, and when
//! they expire.

use std::time::Duration;

use tonic::Code;

use crate::{
    bed::Bed,
    common::apiserver::TokenUser,
    scenarios::{credential, delivers, end, refusal},
    world::{ACCOUNT, Api, extras, jwt, session},
};

/// A token that says only which pod it is bound to.
fn of_pod(api: &Api, pod: &str, uid: &str) -> String {
    let token = jwt(Duration::from_secs(600));
    let user = TokenUser {
        extra: extras(&[("pod-name", pod), ("pod-uid", uid)]),
        ..api.user(ACCOUNT, &api.audience())
    };
    api.server().add_token(&token, user);
    token
}

/// A token of node-1 that expires after `life`, or did before.
fn living(api: &Api, life: Duration) -> String {
    let token = jwt(life);
    let user = TokenUser {
        extra: extras(&[("node-name", "node-1")]),
        ..api.user(ACCOUNT, &api.audience())
    };
    api.server().add_token(&token, user);
    token
}

async fn refused(bed: &Bed, token: &str, words: &str) {
    let status = refusal(bed, token).await;
    assert_eq!(status.code(), Code::Unauthenticated, "{status:?}");
    assert!(status.message().contains(words), "{status:?}");
}

#[tokio::test]
async fn a_token_that_names_its_pod_only_is_of_the_node_of_that_very_pod() {
    let api = Api::stand_in().await;
    let bed = api.manager().await;
    let uid = api.pod("agent-1", "node-1").await;
    let token = of_pod(&api, "agent-1", &uid);
    let agent = session(&bed, &token, "node-2").await;
    assert_eq!(delivers(&bed, &agent).await, "node-1");
    let stale = of_pod(&api, "agent-1", "another");
    refused(&bed, &stale, "another of its name").await;
    let nobodys = of_pod(&api, "agent-9", &uid);
    refused(&bed, &nobodys, "does not exist any more").await;
}

#[tokio::test]
async fn a_node_in_the_token_costs_no_look_at_a_pod() {
    let api = Api::stand_in().await;
    let bed = api.manager().await;
    let token = api.agent_token("agent-1", "node-1").await;
    api.server().clear_requests();
    let _agent = session(&bed, &token, "node-1").await;
    let requests = api.server().requests();
    assert!(
        requests
            .iter()
            .all(|request| !request.path.contains("/pods")),
        "{requests:?}"
    );
}

#[tokio::test]
async fn a_token_that_has_expired_opens_nothing_although_the_api_server_is_lenient() {
    let api = Api::stand_in().await;
    let bed = api.manager().await;
    let token = living(&api, Duration::ZERO);
    refused(&bed, &token, "has expired").await;
}

#[tokio::test]
async fn a_session_ends_with_its_token_unless_a_newer_one_came() {
    let api = Api::stand_in().await;
    let bed = api.manager().await;
    let (short, long) = (Duration::from_secs(3), Duration::from_secs(600));
    let mut ends = session(&bed, &living(&api, short), "node-1").await;
    let stays = session(&bed, &living(&api, short), "node-1").await;
    credential(&stays, &living(&api, long)).await;
    let status = end(&mut ends).await;
    assert_eq!(status.code(), Code::Unauthenticated, "{status:?}");
    assert!(status.message().contains("expired"), "{status:?}");
    let ended = "kubevirt_wol_sessions_ended_total{reason=\"proof-expired\"}";
    assert_eq!(bed.metric(ended), Some(1.0));
    tokio::time::sleep(short).await;
    assert_eq!(delivers(&bed, &stays).await, "node-1");
}

#[tokio::test]
async fn while_the_api_is_away_a_session_lasts_as_long_as_its_token() {
    let api = Api::stand_in().await;
    let bed = api.manager().await;
    let mut agent = session(&bed, &living(&api, Duration::from_secs(4)), "node-1").await;
    api.away(true);
    let status = end(&mut agent).await;
    assert!(status.message().contains("expired"), "{status:?}");
    let failed = "kubevirt_wol_token_reviews_total{result=\"unavailable\"}";
    assert!(bed.metric(failed).unwrap() >= 1.0, "it was reviewed before");
}

#[tokio::test]
async fn a_token_that_came_while_the_api_was_away_counts_once_it_is_back() {
    let api = Api::stand_in().await;
    let bed = api.manager().await;
    let short = Duration::from_secs(5);
    let agent = session(&bed, &living(&api, short), "node-1").await;
    api.away(true);
    credential(&agent, &living(&api, Duration::from_secs(600))).await;
    let failed = "kubevirt_wol_token_reviews_total{result=\"unavailable\"}";
    while bed.metric(failed).unwrap() < 1.0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    api.away(false);
    tokio::time::sleep(short + Duration::from_secs(1)).await;
    assert_eq!(delivers(&bed, &agent).await, "node-1");
}
