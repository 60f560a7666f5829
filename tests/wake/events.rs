//! What people are told of trouble.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Event;
use kube::{Api, ResourceExt as _, api::ListParams};
use kubevirt_wol::{
    admin::Heartbeat,
    crd::WolConfig,
    manager::{
        events::{ConfigReason, ConfigRef, Events},
        metrics::Metrics,
    },
};
use prometheus_client::registry::Registry;
use serde_json::json;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::common::cluster::{Cluster, eventually};

/// The Events of a config, as reason, count and message.
async fn told(c: &Cluster, uid: &str) -> Vec<(String, i32, String)> {
    let api = Api::<Event>::namespaced(c.client.clone(), "default");
    let params = ListParams::default().fields(&format!("involvedObject.uid={uid}"));
    let events = api.list(&params).await.expect("Events can be listed");
    let line = |event: Event| {
        let (reason, message) = (event.reason, event.message);
        (
            reason.unwrap_or_default(),
            event.count.unwrap_or_default(),
            message.unwrap_or_default(),
        )
    };
    events.into_iter().map(line).collect()
}

/// A manager's way to tell, until `end`.
fn teller(c: &Cluster, tasks: &mut JoinSet<anyhow::Result<()>>, end: &CancellationToken) -> Events {
    let metrics = Metrics::new(&mut Registry::default());
    let (events, scribe) = Events::new(c.client.clone(), "replica-a".into(), metrics);
    tasks.spawn(scribe.run(end.clone(), Heartbeat::default()));
    events
}

pub(crate) async fn repeats_of_a_trouble_are_counted_in_one_event(c: &Cluster) {
    c.install_crd().await;
    c.namespace("default").await;
    c.config("default", json!({})).await;
    let api = Api::<WolConfig>::all(c.client.clone());
    let object = api.get("default").await.expect("it is there");
    let config = ConfigRef {
        name: object.name_any().into(),
        uid: object.uid().expect("it has one").into(),
        resource_version: object.resource_version().expect("it has one").into(),
    };
    let (end, mut tasks) = (CancellationToken::new(), JoinSet::new());
    let first = teller(c, &mut tasks, &end);
    let reason = ConfigReason::MacConflict;
    let start = Instant::now();
    let tell = |events: &Events, message: &str, second| {
        let now = start + Duration::from_secs(second);
        events.config(&config, reason, message.to_owned(), now);
    };
    for second in 0..3 {
        tell(&first, "two VMs share an address", second);
    }
    let expected = |count, message: &str| vec![("MACConflict".into(), count, message.into())];
    eventually("it is told once", async || {
        told(c, &config.uid).await == expected(1, "two VMs share an address")
    })
    .await;
    tell(&first, "three VMs share an address", 61);
    eventually("the Event is brought up to date", async || {
        told(c, &config.uid).await == expected(4, "three VMs share an address")
    })
    .await;
    // After a restart it is the same Event.
    let second = teller(c, &mut tasks, &end);
    tell(&second, "three VMs share an address", 70);
    tell(&second, "four VMs share an address", 131);
    eventually("the Event goes on to count", async || {
        told(c, &config.uid).await == expected(6, "four VMs share an address")
    })
    .await;
    end.cancel();
    tasks.join_all().await;
}
