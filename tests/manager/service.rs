//! What an agent sees of its session.

use std::{sync::Arc, time::Duration};

use kubevirt_wol::{
    rpc::pb::{self, agent_message, manager_message},
    settings::Settings,
    wake::{Answer, Outcome},
};
use tokio::time::Instant;
use tonic::{Code, transport::Endpoint};

use crate::bed::{Bed, SOON};

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

fn done(outcome: Outcome) -> Answer {
    Answer::Final(outcome, "because".into())
}

#[tokio::test]
async fn an_event_reaches_the_waker_with_its_node_and_age_and_each_answer_its_event() {
    let bed = Bed::new().await;
    let (mut one, mut two) = (bed.agent("node-1").await, bed.agent("node-2").await);
    one.event(7, &MAC).await;
    two.event(7, &MAC).await;
    two.event(8, &MAC).await;
    let reports = bed.desk.reported(3).await;
    let nodes: Vec<&str> = reports.iter().map(|report| &*report.node).collect();
    assert_eq!(nodes.iter().filter(|node| **node == "node-2").count(), 2);
    for report in &reports {
        let age = report.heard_at.elapsed();
        assert!(age >= Duration::from_millis(1_500) && age < SOON, "{age:?}");
        assert!(report.reply.send(Answer::Deferred(SOON, "wait".into())));
        assert!(report.reply.send(done(Outcome::Started)));
    }
    assert_eq!(one.ack().await, (7, pb::Outcome::Deferred));
    assert_eq!(one.ack().await, (7, pb::Outcome::Started));
    let mut answers = Vec::new();
    for _ in 0..4 {
        answers.push(two.ack().await);
    }
    answers.sort_unstable_by_key(|(seq, outcome)| (*seq, i32::from(*outcome)));
    let (started, deferred) = (pb::Outcome::Started, pb::Outcome::Deferred);
    assert_eq!(
        answers,
        [(7, started), (7, deferred), (8, started), (8, deferred)]
    );
}

#[tokio::test]
async fn a_malformed_event_is_invalid_and_the_session_goes_on() {
    let bed = Bed::new().await;
    *bed.desk.answer.lock().unwrap() = Some(done(Outcome::NotFound));
    let mut agent = bed.agent("node-1").await;
    for (seq, mac) in [(1, &[1, 2, 3][..]), (2, &[0xff; 6]), (3, &[0; 6])] {
        agent.event(seq, mac).await;
        assert_eq!(agent.ack().await, (seq, pb::Outcome::Invalid));
    }
    agent.event(4, &MAC).await;
    assert_eq!(agent.ack().await, (4, pb::Outcome::NotFound));
    assert_eq!(
        bed.metric("kubevirt_wol_events_total{verdict=\"invalid\"}"),
        Some(3.0)
    );
}

#[tokio::test]
async fn an_impossible_age_is_passed_on_as_very_old() {
    let bed = Bed::new().await;
    let agent = bed.agent("node-1").await;
    let event = pb::Event {
        seq: 1,
        mac: MAC.into(),
        age_ms: u64::MAX,
        ..pb::Event::default()
    };
    agent.send(agent_message::Body::Event(event)).await;
    let reports = bed.desk.reported(1).await;
    assert!(reports[0].heard_at.elapsed() > 1_000 * Duration::from_secs(86_400));
}

#[tokio::test]
async fn a_session_begins_with_a_hello_that_names_a_node() {
    let bed = Bed::new().await;
    let mut eager = bed.silent().await;
    eager.event(1, &MAC).await;
    assert_eq!(
        eager.message().await.unwrap_err().code(),
        Code::InvalidArgument
    );
    for name in ["", "Node\n1", &"n".repeat(254)] {
        let mut agent = bed.silent().await;
        agent.hello(name).await;
        let error = agent.message().await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument, "{name:?}");
    }
    let mut closed = bed.silent().await;
    closed.half_close();
    assert_eq!(
        closed.message().await.unwrap_err().code(),
        Code::InvalidArgument
    );
    assert_eq!(
        bed.metric("kubevirt_wol_sessions_ended_total{reason=\"bad-node-name\"}"),
        Some(3.0)
    );
    assert_eq!(bed.desk.reports.lock().unwrap().len(), 0);
}

