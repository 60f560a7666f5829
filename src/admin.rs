//! Owns what kubelet and Prometheus ask: `/livez`, `/readyz` and `/metrics`, on a TCP port or on a
//! socket file.

mod liveness;
mod socket_file;

use std::{
    convert::Infallible,
    fmt::{Debug, Write as _},
    future::IntoFuture as _,
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::Context as _;
use axum::{
    Router,
    extract::{RawQuery, State},
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
    serve::Listener,
};
use prometheus_client::{encoding::text::encode, registry::Registry};
use tokio::net::{TcpListener, TcpSocket};
use tokio_util::sync::CancellationToken;

pub use liveness::{Heartbeat, Liveness};
pub use socket_file::SocketFile;

/// Requests that are under way at the end get this long.
const FAREWELL: Duration = Duration::from_secs(1);

/// Connections that wait to be taken at most.
const BACKLOG: u32 = 128;

/// What must have happened before the process is ready. Ready while every gate is open.
#[derive(Debug, Clone, Default)]
pub struct Readiness {
    gates: Arc<Mutex<Vec<(&'static str, Gate)>>>,
}

/// One condition of readiness; closed until opened.
#[derive(Debug, Clone)]
pub struct Gate(Arc<AtomicBool>);

impl Gate {
    /// Says that the condition holds.
    pub fn open(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Says that it holds no longer.
    pub fn close(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    /// Whether it holds.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Readiness {
    /// Adds a condition, which people read as "waiting for `name`" until it holds.
    #[must_use]
    pub fn gate(&self, name: &'static str) -> Gate {
        let gate = Gate(Arc::new(AtomicBool::new(false)));
        self.gates
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push((name, gate.clone()));
        gate
    }

    /// The conditions that do not hold.
    #[must_use]
    pub fn waiting_for(&self) -> Vec<&'static str> {
        let gates = self.gates.lock().unwrap_or_else(PoisonError::into_inner);
        gates
            .iter()
            .filter(|(_, gate)| !gate.is_open())
            .map(|(name, _)| *name)
            .collect()
    }
}

/// Opens the listener for [`serve`].
///
/// # Errors
///
/// The address cannot be bound.
pub async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    told(address, TcpListener::bind(address).await)
}

/// The same for agents, of which the next one on a node opens its port before the last one ends: both
/// can, if they are of one user. Each is then asked now and then.
///
/// # Errors
///
/// The address cannot be bound.
pub fn bind_beside(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let listen = || {
        let socket = if address.is_ipv4() {
            TcpSocket::new_v4()
        } else {
            TcpSocket::new_v6()
        }?;
        socket.set_reuseaddr(true)?;
        socket.set_reuseport(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    told(address, listen())
}

fn told(address: SocketAddr, bound: io::Result<TcpListener>) -> anyhow::Result<TcpListener> {
    bound.with_context(|| {
        format!(
            "cannot listen on {address} for /metrics, /livez and /readyz; choose another with --admin-bind"
        )
    })
}

/// Serves until `token` is cancelled, and finishes what was asked by then, within a second.
///
/// # Errors
///
/// The server failed.
pub async fn serve<L>(
    listener: L,
    registry: Arc<Registry>,
    (readiness, liveness): (Readiness, Liveness),
    token: CancellationToken,
) -> anyhow::Result<()>
where
    L: Listener,
    L::Addr: Debug,
{
    let end = token.clone();
    let app = Router::new()
        .route("/livez", get(live).with_state(liveness.clone()))
        .route("/readyz", get(ready).with_state(readiness))
        .route("/metrics", get(metrics).with_state(registry));
    let server = axum::serve(listener, app).with_graceful_shutdown(token.cancelled_owned());
    tokio::select! {
        result = server.into_future() => result.context("the admin server failed"),
        never = look(&liveness) => match never {},
        // A request that is never finished must not keep the process.
        () = async {
            end.cancelled().await;
            tokio::time::sleep(FAREWELL).await;
        } => Ok(()),
    }
}

/// Notices a standstill of the process, for which no task is to blame.
async fn look(liveness: &Liveness) -> Infallible {
    loop {
        tokio::time::sleep(liveness::LOOK).await;
        let _ = liveness.stuck();
    }
}

/// With `?verbose`, as the API server has it, also tells when each task beat last.
async fn live(State(liveness): State<Liveness>, RawQuery(query): RawQuery) -> impl IntoResponse {
    let mut details = String::new();
    if query.is_some_and(|query| query == "verbose") {
        for (task, age) in liveness.ages() {
            // Writing to a string does not fail.
            let _ = writeln!(details, "{task}: {:.1} s ago", age.as_secs_f64());
        }
    }
    match &*liveness.stuck() {
        [] => (StatusCode::OK, format!("{details}ok\n")),
        names => {
            let names = names.join(", ");
            tracing::error!(
                tasks = names,
                "tasks are stuck; the process is to be restarted"
            );
            (
                StatusCode::SERVICE_UNAVAILABLE,
                format!("{details}stuck: {names}\n"),
            )
        }
    }
}

async fn ready(State(readiness): State<Readiness>) -> impl IntoResponse {
    match &*readiness.waiting_for() {
        [] => (StatusCode::OK, "ok\n".to_owned()),
        names => (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("waiting for {}\n", names.join(", ")),
        ),
    }
}

async fn metrics(State(registry): State<Arc<Registry>>) -> impl IntoResponse {
    let mut text = String::new();
    match encode(&mut text, &registry) {
        Ok(()) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            (StatusCode::OK, [(header::CONTENT_TYPE, kind)], text)
        }
        Err(error) => (
            StatusCode::INTERNAL_SERVER_ERROR,
            [(header::CONTENT_TYPE, "text/plain")],
            error.to_string(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpStream,
    };

    use super::*;

    #[tokio::test]
    async fn the_next_agent_of_a_node_opens_the_port_of_the_last_one_but_no_other_program_does() {
        let last = bind_beside(([127, 0, 0, 1], 0).into()).unwrap();
        let address = last.local_addr().unwrap();
        let next = bind_beside(address).unwrap();
        assert_eq!(next.local_addr().unwrap(), address);
        let refused = bind(address).await.unwrap_err().to_string();
        assert!(refused.contains("choose another"), "{refused}");
    }

    #[tokio::test]
    async fn a_request_that_is_never_finished_does_not_hold_up_the_end() {
        let listener = bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let token = CancellationToken::new();
        let registry = Arc::new(Registry::default());
        let health = (Readiness::default(), Liveness::default());
        let server = serve(listener, registry, health, token.clone());
        let visit = async {
            let mut half = TcpStream::connect(address).await.unwrap();
            half.write_all(b"GET /livez HTTP/1.1\r\n").await.unwrap();
            // Long enough for the server to take the connection.
            tokio::time::sleep(Duration::from_millis(200)).await;
            token.cancel();
            half
        };
        let both = async { tokio::join!(server, visit) };
        let (ended, _half) = tokio::time::timeout(Duration::from_secs(20), both)
            .await
            .unwrap();
        ended.unwrap();
    }

    #[tokio::test]
    async fn livez_names_the_task_that_hangs() {
        let listener = bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let liveness = Liveness::default();
        let limit = Duration::from_secs(1);
        let _hangs = liveness.task("virtual machines", limit);
        let waits = liveness.task("waker", limit * 10);
        let health = (Readiness::default(), liveness);
        let registry = Arc::new(Registry::default());
        let server = serve(listener, registry, health, CancellationToken::new());
        let ask = async || {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let request = b"GET /livez HTTP/1.0\r\n\r\n";
            stream.write_all(request).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            answer
        };
        let visits = async {
            let first = ask().await;
            assert!(first.starts_with("HTTP/1.0 200"), "{first}");
            let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
            loop {
                let answer = ask().await;
                if answer.starts_with("HTTP/1.0 503") {
                    assert!(answer.ends_with("stuck: virtual machines\n"), "{answer}");
                    return;
                }
                assert!(tokio::time::Instant::now() < deadline, "{answer}");
                waits.beat();
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::select! {
            _ = server => panic!("it ended"),
            () = visits => {}
        }
    }
}
