//! Owns the plaintext listener for agents of the original implementation during a migration:
//! `WOLService` alone, and only so many events a second, as anybody may send them. Its events have
//! no place for a password, so none of them satisfies `SecureOn`.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Context as _;
use futures::{StreamExt as _, stream::BoxStream};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use crate::{
    admin::Heartbeat,
    manager::{accept::Acceptor, metrics::TransportMetrics},
    rpc::pb::{
        HealthCheckRequest, HealthCheckResponse, WolEvent, WolEventResponse,
        wol_event_response::Status as WolStatus,
        wol_service_server::{WolService, WolServiceServer},
    },
    throttle::Throttle,
};

use super::{Legacy, MAX_WAITING, response};

/// Events per second, over all connections, after a burst.
const EVENTS: (u32, u32) = (100, 200);
/// Connections at once; there is one for each node at most.
pub const MAX_CONNECTIONS: usize = 1_024;
/// Streams of one connection.
const MAX_STREAMS: u32 = 16;
/// The largest message that is read.
const MAX_MESSAGE: usize = 4 * 1_024;
/// Bytes of a request's headers.
const MAX_HEADERS: u32 = 8 * 1_024;
/// A silent connection is asked whether it lives, and given up when it does not answer in time.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(5));
/// At the end, what is under way gets this long.
const LAST_STREAMS: Duration = Duration::from_secs(1);
/// What a caller reads who sends too much.
const TOO_MANY: &str = "too many events on the plaintext listener of this manager; try again later";

/// `WOLService`, for so many events a second.
#[derive(Clone)]
struct Limited {
    legacy: Legacy,
    bucket: Arc<Mutex<Throttle>>,
    metrics: TransportMetrics,
}

impl Limited {
    fn admits(&self) -> bool {
        let now = Instant::now().into_std();
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        let admitted = bucket.admit(now);
        if !admitted {
            self.metrics.legacy_throttled.inc();
        }
        admitted
    }

    async fn report(&self, event: WolEvent) -> WolEventResponse {
        if self.admits() {
            self.legacy.report(event, None).await
        } else {
            response(WolStatus::Error, TOO_MANY.to_owned(), Instant::now())
        }
    }
}

/// Serves `WOLService` in plaintext until `token` is cancelled.
///
/// # Errors
///
/// The listener failed.
pub async fn serve(
    acceptor: Acceptor,
    legacy: Legacy,
    metrics: TransportMetrics,
    token: CancellationToken,
    heart: Heartbeat,
) -> anyhow::Result<()> {
    metrics.legacy_plaintext.set(1);
    let service = Limited {
        legacy,
        bucket: Arc::new(Mutex::new(Throttle::new(EVENTS.0, EVENTS.1))),
        metrics,
    };
    let service = WolServiceServer::new(service).max_decoding_message_size(MAX_MESSAGE);
    let serve = tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(crate::pace::of(KEEPALIVE.0)))
        .http2_keepalive_timeout(Some(crate::pace::of(KEEPALIVE.1)))
        .http2_max_header_list_size(MAX_HEADERS)
        .max_concurrent_streams(MAX_STREAMS)
        .add_service(service)
        .serve_with_incoming_shutdown(acceptor.connections(), token.clone().cancelled_owned());
    let ended = async {
        token.cancelled().await;
        tokio::time::sleep(crate::pace::of(LAST_STREAMS)).await;
    };
    tokio::select! {
        result = heart.waiting(serve) => result.context("the plaintext server for agents failed"),
        () = ended => Ok(()),
    }
}

#[tonic::async_trait]
impl WolService for Limited {
    type ReportWOLEventStreamStream = BoxStream<'static, Result<WolEventResponse, Status>>;

    async fn report_wol_event(
        &self,
        request: Request<WolEvent>,
    ) -> Result<Response<WolEventResponse>, Status> {
        if !self.admits() {
            return Err(Status::resource_exhausted(TOO_MANY));
        }
        let answer = self.legacy.report(request.into_inner(), None).await;
        Ok(Response::new(answer))
    }

    async fn report_wol_event_stream(
        &self,
        request: Request<Streaming<WolEvent>>,
    ) -> Result<Response<Self::ReportWOLEventStreamStream>, Status> {
        let limited = self.clone();
        let answers = request
            .into_inner()
            .map(move |event| {
                let limited = limited.clone();
                async move { Ok(limited.report(event?).await) }
            })
            .buffered(MAX_WAITING)
            .take_until(self.legacy.token.clone().cancelled_owned());
        Ok(Response::new(answers.boxed()))
    }

    async fn health_check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        self.legacy.health_check(request).await
    }
}
