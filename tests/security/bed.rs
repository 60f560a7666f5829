//! A VM that somebody wants to start, managers, agents, and attackers.

#[path = "../tls/bed.rs"]
#[allow(
    dead_code,
    reason = "what it has beyond directories and agents is for others"
)]
mod directories;

use std::time::Duration;

use futures::{StreamExt as _, stream};
use k8s_openapi::api::core::v1::ConfigMap;
use kubevirt_wol::rpc::pb::{
    self, AgentMessage, WolEvent, agent_message::Body, agent_service_client::AgentServiceClient,
    wol_service_client::WolServiceClient,
};
use rustls::pki_types::ServerName;
use serde_json::json;
use tonic::{Request, Status};

use crate::common::{
    cluster::{Agent, Cluster, Manager, SOON, eventually},
    kubevirt::vm::vm,
    process::Line,
    sessions::{Way, trusting},
    trust::{BUNDLE, NAMESPACE, Pod, Security, Trust},
};

pub(crate) use directories::{Checking, Mount, NAME, bare_agent, handshakes};

/// Where the VMs are, and those that there are.
pub(crate) const NS: &str = "home";
pub(crate) const DESKTOP: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub(crate) const MAC: &str = "02:00:00:00:00:01";
pub(crate) const OTHER: &str = "02:00:00:00:00:02";

/// Longer than a wake takes: what has not happened by then does not happen.
pub(crate) const A_WHILE: Duration = Duration::from_millis(700);

/// The objects by which managers and agents know each other.
pub(crate) fn trust(c: &Cluster) -> &Trust {
    match &c.security {
        Security::Own(trust) => trust,
        Security::Insecure => panic!("the cluster has no security"),
    }
}

/// The definitions, a config that wakes everything, the VMs `desktop` and `laptop`, and a CA that no
/// manager has made yet.
pub(crate) async fn prepare(c: &Cluster) {
    trust(c).remove_ca().await;
    trust(c).install_ca().await;
    c.install_crd().await;
    c.namespace(NS).await;
    c.config("default", json!({"discoveryMode": "All"})).await;
    c.kubevirt.add(&vm(NS, "desktop").mac(MAC)).await;
    c.kubevirt.add(&vm(NS, "laptop").mac(OTHER)).await;
}

/// The bundle that managers have published.
pub(crate) async fn bundle(c: &Cluster) -> String {
    let bundle = trust(c).api::<ConfigMap>().get(BUNDLE).await.unwrap();
    bundle.data.unwrap_or_default().remove("ca.crt").unwrap()
}

/// How somebody reaches a manager who has read the bundle, as everybody may.
pub(crate) async fn way(c: &Cluster, manager: &Manager) -> Way {
    let name = format!("kubevirt-wol-grpc.{NAMESPACE}.svc");
    let name = ServerName::try_from(name).unwrap();
    Way {
        manager: manager.grpc,
        tls: Some((trusting(&bundle(c).await), name)),
    }
}

/// An agent in a pod, with these flags in place of those by which it would know managers.
pub(crate) fn agent_in(pod: &Pod, manager: &Manager, ca: &Mount, flags: &[&str]) -> Checking {
    let (ca, token) = (ca.file("ca.crt"), pod.token_file());
    let files = ["--ca-file", ca.to_str().unwrap()];
    let token = ["--token-file", token.to_str().unwrap()];
    bare_agent("node-1", manager, &[&files, &token, flags].concat())
}

