//! Owns `status.lastWake` of the `WolConfig`s. It is written by the replica that served the wake,
//! leader or not, as a field of its own, and at most once in a while.

use std::{
    collections::BTreeMap,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::{SignedDuration, Timestamp},
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::json;
use tokio::{
    sync::{Notify, watch},
    time::{Instant, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;

use crate::{
    admin::Heartbeat,
    cluster::{PATIENCE, chain},
    crd::{WolConfig, status::LastWake},
    manager::{intents::Settled, status::applied, watch::InForce},
};

/// Who owns the field.
const MANAGER: &str = "kubevirt-wol-wake";
/// A config's field is written once in this time.
const PAUSE: Duration = Duration::from_secs(10);
/// What could not be written for so long is old news.
const OLD: SignedDuration = SignedDuration::from_secs(60);

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
    in_force: watch::Receiver<Arc<InForce>>,
    /// When each config may be written again.
    free: BTreeMap<Arc<str>, Instant>,
}

impl LastWakeWriter {
    /// Makes it, doing nothing yet.
    #[must_use]
    pub fn new(
        client: Client,
        wakes: Arc<LastWakes>,
        in_force: watch::Receiver<Arc<InForce>>,
    ) -> Self {
        Self {
            api: Api::all(client),
            wakes,
            in_force,
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
                heart.beat();
                if self.is_overtaken(&config, &wake) {
                    continue;
                }
                if self.free.contains_key(&config) || !self.write(&config, &wake).await {
                    self.wakes.waiting().entry(config.clone()).or_insert(wake);
                }
                self.free
                    .entry(config)
                    .or_insert(now + crate::pace::of(PAUSE));
            }
        }
    }

    /// Whether another replica served a later one, or it is old news.
    fn is_overtaken(&self, config: &str, wake: &LastWake) -> bool {
        let in_force = self.in_force.borrow();
        let stored = in_force.configs.get(config).and_then(|c| c.status.as_ref());
        let stored = stored.and_then(|status| status.last_wake.as_ref());
        stored.is_some_and(|stored| stored.time > wake.time)
            || Timestamp::now().duration_since(wake.time.0) > OLD
    }

    /// False where it is worth another try.
    async fn write(&self, config: &str, wake: &LastWake) -> bool {
        let patch = Patch::Apply(applied(None, &json!({"lastWake": wake})));
        let params = PatchParams::apply(MANAGER).force();
        let written = self.api.patch_status(config, &params, &patch);
        match timeout(crate::pace::of(PATIENCE), written).await {
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
