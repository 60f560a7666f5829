//! A manager that does what the test says: it speaks the protocol and decides nothing.

#![allow(clippy::expect_used, reason = "what a test cannot build must fail it")]

use std::{net::SocketAddr, time::Duration};

use kubevirt_wol::rpc::pb::{
    self, AgentMessage, ManagerMessage,
    agent_message::Body as FromAgent,
    agent_service_server::{AgentService, AgentServiceServer},
    manager_message::Body as FromManager,
};
use tokio::{net::TcpListener, sync::mpsc, task::JoinSet, time::timeout};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming, transport::Server};

/// Longer than anything that a working agent needs.
const PATIENCE: Duration = Duration::from_secs(20);

type Answers = mpsc::Sender<Result<ManagerMessage, Status>>;

/// A listening manager; gone when dropped.
pub struct FakeManager {
    replica: String,
    sessions: mpsc::Receiver<Session>,
    _server: JoinSet<()>,
}

/// One session of an agent; closed when dropped.
pub struct Session {
    from_agent: Streaming<AgentMessage>,
    to_agent: Answers,
}

struct Service {
    sessions: mpsc::Sender<Session>,
}

#[tonic::async_trait]
impl AgentService for Service {
    type SessionStream = ReceiverStream<Result<ManagerMessage, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<AgentMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let (to_agent, answers) = mpsc::channel(64);
        let from_agent = request.into_inner();
        let session = Session {
            from_agent,
            to_agent,
        };
        let sent = self.sessions.send(session).await;
        sent.map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Response::new(ReceiverStream::new(answers)))
    }
}

impl FakeManager {
    /// Listens on `address`.
    pub async fn start(address: SocketAddr) -> Self {
        Self::named("fake-0", address).await
    }

    /// Listens on `address` as the replica of this name.
    pub async fn named(replica: &str, address: SocketAddr) -> Self {
        Self::taking(replica, address, None).await
    }

    /// As [`named`](Self::named), but agents can send no more than so many bytes that were not read.
    pub async fn taking(replica: &str, address: SocketAddr, bytes: Option<u32>) -> Self {
        let listener = TcpListener::bind(address)
            .await
            .expect("the address is free");
        let (sender, sessions) = mpsc::channel(8);
        let service = AgentServiceServer::new(Service { sessions: sender });
        let mut server = JoinSet::new();
        server.spawn(async move {
            let connections = TcpListenerStream::new(listener);
            let mut server = Server::builder().initial_stream_window_size(bytes);
            let server = server.add_service(service);
            server
                .serve_with_incoming(connections)
                .await
                .expect("the server runs");
        });
        Self {
            replica: replica.to_owned(),
            sessions,
            _server: server,
        }
    }

    /// The next session, after its hello and welcome.
    pub async fn accept(&mut self) -> (pb::Hello, Session) {
        let session = timeout(PATIENCE, self.sessions.recv()).await;
        let mut session = session
            .expect("an agent connects")
            .expect("the server runs");
        let FromAgent::Hello(hello) = session.next().await else {
            panic!("a session begins with a hello");
        };
        let welcome = pb::Welcome {
            replica_id: self.replica.clone(),
            version: "test".to_owned(),
        };
        session.send(FromManager::Welcome(welcome)).await;
        (hello, session)
    }
}

impl Session {
    async fn next(&mut self) -> FromAgent {
        let message = timeout(PATIENCE, self.from_agent.message()).await;
        let message = message
            .expect("the agent speaks")
            .expect("the session lives");
        message.and_then(|m| m.body).expect("the agent goes on")
    }

    async fn send(&self, body: FromManager) {
        let message = ManagerMessage { body: Some(body) };
        self.to_agent
            .send(Ok(message))
            .await
            .expect("the session lives");
    }

    /// The next event. A status that comes before it is not waited for by anybody.
    pub async fn event(&mut self) -> pb::Event {
        loop {
            if let FromAgent::Event(event) = self.next().await {
                return event;
            }
        }
    }

    /// The next configuration status.
    pub async fn status(&mut self) -> pb::ConfigurationStatus {
        match self.next().await {
            FromAgent::ConfigurationStatus(status) => status,
            other => panic!("{other:?} instead of a status"),
        }
    }

    /// Asserts that no event comes for this long.
    pub async fn no_event(&mut self, time: Duration) {
        let event = timeout(time, self.event()).await;
        assert!(event.is_err(), "unexpected {event:?}");
    }

    /// Pushes settings and takes the agent's answer.
    pub async fn configure(&mut self, configuration: pb::Configuration) -> pb::ConfigurationStatus {
        let generation = configuration.generation;
        self.send(FromManager::Configuration(configuration)).await;
        let status = self.status().await;
        assert_eq!(status.generation, generation);
        status
    }

    /// Says which addresses can wake a VM.
    pub async fn prefer(&self, macs: pb::WakeableMacs) {
        self.send(FromManager::WakeableMacs(macs)).await;
    }

    /// Settles an event.
    pub async fn settle(&self, seq: u64, outcome: pb::Outcome) {
        self.ack(seq, outcome, 0).await;
    }

    /// Answers an event.
    pub async fn ack(&self, seq: u64, outcome: pb::Outcome, deferred_ms: u64) {
        let ack = pb::Ack {
            seq,
            outcome: outcome.into(),
            message: String::new(),
            deferred_ms,
        };
        self.send(FromManager::Ack(ack)).await;
    }

    /// Sends the agent away.
    pub async fn go_away(&self, retry_after: Duration) {
        let retry_after_ms = u64::try_from(retry_after.as_millis()).expect("a short time");
        let away = pb::GoAway {
            reason: "drain".to_owned(),
            retry_after_ms,
        };
        self.send(FromManager::GoAway(away)).await;
    }
}
