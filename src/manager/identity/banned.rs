//! Owns [`Banned`]: what decides who agents are, as the command line says, and what follows the
//! list of banned nodes for it.

use std::{sync::Arc, time::SystemTime};

use kube::Client;
use prometheus_client::registry::Registry;
use rustls::pki_types::{CertificateDer, UnixTime};
use tokio_util::sync::CancellationToken;

use super::{Authenticator, Bans, ClientCertificates, Metrics, TokenRules};
use crate::{
    admin::{Gate, Heartbeat, Readiness},
    manager::{
        client_trust::ClientTrust,
        options::{Options, Protection, TlsFiles},
        transport::Transport,
    },
    tls,
};

/// Follows which nodes are banned.
pub struct Banned {
    bans: Bans,
    client: Client,
    config_map: String,
    tokens: TokenRules,
    metrics: Metrics,
    /// Opened when the list was read, where nobody is served before.
    read: Option<Gate>,
}

impl Banned {
    /// Nothing is read yet.
    #[must_use]
    pub fn new(
        options: &Options,
        client: Client,
        registry: &mut Registry,
        readiness: &Readiness,
    ) -> Self {
        let waits = options.protection != Protection::Insecure;
        Self {
            read: waits.then(|| readiness.gate("the list of banned nodes")),
            bans: Bans::default(),
            client,
            config_map: options.banned_nodes.clone(),
            tokens: options.tokens.clone(),
            metrics: Metrics::new(registry),
        }
    }

    /// Decides who agents are on the port that is protected like this.
    #[must_use]
    pub fn authenticator(
        &self,
        protection: &Protection,
        transport: &Transport,
    ) -> Arc<Authenticator> {
        let (bans, metrics) = (self.bans.clone(), self.metrics.clone());
        Arc::new(match protection {
            Protection::Insecure => Authenticator::believing(bans, metrics),
            Protection::Directory(TlsFiles { clients: true, .. }) => {
                let trust = transport.trust.clone();
                Authenticator::certificates(trust, self.tokens.interval, bans, metrics)
            }
            Protection::OwnCa | Protection::Directory(_) => {
                Authenticator::tokens(self.client.clone(), &self.tokens, bans, metrics)
            }
        })
    }

    /// Follows the list until `token` is cancelled.
    ///
    /// # Errors
    ///
    /// None.
    pub async fn run(self, token: CancellationToken, heart: Heartbeat) -> anyhow::Result<()> {
        let config_map = (self.client, self.tokens.namespace, self.config_map);
        let mut known = self.bans.subscribe();
        let reading = token.clone().run_until_cancelled_owned(async move {
            if known.wait_for(Option::is_some).await.is_ok()
                && let Some(gate) = self.read
            {
                gate.open();
            }
        });
        let watching = self.bans.watch(config_map, self.metrics, token, heart);
        tokio::join!(watching, reading).0
    }
}

impl ClientCertificates for ClientTrust {
    fn name(&self, own: &CertificateDer<'_>) -> Result<String, String> {
        let name = tls::client_name(own);
        name.ok_or_else(|| "it has no DNS name, which would be the node's".into())
    }

    fn verify(&self, chain: &[CertificateDer<'static>], at: SystemTime) -> Result<(), String> {
        let at = at.duration_since(SystemTime::UNIX_EPOCH);
        let at = UnixTime::since_unix_epoch(at.unwrap_or_default());
        Self::verify(self, chain, at).map_err(|error| error.to_string())
    }
}
