//! Faults: what is to go wrong does, and the log tells what really happened.

use std::time::{Duration, Instant};

use axum::{Router, routing::put};
use http::{Method, StatusCode};
use kube::{Client, Config, api::PostParams};

use crate::{
    code,
    common::apiserver::{ApiServer, Backend, Fault, When},
    config_map, config_maps, make,
};

/// A client that tries once and waits a second.
fn impatient(server: &ApiServer) -> Client {
    let mut config = Config::new(server.url().parse().unwrap());
    config.default_retry = false;
    config.read_timeout = Some(Duration::from_secs(1));
    Client::try_from(config).unwrap()
}

const START: &str = "/apis/subresources.kubevirt.io/v1/namespaces/default/virtualmachines/x/start";

fn start() -> http::Request<Vec<u8>> {
    http::Request::put(START).body(Vec::new()).unwrap()
}

#[tokio::test]
async fn an_aggregated_group_answers_for_itself() {
    let server = ApiServer::start().await;
    let client = impatient(&server);
    let (group, version) = ("subresources.kubevirt.io", "v1");
    assert_eq!(code(client.request_text(start()).await), 404);
    let router = Router::new().route(START, put(|| async { StatusCode::ACCEPTED }));
    server.aggregate(group, version, router);
    assert_eq!(client.request_text(start()).await.unwrap(), "");
    let down = Backend::Unreachable("connection refused".into());
    server.aggregate_to(group, version, down);
    assert_eq!(code(client.request_text(start()).await), 503);
    server.aggregate_to(group, version, Backend::Frozen);
    let frozen = client.request_text(start()).await;
    assert!(!matches!(frozen, Ok(_) | Err(kube::Error::Api(_))));
    server.remove_aggregate(group, version);
    assert_eq!(code(client.request_text(start()).await), 404);
    let starts = server.requests().into_iter();
    let starts = starts.filter(|request| request.path == START && request.method == Method::PUT);
    let answers: Vec<Option<u16>> = starts.map(|request| request.status).collect();
    assert_eq!(answers, [Some(404), Some(202), Some(503), None, Some(404)]);
}

#[tokio::test]
async fn a_fault_hits_what_it_is_for_as_often_as_it_is_to() {
    let server = ApiServer::start().await;
    let client = impatient(&server);
    let api = config_maps(&client);
    let when = When::path("/configmaps").method(Method::GET).times(2);
    server.faults().add(when, Fault::too_many_requests(7));
    make(&client, "x").await;
    assert_eq!(code(api.get("x").await), 429);
    assert_eq!(code(api.get("x").await), 429);
    api.get("x").await.unwrap();
    server.faults().add(When::any(), Fault::unauthorized());
    assert_eq!(code(api.get("x").await), 401);
    server.faults().clear();
    api.get("x").await.unwrap();
}

#[tokio::test]
async fn a_lost_answer_is_of_a_request_that_was_carried_out() {
    let server = ApiServer::start().await;
    let api = config_maps(&impatient(&server));
    let params = PostParams::default();
    for (fault, name, done) in [
        (Fault::Cut, "cut", false),
        (Fault::LoseAnswer, "lost", true),
        (Fault::Hang, "hangs", false),
        (Fault::HangAnswer, "late", true),
    ] {
        let number = server.faults().add(When::any(), fault);
        let answer = api.create(&params, &config_map(name)).await;
        assert!(!matches!(answer, Ok(_) | Err(kube::Error::Api(_))));
        server.faults().remove(number);
        assert_eq!(api.get_opt(name).await.unwrap().is_some(), done, "{name}");
    }
}

#[tokio::test]
async fn a_slow_answer_is_late_and_right() {
    let server = ApiServer::start().await;
    let client = impatient(&server);
    let delay = Duration::from_millis(200);
    server.faults().add(When::any(), Fault::Delay(delay));
    let begun = Instant::now();
    make(&client, "x").await;
    assert!(begun.elapsed() >= delay);
}

#[tokio::test]
async fn an_outage_loses_nothing() {
    let server = ApiServer::start().await;
    let client = impatient(&server);
    let api = config_maps(&client);
    let made = make(&client, "x").await;
    for graceful in [true, false] {
        if graceful {
            server.stop().await;
        } else {
            server.kill().await;
        }
        assert!(std::net::TcpStream::connect(server.address()).is_err());
        assert!(api.get("x").await.is_err());
        server.restart().await;
        assert_eq!(api.get("x").await.unwrap(), made);
    }
    server.faults().away(true);
    assert!(api.get("x").await.is_err());
    server.faults().away(false);
    assert_eq!(api.get("x").await.unwrap(), made);
}

#[tokio::test]
async fn the_log_tells_who_did_what() {
    let server = ApiServer::start().await;
    let client = impatient(&server);
    make(&client, "x").await;
    let requests = server.requests();
    let [create] = requests.as_slice() else {
        panic!("not one request: {requests:?}");
    };
    assert_eq!(create.method, Method::POST);
    assert_eq!(create.path, "/api/v1/namespaces/default/configmaps");
    assert_eq!(create.status, Some(201));
    assert!(create.body.starts_with(b"{"));
    server.clear_requests();
    assert!(server.requests().is_empty());
}