/// Tries to wake `desktop` by both services, without waiting for leave, and tells how each refuses,
/// or how already the connection is.
pub(crate) async fn attack(way: &Way, token: Option<&str>) -> Result<[Status; 2], String> {
    let channel = way.connect().await.map_err(|error| format!("{error:?}"))?;
    let event = WolEvent {
        mac_address: MAC.into(),
        node_name: "node-1".into(),
        ..WolEvent::default()
    };
    let mut client = WolServiceClient::new(channel.clone());
    let answer = client.report_wol_event(bearing(event, token)).await;
    let compatible = answer.expect_err("it is not to be believed");
    let hello = pb::Hello {
        node_name: "node-1".into(),
        boot_id: 1,
        version: "test".into(),
    };
    let event = pb::Event {
        seq: 1,
        mac: DESKTOP.into(),
        carrier: pb::Carrier::Udp.into(),
        ..pb::Event::default()
    };
    let messages = [Body::Hello(hello), Body::Event(event)];
    let messages = messages.map(|body| AgentMessage { body: Some(body) });
    let messages = stream::iter(messages).chain(stream::pending());
    let mut client = AgentServiceClient::new(channel);
    let answer = client.session(bearing(messages, token)).await;
    let ours = match answer {
        Err(status) => status,
        Ok(answers) => {
            let first = answers.into_inner().message().await;
            first.expect_err("it is not to be served")
        }
    };
    Ok([ours, compatible])
}

fn bearing<T>(message: T, token: Option<&str>) -> Request<T> {
    let mut request = Request::new(message);
    if let Some(token) = token {
        let value = format!("Bearer {token}").parse().unwrap();
        request.metadata_mut().insert("authorization", value);
    }
    request
}

/// Calls of `start` for a VM so far, whatever they were answered.
pub(crate) fn starts(c: &Cluster, name: &str) -> usize {
    c.kubevirt.codes(NS, name).len()
}

/// Waits for longer than a wake takes, and fails where the VM was called to start.
pub(crate) async fn starts_nothing(c: &Cluster, name: &str) {
    tokio::time::sleep(A_WHILE).await;
    assert_eq!(starts(c, name), 0, "{name} was started");
}

/// Sends packets until the VM was called to start.
pub(crate) async fn wakes_soon(c: &Cluster, agent: &Agent, mac: &str, name: &str) {
    eventually(&format!("{mac} wakes {name}"), async || {
        agent.hears(mac);
        tokio::time::sleep(Duration::from_millis(50)).await;
        starts(c, name) > 0
    })
    .await;
}

/// Waits until an Event on the VM names one node, and fails where one names the other.
pub(crate) async fn woken_by(c: &Cluster, name: &str, node: &str, not: &str) {
    eventually(&format!("{name} says that {node} woke it"), async || {
        let events = c.events(NS, name).await;
        assert!(
            !events.iter().any(|event| event.contains(not)),
            "{events:?}"
        );
        events.iter().any(|event| event.contains(node))
    })
    .await;
}

/// Agents that were refused for a reason, so far.
pub(crate) fn refused(manager: &Manager, reason: &str) -> f64 {
    manager.metric(&format!(
        r#"kubevirt_wol_refused_agents_total{{reason="{reason}"}}"#
    ))
}

/// Sessions that ended for a reason, so far.
pub(crate) fn ended(manager: &Manager, reason: &str) -> f64 {
    manager.metric(&format!(
        r#"kubevirt_wol_sessions_ended_total{{reason="{reason}"}}"#
    ))
}

/// Tokens that the API server was asked about, so far.
pub(crate) fn reviews(manager: &Manager) -> f64 {
    let results = ["accepted", "refused", "unavailable"];
    let series =
        results.map(|result| format!(r#"kubevirt_wol_token_reviews_total{{result="{result}"}}"#));
    series.iter().map(|series| manager.metric(series)).sum()
}

/// Waits until the agent says that it has no session, in these words.
pub(crate) fn has_no_session(agent: &Agent, words: &str) {
    agent.process.wait_for(words, SOON, |line| {
        line.message().starts_with("no session with a manager") && line.message().contains(words)
    });
}

/// How often a manager has welcomed the agent.
pub(crate) fn welcomes(agent: &Agent) -> usize {
    let welcome = |line: &&Line| line.message() == "welcomed by a manager";
    agent.process.lines().iter().filter(welcome).count()
}
