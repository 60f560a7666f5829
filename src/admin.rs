//! Owns what kubelet and Prometheus ask: `/livez`, `/readyz` and `/metrics`.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use anyhow::Context as _;
use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use prometheus_client::{encoding::text::encode, registry::Registry};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

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
    TcpListener::bind(address).await.with_context(|| {
        format!(
            "cannot listen on {address} for /metrics, /livez and /readyz; choose another with --admin-bind"
        )
    })
}

/// Serves until `token` is cancelled.
///
/// # Errors
///
/// The server failed.
pub async fn serve(
    listener: TcpListener,
    registry: Arc<Registry>,
    readiness: Readiness,
    token: CancellationToken,
) -> anyhow::Result<()> {
    let app = Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(ready).with_state(readiness))
        .route("/metrics", get(metrics).with_state(registry));
    axum::serve(listener, app)
        .with_graceful_shutdown(token.cancelled_owned())
        .await
        .context("the admin server failed")
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
