//! Owns what is counted of connections, before anybody has said who it is.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use crate::telemetry::Word;

/// How the beginning of a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Handshake {
    /// It is served.
    Accepted,
    /// It took too long.
    TimedOut,
    /// It was slow, and gave its place to a new one.
    Displaced,
    /// There were too many open ones.
    Full,
    /// The client speaks no TLS.
    Plaintext,
    /// The client's certificate is missing, or is not good.
    BadCertificate,
    /// There is no serving certificate yet.
    NoCertificate,
    /// The client refused the certificate that it was shown.
    Refused,
    /// The client went away.
    Broken,
    /// Anything else.
    Other,
}

impl Handshake {
    const ALL: [Self; 10] = [
        Self::Accepted,
        Self::TimedOut,
        Self::Displaced,
        Self::Full,
        Self::Plaintext,
        Self::BadCertificate,
        Self::NoCertificate,
        Self::Refused,
        Self::Broken,
        Self::Other,
    ];
}

/// What reading `--tls-dir` brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reload {
    /// New certificates, which are in force.
    Loaded,
    /// Something of no use; the old ones stay in force.
    Failed,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Began {
    outcome: Word<Handshake>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reread {
    result: Word<Reload>,
}

/// Counters of connections. Cheap to clone; all clones count together.
#[derive(Debug, Clone, Default)]
pub struct TransportMetrics {
    handshakes: Family<Began, Counter>,
    reloads: Family<Reread, Counter>,
    /// Connections that the kernel could not hand over.
    pub accept_errors: Counter,
    /// When the serving certificate expires, in seconds since 1970.
    pub serving_expiry: Gauge,
    /// 1 while the files of `--tls-dir` are of no use as they are.
    pub directory_bad: Gauge,
    /// 1 where `WOLService` is served in plaintext.
    pub legacy_plaintext: Gauge,
    /// Events on that listener that were too many.
    pub legacy_throttled: Counter,
}

impl TransportMetrics {
    /// Registers everything; every series exists at once, at zero.
    #[must_use]
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        for outcome in Handshake::ALL.map(Word) {
            drop(metrics.handshakes.get_or_create(&Began { outcome }));
        }
        for result in [Reload::Loaded, Reload::Failed].map(Word) {
            drop(metrics.reloads.get_or_create(&Reread { result }));
        }
        metrics.register(registry);
        metrics
    }

    fn register(&self, registry: &mut Registry) {
        registry.register(
            "handshakes",
            "Connections to the ports for agents, by how they began",
            self.handshakes.clone(),
        );
        registry.register(
            "accept_errors",
            "Connections that the kernel could not hand over",
            self.accept_errors.clone(),
        );
        registry.register(
            "serving_certificate_expiry_timestamp_seconds",
            "When the serving certificate expires, in seconds since 1970; 0 where there is none",
            self.serving_expiry.clone(),
        );
        registry.register(
            "certificate_reloads",
            "Changes of the files in --tls-dir, by whether they could be taken over",
            self.reloads.clone(),
        );
        registry.register(
            "certificate_files_bad",
            "1 while the files in --tls-dir are of no use, so that the certificate before them stays",
            self.directory_bad.clone(),
        );
        registry.register(
            "legacy_plaintext",
            "1 where WOLService is served in plaintext too",
            self.legacy_plaintext.clone(),
        );
        registry.register(
            "legacy_throttled",
            "Events on the plaintext listener that were refused because they were too many",
            self.legacy_throttled.clone(),
        );
    }

    /// Counts the beginning of a connection; tells how many began like this.
    #[must_use]
    pub fn began(&self, outcome: Handshake) -> u64 {
        let outcome = Word(outcome);
        self.handshakes.get_or_create(&Began { outcome }).inc() + 1
    }

    /// Counts a change of `--tls-dir`.
    pub fn reloaded(&self, result: Reload) {
        let result = Word(result);
        self.reloads.get_or_create(&Reread { result }).inc();
    }
}
