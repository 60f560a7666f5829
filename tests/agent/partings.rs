//! How agents and managers part: who is sent away, who breaks, who ends.

use std::time::{Duration, Instant};

use kubevirt_wol::rpc::pb::Outcome;

use crate::{
    bed::{Agent, args, free_address, free_port, magic, millis, pair, send},
    fake_manager::FakeManager,
};

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_sent_away_comes_back_when_told_and_forgets_nothing() {
    let (mut manager, mut session, _agent, port) = pair().await;
    send(port, &magic(1));
    assert_eq!(session.event().await.seq, 1);
    let start = Instant::now();
    session.go_away(millis(400)).await;
    tokio::time::sleep(millis(100)).await;
    send(port, &magic(2));
    session.no_event(millis(200)).await;
    session.settle(1, Outcome::Started).await;
    let (_, mut session) = manager.accept().await;
    assert!(start.elapsed() >= millis(700), "{:?}", start.elapsed());
    assert_eq!(session.event().await.seq, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manager_cannot_keep_an_agent_away_for_longer_than_a_few_seconds() {
    let (mut manager, session, _agent, port) = pair().await;
    session.go_away(Duration::from_secs(3600)).await;
    send(port, &magic(1));
    let (_, mut session) = manager.accept().await;
    assert_eq!(session.event().await.seq, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manager_that_welcomes_and_breaks_is_asked_less_and_less_often() {
    let address = free_address();
    let mut manager = FakeManager::start(address).await;
    let _agent = Agent::start(args(address, &[free_port()]));
    let (mut sessions, end) = (0, Instant::now() + Duration::from_secs(4));
    while tokio::time::timeout_at(end.into(), manager.accept())
        .await
        .is_ok()
    {
        sessions += 1;
    }
    // Pauses of 50 ms on average, as after a first failure, would make some 60 of them.
    assert!((1..20).contains(&sessions), "{sessions} sessions");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_agent_ends_at_once() {
    let (_manager, _session, agent, _) = pair().await;
    // Ten seconds would be the end of its patience.
    assert!(agent.stop() < Duration::from_secs(5));
    let lonely = Agent::start(args(free_address(), &[free_port()]));
    tokio::time::sleep(millis(300)).await;
    assert!(lonely.stop() < Duration::from_secs(5), "without a manager");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_ends_only_when_managers_have_what_it_heard() {
    let (_manager, mut session, agent, port) = pair().await;
    send(port, &magic(1));
    send(port, &magic(2));
    let end = tokio::task::spawn_blocking(|| agent.stop());
    let first = session.event().await;
    let second = session.event().await;
    tokio::time::sleep(millis(500)).await;
    assert!(!end.is_finished(), "nothing is answered yet");
    session.settle(first.seq, Outcome::Started).await;
    session.ack(second.seq, Outcome::Deferred, 60_000).await;
    let took = end.await.unwrap();
    assert!(
        took >= millis(500) && took < Duration::from_secs(8),
        "{took:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_ends_asks_a_manager_that_had_no_room_once_more() {
    let (_manager, mut session, agent, port) = pair().await;
    send(port, &magic(1));
    assert_eq!(session.event().await.seq, 1);
    session.ack(1, Outcome::Deferred, 1000).await;
    let end = tokio::task::spawn_blocking(|| agent.stop());
    let again = session.event().await;
    assert!(again.seq == 1 && again.deferred, "{again:?}");
    session.settle(1, Outcome::Started).await;
    let took = end.await.unwrap();
    assert!(took < Duration::from_secs(8), "{took:?}");
}
