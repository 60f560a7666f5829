//! Owns following one resource for ever: list, watch, and what to do when either fails.

use std::{fmt::Debug, pin::pin, time::Duration};

use futures::StreamExt as _;
use kube::{
    Api, Error as ClientError, Resource,
    core::Status,
    runtime::{
        watcher,
        watcher::{Config, Error, Event},
    },
};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep};

use super::{
    contact::{Contact, now},
    metrics::{Metrics, Trouble, Watched},
};
use crate::{admin::Heartbeat, cluster::chain};

/// Objects per list page. A page is in memory as text and parsed at once, so that it decides the
/// peak; VMs with their cloud-init have up to 50 kB each.
const PAGE: u32 = 250;

/// Seconds after which the server ends a watch and we begin the next. A connection that died
/// without a word is noticed 5 s later.
const WATCH_SECONDS: u32 = 30;

/// The wait after the first failure; doubled with each one that follows.
const FIRST_DELAY: Duration = Duration::from_millis(100);

/// The longest wait for a server that was up before: the manager is to be ready soon after it.
const OUTAGE_DELAY: Duration = Duration::from_secs(2);

/// The longest wait where only a person can help.
const PERSON_DELAY: Duration = Duration::from_secs(10);

/// After so long without a failure the next one counts as the first.
const CALM: Duration = Duration::from_secs(60);

/// What there is to know of a resource.
pub(super) enum News<K> {
    /// As the watcher brings it.
    Event(Event<K>),
    /// The API server does not know the resource.
    Absent,
}

/// Where a watch leaves its marks.
pub(super) struct Marks {
    pub(super) metrics: Metrics,
    pub(super) contact: Contact,
    pub(super) heart: Heartbeat,
}

/// Hands the news of a resource to `take`, for ever. Never ends by itself.
pub(super) async fn follow<K, F>(
    api: Api<K>,
    what: Watched,
    Marks {
        metrics,
        contact,
        heart,
    }: &Marks,
    mut take: F,
) where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    F: FnMut(News<K>),
{
    let mut retry = Retry::default();
    loop {
        let config = Config::default().page_size(PAGE).timeout(WATCH_SECONDS);
        let mut events = pin!(watcher(api.clone(), config));
        while let Some(event) = heart.waiting(events.next()).await {
            let error = match event {
                Ok(event) => {
                    // The start of a list is none: it comes before the first request.
                    let success = !matches!(event, Event::Init | Event::InitApply(_));
                    if success && retry.recover() {
                        tracing::info!(resource = ?what, "watching again");
                    }
                    take(News::Event(event));
                    if success {
                        contact.made(what, now());
                    }
                    continue;
                }
                Err(error) => error,
            };
            let trouble = Trouble::of(&error);
            metrics.error(what, trouble);
            if retry.fail(trouble) {
                let error = (trouble != Trouble::Absent).then(|| chain(&error));
                tracing::warn!(resource = ?what, reason = ?trouble, error, "{}", trouble.remedy(what));
            }
            if trouble == Trouble::Absent {
                take(News::Absent);
                contact.made(what, now());
            } else {
                contact.lost(what, trouble == Trouble::Expired);
            }
            heart.waiting(sleep(retry.delay())).await;
            // The watcher would try to resume for ever where only a new list helps.
            if matches!(trouble, Trouble::Absent | Trouble::Expired | Trouble::Other) {
                break;
            }
        }
    }
}

impl Trouble {
    fn of(error: &Error) -> Self {
        match error {
            Error::InitialListFailed(error)
            | Error::WatchStartFailed(error)
            | Error::WatchFailed(error) => match error {
                ClientError::Api(status) => Self::of_status(status),
                ClientError::HyperError(_)
                | ClientError::Service(_)
                | ClientError::ReadEvents(_) => Self::Unavailable,
                _ => Self::Other,
            },
            Error::WatchError(status) => Self::of_status(status),
            Error::NoResourceVersion => Self::Other,
        }
    }

    fn of_status(status: &Status) -> Self {
        match status.code {
            404 => Self::Absent,
            401 | 403 => Self::Forbidden,
            410 => Self::Expired,
            429 => Self::Throttled,
            500..=599 => Self::Unavailable,
            _ => Self::Other,
        }
    }

    const fn remedy(self, what: Watched) -> &'static str {
        match (self, what) {
            (Self::Absent, Watched::WolConfigs) => {
                "waiting for the CRD of WolConfig; install it with: kubevirt-wol crd | kubectl apply -f -"
            }
            (Self::Absent, Watched::VirtualMachines) => "waiting for KubeVirt to be installed",
            (Self::Forbidden, _) => {
                "not allowed to list and watch this resource; check the manager's ClusterRole"
            }
            (Self::Expired, _) => "the watch fell behind; listing anew",
            (Self::Throttled, _) => "the API server is busy; trying again",
            (Self::Unavailable, _) => {
                "no answer from the API server; what is known stays in force meanwhile"
            }
            (Self::Other, _) => "cannot understand the API server; listing anew",
        }
    }

    const fn longest_delay(self) -> Duration {
        match self {
            Self::Expired | Self::Unavailable => OUTAGE_DELAY,
            Self::Absent | Self::Forbidden | Self::Throttled | Self::Other => PERSON_DELAY,
        }
    }
}

/// Failures in a row.
#[derive(Default)]
struct Retry {
    last: Option<(Trouble, Instant)>,
    failures: u32,
}

impl Retry {
    /// Takes note of a failure; says whether it is news.
    fn fail(&mut self, trouble: Trouble) -> bool {
        let before = self.last.replace((trouble, Instant::now()));
        let before = before.filter(|(_, at)| at.elapsed() < CALM);
        if before.is_none() {
            self.failures = 0;
        }
        self.failures += 1;
        before.is_none_or(|(before, _)| before != trouble)
    }

    /// Takes note of a success; says whether it is news.
    fn recover(&mut self) -> bool {
        self.failures = 0;
        self.last.take().is_some()
    }

    /// How long to wait, with jitter, so that replicas do not knock together.
    fn delay(&self) -> Duration {
        let longest = self
            .last
            .map_or(OUTAGE_DELAY, |(trouble, _)| trouble.longest_delay());
        let doublings = self.failures.saturating_sub(1).min(16);
        let delay = (FIRST_DELAY * (1 << doublings)).min(longest);
        delay.mul_f64(0.5 + fastrand::f64() / 2.0)
    }
}
