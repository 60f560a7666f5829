//! Owns [`Contact`]: up to when the API server has told us of every change, per watched resource.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use http::{Request, uri::Uri};
use kube::{Client, Error, client::Body};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _},
    metrics::{MetricType, gauge::ConstGauge},
    registry::{Registry, Unit},
};
use tokio::{sync::Notify, time::timeout};
use tower::service_fn;

use super::{link::Link, metrics::Watched};
use crate::{manager::start::retry_after, telemetry::Word};

/// The server begins its answer to a list or a watch within this time, after which it gives up on
/// most requests itself, or has hung.
const ANSWER: Duration = Duration::from_secs(60);

/// What is said of watches of which none brings anything.
const FLEETING: &str = "the API server ends every watch at once";

/// How long ago the directory was known to be true. Cheap to clone; all clones are one.
///
/// A watch that was answered brings every change since the version that it resumes from, so that
/// the directory is true for as long as it runs. When it fails, what is known grows old from the
/// last sign of life on. A resource that does not exist is a true answer, and no failure.
#[derive(Debug, Clone)]
pub struct Contact {
    links: Arc<Mutex<[Link; 3]>>,
    returned: Arc<Notify>,
}

impl Contact {
    /// No contact yet; from `now` on its absence counts.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        let link = Link::new(now);
        Self {
            links: Arc::new(Mutex::new([link; 3])),
            returned: Arc::default(),
        }
    }

    /// Waits until a resource is watched again that was not. For one waiter, which misses none of
    /// these moments: those that pass while it is busy are one.
    pub async fn returned(&self) {
        self.returned.notified().await;
    }

    /// Adds to `registry` whether each resource is watched, and how old what is known of it is.
    pub fn register(&self, registry: &mut Registry) {
        registry.register_collector(Box::new(self.clone()));
    }

    /// For how long changes of VMs or configs may have escaped us: of both the worse. Zero while both are
    /// watched.
    #[must_use]
    pub fn age(&self, now: Instant) -> Duration {
        let [one, other, _] = *self.links();
        one.age(now).max(other.age(now))
    }

    /// A list begins.
    pub(super) fn listing(&self, what: Watched, now: Instant) {
        self.links()[what as usize].listing(now);
    }

    /// A list is complete.
    pub(super) fn listed(&self, what: Watched, now: Instant) {
        self.note(what, now, Link::listed);
    }

    /// All is known, as where the resource does not exist.
    pub fn made(&self, what: Watched, now: Instant) {
        self.note(what, now, Link::made);
    }

    /// The watch brought an event.
    pub(super) fn event(&self, what: Watched, now: Instant) {
        self.note(what, now, Link::event);
    }

    /// A watch has begun.
    fn answered(&self, what: Watched, now: Instant) {
        self.note(what, now, Link::answered);
    }

    /// When a change that is noticed now, or is yet to be noticed, happened at the earliest: now, but for
    /// a time in which changes cannot be seen, and the backlog of such a time.
    #[must_use]
    pub fn earliest(&self, what: Watched, now: Instant) -> Instant {
        self.links()[what as usize].earliest(now)
    }

    fn note(&self, what: Watched, now: Instant, note: impl FnOnce(&mut Link, Instant)) {
        let link = &mut self.links()[what as usize];
        let was = link.is_connected(now);
        note(link, now);
        if !was {
            self.returned.notify_one();
        }
    }

    /// Whether the running watch was answered so long ago.
    pub(super) fn holds(&self, what: Watched, time: Duration, now: Instant) -> bool {
        let link = self.links()[what as usize];
        let answered = link.answered.filter(|_| link.connected);
        answered.is_some_and(|at| now.saturating_duration_since(at) >= time)
    }

    /// For how long the server has asked not to be asked again.
    pub(super) fn pause(&self, what: Watched, now: Instant) -> Duration {
        self.links()[what as usize].manners.pause(now)
    }

    /// A list or a watch has failed; `forgotten` where the server does not know any more what came
    /// after the version that we have.
    pub(super) fn lost(&self, what: Watched, forgotten: bool, now: Instant) {
        self.links()[what as usize].lost(forgotten, now);
    }

    /// A client that behaves as `client` and takes note of each watch that is answered: an idle
    /// one is otherwise seen to be well only when something changes. What is not answered in time
    /// fails, since a server that hangs would be waited for without end; and so does the next watch
    /// where each ended at once, since that would be asked for without a pause.
    pub(super) fn noted_by(&self, client: Client, what: Watched) -> Client {
        let namespace = client.default_namespace().to_owned();
        let contact = self.clone();
        let service = service_fn(move |request: Request<Body>| {
            let (client, contact) = (client.clone(), contact.clone());
            let watch = is_watch(request.uri());
            async move {
                if watch && !contact.links()[what as usize].manners.asks(now()) {
                    return Err(Error::Service(FLEETING.into()));
                }
                let answer = timeout(crate::pace::of(ANSWER), client.send(request)).await;
                let answer = answer.map_err(|error| Error::Service(error.into()))??;
                if let Some(pause) = retry_after(answer.headers()) {
                    let mut links = contact.links();
                    links[what as usize].manners.asked_for(pause, now());
                }
                if watch && answer.status().is_success() {
                    contact.answered(what, now());
                }
                Ok(answer)
            }
        });
        Client::new(service, namespace)
    }

    fn links(&self) -> MutexGuard<'_, [Link; 3]> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_watch(uri: &Uri) -> bool {
    let query = uri.query().unwrap_or_default();
    query.split('&').any(|part| part == "watch=true")
}

