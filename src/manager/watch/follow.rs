//! Owns following one resource for ever: list, watch, and what to do when either fails.

use std::{fmt::Debug, pin::pin, time::Duration};

use futures::{Stream, StreamExt as _};
use kube::{
    Api, Error as ClientError, Resource,
    core::Status,
    runtime::{
        watcher,
        watcher::{Config, Error, Event},
    },
};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep, timeout};

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
pub(super) const WATCH_SECONDS: u32 = 30;

/// The wait after the first failure; doubled with each one that follows.
const FIRST_DELAY: Duration = Duration::from_millis(100);

/// The longest wait for a server that was up before: the manager is to be ready soon after it.
const OUTAGE_DELAY: Duration = Duration::from_secs(1);

/// The longest wait where only a person can help.
const PERSON_DELAY: Duration = Duration::from_secs(10);

/// With another failure than before, no more of the earlier ones count.
const FEW: u32 = 2;

/// After so long without a failure the next one counts as the first.
const CALM: Duration = Duration::from_secs(60);

/// While an API server starts up it may not know yet what it is going to serve: a resource that was
/// there is gone when it is missing for so long.
const ABSENT_AFTER: Duration = Duration::from_secs(2);

/// A watch that was answered so long ago, and has not failed since, is well.
const SETTLED: Duration = Duration::from_secs(2);

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

/// Hands the news of a resource, as far as it is in `scope`, to `take`, for ever. Never ends by
/// itself.
pub(super) async fn follow<K, F>(
    api: Api<K>,
    scope: Config,
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
    let (mut retry, mut absence) = (Retry::default(), Absence::default());
    loop {
        let config = scope
            .clone()
            .page_size(PAGE)
            .timeout(crate::pace::whole_seconds(WATCH_SECONDS));
        let mut events = pin!(watcher(api.clone(), config));
        loop {
            let next = next(&mut events, &mut retry, contact, what);
            let Some(event) = heart.waiting(next).await else {
                break;
            };
            let error = match event {
                Ok(event) => {
                    let kind = Kind::of(&event);
                    take(News::Event(event));
                    match kind {
                        // It comes before the first request, and says nothing yet.
                        Kind::Begins => contact.listing(what, now()),
                        Kind::Item => {}
                        // A list is no end of a series of failures: where the watch after it fails each
                        // time, so that there is one list after the other, the pauses have to grow.
                        Kind::Complete => {
                            absence.ends();
                            contact.listed(what, now());
                        }
                        Kind::Change => {
                            absence.ends();
                            retry.recover(what);
                            contact.event(what, now());
                        }
                    }
                    continue;
                }
                Err(error) => error,
            };
            let seen = Trouble::of(&error);
            let trouble = absence.judge(seen);
            metrics.error(what, trouble);
            if retry.fail(trouble) {
                let error = (trouble != Trouble::Absent).then(|| chain(&error));
                tracing::warn!(resource = ?what, reason = ?trouble, error, "{}", trouble.remedy(what));
            }
            if trouble == Trouble::Absent {
                take(News::Absent);
                contact.made(what, now());
            } else {
                contact.lost(what, trouble == Trouble::Expired, now());
            }
            let delay = retry.delay().max(contact.pause(what, now()));
            heart.waiting(sleep(delay)).await;
            // The watcher would try to resume for ever where only a new list helps.
            if matches!(seen, Trouble::Absent | Trouble::Expired | Trouble::Other) {
                break;
            }
        }
    }
}

/// What an event is of.
#[derive(Clone, Copy)]
enum Kind {
    /// A list, of which the first page is about to be asked for.
    Begins,
    Item,
    Complete,
    /// A watch.
    Change,
}

impl Kind {
    fn of<K>(event: &Event<K>) -> Self {
        match event {
            Event::Init => Self::Begins,
            Event::InitApply(_) => Self::Item,
            Event::InitDone => Self::Complete,
            Event::Apply(_) | Event::Delete(_) => Self::Change,
        }
    }
}

