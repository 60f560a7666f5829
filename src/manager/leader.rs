//! Owns the Lease by which one replica at a time is the leader. Only what must not be done twice
//! asks for it: the status of the `WolConfig`s and their Events. Wakes are served without it.
//!
//! As in client-go, nobody believes another's clock: a Lease has expired when it was seen unchanged
//! for its whole duration. (`kube-lease-manager` compares the times in the Lease with its own
//! clock, counts in whole seconds, and wants an API server when it is made.)

mod handover;

use std::{fmt, time::Duration};

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
    jiff::Timestamp,
};
use kube::{Api, Client, api::PostParams};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _},
    metrics::{MetricType, gauge::ConstGauge},
    registry::Registry,
};
use tokio::{
    sync::watch,
    time::{Instant, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;

use crate::{
    admin::{Gate, Heartbeat},
    cluster::chain,
};

/// The name of the Lease.
pub const NAME: &str = "kubevirt-wol-manager";
/// How often it is looked whether everything is listed.
const LISTING: Duration = Duration::from_millis(100);
/// How long the steps of an election take. Each is shorter than the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// The others wait for so long after the last sign of a leader.
    pub lease: Duration,
    /// The leader that cannot renew for so long is none any more.
    pub renew: Duration,
    /// The pause between two attempts.
    pub retry: Duration,
}

/// Whether this replica is the leader.
#[derive(Debug, Clone)]
pub struct Leadership(watch::Receiver<Option<Instant>>);

impl Leadership {
    /// Makes the two ends: who elects, and who asks.
    #[must_use]
    pub fn channel() -> (watch::Sender<Option<Instant>>, Self) {
        let (sender, receiver) = watch::channel(None);
        (sender, Self(receiver))
    }

    /// Whether this replica is the leader now. To be asked before each act: a renewal may have
    /// failed since.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.0.borrow().is_some_and(|until| Instant::now() < until)
    }

    /// Adds to `registry` whether this replica is the leader at the moment that it is asked.
    pub fn register(&self, registry: &mut Registry) {
        registry.register_collector(Box::new(self.clone()));
    }

    /// Waits until the answer is another one than `known`.
    pub async fn changed_from(&mut self, known: bool) {
        while self.holds() == known {
            let until = *self.0.borrow_and_update();
            let end = until.filter(|_| known).unwrap_or_else(far);
            // Elapsed, renewed or taken away; the sender is never dropped before the process ends.
            let _ = timeout_at(end, self.0.changed()).await;
        }
    }
}

impl Collector for Leadership {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let leads = ConstGauge::new(i64::from(self.holds()));
        let encoder = encoder.encode_descriptor(
            "leader",
            "1 where this replica writes the status of the WolConfigs",
            None,
            MetricType::Gauge,
        )?;
        leads.encode(encoder)
    }
}

fn far() -> Instant {
    Instant::now() + Duration::from_secs(86_400)
}

/// Tries to become the leader, and to stay it.
pub struct Elector {
    api: Api<Lease>,
    identity: String,
    timing: Timing,
    /// Open once all VMs and configs were listed: who knows nothing does not lead.
    listed: Vec<Gate>,
    /// The Lease as it was last seen to change, and when that was.
    seen: Option<(Lease, Instant)>,
    held: watch::Sender<Option<Instant>>,
    /// The last trouble, which is told once.
    trouble: Option<String>,
    /// When the attempt that is under way began.
    asked: Option<Instant>,
}

