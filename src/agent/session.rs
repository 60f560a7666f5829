//! Owns the session with one manager: it comes back by itself, brings events there, and takes
//! answers and settings from there.

mod connection;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Streaming};

use self::connection::Connection;
use super::{
    configuration::Configuration,
    connect::{Backoff, CONNECT_TIMEOUT, Failure, Target},
    credentials::{Credentials, Renewal, Token},
    intake::{Intake, Outlet},
    route::ReplicaId,
};
use crate::{
    admin::Heartbeat,
    rpc::pb::{
        self, AgentMessage, ManagerMessage, agent_message::Body as FromAgent,
        agent_service_client::AgentServiceClient, manager_message::Body as FromManager,
    },
};

/// Messages on their way to the connection at most: few, because their age is already written.
const OUTGOING: usize = 64;

/// A session that ends sooner counts as another failed attempt. Else a manager that welcomes and
/// then breaks would be asked, and would break, without a pause.
const LASTING: Duration = Duration::from_secs(5);

/// An address that led to a replica with which there is a session is tried again after this time,
/// or when a session ends.
const PARKED: Duration = Duration::from_secs(30);

/// What every session works with.
pub(super) struct Common {
    pub(super) credentials: Credentials,
    pub(super) hello: pb::Hello,
    pub(super) intake: Arc<Intake>,
    pub(super) configuration: Configuration,
}

/// The session with whoever answers at one address.
pub(super) struct Session {
    pub(super) common: Arc<Common>,
    pub(super) target: Arc<Target>,
    pub(super) address: SocketAddr,
    /// Cancelled when the address is no manager's any more.
    pub(super) gone: CancellationToken,
    /// Beats several times a second.
    pub(super) heart: Heartbeat,
}

/// How one connection ended.
enum End {
    /// The manager asked the agent to come back after this time.
    Dismissed(Duration),
    /// The connection broke, or the manager closed it.
    Broken(anyhow::Error),
    /// There is a session with this replica already.
    Double(ReplicaId),
}

/// A session that has been welcomed.
struct Welcome {
    replica: ReplicaId,
    incoming: Streaming<ManagerMessage>,
    /// The token by which it was opened.
    sent: Option<Token>,
}

impl Session {
    /// Connects again and again, until the address is gone and what was sent there is answered.
    pub(super) async fn keep(&self) {
        let mut backoff = Backoff::default();
        let mut last = None;
        let metrics = self.common.intake.metrics();
        while !self.gone.is_cancelled() {
            let mut ended = self.common.intake.ended();
            let mut welcomed = None;
            let end = self.attend(&mut welcomed).await;
            if welcomed.is_some_and(|since: Instant| since.elapsed() >= crate::pace::of(LASTING)) {
                backoff = Backoff::default();
            }
            if self.gone.is_cancelled() {
                return;
            }
            match end {
                End::Dismissed(pause) => self.wait(pause.max(backoff.next())).await,
                End::Double(replica) => self.park(&replica, &mut ended).await,
                End::Broken(error) => {
                    let pause = backoff.next();
                    let failure = Failure::of(&error);
                    metrics.unconnected(failure);
                    let new = last.replace(failure) != Some(failure);
                    self.complain(&error, new || backoff.attempts.is_power_of_two());
                    self.wait(pause).await;
                }
            }
            metrics.reconnects.inc();
        }
    }

    /// A long outage is told less and less often.
    fn complain(&self, error: &anyhow::Error, news: bool) {
        let (manager, address) = (self.target.uri(), self.address);
        if news {
            tracing::warn!(%manager, %address, "no session with a manager, trying on: {error:#}");
        } else {
            tracing::debug!(%manager, %address, "no session with a manager, trying on: {error:#}");
        }
    }

    async fn wait(&self, pause: Duration) {
        let pause = tokio::time::timeout(pause, self.gone.cancelled());
        // Either is the end of the pause.
        let _ = self.heart.waiting(pause).await;
    }

    /// Two addresses may lead to one replica, where it has one of each family.
    async fn park(&self, replica: &str, ended: &mut watch::Receiver<u64>) {
        let address = self.address;
        tracing::debug!(%address, manager = replica, "there is a session with this manager already");
        tokio::select! {
            () = self.wait(crate::pace::of(PARKED)) => {}
            _ = ended.changed() => {}
        }
    }

    /// Connects, and serves that connection to its end; tells since when it was welcome.
    async fn attend(&self, welcomed: &mut Option<Instant>) -> End {
        let (outgoing, messages) = mpsc::channel(OUTGOING);
        let connecting = self.connect(&outgoing, messages);
        let connecting = tokio::time::timeout(crate::pace::of(CONNECT_TIMEOUT), connecting);
        let welcome = tokio::select! {
            welcome = self.heart.waiting(connecting) => welcome,
            () = self.gone.cancelled() => return End::Dismissed(Duration::ZERO),
        };
        let welcome = match welcome {
            Ok(Ok(welcome)) => welcome,
            Ok(Err(error)) => return End::Broken(error),
            Err(_) => {
                let error =
                    anyhow::anyhow!("no welcome within {:?}", crate::pace::of(CONNECT_TIMEOUT));
                return End::Broken(error);
            }
        };
        let Some(outlet) = Outlet::open(&self.common.intake, welcome.replica.clone()) else {
            return End::Double(welcome.replica);
        };
        *welcomed = Some(Instant::now());
        let renewal = Renewal::new(&self.common.credentials, welcome.sent);
        let connection = Connection::new(self, outlet, renewal);
        match connection.serve(&outgoing, welcome.incoming).await {
            Ok(retry_after) => End::Dismissed(retry_after),
            Err(error) => End::Broken(error),
        }
    }

    /// Says hello and waits for the welcome.
    async fn connect(
        &self,
        outgoing: &mpsc::Sender<AgentMessage>,
        messages: mpsc::Receiver<AgentMessage>,
    ) -> anyhow::Result<Welcome> {
        // Read anew each time: it may have come, or changed, since the last.
        let credentials = &self.common.credentials;
        let token = credentials.for_session(self.target.is_protected())?;
        let mut request = Request::new(ReceiverStream::new(messages));
        if let Some(token) = &token {
            let header = token.header()?;
            request.metadata_mut().insert("authorization", header);
        }
        let (channel, fate) = self.target.connect(self.address).await?;
        outgoing
            .send(from_agent(FromAgent::Hello(self.common.hello.clone())))
            .await?;
        let response = AgentServiceClient::new(channel)
            .session(request)
            .await
            .map_err(|error| fate.explain(error))
            .context("the manager refused the session")?;
        let mut incoming = response.into_inner();
        let first = incoming.message().await.context("no welcome")?;
        match first.and_then(|message| message.body) {
            Some(FromManager::Welcome(welcome)) => {
                let (manager, version) = (&welcome.replica_id, &welcome.version);
                tracing::info!(manager, version, address = %self.address, "welcomed by a manager");
                Ok(Welcome {
                    replica: welcome.replica_id.into(),
                    incoming,
                    sent: token,
                })
            }
            Some(FromManager::GoAway(away)) => bail!("turned away: {}", away.reason),
            _ => bail!("the manager did not begin with a welcome"),
        }
    }
}

fn from_agent(body: FromAgent) -> AgentMessage {
    AgentMessage { body: Some(body) }
}
