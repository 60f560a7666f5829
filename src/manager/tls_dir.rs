//! Owns [`TlsDirectory`]: the certificates that cert-manager or the user keeps in `--tls-dir`. It
//! takes changed files over, and stays with what it has when they are of no use.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustls::{RootCertStore, sign::CertifiedKey};
use tokio_util::sync::CancellationToken;

use crate::{
    admin::Heartbeat,
    manager::{
        client_trust::ClientTrust,
        metrics::{Reload, TransportMetrics},
        options::TlsFiles,
    },
    tls::{self, AUTHORITY, CERTIFICATE, FileError, KEY, Slot},
};

/// A certificate is to be replaced before so much of its time is left.
const LAST_PART: u32 = 5;

/// What a file holds, or why it cannot be read.
type Content = Result<Vec<u8>, FileError>;

/// What is in the directory.
#[derive(PartialEq, Eq)]
struct Contents {
    certificate: Content,
    key: Content,
    /// Not read where agents show no certificates.
    authority: Option<Content>,
}

impl Contents {
    // These files are small, and in memory where kubelet writes them.
    fn read(files: &TlsFiles) -> Self {
        let read = |name: &str| tls::read(&files.directory.join(name));
        Self {
            certificate: read(CERTIFICATE),
            key: read(KEY),
            authority: files.clients.then(|| read(AUTHORITY)),
        }
    }

    fn parse(&self, directory: &Path) -> Result<(CertifiedKey, Option<RootCertStore>), FileError> {
        let content = |content: &Content| content.clone();
        let (certificate, key) = (content(&self.certificate)?, content(&self.key)?);
        let certified = tls::certified(directory, &certificate, &key)?;
        let roots = match &self.authority {
            None => None,
            Some(authority) => {
                let pem = content(authority)?;
                Some(tls::roots(&directory.join(AUTHORITY), &pem)?)
            }
        };
        Ok((certified, roots))
    }
}

/// Keeps [`Slot`] and [`ClientTrust`] as the files say.
pub struct TlsDirectory {
    files: TlsFiles,
    slot: Slot,
    trust: Arc<ClientTrust>,
    metrics: TransportMetrics,
    /// What was read last, good or bad.
    seen: Option<Contents>,
    /// The time of the certificate in force.
    validity: Option<(SystemTime, SystemTime)>,
    /// What was said of that: nothing, that it ends soon, that it has ended.
    told: Age,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Age {
    Good,
    Ending,
    Ended,
}

impl TlsDirectory {
    /// Nothing is read yet.
    #[must_use]
    pub fn new(
        files: TlsFiles,
        slot: Slot,
        trust: Arc<ClientTrust>,
        metrics: TransportMetrics,
    ) -> Self {
        Self {
            files,
            slot,
            trust,
            metrics,
            seen: None,
            validity: None,
            told: Age::Good,
        }
    }

    /// Looks at the files again and again until `token` is cancelled.
    ///
    /// # Errors
    ///
    /// None.
    pub async fn run(mut self, token: CancellationToken, heart: Heartbeat) -> anyhow::Result<()> {
        let mut tick = tokio::time::interval(self.files.interval);
        loop {
            tokio::select! {
                () = heart.waiting(token.cancelled()) => return Ok(()),
                _ = tick.tick() => self.look(SystemTime::now()),
            }
        }
    }

    /// Takes over what has changed.
    pub fn look(&mut self, now: SystemTime) {
        let contents = Contents::read(&self.files);
        // Two looks that differ are in the middle of a change.
        let whole = contents == Contents::read(&self.files);
        if whole && self.seen.as_ref() != Some(&contents) {
            self.take(&contents);
            self.seen = Some(contents);
        }
        self.tell_age(now);
    }

    fn take(&mut self, contents: &Contents) {
        let directory = &self.files.directory;
        let parsed = contents.parse(directory);
        let (certified, roots) = match parsed {
            Ok(parsed) => parsed,
            Err(error) => {
                self.metrics.reloaded(Reload::Failed);
                self.metrics.directory_bad.set(1);
                let stays = if self.slot.get().is_some() {
                    "the certificates from before stay in force"
                } else {
                    "no agent can be served until it is mended"
                };
                tracing::error!(directory = %directory.display(), "{error}; {stays}");
                return;
            }
        };
        // Roots that were read are not empty, which is all that could be wrong with them.
        if let Some(Err(error)) = roots.map(|roots| self.trust.set(roots)) {
            tracing::error!("ca.crt is not taken over: {error}");
        }
        self.validity = certified.cert.first().and_then(tls::validity);
        self.told = Age::Good;
        self.slot.set(Arc::new(certified));
        self.metrics.reloaded(Reload::Loaded);
        self.metrics.directory_bad.set(0);
        let expires = self.validity.map_or(0, |(_, until)| seconds(until));
        self.metrics.serving_expiry.set(expires);
        tracing::info!(directory = %directory.display(), "new connections are served with the certificate in it");
    }

    /// Tells once that the certificate in force ends soon, and once that it has ended.
    fn tell_age(&mut self, now: SystemTime) {
        let Some(validity) = self.validity else {
            return;
        };
        let age = age(validity, now);
        if age > self.told {
            let directory = self.files.directory.display();
            let left = validity.1.duration_since(now).unwrap_or_default();
            let left = Duration::from_secs(left.as_secs());
            match age {
                Age::Good => {}
                Age::Ending => tracing::warn!(
                    %directory,
                    "the serving certificate expires in {left:?}; who keeps it is late to replace it"
                ),
                Age::Ended => tracing::error!(
                    %directory,
                    "the serving certificate has expired; agents do not connect until it is replaced"
                ),
            }
        }
        self.told = age;
    }
}

fn age((from, until): (SystemTime, SystemTime), now: SystemTime) -> Age {
    let whole = until.duration_since(from).unwrap_or_default();
    match until.duration_since(now) {
        Err(_) => Age::Ended,
        Ok(left) if left < whole / LAST_PART => Age::Ending,
        Ok(_) => Age::Good,
    }
}

fn seconds(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