impl Elector {
    /// An elector for the replica of this name; a name that two replicas share is no harm.
    #[must_use]
    pub fn new(
        client: Client,
        (namespace, replica): (&str, &str),
        timing: Timing,
        listed: Vec<Gate>,
        held: watch::Sender<Option<Instant>>,
    ) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            identity: format!("{replica}_{:016x}", fastrand::u64(..)),
            timing,
            listed,
            seen: None,
            held,
            trouble: None,
            asked: None,
        }
    }

    /// Takes part in the election, once everything is listed, until `token` is cancelled, and gives
    /// the Lease back then.
    ///
    /// # Errors
    ///
    /// None: without an API server there is no leader, and it tries on.
    pub async fn run(mut self, token: CancellationToken, heart: Heartbeat) -> anyhow::Result<()> {
        token.run_until_cancelled(self.follow(&heart)).await;
        self.hand_over().await;
        Ok(())
    }

    async fn follow(&mut self, heart: &Heartbeat) {
        loop {
            let mut pause = crate::pace::of(LISTING);
            if self.listed.iter().all(Gate::is_open) {
                heart.waiting(self.attempt()).await;
                // With jitter, so that replicas that began together do not stay together.
                pause = self.timing.retry.mul_f64(1.0 - fastrand::f64() / 5.0);
            }
            heart.waiting(tokio::time::sleep(pause)).await;
        }
    }

    /// One attempt, and what comes of it. A second one has to fit into the time that the Lease is
    /// held.
    async fn attempt(&mut self) {
        let asked = Instant::now();
        self.asked = Some(asked);
        let result = match timeout(self.timing.renew / 2, self.claim()).await {
            Ok(result) => result,
            Err(_) => Err("the API server does not answer".into()),
        };
        self.asked = None;
        self.note(result, asked);
    }

    fn note(&mut self, result: Result<bool, String>, asked: Instant) {
        let now = Instant::now();
        let before = self.held.borrow().filter(|until| now < *until);
        let (until, trouble) = match result {
            // Counted from before the request: the others count from when they see its effect.
            Ok(true) => (
                Some(asked + self.timing.renew).filter(|until| now < *until),
                None,
            ),
            Ok(false) => (None, None),
            Err(error) => (before, Some(error)),
        };
        if trouble != self.trouble {
            if let Some(error) = &trouble {
                let namespace = self.api.namespace();
                tracing::warn!(
                    namespace,
                    error,
                    "cannot take part in the election of the leader, which writes the status of the \
                     WolConfigs; where it is refused, see that the namespace exists and that the \
                     Role allows Leases in it. Wakes are served nevertheless"
                );
            } else {
                tracing::info!("takes part in the election of the leader again");
            }
            self.trouble = trouble;
        }
        if before.is_some() != until.is_some() {
            tracing::info!(leader = until.is_some(), "leadership changed");
        }
        self.held.send_replace(until);
    }

    /// One attempt to get or to renew the Lease; says whether it is ours.
    async fn claim(&mut self) -> Result<bool, String> {
        // The leader knows its Lease; only who is none has to look.
        if self.is_ours() {
            return self.renew().await;
        }
        let found = self
            .api
            .get_opt(NAME)
            .await
            .map_err(|error| chain(&error))?;
        let Some(found) = found else {
            let lease = Lease {
                metadata: ObjectMeta {
                    name: Some(NAME.into()),
                    ..ObjectMeta::default()
                },
                spec: Some(self.spec(None)),
            };
            let created = self.api.create(&PostParams::default(), &lease).await;
            return self.settled(created);
        };
        let version = |lease: &Lease| lease.metadata.resource_version.clone();
        let known = self.seen.as_ref();
        let changed = known.is_none_or(|(seen, _)| version(seen) != version(&found));
        if changed {
            self.seen = Some((found.clone(), Instant::now()));
        }
        // Ours, where the answer to a renewal was lost.
        if holder(&found) == Some(&self.identity) || self.is_free(&found) {
            self.renew().await
        } else {
            Ok(false)
        }
    }

    fn is_ours(&self) -> bool {
        let holder = self.seen.as_ref().and_then(|(lease, _)| holder(lease));
        holder == Some(&self.identity)
    }

    fn is_free(&self, lease: &Lease) -> bool {
        let duration = lease.spec.as_ref().and_then(|s| s.lease_duration_seconds);
        let duration = duration.and_then(|seconds| u64::try_from(seconds).ok());
        let duration = duration.map_or(self.timing.lease, Duration::from_secs);
        let unchanged = self
            .seen
            .as_ref()
            .is_some_and(|(_, at)| at.elapsed() >= duration);
        holder(lease).is_none_or(String::is_empty) || unchanged
    }

    /// Writes our name into the Lease, unless somebody was faster.
    async fn renew(&mut self) -> Result<bool, String> {
        let Some((lease, _)) = &self.seen else {
            return Ok(false);
        };
        let lease = Lease {
            metadata: lease.metadata.clone(),
            spec: Some(self.spec(lease.spec.as_ref())),
        };
        let replaced = self.api.replace(NAME, &PostParams::default(), &lease).await;
        self.settled(replaced)
    }

    fn settled(&mut self, written: kube::Result<Lease>) -> Result<bool, String> {
        match written {
            Ok(lease) => {
                self.seen = Some((lease, Instant::now()));
                Ok(true)
            }
            // Somebody was faster, or has deleted it: look again next time.
            Err(kube::Error::Api(status)) if status.code == 409 || is_deleted(&status) => {
                self.seen = None;
                Ok(false)
            }
            Err(error) => Err(chain(&error)),
        }
    }

    fn spec(&self, before: Option<&LeaseSpec>) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        let kept = before.filter(|spec| spec.holder_identity.as_ref() == Some(&self.identity));
        let transitions = before.and_then(|spec| spec.lease_transitions).unwrap_or(0);
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            acquire_time: kept.map_or(Some(now.clone()), |spec| spec.acquire_time.clone()),
            lease_transitions: Some(transitions + i32::from(before.is_some() && kept.is_none())),
            renew_time: Some(now),
            lease_duration_seconds: i32::try_from(self.timing.lease.as_millis().div_ceil(1_000))
                .ok(),
            ..LeaseSpec::default()
        }
    }
}

fn holder(lease: &Lease) -> Option<&String> {
    lease.spec.as_ref()?.holder_identity.as_ref()
}

/// Whether the Lease that was to be replaced is gone. A missing namespace is another matter.
fn is_deleted(status: &kube::core::Status) -> bool {
    let kind = status.details.as_ref().map(|details| &*details.kind);
    status.code == 404 && kind == Some("leases")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn a_leadership_that_is_not_renewed_ends_by_itself() {
        let (held, mut leadership) = Leadership::channel();
        assert!(!leadership.holds());
        held.send_replace(Some(Instant::now() + 10 * SECOND));
        leadership.changed_from(false).await;
        assert!(leadership.holds());
        let began = Instant::now();
        leadership.changed_from(true).await;
        assert_eq!(began.elapsed(), 10 * SECOND);
        assert!(!leadership.holds());
    }

    #[tokio::test(start_paused = true)]
    async fn a_renewal_is_no_change_and_a_loss_is_one_at_once() {
        let (held, mut leadership) = Leadership::channel();
        held.send_replace(Some(Instant::now() + 10 * SECOND));
        let renew = async {
            for _ in 0..5 {
                tokio::time::sleep(2 * SECOND).await;
                held.send_replace(Some(Instant::now() + 10 * SECOND));
            }
            held.send_replace(None);
        };
        let began = Instant::now();
        tokio::join!(renew, leadership.changed_from(true));
        assert_eq!(began.elapsed(), 10 * SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_before_it_is_asked_for_is_not_missed() {
        let (held, mut leadership) = Leadership::channel();
        // What the asker acted on is over by the time that it asks.
        held.send_replace(Some(Instant::now() + 10 * SECOND));
        let began = Instant::now();
        leadership.changed_from(false).await;
        assert!(began.elapsed().is_zero());
    }
}
