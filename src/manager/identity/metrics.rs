//! Owns what is counted about who agents are.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use super::refusal::Refused;
use crate::telemetry::Word;

/// What a review of a token brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Reviewed {
    /// It is an agent's.
    Accepted,
    /// It is not.
    Refused,
    /// The API server did not say.
    Unavailable,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Review {
    result: Word<Reviewed>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Refusals {
    reason: Word<Refused>,
}

/// The counters. Cheap to clone; all clones count together.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    reviews: Family<Review, Counter>,
    refusals: Family<Refusals, Counter>,
    pub(super) cache_hits: Counter,
    pub(super) under_way: Gauge,
    pub(super) banned: Gauge,
}

impl Metrics {
    /// Registers everything; every series exists at once, at zero.
    #[must_use]
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let results = [Reviewed::Accepted, Reviewed::Refused, Reviewed::Unavailable];
        for result in results.map(Word) {
            drop(metrics.reviews.get_or_create(&Review { result }));
        }
        for reason in Refused::ALL.map(Word) {
            drop(metrics.refusals.get_or_create(&Refusals { reason }));
        }
        registry.register(
            "token_reviews",
            "Tokens of agents that the API server was asked about, by what it brought",
            metrics.reviews.clone(),
        );
        registry.register(
            "token_cache_hits",
            "Tokens of agents that were known from moments ago",
            metrics.cache_hits.clone(),
        );
        registry.register(
            "token_reviews_under_way",
            "Tokens of agents that the API server is being asked about",
            metrics.under_way.clone(),
        );
        registry.register(
            "refused_agents",
            "Calls and sessions of agents that were refused or ended for who they are, by reason",
            metrics.refusals.clone(),
        );
        registry.register(
            "banned_nodes",
            "Nodes whose agents are refused",
            metrics.banned.clone(),
        );
        metrics
    }

    pub(super) fn reviewed(&self, result: Reviewed) {
        let result = Word(result);
        self.reviews.get_or_create(&Review { result }).inc();
    }

    pub(super) fn refused(&self, reason: Refused) {
        let reason = Word(reason);
        self.refusals.get_or_create(&Refusals { reason }).inc();
    }
}
