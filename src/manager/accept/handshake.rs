//! Owns one handshake, and the words for how it failed.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use rustls::ServerConfig;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::OwnedSemaphorePermit,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::{
    Protocol,
    connection::{Bytes, Connection},
};
use crate::manager::{
    metrics::Handshake,
    peer::{Peer, Transport},
};

/// The first byte of every TLS connection.
const TLS_HANDSHAKE: u8 = 22;
/// What a client that speaks HTTP/2 without TLS is told: no settings, and that the connection ends
/// for want of security (RFC 9113, sections 6.5, 6.8 and 7).
const FAREWELL: &[u8] = b"\0\0\0\x04\0\0\0\0\0\
    \0\0\x25\x07\0\0\0\0\0\0\0\0\0\0\0\0\x0cthis manager speaks only TLS.";

/// A client that is turned away gets this long to read why …
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(1);
/// … and what it sends until then is read up to so many bytes.
const MAX_REST: u64 = 16 * 1_024;

/// Why a connection is not served.
pub(super) struct Failure {
    pub(super) outcome: Handshake,
    pub(super) message: String,
}

impl Failure {
    pub(super) fn timed_out() -> Self {
        Self {
            outcome: Handshake::TimedOut,
            message: "its handshake took too long".to_owned(),
        }
    }

    pub(super) fn displaced() -> Self {
        Self {
            outcome: Handshake::Displaced,
            message: "its handshake was slow while others waited".to_owned(),
        }
    }
}

/// Makes a connection of what was accepted.
pub(super) async fn shake(
    stream: TcpStream,
    protocol: Protocol,
    place: OwnedSemaphorePermit,
) -> Result<Connection, Failure> {
    let broken = |error: &io::Error| Failure {
        outcome: Handshake::Broken,
        message: error.to_string(),
    };
    let address = stream.peer_addr().map_err(|error| broken(&error))?;
    // Where this cannot be had, answers come a little later.
    let _ = stream.set_nodelay(true);
    let (bytes, transport): (Box<dyn Bytes>, _) = match protocol {
        Protocol::Plain => (Box::new(stream), Transport::Plain),
        Protocol::Tls(config) => {
            let mut first = [0];
            let read = stream.peek(&mut first).await;
            let read = read.map_err(|error| broken(&error))?;
            if read == 1 && first != [TLS_HANDSHAKE] {
                return Err(dismiss(stream, address).await);
            }
            let (stream, transport) = encrypt(stream, address, config).await?;
            (stream, transport)
        }
    };
    let peer = Peer {
        address,
        transport,
        cut: CancellationToken::new(),
    };
    Ok(Connection::new(bytes, peer, place))
}

async fn encrypt(
    stream: TcpStream,
    address: SocketAddr,
    config: Arc<ServerConfig>,
) -> Result<(Box<dyn Bytes>, Transport), Failure> {
    let accepted = TlsAcceptor::from(config).accept(stream);
    let stream = match accepted.into_fallible().await {
        Ok(stream) => stream,
        Err((error, stream)) => {
            linger(stream).await;
            return Err(failure(address, &error));
        }
    };
    let certificates = stream.get_ref().1.peer_certificates();
    let transport = Transport::Tls(certificates.map(Into::into));
    Ok((Box::new(stream), transport))
}

/// Tells a client that speaks no TLS why it is not served, in the words of HTTP/2, if it takes
/// them.
async fn dismiss(mut stream: TcpStream, address: SocketAddr) -> Failure {
    // Whether it takes them is its own affair.
    let told = stream.write_all(FAREWELL);
    let _ = tokio::time::timeout(FAREWELL_TIMEOUT, told).await;
    linger(stream).await;
    Failure {
        outcome: Handshake::Plaintext,
        message: format!(
            "{address} speaks no TLS; its agent runs with --insecure, or is of the original \
             implementation, for which there is --legacy-plaintext-bind"
        ),
    }
}

/// Ends a connection so that our last words arrive: what is unread would make the kernel take them
/// back.
async fn linger(mut stream: TcpStream) {
    let end = async {
        stream.shutdown().await?;
        let mut rest = stream.take(MAX_REST);
        tokio::io::copy(&mut rest, &mut tokio::io::sink()).await
    };
    // A client that is gone already is as good.
    let _ = tokio::time::timeout(FAREWELL_TIMEOUT, end).await;
}

fn failure(address: SocketAddr, error: &io::Error) -> Failure {
    let reason = error.get_ref();
    let reason = reason.and_then(|reason| reason.downcast_ref::<rustls::Error>());
    let (outcome, message) = match reason {
        Some(rustls::Error::NoCertificatesPresented) => (
            Handshake::BadCertificate,
            format!("{address} shows no client certificate (--client-tls-dir of its agent)"),
        ),
        Some(rustls::Error::InvalidCertificate(reason)) => (
            Handshake::BadCertificate,
            format!("the client certificate of {address} is not good: {reason}"),
        ),
        Some(rustls::Error::General(reason)) if reason.contains("certificate chain") => (
            Handshake::NoCertificate,
            format!("{address} cannot be served before there is a serving certificate"),
        ),
        Some(rustls::Error::AlertReceived(alert)) => (
            Handshake::Refused,
            format!("{address} refused the certificate of this manager: {alert:?}"),
        ),
        Some(reason) => (Handshake::Other, format!("{address}: {reason}")),
        None => (Handshake::Broken, format!("{address}: {error}")),
    };
    Failure { outcome, message }
}