/// The next word of a watcher. Where it had failed, a watch that holds is the end of it, although
/// nothing changes that it could bring.
async fn next<S: Stream + Unpin>(
    events: &mut S,
    retry: &mut Retry,
    contact: &Contact,
    what: Watched,
) -> Option<S::Item> {
    loop {
        if retry.last.is_none() {
            return events.next().await;
        }
        if let Ok(event) = timeout(crate::pace::of(SETTLED), events.next()).await {
            return event;
        }
        if contact.holds(what, crate::pace::of(SETTLED), now()) {
            retry.recover(what);
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
            401 => Self::Unauthorized,
            403 => Self::Forbidden,
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
            (Self::Absent, Watched::Secrets) => "waiting for the namespace of the SecureOn Secrets",
            (Self::Forbidden, Watched::Secrets) => {
                "not allowed to list and watch a SecureOn Secret; check the manager's Role and --secure-on-secret"
            }
            (Self::Forbidden, _) => {
                "not allowed to list and watch this resource; check the manager's ClusterRole"
            }
            (Self::Unauthorized, _) => {
                "the API server does not take the manager's token, which is read anew from its file; \
                 what is known stays in force meanwhile"
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
            Self::Expired | Self::Unauthorized | Self::Unavailable => OUTAGE_DELAY,
            Self::Absent | Self::Forbidden | Self::Throttled | Self::Other => PERSON_DELAY,
        }
    }
}

/// Whether a resource has gone.
#[derive(Default)]
struct Absence {
    /// Whether it was there.
    known: bool,
    /// Since when every answer was that it is not.
    since: Option<Instant>,
}

impl Absence {
    /// It is there.
    fn ends(&mut self) {
        *self = Self {
            known: true,
            since: None,
        };
    }

    /// What a failure is taken for: an absence that may pass at once is an outage.
    fn judge(&mut self, trouble: Trouble) -> Trouble {
        if trouble != Trouble::Absent {
            self.since = None;
            return trouble;
        }
        let since = self.since.get_or_insert_with(Instant::now);
        if self.known && since.elapsed() < crate::pace::of(ABSENT_AFTER) {
            return Trouble::Unavailable;
        }
        self.known = false;
        trouble
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
        let before = before.filter(|(_, at)| at.elapsed() < crate::pace::of(CALM));
        let news = before.is_none_or(|(before, _)| before != trouble);
        match before {
            None => self.failures = 0,
            // A server that comes back refuses us for a moment, which is no matter for a person.
            Some((Trouble::Unavailable | Trouble::Unauthorized, _)) if news => {
                self.failures = self.failures.min(FEW);
            }
            Some(_) => {}
        }
        self.failures += 1;
        news
    }

    /// Takes note of a success, and tells of it where it is news.
    fn recover(&mut self, what: Watched) {
        self.failures = 0;
        if self.last.take().is_some() {
            tracing::info!(resource = ?what, "watching again");
        }
    }

    /// How long to wait, with jitter, so that replicas do not knock together.
    fn delay(&self) -> Duration {
        let longest = self
            .last
            .map_or(OUTAGE_DELAY, |(trouble, _)| trouble.longest_delay());
        let doublings = self.failures.saturating_sub(1).min(16);
        let delay = (FIRST_DELAY * (1 << doublings)).min(longest);
        crate::pace::of(delay).mul_f64(0.5 + fastrand::f64() / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many failures in a row count after such troubles, each of them `times` over.
    fn failures(troubles: [Trouble; 2], times: usize) -> u32 {
        let mut retry = Retry::default();
        for trouble in std::iter::repeat_n(troubles, times).flatten() {
            retry.fail(trouble);
        }
        retry.failures
    }

    #[test]
    fn troubles_that_take_turns_are_retried_ever_more_slowly() {
        let counted = failures([Trouble::Forbidden, Trouble::Absent], 10);
        assert_eq!(counted, 20);
        let one = failures([Trouble::Unavailable; 2], 10);
        assert_eq!(one, 20);
    }

    #[test]
    fn a_refusal_just_after_an_outage_counts_for_little() {
        let mut retry = Retry::default();
        for _ in 0..10 {
            retry.fail(Trouble::Unavailable);
        }
        retry.fail(Trouble::Forbidden);
        assert_eq!(retry.failures, FEW + 1);
    }
}
