//! Owns the gRPC server: what is served on the port for agents, and how it ends.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use tonic_health::{ServingStatus, server::HealthReporter};

use crate::{
    admin::{Gate, Heartbeat, Readiness},
    rpc::pb::{agent_service_server::AgentServiceServer, wol_service_server::WolServiceServer},
    shutdown::DRAIN,
    tls::Slot,
};

use super::{accept::Acceptor, legacy::Legacy, service::Agents, sessions::Sessions};

/// The largest message that is read; an event has some hundred bytes.
const MAX_MESSAGE: usize = 64 * 1_024;
/// Streams of one connection; an agent has one.
const MAX_STREAMS: u32 = 64;
/// Bytes of a request's headers, the token of an agent included.
const MAX_HEADERS: u32 = 16 * 1_024;
/// A connection that is silent for this long is asked whether it lives …
const PING_AFTER: Duration = Duration::from_secs(10);
/// … and given up when it does not answer within this time.
const PING_ANSWERED_WITHIN: Duration = Duration::from_secs(5);
/// How often readiness is looked at for `grpc.health.v1`.
const HEALTH_INTERVAL: Duration = Duration::from_millis(250);
/// How often it is looked whether agents read.
const READERS_INTERVAL: Duration = Duration::from_secs(1);
/// At the end, sessions are given this long. An agent that does not read is not told of the end.
const LAST_SESSIONS: Duration = DRAIN.saturating_add(Duration::from_secs(1));
/// At the end, connections without a session are given this long.
const LAST_STREAMS: Duration = Duration::from_millis(250);

/// Serves agents of both kinds, and `grpc.health.v1`.
pub struct Server {
    /// Where agents connect.
    pub acceptor: Acceptor,
    /// Follows whether there is a certificate to serve them with.
    pub certificate: Certificate,
    /// Open while agents are served.
    pub serving: Gate,
    /// What our own agents speak with; its token ends the server.
    pub agents: Agents,
    /// What those of the original implementation speak with.
    pub legacy: Legacy,
}

impl Server {
    /// Serves until the token is cancelled and the sessions have ended.
    ///
    /// # Errors
    ///
    /// The listener failed.
    pub async fn run(self, heart: Heartbeat) -> anyhow::Result<()> {
        let token = self.agents.token.clone();
        let sessions = Arc::clone(&self.agents.sessions);
        let readiness = self.legacy.readiness.clone();
        let reporter = HealthReporter::new();
        reporter
            .set_service_status("", ServingStatus::NotServing)
            .await;
        let health = tonic_health::server::HealthService::from_health_reporter(reporter.clone());
        let health = tonic_health::pb::health_server::HealthServer::new(health);
        let agents = AgentServiceServer::new(self.agents).max_decoding_message_size(MAX_MESSAGE);
        let legacy = WolServiceServer::new(self.legacy).max_decoding_message_size(MAX_MESSAGE);
        let serve = tonic::transport::Server::builder()
            .http2_keepalive_interval(Some(crate::pace::of(PING_AFTER)))
            .http2_keepalive_timeout(Some(crate::pace::of(PING_ANSWERED_WITHIN)))
            .http2_max_header_list_size(MAX_HEADERS)
            .max_concurrent_streams(MAX_STREAMS)
            .add_service(agents)
            .add_service(legacy)
            .add_service(health)
            .serve_with_incoming_shutdown(
                self.acceptor.connections(),
                token.clone().cancelled_owned(),
            );
        let mut serve = std::pin::pin!(serve);
        self.serving.open();
        tokio::select! {
            result = &mut serve => return result.context("the server for agents failed"),
            () = follow(&readiness, &reporter, &self.certificate, &heart) => {}
            () = end_unread(&sessions) => {}
            () = token.cancelled() => {}
        }
        self.serving.close();
        reporter
            .set_service_status("", ServingStatus::NotServing)
            .await;
        // The sessions end by themselves; who only watches `grpc.health.v1` would stay for ever.
        let ended = async {
            if tokio::time::timeout(crate::pace::of(LAST_SESSIONS), sessions.drained())
                .await
                .is_err()
            {
                tracing::warn!("some agents did not take note of the end; they are cut off");
            }
            tokio::time::sleep(crate::pace::of(LAST_STREAMS)).await;
        };
        tokio::select! {
            result = &mut serve => result.context("the server for agents failed"),
            () = ended => Ok(()),
        }
    }
}

/// Whether there is a certificate to serve agents with, where one is needed.
pub struct Certificate {
    /// Where it is; none in plaintext.
    pub slot: Option<Slot>,
    /// Open while there is one, or none is needed.
    pub gate: Gate,
}

impl Certificate {
    fn look(&self) {
        if self.slot.as_ref().is_none_or(|slot| slot.get().is_some()) {
            self.gate.open();
        }
    }
}

/// Ends the sessions whose agents do not read; never ends.
async fn end_unread(sessions: &Sessions) {
    loop {
        sessions.readers().cut_late();
        tokio::time::sleep(crate::pace::of(READERS_INTERVAL)).await;
    }
}

/// Tells `grpc.health.v1` what `/readyz` tells; never ends.
async fn follow(
    readiness: &Readiness,
    reporter: &HealthReporter,
    certificate: &Certificate,
    heart: &Heartbeat,
) {
    let mut told = None;
    loop {
        heart.beat();
        certificate.look();
        let ready = readiness.waiting_for().is_empty();
        if told.replace(ready) != Some(ready) {
            let status = if ready {
                ServingStatus::Serving
            } else {
                ServingStatus::NotServing
            };
            reporter.set_service_status("", status).await;
        }
        tokio::time::sleep(crate::pace::of(HEALTH_INTERVAL)).await;
    }
}
