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
        identity::Authenticator,
        metrics::Metrics,
        peer::Peer,
        pulse::Pulse,
        report::Reports,
        sessions::{Crowded, Sessions},
        wakeable_push::Filter,
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
    /// Who an agent is.
    pub authenticator: Arc<Authenticator>,
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
        match self.open(request).await {
            // The headers go out at once: an agent may wait for them before it says hello.
            Ok(session) => Ok(Response::new(session.into_stream().boxed())),
            Err(refusal) => {
                self.metrics.ended(refusal.end());
                Err(refusal.into())
            }
        }
    }
}

impl Agents {
    /// Opens a session. Who is not an agent takes no place.
    async fn open(
        &self,
        request: Request<Streaming<AgentMessage>>,
    ) -> Result<session::Session, SessionError> {
        if self.token.is_cancelled() {
            return Err(SessionError::ShuttingDown);
        }
        let standing = self.authenticator.admit(&request).await?;
        let node = standing.node().filter(|_| standing.is_by_token());
        let place = self.sessions.place(node).map_err(|crowded| match crowded {
            Crowded::Manager => SessionError::Full,
            Crowded::Node => SessionError::NodeFull,
        })?;
        let peer = request.extensions().get::<Peer>();
        let cut = peer.map(|peer| peer.cut.clone()).unwrap_or_default();
        let reading = self.sessions.readers().add(cut);
        let inbound = request.into_inner();
        Ok(session::Session::new(
            self.clone(),
            inbound,
            standing,
            (place, reading),
        ))
    }
}
