//! Authorities in this process, and the two objects that they keep.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use kubevirt_wol::{
    admin::Heartbeat,
    manager::{
        authority::{
            Authority, Names, Options, Serving,
            metrics::Metrics,
            rotation::Times,
            state::{BUNDLE_KEY, Bundle, Data, PREVIOUS_UNTIL, Trust},
        },
        leader::Leadership,
    },
    tls::Slot,
};
use prometheus_client::{encoding::text::encode, metrics::gauge::Gauge, registry::Registry};
use serde_json::json;
use tokio::{task::JoinHandle, time::Instant};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::common::cluster::Cluster;

pub(crate) const NAMESPACE: &str = "kubevirt-wol-system";
pub(crate) const SECRET: &str = "kubevirt-wol-ca";
pub(crate) const MAP: &str = "kubevirt-wol-ca-bundle";
pub(crate) const MANIFEST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/base/trust.yaml");

const DAY: Duration = Duration::from_secs(86_400);

/// The usual times, with which nothing changes during a test.
pub(crate) const CALM: Times = Times {
    ca_life: Duration::from_secs(365 * 86_400),
    publish_wait: DAY,
    leaf_life: Duration::from_secs(7 * 86_400),
};

/// Times with which a whole rotation can be waited for.
pub(crate) const HASTY: Times = Times {
    ca_life: Duration::from_secs(30),
    publish_wait: Duration::from_secs(3),
    leaf_life: Duration::from_secs(6),
};

/// What a manager has of the CA; ends with this value.
pub(crate) struct Replica {
    pub(crate) slot: Slot,
    registry: Registry,
    _elected: tokio::sync::watch::Sender<Option<Instant>>,
    task: JoinHandle<anyhow::Result<()>>,
    guard: DropGuard,
}

impl Replica {
    /// Starts one, which leads or not.
    pub(crate) fn start(client: &Client, times: Times, leads: bool) -> Self {
        let (elected, leadership) = Leadership::channel();
        if leads {
            elected.send_replace(Some(Instant::now() + DAY));
        }
        let slot = Slot::default();
        let serving = Serving {
            slot: slot.clone(),
            expiry: Gauge::default(),
        };
        let options = Options {
            names: Names {
                namespace: NAMESPACE.to_owned(),
                secret: SECRET.to_owned(),
                bundle: MAP.to_owned(),
            },
            servers: vec!["kubevirt-wol-grpc".to_owned()],
            times,
        };
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        let authority = Authority::new(client.clone(), options, serving, leadership, metrics);
        let token = CancellationToken::new();
        let guard = token.clone().drop_guard();
        #[allow(clippy::disallowed_methods, reason = "the guard ends it")]
        let task = tokio::spawn(authority.run(token, Heartbeat::default()));
        Self {
            slot,
            registry,
            _elected: elected,
            task,
            guard,
        }
    }

    /// Ends it, and waits until it has.
    pub(crate) async fn stop(self) {
        drop(self.guard);
        self.task.await.unwrap().unwrap();
    }

    /// The certificate that it serves.
    pub(crate) fn leaf(&self) -> Option<Arc<rustls::sign::CertifiedKey>> {
        self.slot.get()
    }

    /// The value of a series, such as `ca_steps_total{step="create"}`.
    pub(crate) fn metric(&self, series: &str) -> u64 {
        let mut text = String::new();
        encode(&mut text, &self.registry).unwrap();
        let mut lines = text.lines();
        let value = lines.find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        let value = value.unwrap_or_else(|| panic!("no {series} in {text}"));
        value.parse().unwrap()
    }

    /// Whether it has told, since it began, that an object is in this state.
    pub(crate) fn failed(&self, object: &str, reason: &str) -> bool {
        let labels = format!("{{object=\"{object}\",reason=\"{reason}\"}}");
        self.metric(&format!("ca_failures_total{labels}")) > 0
    }
}

pub(crate) fn secrets(c: &Cluster) -> Api<Secret> {
    Api::namespaced(c.client.clone(), NAMESPACE)
}

pub(crate) fn maps(c: &Cluster) -> Api<ConfigMap> {
    Api::namespaced(c.client.clone(), NAMESPACE)
}

/// Makes both objects as the manifests do, empty.
pub(crate) async fn prepared(c: &Cluster) {
    c.namespace(NAMESPACE).await;
    remove(c).await;
    restore(c).await;
}

/// Deletes both objects.
pub(crate) async fn remove(c: &Cluster) {
    let params = DeleteParams::default();
    // Absent is as good.
    let _ = secrets(c).delete(SECRET, &params).await;
    let _ = maps(c).delete(MAP, &params).await;
}

/// Makes both objects, which are not there.
pub(crate) async fn restore(c: &Cluster) {
    let params = PostParams::default();
    let secret = json!({"metadata": {"name": SECRET}, "type": "Opaque"});
    let secret = serde_json::from_value(secret).unwrap();
    secrets(c).create(&params, &secret).await.unwrap();
    let map = serde_json::from_value(json!({"metadata": {"name": MAP}})).unwrap();
    maps(c).create(&params, &map).await.unwrap();
}

/// Takes the data out of the Secret.
pub(crate) async fn empty_secret(c: &Cluster) {
    let (api, params) = (secrets(c), PatchParams::default());
    let patch = Patch::Merge(json!({"data": null}));
    api.patch(SECRET, &params, &patch).await.unwrap();
}

/// Takes the data out of the ConfigMap.
pub(crate) async fn empty_map(c: &Cluster) {
    let (api, params) = (maps(c), PatchParams::default());
    let patch = Patch::Merge(json!({"data": null}));
    api.patch(MAP, &params, &patch).await.unwrap();
}

/// What the Secret holds.
pub(crate) async fn data(c: &Cluster) -> Data {
    let secret = secrets(c).get_opt(SECRET).await.unwrap();
    let data = secret.and_then(|secret| secret.data).unwrap_or_default();
    data.into_iter()
        .map(|(key, value)| (key, value.0))
        .collect()
}

/// The CAs that the Secret holds.
pub(crate) async fn trust(c: &Cluster) -> Option<Trust> {
    let secret = secrets(c).get_opt(SECRET).await.unwrap()?;
    let until = secret.metadata.annotations.as_ref();
    let until = until.and_then(|all| all.get(PREVIOUS_UNTIL)).cloned();
    Trust::read(&data(c).await, until.as_deref()).ok().flatten()
}

/// What agents trust.
pub(crate) async fn bundle(c: &Cluster) -> Bundle {
    let map = maps(c).get_opt(MAP).await.unwrap();
    let data = map.and_then(|map| map.data).unwrap_or_default();
    Bundle::read(data.get(BUNDLE_KEY).map(String::as_str), None)
}
