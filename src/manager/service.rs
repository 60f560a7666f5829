//! Owns what agents speak with: one session each, on which events come in, and answers and
//! configurations go out.

mod error;
mod session;

use std::{sync::Arc, time::Duration};

use futures::{StreamExt as _, stream::BoxStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use crate::{
    manager::{
        metrics::Metrics, pulse::Pulse, report::Reports, sessions::Sessions, wakeable_push::Filter,
    },
    rpc::pb::{AgentMessage, ManagerMessage, agent_service_server::AgentService},
    settings::Settings,
};

pub use error::SessionError;

/// Serves agents.
#[derive(Clone)]
pub struct Agents {
    /// Names this replica.
    pub replica: Arc<str>,
    /// What agents shall do, and its generation; nothing is known yet in generation 0.
    pub settings: watch::Receiver<(u64, Arc<Settings>)>,
    /// Which addresses agents report first, and how often they are told.
    pub wakeable: (Filter, Duration),
    /// Where events go.
    pub reports: Arc<dyn Reports>,
    /// Who is connected.
    pub sessions: Arc<Sessions>,
    /// What is counted.
    pub metrics: Metrics,
    /// Whether the process stood still.
    pub pulse: Arc<Pulse>,
    /// Sends every agent away when cancelled.
    pub token: CancellationToken,
}

#[tonic::async_trait]
impl AgentService for Agents {
    type SessionStream = BoxStream<'static, Result<ManagerMessage, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<AgentMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let refusal = if self.token.is_cancelled() {
            SessionError::ShuttingDown
        } else if let Some(place) = self.sessions.place() {
            // The headers go out at once: an agent may wait for them before it says hello.
            let session = session::Session::new(self.clone(), request.into_inner(), place);
            return Ok(Response::new(session.into_stream().boxed()));
        } else {
            SessionError::Full
        };
        self.metrics.ended(refusal.end());
        Err(refusal.into())
    }
}
