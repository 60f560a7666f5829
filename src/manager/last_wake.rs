//! Owns `status.lastWake` of the `WolConfig`s. It is written by the replica that served the wake,
//! leader or not, as a field of its own, and at most once in a while.

use std::{
    collections::BTreeMap,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::json;
use tokio::{
    sync::Notify,
    time::{Instant, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;

use crate::{
    admin::Heartbeat,
    cluster::chain,
    crd::{WolConfig, status::LastWake},
    manager::intents::Settled,
};

/// Who owns the field.
const MANAGER: &str = "kubevirt-wol-wake";
/// A config's field is written once in this time.
const PAUSE: Duration = Duration::from_secs(10);
/// A call may take so long.
const CALL: Duration = Duration::from_secs(10);

/// The last wakes that are not written yet: one for each config at most.
#[derive(Debug, Default)]
pub struct LastWakes {
    waiting: Mutex<BTreeMap<Arc<str>, LastWake>>,
    news: Notify,
}

impl LastWakes {
    /// Takes note of a wake that these configs allowed.
    pub fn note(&self, configs: Vec<Arc<str>>, settled: &Settled) {
        let report = &settled.report;
        let wake = LastWake {
            time: Time(Timestamp::from_second(Timestamp::now().as_second()).unwrap_or_default()),
            mac_address: report.wake.target.to_string(),
            vm_name: settled.vm.key.name.to_string(),
            namespace: settled.vm.key.namespace.to_string(),
            node: report.node.to_string(),
            origin: report.wake.origin.to_string(),
            outcome: settled.outcome.as_str().into(),
        };
        let news = configs.into_iter().map(|config| (config, wake.clone()));
        self.waiting().extend(news);
        self.news.notify_one();
    }

    fn waiting(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, LastWake>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes what [`LastWakes`] took note of.
pub struct LastWakeWriter {
    api: Api<WolConfig>,
    wakes: Arc<LastWakes>,
    /// When each config may be written again.
    free: BTreeMap<Arc<str>, Instant>,
}

impl LastWakeWriter {
    /// Makes it, doing nothing yet.
    #[must_use]
    pub fn new(client: Client, wakes: Arc<LastWakes>) -> Self {
        Self {
            api: Api::all(client),
            wakes,
            free: BTreeMap::new(),
        }
    }

    /// Writes until `token` is cancelled.
    ///
    /// # Errors
    ///
    /// None: what cannot be written is tried again, unless there is a newer wake by then.
    pub async fn run(mut self, token: CancellationToken, heart: Heartbeat) -> anyhow::Result<()> {
        token.run_until_cancelled(self.follow(&heart)).await;
        Ok(())
    }

    async fn follow(&mut self, heart: &Heartbeat) {
        loop {
            heart.beat();
            let next = self.free.values().min().copied();
            let news = self.wakes.news.notified();
            match next {
                // Either is a reason to look.
                Some(next) => drop(heart.waiting(timeout_at(next, news)).await),
                None => heart.waiting(news).await,
            }
            let now = Instant::now();
            self.free.retain(|_, at| *at > now);
            let all = mem::take(&mut *self.wakes.waiting());
            for (config, wake) in all {
                if self.free.contains_key(&config) || !self.write(&config, &wake).await {
                    self.wakes.waiting().entry(config.clone()).or_insert(wake);
                }
                self.free.entry(config).or_insert(now + PAUSE);
            }
        }
    }

    /// False where it is worth another try.
    async fn write(&self, config: &str, wake: &LastWake) -> bool {
        let patch = json!({
            "apiVersion": "wol.pillon.org/v1beta1",
            "kind": "WolConfig",
            "status": {"lastWake": wake},
        });
        let params = PatchParams::apply(MANAGER).force();
        let patch = Patch::Apply(patch);
        let written = self.api.patch_status(config, &params, &patch);
        match timeout(CALL, written).await {
            Ok(Ok(_)) => true,
            // The config is gone.
            Ok(Err(kube::Error::Api(status))) if status.code == 404 => true,
            Ok(Err(error)) => {
                tracing::debug!(config, error = chain(&error), "cannot write lastWake");
                false
            }
            Err(_) => false,
        }
    }
}
