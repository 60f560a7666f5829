//! Owns the managers' own CA, by which agents know that they talk to a manager: kept in a Secret,
//! published in a ConfigMap, renewed in time, and used by each replica to sign its own serving
//! certificate, whose key never leaves its memory.
//!
//! - [`ca`], [`certificate`]: keys and certificates.
//! - [`state`]: what the two objects hold.
//! - [`rotation`]: what is to be done now. Pure, like those above.
//! - [`store`]: the two objects on the API server.
//! - [`troubles`]: what is wrong with them, which is told once.
//!
//! Nothing is created and nothing but our own keys is written: both objects are shipped empty. What
//! is in the Secret and cannot be read is never written over; who wants a new CA stops all managers,
//! empties the Secret, and starts them again.

pub mod ca;
pub mod certificate;
pub mod metrics;
pub mod rotation;
pub mod state;
mod store;
#[cfg(test)]
mod tests;
mod troubles;

use std::{
    pin::pin,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use futures::{FutureExt as _, StreamExt as _};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::Client;
use prometheus_client::metrics::gauge::Gauge;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::{admin::Heartbeat, manager::leader::Leadership, telemetry::Word, tls::Slot};

use ca::Leaf;
use metrics::{Kept, Metrics, Trouble};
use rotation::{Seen, Step, Times};
use state::{Bundle, Trust};
use store::{Failure, Store};
use troubles::{Deed, Troubles};

/// Writes in one look at most: a rotation has fewer, and who fights with us must not keep us busy.
const MAX_WRITES: usize = 10;
/// The pause after a failure that may pass.
const RETRY: Duration = Duration::from_secs(2);
/// What changes within this time is looked at once.
const SETTLE: Duration = Duration::from_millis(50);

/// The names of the two objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// The namespace of both.
    pub namespace: String,
    /// The Secret with the CAs and their keys.
    pub secret: String,
    /// The ConfigMap with what agents trust.
    pub bundle: String,
}

/// What the CA is to be like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Where it is kept.
    pub names: Names,
    /// What agents call the managers.
    pub servers: Vec<String>,
    /// How long everything lasts.
    pub times: Times,
}

/// Where the serving certificate goes.
#[derive(Clone)]
pub struct Serving {
    /// Holds it for the listener.
    pub slot: Slot,
    /// When it expires, in seconds since 1970.
    pub expiry: Gauge,
}

/// Keeps the CA and the serving certificate of this replica.
pub struct Authority {
    store: Store,
    options: Options,
    serving: Serving,
    leadership: Leadership,
    metrics: Metrics,
    /// What the Secret held when it could be read last.
    held: Option<Trust>,
    /// The certificate that is served.
    leaf: Option<Leaf>,
    /// Whose leaf it is.
    signed_by: Option<certificate::Certificate>,
    /// Since when the Secret has been seen empty.
    empty_since: Option<Instant>,
    /// The longest pause before the next look, where it is shorter than usual.
    wait: Option<Duration>,
    troubles: Troubles,
    /// Why changes are not seen when they happen.
    unseen: Option<String>,
}

/// The objects as they were read; each none where it could not be.
struct Read {
    secret: Option<(Secret, Option<Trust>)>,
    map: Option<(ConfigMap, Bundle)>,
}

impl Authority {
    /// An authority that does nothing yet.
    #[must_use]
    pub fn new(
        client: Client,
        options: Options,
        serving: Serving,
        leadership: Leadership,
        metrics: Metrics,
    ) -> Self {
        Self {
            store: Store::new(client, options.names.clone()),
            troubles: Troubles::new(options.names.clone(), metrics.clone()),
            options,
            serving,
            leadership,
            metrics,
            held: None,
            leaf: None,
            signed_by: None,
            empty_since: None,
            wait: None,
            unseen: None,
        }
    }

