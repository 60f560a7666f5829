//! Owns the way from a listener to connections that can be served: at most so many handshakes at
//! once, each for so long, and none that keeps the others out.

mod connection;
mod handshake;
mod turn;

use std::{
    collections::VecDeque, convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration,
};

use futures::{Stream, stream};
use rustls::{ServerConfig, server::NoServerSessionStorage, version::TLS13};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::Semaphore,
    task::JoinSet,
    time::Instant,
};

use crate::{
    manager::{
        client_trust::ClientTrust,
        metrics::{Handshake, TransportMetrics},
    },
    tls::{self, Slot},
};

pub use connection::Connection;
use handshake::{Failure, shake};
use turn::Turn;

/// Connections that the kernel keeps until they are accepted: after an outage all agents of a large
/// cluster come within moments, and who finds no room comes again only after a second, and after three.
/// The kernel has a limit of its own, 4,096 at first (`net.core.somaxconn`).
const BACKLOG: u32 = 8_192;
/// Handshakes under way at most.
const MAX_HANDSHAKES: usize = 512;
/// A handshake may take so long …
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// … and only so long once others wait for its place: an agent's takes some milliseconds, where this
/// manager gets the processor. Where it does not, see [`Turn`].
const GRACE: Duration = Duration::from_secs(1);
/// Where all that have a place wait for this manager, it is looked again after this time.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// After an error of the kernel, such as too many open files, it is asked again after this time.
const ERROR_PAUSE: Duration = Duration::from_millis(100);

/// Listens on an address, with room for all agents to come at once.
///
/// # Errors
///
/// It cannot be bound.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    // A manager that comes back finds connections of the one before it that the kernel still ends.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// How the connections of a listener are protected.
#[derive(Clone)]
pub enum Protocol {
    /// Not at all.
    Plain,
    /// By TLS.
    Tls(Arc<ServerConfig>),
}

impl Protocol {
    /// TLS 1.3 with the certificate that `slot` holds at each handshake; with `clients`, those
    /// that connect have to show a certificate, too.
    ///
    /// # Errors
    ///
    /// The cryptography that was compiled in cannot do this.
    pub fn tls(slot: Slot, clients: Option<Arc<ClientTrust>>) -> Result<Self, rustls::Error> {
        let builder = ServerConfig::builder_with_provider(tls::provider())
            .with_protocol_versions(&[&TLS13])?;
        let builder = match clients {
            Some(clients) => builder.with_client_cert_verifier(clients),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(Arc::new(slot));
        config.alpn_protocols = vec![b"h2".to_vec()];
        // A resumed connection would not be asked for its certificate again.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Self::Tls(Arc::new(config)))
    }
}

/// Accepts the connections of one listener.
pub struct Acceptor {
    /// Where they come from.
    listener: TcpListener,
    protocol: Protocol,
    metrics: TransportMetrics,
    /// Places for connections that are served.
    places: Arc<Semaphore>,
    handshakes: JoinSet<Result<Connection, Failure>>,
    /// The handshakes under way, the oldest first; some may have ended.
    turns: VecDeque<Turn>,
    /// Nobody gives way before.
    patient_until: Instant,
}

impl Acceptor {
    /// Accepts at most `places` connections at once.
    #[must_use]
    pub fn new(
        listener: TcpListener,
        protocol: Protocol,
        places: usize,
        metrics: TransportMetrics,
    ) -> Self {
        Self {
            listener,
            protocol,
            metrics,
            places: Arc::new(Semaphore::new(places)),
            handshakes: JoinSet::new(),
            turns: VecDeque::new(),
            patient_until: Instant::now(),
        }
    }

    /// The connections that are ready to be served; never ends.
    pub fn connections(self) -> impl Stream<Item = Result<Connection, Infallible>> {
        stream::unfold(self, |mut acceptor| async move {
            let connection = acceptor.next().await;
            Some((Ok(connection), acceptor))
        })
    }

    async fn next(&mut self) -> Connection {
        loop {
            self.turns.retain(|turn| !turn.is_over());
            let full = self.handshakes.len() >= MAX_HANDSHAKES;
            let oldest = self.turns.front().map(|turn| turn.began() + GRACE);
            let displaced_at = oldest.unwrap_or(self.patient_until).max(self.patient_until);
            tokio::select! {
                // Those that have ended make room before one that has not gives up its place.
                biased;
                Some(ended) = self.handshakes.join_next() => {
                    let ended = ended.unwrap_or(Err(Failure::displaced()));
                    if let Some(connection) = self.ended(ended) {
                        return connection;
                    }
                }
                accepted = self.listener.accept(), if !full => match accepted {
                    Ok((stream, _)) => self.begin(stream),
                    Err(error) => self.pause(&error).await,
                },
                // Others wait in the kernel until a place is free, or until one has been slow.
                () = tokio::time::sleep_until(displaced_at), if full => self.displace(),
            }
        }
    }

    fn begin(&mut self, stream: TcpStream) {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            let _ = self.metrics.began(Handshake::Full);
            return;
        };
        let protocol = self.protocol.clone();
        let socket = Turn::socket(&stream);
        let handshake = self.handshakes.spawn(async move {
            let shaken = shake(stream, protocol, place);
            let shaken = tokio::time::timeout(crate::pace::of(HANDSHAKE_TIMEOUT), shaken).await;
            shaken.unwrap_or(Err(Failure::timed_out()))
        });
        self.turns.push_back(Turn::new(handshake, socket));
    }

    /// Ends the handshake that has been slow for longest. Those that wait for this manager are not the
    /// slow ones: were they ended, all would come again, and on a busy machine none would ever be done.
    fn displace(&mut self) {
        let now = Instant::now();
        let mut slow = self.turns.iter().take_while(|it| it.began() + GRACE <= now);
        match slow.position(Turn::is_the_clients) {
            Some(position) => {
                if let Some(turn) = self.turns.remove(position) {
                    turn.end();
                }
            }
            None => self.patient_until = now + LOOK_AGAIN,
        }
    }

    /// Counts how a handshake ended. What clients do wrong is told less and less often.
    fn ended(&self, ended: Result<Connection, Failure>) -> Option<Connection> {
        match ended {
            Ok(connection) => {
                let _ = self.metrics.began(Handshake::Accepted);
                Some(connection)
            }
            Err(Failure { outcome, message }) => {
                let count = self.metrics.began(outcome);
                if count.is_power_of_two() {
                    tracing::warn!(count, "a connection is not served: {message}");
                } else {
                    tracing::debug!(count, "a connection is not served: {message}");
                }
                None
            }
        }
    }

    async fn pause(&self, error: &std::io::Error) {
        let count = self.metrics.accept_errors.inc() + 1;
        if count.is_power_of_two() {
            tracing::warn!(count, "cannot take a connection, trying on: {error}");
        }
        tokio::time::sleep(ERROR_PAUSE).await;
    }
}