#[tokio::test]
async fn a_configuration_is_pushed_when_it_changes_and_its_state_is_known() {
    let bed = Bed::new().await;
    let mut agent = bed.agent("node-1").await;
    let settings = Settings {
        udp_ports: [4_009].into(),
        ..Settings::default()
    };
    bed.settings.send_replace((2, Arc::new(settings)));
    let manager_message::Body::Configuration(configuration) = agent.next().await else {
        panic!("no configuration");
    };
    assert_eq!(
        (configuration.generation, configuration.udp_ports),
        (2, vec![4_009])
    );
    assert_eq!(bed.metric("kubevirt_wol_configured_agents"), Some(0.0));
    let status = pb::ConfigurationStatus {
        generation: 2,
        accepted: true,
        message: String::new(),
        listeners: vec![pb::Listener {
            name: "udp/4009".into(),
            error: "address in use".into(),
        }],
    };
    agent
        .send(agent_message::Body::ConfigurationStatus(status))
        .await;
    let known = async {
        while bed.metric("kubevirt_wol_configured_agents") != Some(1.0) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(SOON, known).await.unwrap();
    let agents = bed.sessions.agents();
    let trouble = agents[0].1.trouble.clone().unwrap().to_string();
    assert!(trouble.contains("udp/4009: address in use"), "{trouble}");
    drop(agent);
    let left = async {
        while bed.metric("kubevirt_wol_connected_agents") != Some(0.0) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(SOON, left).await.unwrap();
}

#[tokio::test]
async fn the_old_and_the_new_session_of_an_agent_do_not_disturb_each_other() {
    let bed = Bed::new().await;
    let old = bed.agent("node-1").await;
    let mut new = bed.agent("node-1").await;
    drop(old);
    *bed.desk.answer.lock().unwrap() = Some(done(Outcome::AlreadyOn));
    new.event(1, &MAC).await;
    assert_eq!(new.ack().await, (1, pb::Outcome::AlreadyOn));
    assert_eq!(bed.sessions.agents().len(), 1);
}

#[tokio::test]
async fn an_agent_that_will_send_nothing_more_still_gets_its_answers() {
    let bed = Bed::new().await;
    let mut agent = bed.agent("node-1").await;
    agent.event(1, &MAC).await;
    let reports = bed.desk.reported(1).await;
    agent.half_close();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(reports[0].reply.send(done(Outcome::Started)));
    assert_eq!(agent.ack().await, (1, pb::Outcome::Started));
    assert_eq!(agent.message().await.unwrap(), None);
}

#[tokio::test]
async fn shutdown_sends_agents_away_answers_what_comes_and_ends_at_once() {
    let mut bed = Bed::new().await;
    let mut idle = bed.agent("node-1").await;
    let mut busy = bed.agent("node-2").await;
    let began = Instant::now();
    bed.token.cancel();
    for agent in [&mut idle, &mut busy] {
        let manager_message::Body::GoAway(away) = agent.next().await else {
            panic!("not sent away");
        };
        assert!(away.retry_after_ms < 2_000);
    }
    busy.event(1, &MAC).await;
    let reports = bed.desk.reported(1).await;
    assert_eq!(
        idle.message().await.unwrap(),
        None,
        "the idle session is over"
    );
    assert!(reports[0].reply.send(done(Outcome::Started)));
    assert_eq!(busy.ack().await, (1, pb::Outcome::Started));
    assert_eq!(busy.message().await.unwrap(), None);
    while let Some(ended) = bed.tasks.join_next().await {
        ended.unwrap().unwrap();
    }
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_watcher_of_the_health_service_does_not_hold_up_the_end() {
    use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
    let mut bed = Bed::new().await;
    let mut client = HealthClient::new(bed.channel());
    let request = HealthCheckRequest::default();
    let mut states = client.watch(request).await.unwrap().into_inner();
    assert_eq!(
        states.message().await.unwrap().unwrap().status,
        2,
        "not serving yet"
    );
    bed.ready.open();
    assert_eq!(
        states.message().await.unwrap().unwrap().status,
        1,
        "serving"
    );
    bed.token.cancel();
    assert_eq!(
        states.message().await.unwrap().unwrap().status,
        2,
        "not serving any more"
    );
    let began = Instant::now();
    while let Some(ended) = bed.tasks.join_next().await {
        ended.unwrap().unwrap();
    }
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
}

/// The clocks show that the process stood still.
async fn stand_still() {
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(7)).await;
    tokio::time::resume();
}

#[tokio::test]
async fn what_waited_while_the_manager_stood_still_is_not_believed() {
    let bed = Bed::new().await;
    // What waits in a socket may be read before any timer has its turn.
    bed.beating.cancel();
    let mut agent = bed.agent("node-1").await;
    stand_still().await;
    agent.event(1, &MAC).await;
    assert_eq!(agent.message().await.unwrap_err().code(), Code::Unavailable);
    assert_eq!(bed.desk.reports.lock().unwrap().len(), 0);
    let again = bed.agent("node-1").await;
    again.event(1, &MAC).await;
    assert_eq!(bed.desk.reported(1).await.len(), 1);
}

#[tokio::test]
async fn an_agent_comes_back_at_once_after_the_manager_stood_still() {
    let bed = Bed::new().await;
    let mut agent = bed.agent("node-1").await;
    stand_still().await;
    assert_eq!(agent.message().await.unwrap_err().code(), Code::Unavailable);
}

#[tokio::test]
async fn an_agent_keeps_its_ports_until_the_configs_are_known() {
    let bed = Bed::new().await;
    let before = bed.settings.send_replace(Default::default());
    *bed.desk.answer.lock().unwrap() = Some(done(Outcome::NotFound));
    let mut agent = bed.silent().await;
    agent.hello("node-1").await;
    agent.event(1, &MAC).await;
    let welcome = agent.next().await;
    assert!(matches!(welcome, manager_message::Body::Welcome(_)));
    assert_eq!(agent.ack().await, (1, pb::Outcome::NotFound));
    bed.settings.send_replace(before);
    let configuration = agent.next().await;
    assert!(matches!(configuration, manager_message::Body::Configuration(c) if c.generation == 1));
}

#[tokio::test]
async fn an_agent_that_does_not_read_does_not_hold_up_the_end() {
    let mut bed = Bed::new().await;
    let endpoint = Endpoint::from_shared(bed.url.clone()).unwrap();
    let narrow = endpoint.initial_stream_window_size(256);
    let agent = bed.silent_over(narrow.connect().await.unwrap()).await;
    agent.hello("node-1").await;
    for seq in 0..200 {
        agent.event(seq, &[0xff; 6]).await;
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    bed.token.cancel();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!bed.tasks.is_empty(), "it is waited for");
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(12)).await;
    tokio::time::resume();
    let ended = async {
        while let Some(ended) = bed.tasks.join_next().await {
            ended.unwrap().unwrap();
        }
    };
    tokio::time::timeout(SOON, ended).await.expect("it ends");
}

#[tokio::test]
async fn an_agent_that_does_not_take_its_answers_is_cut_off_and_no_other() {
    let bed = Bed::new().await;
    *bed.desk.answer.lock().unwrap() = Some(done(Outcome::NotFound));
    let mut well = bed.agent("node-1").await;
    let endpoint = Endpoint::from_shared(bed.url.clone()).unwrap();
    let narrow = endpoint.initial_stream_window_size(256);
    let mut hanging = bed.silent_over(narrow.connect().await.unwrap()).await;
    hanging.hello("node-2").await;
    for seq in 0..200 {
        hanging.event(seq, &MAC).await;
    }
    bed.desk.reported(100).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    // In steps, as the process does not stand still meanwhile.
    tokio::time::pause();
    for _ in 0..12 {
        tokio::time::advance(Duration::from_secs(1)).await;
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
    }
    tokio::time::resume();
    let unread = "kubevirt_wol_sessions_ended_total{reason=\"unread\"}";
    let ended = async {
        while bed.metric(unread) != Some(1.0) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(SOON, ended)
        .await
        .expect("it is cut off");
    let end = async { while let Ok(Some(_)) = hanging.message_ever().await {} };
    tokio::time::timeout(SOON, end)
        .await
        .expect("and sees that");
    well.event(7, &MAC).await;
    assert_eq!(well.ack().await, (7, pb::Outcome::NotFound));
}

#[tokio::test]
async fn a_flood_of_events_is_answered_event_by_event() {
    let bed = Bed::new().await;
    *bed.desk.answer.lock().unwrap() = Some(done(Outcome::NotFound));
    let mut agent = bed.agent("node-1").await;
    for round in 0..4 {
        for seq in 0..1_000 {
            agent.event(round * 1_000 + seq, &MAC).await;
        }
        for seq in 0..1_000 {
            assert_eq!(
                agent.ack().await,
                (round * 1_000 + seq, pb::Outcome::NotFound)
            );
        }
    }
}
