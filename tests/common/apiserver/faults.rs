//! Owns what goes wrong on purpose.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use http::Method;
use tokio::sync::watch;

use super::failure::Failure;

/// What happens to a request.
#[derive(Debug, Clone)]
pub enum Fault {
    /// It is answered so, and not carried out.
    Answer(Failure),
    /// It is carried out after this time.
    Delay(Duration),
    /// It is never answered, and not carried out.
    Hang,
    /// The connection is cut, and it is not carried out.
    Cut,
    /// It is carried out, and the connection is cut in place of the answer.
    LoseAnswer,
    /// It is carried out and never answered.
    HangAnswer,
}

impl Fault {
    /// 429 with a `Retry-After` in seconds.
    pub fn too_many_requests(retry_after: u32) -> Self {
        Self::Answer(Failure::too_many_requests(retry_after))
    }

    pub fn internal_error() -> Self {
        Self::Answer(Failure::internal("injected"))
    }

    pub fn unauthorized() -> Self {
        Self::Answer(Failure::unauthorized())
    }
}

/// Which requests a fault is for.
pub struct When {
    predicate: Box<dyn Fn(&http::request::Parts) -> bool + Send>,
    /// How often it still happens; none means always.
    times: Option<u32>,
}

impl When {
    /// All requests.
    pub fn any() -> Self {
        Self::matching(|_| true)
    }

    /// Requests whose path contains `part`.
    pub fn path(part: &str) -> Self {
        let part = part.to_owned();
        Self::matching(move |request| request.uri.path().contains(&part))
    }

    pub fn matching(predicate: impl Fn(&http::request::Parts) -> bool + Send + 'static) -> Self {
        Self {
            predicate: Box::new(predicate),
            times: None,
        }
    }

    fn and(self, other: impl Fn(&http::request::Parts) -> bool + Send + 'static) -> Self {
        let predicate = self.predicate;
        Self {
            predicate: Box::new(move |request| predicate(request) && other(request)),
            times: self.times,
        }
    }

    /// Only those with this method.
    #[must_use]
    pub fn method(self, method: Method) -> Self {
        self.and(move |request| request.method == method)
    }

    /// Only watches.
    #[must_use]
    pub fn watches(self) -> Self {
        self.and(is_watch)
    }

    /// Only what is not a watch.
    #[must_use]
    pub fn not_watches(self) -> Self {
        self.and(|request| !is_watch(request))
    }

    /// Only the next `times` of them.
    #[must_use]
    pub fn times(self, times: u32) -> Self {
        Self {
            times: Some(times),
            ..self
        }
    }
}

fn is_watch(request: &http::request::Parts) -> bool {
    let query = request.uri.query().unwrap_or_default();
    query
        .split('&')
        .any(|part| matches!(part, "watch=1" | "watch=true"))
}

/// How running watches are ended.
#[derive(Debug, Clone)]
pub enum WatchEnd {
    /// As by their timeout.
    Clean,
    /// The connection is cut.
    Reset,
    /// An error in the stream.
    Error(Failure),
}

/// The faults in force.
pub struct Faults {
    rules: Mutex<Vec<(u64, When, Fault)>>,
    ends: watch::Sender<WatchEnd>,
    /// Connections end when it changes; while it is true no new ones are served.
    away: watch::Sender<bool>,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            rules: Mutex::default(),
            ends: watch::Sender::new(WatchEnd::Clean),
            away: watch::Sender::new(false),
        }
    }
}

impl Faults {
    /// Puts a fault in force; the first that fits a request counts. Returns its number.
    pub fn add(&self, when: When, fault: Fault) -> u64 {
        let mut rules = self.rules.lock().unwrap_or_else(PoisonError::into_inner);
        let number = rules.last().map_or(1, |(number, ..)| number + 1);
        rules.push((number, when, fault));
        number
    }

    /// Takes one fault back. What hangs goes on hanging.
    pub fn remove(&self, number: u64) {
        let mut rules = self.rules.lock().unwrap_or_else(PoisonError::into_inner);
        rules.retain(|(one, ..)| *one != number);
    }

    /// Takes all faults back, [`Self::away`] included.
    pub fn clear(&self) {
        self.rules
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
        self.away(false);
    }

    /// Cuts all connections, and while `away` every new one at once, as a server that has gone.
    pub fn away(&self, away: bool) {
        self.away.send_replace(away);
    }

    /// Cuts all connections once.
    pub fn cut_connections(&self) {
        self.away.send_modify(|_| {});
    }

    /// Ends all running watches.
    pub fn end_watches(&self, end: WatchEnd) {
        self.ends.send_replace(end);
    }

    pub(super) fn watch_ends(&self) -> watch::Receiver<WatchEnd> {
        self.ends.subscribe()
    }

    pub(super) fn connections(&self) -> watch::Receiver<bool> {
        self.away.subscribe()
    }

    /// What is to happen to a request.
    pub(super) fn find(&self, request: &http::request::Parts) -> Option<Fault> {
        let mut rules = self.rules.lock().unwrap_or_else(PoisonError::into_inner);
        let fits =
            |(_, when, _): &(u64, When, Fault)| when.times != Some(0) && (when.predicate)(request);
        let index = rules.iter().position(fits)?;
        let (_, when, fault) = &mut rules[index];
        if let Some(times) = &mut when.times {
            *times -= 1;
        }
        Some(fault.clone())
    }
}