pub(super) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Of {
    resource: Word<Watched>,
}

fn of(resource: Watched) -> Of {
    Of {
        resource: Word(resource),
    }
}

impl Collector for Contact {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let (links, now) = (*self.links(), now());
        let mut family = encoder.encode_descriptor(
            "watch_connected",
            "1 where every change of the resource reaches this manager",
            None,
            MetricType::Gauge,
        )?;
        for resource in Watched::VITAL {
            let connected = links[resource as usize].is_connected(now);
            ConstGauge::new(i64::from(connected)).encode(family.encode_family(&of(resource))?)?;
        }
        let mut family = encoder.encode_descriptor(
            "cache_age",
            "For how long changes of the resource may have escaped this manager; 0 while it is watched",
            Some(&Unit::Seconds),
            MetricType::Gauge,
        )?;
        for resource in Watched::VITAL {
            let age = links[resource as usize].age(now);
            ConstGauge::new(age.as_secs_f64()).encode(family.encode_family(&of(resource))?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::{pending, ready},
        sync::atomic::{AtomicU16, Ordering},
    };

    use http::Response;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Both resources are watched from `now` on.
    fn watching(now: Instant) -> Contact {
        let contact = Contact::new(now);
        for what in Watched::VITAL {
            contact.made(what, now);
            contact.answered(what, now);
        }
        contact
    }

    #[test]
    fn what_is_watched_does_not_grow_old() {
        let start = Instant::now();
        let contact = watching(start);
        assert_eq!(contact.age(start + 35 * SECOND), Duration::ZERO);
        for what in Watched::VITAL {
            contact.answered(what, start + 30 * SECOND);
        }
        assert_eq!(contact.age(start + 65 * SECOND), Duration::ZERO);
    }

    #[test]
    fn the_worse_watch_counts_from_its_last_word() {
        for what in Watched::VITAL {
            let start = Instant::now();
            let contact = watching(start);
            contact.made(what, start + 2 * SECOND);
            contact.lost(what, false, start + 3 * SECOND);
            contact.lost(what, false, start + 4 * SECOND);
            assert_eq!(contact.age(start + 10 * SECOND), 8 * SECOND);
        }
    }

    #[test]
    fn a_new_watch_is_contact_though_nothing_happens() {
        let start = Instant::now();
        let contact = watching(start);
        contact.lost(Watched::VirtualMachines, false, start + SECOND);
        contact.answered(Watched::VirtualMachines, start + 9 * SECOND);
        assert_eq!(contact.age(start + 10 * SECOND), Duration::ZERO);
        contact.lost(Watched::VirtualMachines, false, start + 10 * SECOND);
        assert_eq!(contact.age(start + 12 * SECOND), 3 * SECOND);
    }

    #[test]
    fn a_watch_from_a_forgotten_version_was_no_contact() {
        let start = Instant::now();
        let contact = watching(start);
        contact.made(Watched::WolConfigs, start + SECOND);
        contact.lost(Watched::WolConfigs, false, start + 2 * SECOND);
        contact.answered(Watched::WolConfigs, start + 9 * SECOND);
        contact.lost(Watched::WolConfigs, true, start + 10 * SECOND);
        assert_eq!(contact.age(start + 10 * SECOND), 9 * SECOND);
        contact.made(Watched::WolConfigs, start + 11 * SECOND);
        assert_eq!(contact.age(start + 12 * SECOND), Duration::ZERO);
    }

    #[test]
    fn silence_counts_although_nothing_has_failed() {
        let start = Instant::now();
        let contact = watching(start);
        assert_eq!(contact.age(start + 41 * SECOND), 41 * SECOND);
    }

    #[test]
    fn before_the_first_list_nothing_is_known() {
        let start = Instant::now();
        assert_eq!(Contact::new(start).age(start + 5 * SECOND), 5 * SECOND);
    }

    async fn ask(client: &Client, query: &str) -> Result<(), Error> {
        let request = Request::get(format!("/apis/kubevirt.io/v1/virtualmachines?{query}"));
        client
            .send(request.body(Body::empty()).unwrap())
            .await
            .map(drop)
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_watch_that_is_let_in_is_contact() {
        let code = Arc::new(AtomicU16::new(200));
        let server = code.clone();
        let server = service_fn(move |_: Request<Body>| {
            let answer = Response::builder().status(server.load(Ordering::Relaxed));
            ready(answer.body(Body::empty()))
        });
        let start = now();
        let contact = watching(start);
        let what = Watched::VirtualMachines;
        contact.lost(what, false, start);
        let client = contact.noted_by(Client::new(server, "default"), what);
        let well = || contact.age(start + SECOND).is_zero();
        ask(&client, "limit=250").await.unwrap();
        assert!(!well(), "a page of a list is not all of it");
        code.store(403, Ordering::Relaxed);
        ask(&client, "limit=1&watch=true").await.unwrap();
        assert!(!well(), "who is refused hears nothing");
        code.store(200, Ordering::Relaxed);
        ask(&client, "limit=1&watch=true").await.unwrap();
        assert!(well());
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_hangs_is_not_waited_for_without_end() {
        let silent = service_fn(|_: Request<Body>| pending::<Result<Response<Body>, Error>>());
        let silent = Client::new(silent, "default");
        let client = watching(now()).noted_by(silent, Watched::WolConfigs);
        let answer = timeout(2 * ANSWER, ask(&client, "watch=true")).await;
        assert!(matches!(answer, Ok(Err(Error::Service(_)))));
    }
}
