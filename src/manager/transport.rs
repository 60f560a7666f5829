//! Owns how the manager is reached: which protection its listeners have, and what keeps their
//! certificates.

use std::sync::Arc;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    admin::{Heartbeat, Readiness},
    manager::{
        accept::{self, Acceptor, Protocol},
        client_trust::ClientTrust,
        legacy::{Legacy, plaintext},
        metrics::TransportMetrics,
        options::{Options, Protection},
        server::Certificate,
        tls_dir::TlsDirectory,
    },
    shutdown::Tasks,
    tls::Slot,
};

/// Connections on the port for agents at once: as many as there may be sessions, and some more.
const MAX_CONNECTIONS: usize = 20_000;

/// Opens the plaintext listener for `WOLService`, where it is asked for.
///
/// # Errors
///
/// The address cannot be bound.
pub fn bind_plaintext(options: &Options) -> anyhow::Result<Option<TcpListener>> {
    let Some(address) = options.legacy_plaintext else {
        return Ok(None);
    };
    let listener = accept::listen(address).with_context(|| {
        format!("cannot listen on {address}; choose another with --legacy-plaintext-bind")
    })?;
    Ok(Some(listener))
}

/// The protection of the port for agents.
pub struct Transport {
    /// The serving certificate. Empty until somebody fills it.
    pub slot: Slot,
    /// Who signs the certificates of agents; trusts nobody where they show none.
    pub trust: Arc<ClientTrust>,
    /// What is counted.
    pub metrics: TransportMetrics,
    protocol: Protocol,
    directory: Option<TlsDirectory>,
}

impl Transport {
    /// Says loudly where there is no protection.
    ///
    /// # Errors
    ///
    /// The cryptography that was compiled in cannot do TLS.
    pub fn new(protection: &Protection, metrics: TransportMetrics) -> anyhow::Result<Self> {
        let (slot, trust) = (Slot::default(), Arc::new(ClientTrust::default()));
        let files = match protection {
            Protection::Directory(files) => Some(files),
            Protection::OwnCa | Protection::Insecure => None,
        };
        let clients = files.filter(|files| files.clients).map(|_| trust.clone());
        let protocol = if *protection == Protection::Insecure {
            tracing::warn!(
                "agents are accepted without encryption, and without knowing who they are (--insecure)"
            );
            Protocol::Plain
        } else {
            Protocol::tls(slot.clone(), clients).context("cannot set up TLS")?
        };
        let directory = files.map(|files| {
            TlsDirectory::new(files.clone(), slot.clone(), trust.clone(), metrics.clone())
        });
        Ok(Self {
            slot,
            trust,
            metrics,
            protocol,
            directory,
        })
    }

    /// Accepts the connections of agents.
    #[must_use]
    pub fn acceptor(&self, listener: TcpListener) -> Acceptor {
        let metrics = self.metrics.clone();
        Acceptor::new(listener, self.protocol.clone(), MAX_CONNECTIONS, metrics)
    }

    /// What readiness waits for.
    #[must_use]
    pub fn certificate(&self, readiness: &Readiness) -> Certificate {
        let slot = match self.protocol {
            Protocol::Plain => None,
            Protocol::Tls(_) => Some(self.slot.clone()),
        };
        Certificate {
            slot,
            gate: readiness.gate("a serving certificate"),
        }
    }

    /// What has to run beside the server.
    #[must_use]
    pub fn keeping(self, plaintext: Option<TcpListener>, legacy: Legacy) -> Keeping {
        Keeping {
            plaintext: plaintext.map(|listener| (listener, legacy)),
            directory: self.directory,
            metrics: self.metrics,
        }
    }
}

/// What runs beside the server for agents.
pub struct Keeping {
    plaintext: Option<(TcpListener, Legacy)>,
    directory: Option<TlsDirectory>,
    metrics: TransportMetrics,
}

impl Keeping {
    /// Starts it.
    pub fn spawn(
        self,
        tasks: &mut Tasks,
        token: &CancellationToken,
        heart: impl Fn(&'static str) -> Heartbeat,
    ) {
        if let Some(directory) = self.directory {
            let heart = heart("certificate files");
            tasks.spawn("certificate files", directory.run(token.clone(), heart));
        }
        if let Some((listener, legacy)) = self.plaintext {
            tracing::warn!(
                "WOLService is served in plaintext, too, and takes events of anybody \
                 (--legacy-plaintext-bind); end that when the last old agent is replaced"
            );
            let metrics = self.metrics;
            let places = plaintext::MAX_CONNECTIONS;
            let acceptor = Acceptor::new(listener, Protocol::Plain, places, metrics.clone());
            let heart = heart("plaintext listener");
            tasks.spawn(
                "plaintext listener",
                plaintext::serve(acceptor, legacy, metrics, token.clone(), heart),
            );
        }
    }
}