    /// Looks after everything until `token` is cancelled: whenever an object or the leadership
    /// changes, and from time to time, as no timer runs while a machine is suspended or notices that
    /// its clock was set.
    ///
    /// # Errors
    ///
    /// None: what fails is tried again, for ever.
    pub async fn run(mut self, token: CancellationToken, heart: Heartbeat) -> anyhow::Result<()> {
        let mut changes = pin!(self.store.changes());
        let mut leadership = self.leadership.clone();
        loop {
            let leads = leadership.holds();
            // Boxed: it is large, and seldom runs. What it is about to write at the end, another
            // manager writes.
            let look = heart.waiting(Box::pin(self.look()));
            if token.run_until_cancelled(look).await.is_none() {
                return Ok(());
            }
            let pause = self.pause();
            let next = async {
                tokio::select! {
                    () = sleep(pause) => None,
                    change = changes.next() => {
                        sleep(crate::pace::of(SETTLE)).await;
                        change
                    }
                    () = leadership.changed_from(leads) => None,
                }
            };
            let next = heart.waiting(next);
            let Some(mut change) = token.run_until_cancelled(next).await else {
                return Ok(());
            };
            // What came meanwhile is seen by the next look, too.
            while let Some(seen) = change {
                self.watched(seen);
                change = changes.next().now_or_never().flatten();
            }
        }
    }

    /// Tells once why changes are not seen when they happen.
    fn watched(&mut self, seen: Result<(), String>) {
        let trouble = seen.err();
        if trouble.is_some() && trouble != self.unseen {
            let Names {
                namespace,
                secret,
                bundle,
            } = &self.options.names;
            tracing::warn!(
                namespace,
                secret,
                bundle,
                error = trouble,
                "cannot watch the Secret and the ConfigMap of the managers' CA; they are read from \
                 time to time. Where it is refused, check the manager's Role in this namespace"
            );
        }
        self.unseen = trouble;
    }

    fn pause(&self) -> Duration {
        let look = self.options.times.look();
        let look = self.wait.map_or(look, |wait| look.min(wait));
        if self.troubles.may_pass() {
            // With jitter, so that replicas do not knock together.
            look.min(crate::pace::of(RETRY).mul_f64(0.5 + fastrand::f64() / 2.0))
        } else {
            look
        }
    }

    /// Does everything that is due.
    async fn look(&mut self) {
        self.wait = None;
        for _ in 0..MAX_WRITES {
            if !self.step().await {
                break;
            }
        }
        self.serve(SystemTime::now());
    }

    /// Does one thing that is due; says whether there may be more.
    async fn step(&mut self) -> bool {
        let read = self.read().await;
        let now = SystemTime::now();
        // Where the Secret is not known, what is not in it is not either.
        let leads = self.leadership.holds() && read.secret.is_some();
        let since = self.empty_since.take().unwrap_or_else(Instant::now);
        self.empty_since = matches!(read.secret, Some((_, None))).then_some(since);
        if let Some((secret, found)) = read.secret {
            let seen = Seen {
                found: found.as_ref(),
                empty_for: since.elapsed(),
                held: self.held.as_ref(),
                bundle: read.map.as_ref().map(|(_, bundle)| bundle),
                leads,
            };
            let wait = self.options.times.wait(seen);
            match self.options.times.secret(now, seen) {
                Ok(Some((step, trust))) => {
                    let written = self.store.write_secret(secret, &trust).await;
                    return self.wrote(Kept::Secret, step, written);
                }
                Ok(None) => {
                    self.troubles.forget((Kept::Secret, Deed::Write));
                    self.hold(found, now);
                    self.waits(wait);
                }
                Err(error) => tracing::error!(%error, "cannot make a CA; trying again"),
            }
        }
        let (Some(trust), Some((map, bundle))) = (&self.held, read.map) else {
            return false;
        };
        let Some((step, bundle)) = self.options.times.bundle(now, trust, &bundle, leads) else {
            self.troubles.forget((Kept::Bundle, Deed::Write));
            return false;
        };
        let written = self.store.write_map(map, &bundle).await;
        self.wrote(Kept::Bundle, step, written)
    }

