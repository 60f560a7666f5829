//! Owns what is counted of the managers' CA.

use std::time::SystemTime;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use super::rotation::Step;
use crate::telemetry::Word;

/// Where the CA is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kept {
    /// The Secret with the CAs and their keys.
    Secret,
    /// The ConfigMap with what agents trust.
    Bundle,
}

impl Kept {
    const ALL: [Self; 2] = [Self::Secret, Self::Bundle];
}

/// Why an object could not be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Trouble {
    /// It was deleted, or never made.
    Absent,
    /// Somebody else wrote it meanwhile.
    Conflict,
    /// Its CA holds no more, or not yet.
    Expired,
    /// The API server does not let us.
    Forbidden,
    /// What it holds makes no sense.
    Unreadable,
    /// The API server does not answer, or fails.
    Unavailable,
}

impl Trouble {
    const ALL: [Self; 6] = [
        Self::Absent,
        Self::Conflict,
        Self::Expired,
        Self::Forbidden,
        Self::Unreadable,
        Self::Unavailable,
    ];
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Taken {
    step: Word<Step>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Failed {
    object: Word<Kept>,
    reason: Word<Trouble>,
}

/// The counters of the CA.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    steps: Family<Taken, Counter>,
    failures: Family<Failed, Counter>,
    ca_expiry: Gauge,
}

impl Metrics {
    /// Makes them known to `registry`, each at zero.
    #[must_use]
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        for step in Step::ALL.map(Word) {
            drop(metrics.steps.get_or_create(&Taken { step }));
        }
        for object in Kept::ALL.map(Word) {
            for reason in Trouble::ALL.map(Word) {
                drop(metrics.failures.get_or_create(&Failed { object, reason }));
            }
        }
        registry.register(
            "ca_steps",
            "Steps of the managers' CA that this replica took",
            metrics.steps.clone(),
        );
        registry.register(
            "ca_failures",
            "Looks at the Secret or the ConfigMap of the CA that failed, by reason",
            metrics.failures.clone(),
        );
        registry.register(
            "ca_expiry_timestamp_seconds",
            "When the CA that signs expires, in seconds since 1970; 0 before there is one",
            metrics.ca_expiry.clone(),
        );
        metrics
    }

    pub(super) fn step(&self, step: Step) {
        let step = Word(step);
        self.steps.get_or_create(&Taken { step }).inc();
    }

    pub(super) fn failed(&self, object: Kept, reason: Trouble) {
        let (object, reason) = (Word(object), Word(reason));
        self.failures
            .get_or_create(&Failed { object, reason })
            .inc();
    }

    pub(super) fn ca_expires(&self, at: SystemTime) {
        self.ca_expiry.set(seconds(at));
    }
}

pub(super) fn seconds(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    i64::try_from(since.unwrap_or_default().as_secs()).unwrap_or(i64::MAX)
}

impl Trouble {
    /// What it means, and what a person can do about it.
    pub(super) const fn remedy(self, object: Kept) -> &'static str {
        match (self, object) {
            (Self::Absent, Kept::Secret) => {
                "its Secret is missing; apply the manifests again (deploy/base/trust.yaml). It is filled then, and what is known of it is used until then"
            }
            (Self::Absent, Kept::Bundle) => {
                "its ConfigMap is missing; apply the manifests again (deploy/base/trust.yaml). It is filled then, and agents that have not read it cannot connect until then"
            }
            (Self::Conflict, _) => "somebody else wrote the object; reading it again",
            (Self::Expired, _) => {
                "it is not valid now, and is renewed by the manager that leads; is there none, or is a clock wrong?"
            }
            (Self::Forbidden, _) => {
                "not allowed to get and update the object; check the manager's Role in this namespace"
            }
            (Self::Unreadable, _) => {
                "what the Secret holds cannot be used, and is not written over. Put back what it held; or, for a new CA, scale the managers to 0, empty the Secret (kubectl patch secret NAME --type=merge -p '{\"data\":null}'), and scale them up again"
            }
            (Self::Unavailable, _) => {
                "no answer from the API server; what is known stays in use meanwhile"
            }
        }
    }
}
