//! Owns [`Resolver`]: which addresses the managers have now, as the name of their Service tells.

use std::{collections::BTreeSet, convert::Infallible, io, net::SocketAddr, time::Duration};

use tokio::sync::watch;

use super::metrics::{Failure, Metrics};
use crate::admin::Heartbeat;

/// The pause between two questions. A new replica is known within 5 s, at the cost of a quarter of a
/// question a second and node.
const PAUSE: Duration = Duration::from_millis(3_500);

/// The share of the pause that is drawn, so that the agents of a cluster do not all ask at once.
const JITTER: f64 = 0.2;

/// The addresses, and whether anybody has answered yet.
pub(super) type Addresses = Option<BTreeSet<SocketAddr>>;

/// Asks again and again.
#[derive(Debug)]
pub(super) struct Resolver {
    host: String,
    port: u16,
    metrics: Metrics,
    found: watch::Sender<Addresses>,
}

impl Resolver {
    /// Asks for a name, or takes an address as it is. A name in brackets is an IPv6 address, as in a
    /// URL.
    #[must_use]
    pub(super) fn new(host: &str, port: u16, metrics: Metrics) -> Self {
        let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
        Self {
            host: bare.unwrap_or(host).to_owned(),
            port,
            metrics,
            found: watch::Sender::default(),
        }
    }

    /// Is told of each change.
    #[must_use]
    pub(super) fn subscribe(&self) -> watch::Receiver<Addresses> {
        self.found.subscribe()
    }

    /// Asks for ever. While nobody answers, what was known stays: a name server that is away must
    /// not cost a session that works.
    pub(super) async fn run(self, heart: Heartbeat) -> Infallible {
        let mut failing = false;
        loop {
            // One question at a time, however long the resolver of the system is patient.
            let answer = heart.waiting(self.ask()).await;
            self.take(answer, &mut failing);
            let pause = crate::pace::of(PAUSE).mul_f64(1.0 - JITTER * fastrand::f64());
            heart.waiting(tokio::time::sleep(pause)).await;
        }
    }

    async fn ask(&self) -> io::Result<BTreeSet<SocketAddr>> {
        let found = tokio::net::lookup_host((&*self.host, self.port)).await?;
        Ok(found.collect())
    }

    fn take(&self, answer: io::Result<BTreeSet<SocketAddr>>, failing: &mut bool) {
        match answer {
            Ok(addresses) => {
                *failing = false;
                self.found.send_if_modified(|known| {
                    let differs = known.as_ref() != Some(&addresses);
                    if differs {
                        tracing::info!(manager = self.host, ?addresses, "managers found");
                        *known = Some(addresses);
                    }
                    differs
                });
            }
            Err(error) => {
                self.metrics.unconnected(Failure::Unresolved);
                if !std::mem::replace(failing, true) {
                    tracing::warn!(
                        manager = self.host,
                        "cannot resolve the name of the managers: {error}; check --manager and the \
                         cluster's DNS"
                    );
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolver(host: &str) -> Resolver {
        Resolver::new(host, 9090, Metrics::default())
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_is_its_own_answer_and_a_name_is_asked_for() {
        for (host, expected) in [
            ("127.0.0.1", "127.0.0.1:9090"),
            ("[::1]", "[::1]:9090"),
            ("::1", "[::1]:9090"),
        ] {
            let found = resolver(host).ask().await.unwrap();
            assert_eq!(found, [expected.parse().unwrap()].into(), "{host}");
        }
        let found = resolver("localhost").ask().await.unwrap();
        assert!(found.iter().all(|address| address.ip().is_loopback()));
        assert!(!found.is_empty());
    }

    #[test]
    fn while_nobody_answers_what_was_known_stays() {
        let resolver = resolver("managers");
        let known = resolver.subscribe();
        let one: BTreeSet<SocketAddr> = ["10.0.0.1:9090".parse().unwrap()].into();
        let mut failing = false;
        resolver.take(Err(io::Error::other("no answer")), &mut failing);
        assert_eq!((known.borrow().clone(), failing), (None, true));
        resolver.take(Ok(one.clone()), &mut failing);
        resolver.take(Err(io::Error::other("no answer")), &mut failing);
        assert_eq!(*known.borrow(), Some(one));
        // An answer without an address is an answer: no replica is ready.
        resolver.take(Ok(BTreeSet::new()), &mut failing);
        assert_eq!(*known.borrow(), Some(BTreeSet::new()));
    }
}
