//! All agents of a cluster: their pods and tokens, their tasks, and their orders.

use std::{
    sync::{Arc, PoisonError, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::{ConfigMap, ServiceAccount};
use serde_json::{Value, json};
use tokio::{sync::watch, task::JoinSet};

use crate::{
    agent::{Agent, Order, Tally},
    cluster::server,
    common::{
        apiserver::{Claims, node_claim},
        cluster::{Cluster, Manager, eventually},
        sessions::trusting,
        trust::{self, Security, Trust},
    },
    wire::Way,
};

/// So long every token lives, in seconds.
const LIFE: i64 = 3_600;

/// What the agents' pods leave behind: who may report for which node.
pub(crate) async fn tokens(cluster: &Cluster, agents: u32) -> Vec<Arc<str>> {
    let Security::Own(trust) = &cluster.security else {
        panic!("the bench is about agents that prove who they are");
    };
    let account = trust.api::<ServiceAccount>().get(trust::AGENT).await;
    let account = json!(account.expect("the account is there"));
    let server = server(cluster);
    let pods: Vec<Value> = (0..agents).map(pod).collect();
    server.seed(pods.iter().cloned());
    let now = k8s_openapi::jiff::Timestamp::now().as_second();
    let token = |pod: &Value| {
        let claims = Claims {
            namespace: trust::NAMESPACE,
            account: &account,
            audiences: &json!([Trust::audience()]),
            pod: Some((pod, node_claim(pod, None))),
            from: now,
            life: LIFE,
        };
        server.signer().sign(&claims.json()).into()
    };
    pods.iter().map(token).collect()
}

fn pod(number: u32) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": format!("agent-{number}"), "namespace": trust::NAMESPACE,
            "uid": format!("5f3c7a52-0c1e-4a51-9d5e-{number:012x}"),
        },
        "spec": {
            "nodeName": format!("node-{number}"), "serviceAccountName": trust::AGENT,
            "containers": [{"name": "agent", "image": "agent"}],
        },
    })
}

/// By what agents reach a manager once it has published its CA.
pub(crate) async fn way(cluster: &Cluster, manager: &Manager) -> Way {
    let Security::Own(trust) = &cluster.security else {
        panic!("the bench is about encrypted sessions");
    };
    let bundles = trust.api::<ConfigMap>();
    let mut pem = None;
    eventually("the bundle is published", async || {
        let bundle = bundles.get(trust::BUNDLE).await;
        let data = bundle.expect("it is installed").data;
        pem = data.and_then(|mut data| data.remove("ca.crt"));
        pem.as_ref().is_some_and(|pem| !pem.is_empty())
    })
    .await;
    let name = format!("kubevirt-wol-grpc.{}.svc", trust::NAMESPACE);
    Way {
        manager: manager.grpc,
        tls: trusting(&pem.unwrap_or_default()),
        name: name.try_into().expect("a name of DNS"),
    }
}

/// Agents at work; they end with this value.
pub(crate) struct Fleet {
    agents: u64,
    orders: watch::Sender<Order>,
    pub(crate) tally: Arc<Tally>,
    _tasks: JoinSet<()>,
}

impl Fleet {
    /// Begins all sessions at once, and returns when each is there: with the time that took.
    pub(crate) async fn come(
        way: &Way,
        tokens: &[Arc<str>],
        patience: Duration,
    ) -> (Self, Duration) {
        let (orders, tally) = (watch::Sender::new(Order::Nothing), Arc::<Tally>::default());
        let begin = Instant::now();
        let mut tasks = JoinSet::new();
        for (number, token) in (0..).zip(tokens) {
            let agent = Agent {
                number,
                way: way.clone(),
                token: token.clone(),
                orders: orders.subscribe(),
                tally: tally.clone(),
            };
            tasks.spawn(agent.run());
        }
        let fleet = Self {
            agents: tokens.len() as u64,
            orders,
            tally,
            _tasks: tasks,
        };
        let all = || fleet.tally.connected.load(Relaxed) == fleet.agents;
        reached(patience, all).await;
        let time = begin.elapsed();
        (fleet, time)
    }

    pub(crate) fn order(&self, order: Order) {
        self.orders.send_replace(order);
    }

    /// Waits until so many events in all have a final answer; where they are too late, the figures
    /// say so.
    pub(crate) async fn settled(&self, count: u64, patience: Duration) {
        reached(patience, || self.tally.settled.load(Relaxed) >= count).await;
    }

    /// Tells what went wrong, if anything did.
    pub(crate) fn complain(&self) {
        let trouble = &self.tally.trouble;
        let mut trouble = trouble.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(why) = trouble.take() {
            eprintln!("  the first trouble of an agent: {why}");
        }
    }
}

async fn reached(patience: Duration, holds: impl Fn() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    // What is missing then shows in the table.
    let _ = tokio::time::timeout(patience, waiting).await;
}
