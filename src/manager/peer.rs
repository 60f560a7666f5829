//! Owns [`Peer`]: what the transport knows of who connected, before anybody has said who it is.

use std::{net::SocketAddr, sync::Arc};

use rustls::pki_types::CertificateDer;
use tokio_util::sync::CancellationToken;

/// The other end of a connection. Every request carries it among its extensions.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Its address.
    pub address: SocketAddr,
    /// How it connected.
    pub transport: Transport,
    /// Cuts the connection off when cancelled.
    pub cut: CancellationToken,
}

/// How a connection is protected.
#[derive(Debug, Clone)]
pub enum Transport {
    /// Not at all.
    Plain,
    /// By TLS; with the certificates by which the client proved who it is, its own first, or none
    /// where it was not asked to.
    Tls(Option<Arc<[CertificateDer<'static>]>>),
}
