//! What a storm of calls costs the API server.

use std::{net::IpAddr, time::Duration};

use futures::future::join_all;
use tokio::time::Instant;
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint},
};

use crate::{
    bed::{Agent, Bed, open},
    common::apiserver::{Fault, When},
    scenarios::delivers,
    world::{Api, calling, session},
};

const REVIEWS: &str = "/tokenreviews";
const HOUR: Duration = Duration::from_secs(3_600);

fn reviews(api: &Api) -> usize {
    let requests = api.server().requests();
    let reviews = requests.iter().filter(|one| one.path.contains(REVIEWS));
    reviews.count()
}

async fn by_token(channel: Channel, token: &str) -> Result<Agent, Status> {
    open(channel, Some(&format!("Bearer {token}"))).await
}

/// A connection from an address of this host.
async fn channel(bed: &Bed, from: &str) -> Channel {
    let endpoint = Endpoint::from_shared(bed.url.clone()).unwrap();
    let from: IpAddr = from.parse().unwrap();
    let endpoint = endpoint.local_address(Some(from));
    endpoint.connect().await.unwrap()
}

#[tokio::test]
async fn a_token_that_comes_again_and_again_is_reviewed_once() {
    let api = Api::stand_in().await;
    let bed = api.manager_with(HOUR, HOUR).await;
    let token = api.agent_token("agent-1", "node-1").await;
    for _ in 0..20 {
        let agent = session(&bed, &token, "node-1").await;
        assert_eq!(delivers(&bed, &agent).await, "node-1");
        let garbage = calling(&bed, Some("Bearer garbage")).await;
        assert!(garbage.is_err());
    }
    assert_eq!(reviews(&api), 2);
    assert_eq!(
        bed.metric("kubevirt_wol_token_cache_hits_total"),
        Some(38.0)
    );
}

#[tokio::test]
async fn a_storm_of_agents_has_fifty_reviews_under_way_at_most_and_all_get_in() {
    let api = Api::stand_in().await;
    let bed = api.manager_with(HOUR, HOUR).await;
    let mut tokens = Vec::new();
    for n in 0..180 {
        let (pod, node) = (format!("agent-{n}"), format!("node-{n}"));
        tokens.push(api.agent_token(&pod, &node).await);
    }
    // All have one address here, which thus has to be known for an agent's.
    session(&bed, &tokens[0], "node-0").await;
    let slow = Fault::Delay(Duration::from_millis(300));
    api.server().faults().add(When::path(REVIEWS), slow);
    let mut channels = Vec::new();
    // A connection has 64 streams at most.
    for _ in 0..3 {
        channels.push(channel(&bed, "127.0.0.1").await);
    }
    let calls = tokens.iter().zip(channels.iter().cycle());
    let calls = calls.map(|(token, channel)| by_token(channel.clone(), token));
    let mut most = 0.0_f64;
    let watching = async {
        loop {
            let now = bed.metric("kubevirt_wol_token_reviews_under_way");
            most = most.max(now.unwrap());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let agents = tokio::select! {
        agents = join_all(calls) => agents,
        () = watching => unreachable!("it never ends"),
    };
    assert!(agents.iter().all(Result::is_ok), "all get in");
    assert!((2.0..=50.0).contains(&most), "{most} at once");
    assert_eq!(
        bed.metric("kubevirt_wol_token_reviews_under_way"),
        Some(0.0)
    );
}

#[tokio::test]
async fn who_goes_away_before_the_answer_leaves_nothing_behind() {
    let api = Api::stand_in().await;
    let bed = api.manager_with(HOUR, HOUR).await;
    let token = api.agent_token("agent-1", "node-1").await;
    let hang = api.server().faults().add(When::path(REVIEWS), Fault::Hang);
    let header = format!("Bearer {token}");
    let gauge = "kubevirt_wol_token_reviews_under_way";
    tokio::select! {
        _ = calling(&bed, Some(&header)) => panic!("it hangs"),
        () = async {
            while bed.metric(gauge) != Some(1.0) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        } => {}
    }
    api.server().faults().remove(hang);
    let over = async {
        while bed.metric(gauge) != Some(0.0) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(crate::bed::SOON, over).await.unwrap();
    let agent = session(&bed, &token, "node-1").await;
    assert_eq!(delivers(&bed, &agent).await, "node-1");
}

#[tokio::test]
async fn who_sends_garbage_costs_few_reviews_and_keeps_no_agent_waiting() {
    let api = Api::stand_in().await;
    let bed = api.manager_with(HOUR, HOUR).await;
    let token = api.agent_token("agent-1", "node-1").await;
    let slow = Fault::Delay(Duration::from_millis(300));
    api.server().faults().add(When::path(REVIEWS), slow);
    let (garbage, agent) = (
        channel(&bed, "127.0.0.1").await,
        channel(&bed, "127.0.0.2").await,
    );
    let began = Instant::now();
    let storm = async {
        let calls = (0..1_000).map(|n| {
            let garbage = garbage.clone();
            async move { by_token(garbage, &format!("garbage-{n}")).await.err() }
        });
        let refusals = join_all(calls).await;
        refusals.into_iter().map(|refusal| refusal.unwrap().code())
    };
    let arrival = async {
        while reviews(&api) == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let arrived = Instant::now();
        let agent = by_token(agent, &token).await.unwrap();
        let agent = agent.welcomed("node-1").await;
        (agent, arrived.elapsed())
    };
    let (codes, (agent, took)) = tokio::join!(storm, arrival);
    // Those at once, and five more each second, beside the agent's own.
    let most = 20 + 5 * usize::try_from(began.elapsed().as_secs() + 1).unwrap();
    let asked = reviews(&api) - 1;
    assert!((20..=most).contains(&asked), "{asked} reviews, not {most}");
    let held_up = codes.filter(|code| *code == Code::ResourceExhausted);
    assert_eq!(held_up.count(), 1_000 - asked);
    let counter = "kubevirt_wol_refused_agents_total{reason=\"too-many\"}";
    let refused = u32::try_from(1_000 - asked).unwrap();
    assert_eq!(bed.metric(counter), Some(f64::from(refused)));
    assert!(took < Duration::from_secs(2), "it waited {took:?}");
    assert_eq!(delivers(&bed, &agent).await, "node-1");
}