    /// Tells that another manager may fill the Secret within this time, and looks again after it.
    fn waits(&mut self, wait: Option<Duration>) {
        self.wait = wait;
        if let Some(wait) = wait {
            tracing::info!(
                seconds = wait.as_secs(),
                "the Secret of the managers' CA is empty, and agents may trust a CA: waiting for a \
                 manager that knows it to put it back"
            );
        }
    }

    /// Reads both objects, and tells what is wrong with them.
    async fn read(&mut self) -> Read {
        let (secret, map) = tokio::join!(self.store.secret(), self.store.map());
        let secret = secret.and_then(|secret| {
            let (data, until) = store::content(&secret);
            let trust = Trust::read(&data, until).map_err(|error| Failure {
                trouble: Trouble::Unreadable,
                words: error.to_string(),
            })?;
            Ok((secret, trust))
        });
        let map = map.map(|map| {
            let bundle = store::bundle(&map);
            (map, bundle)
        });
        Read {
            secret: self.troubles.note((Kept::Secret, Deed::Read), secret),
            map: self.troubles.note((Kept::Bundle, Deed::Read), map),
        }
    }

    fn hold(&mut self, found: Option<Trust>, now: SystemTime) {
        let Some(trust) = found else { return };
        let ca = &trust.signer.certificate;
        self.metrics.ca_expires(ca.not_after);
        if ca.holds(now) {
            self.troubles.forget((Kept::Secret, Deed::Read));
        } else {
            let words = if ca.is_over(now) {
                "the CA has expired"
            } else {
                "the CA does not hold yet"
            };
            let failure = Failure {
                trouble: Trouble::Expired,
                words: words.to_owned(),
            };
            let what = (Kept::Secret, Deed::Read);
            let _ = self.troubles.note::<()>(what, Err(failure));
        }
        self.held = Some(trust);
    }

    /// What comes of a write; says whether to look again.
    fn wrote(&mut self, object: Kept, step: Step, written: Result<(), Failure>) -> bool {
        match written {
            Ok(()) => {
                self.troubles.note((object, Deed::Write), Ok(()));
                self.metrics.step(step);
                tracing::info!(step = %Word(step), "the managers' CA: one step done");
                true
            }
            Err(failure) if failure.trouble == Trouble::Conflict => {
                self.metrics.failed(object, failure.trouble);
                true
            }
            Err(failure) => {
                let _ = self
                    .troubles
                    .note::<()>((object, Deed::Write), Err(failure));
                false
            }
        }
    }

    /// Signs a serving certificate where one is due.
    fn serve(&mut self, now: SystemTime) {
        let Some(trust) = &self.held else { return };
        let signer = &trust.signer;
        let is_ours = self.signed_by.as_ref() == Some(&signer.certificate);
        if let Some(leaf) = self.leaf.as_ref().filter(|_| is_ours) {
            // Where it lives as long as its CA, another one would not live longer.
            let is_last = leaf.certificate.not_after >= signer.certificate.not_after;
            let turned_back = now < leaf.certificate.not_before;
            if !leaf.is_due(now) || (is_last && !turned_back) {
                return;
            }
        }
        if !signer.certificate.holds(now) {
            return;
        }
        match signer.sign(&self.options.servers, now, self.options.times.leaf_life) {
            Ok(leaf) => {
                let expiry = metrics::seconds(leaf.certificate.not_after);
                self.serving.expiry.set(expiry);
                self.serving.slot.set(Arc::clone(&leaf.key));
                self.signed_by = Some(signer.certificate.clone());
                self.leaf = Some(leaf);
                tracing::info!("serves agents with a new certificate");
            }
            Err(error) => {
                tracing::error!(%error, "cannot sign a serving certificate; trying again");
            }
        }
    }
}
