//! Managers of another version: what they say beyond our words is skipped, and what they do not say is
//! not waited for.

#![allow(
    clippy::expect_used,
    reason = "what a test waits for and does not get must fail it"
)]

use std::{
    convert::Infallible,
    net::SocketAddr,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures::future::BoxFuture;
use kubevirt_wol::rpc::pb::{self, AgentMessage, agent_message};
use prost::Message as _;
use tokio::{net::TcpListener, sync::mpsc, task::JoinSet, time::timeout};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{
    Request, Response, Status, Streaming,
    body::Body,
    server::{Grpc, NamedService, StreamingService},
    transport::Server,
};

use crate::{
    bed::{Agent, args, free_address, free_port, get, magic, millis, pair, send, settings},
    raw::{Raw, body, extended, later_field},
};

const PATIENCE: Duration = Duration::from_secs(20);

/// The fields of the messages of a manager.
const WELCOME: u32 = 1;
const ACK: u32 = 2;
const CONFIGURATION: u32 = 3;
const WAKEABLE_MACS: u32 = 5;
const LATER: u32 = 60;

/// One session of an agent, in bytes.
struct Session {
    from_agent: Streaming<Bytes>,
    to_agent: mpsc::Sender<Result<Bytes, Status>>,
}

/// A manager that says whatever the test says.
struct Manager {
    sessions: mpsc::Receiver<Session>,
    _server: JoinSet<()>,
}

#[derive(Clone)]
struct Service(mpsc::Sender<Session>);

impl NamedService for Service {
    const NAME: &'static str = "wol.v1.AgentService";
}

impl tower::Service<http::Request<Body>> for Service {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move { Ok(Grpc::new(Raw).streaming(service, request).await) })
    }
}

impl StreamingService<Bytes> for Service {
    type Response = Bytes;
    type ResponseStream = ReceiverStream<Result<Bytes, Status>>;
    type Future = BoxFuture<'static, Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<Streaming<Bytes>>) -> Self::Future {
        let sessions = self.0.clone();
        Box::pin(async move {
            let (to_agent, answers) = mpsc::channel(64);
            let from_agent = request.into_inner();
            let session = Session {
                from_agent,
                to_agent,
            };
            let sent = sessions.send(session).await;
            sent.map_err(|_| Status::unavailable("the test is over"))?;
            Ok(Response::new(ReceiverStream::new(answers)))
        })
    }
}

impl Manager {
    async fn start(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let (sender, sessions) = mpsc::channel(8);
        let mut server = JoinSet::new();
        server.spawn(async move {
            let connections = TcpListenerStream::new(listener);
            let server = Server::builder().add_service(Service(sender));
            server.serve_with_incoming(connections).await.unwrap();
        });
        Self {
            sessions,
            _server: server,
        }
    }

    /// The next session, after its hello.
    async fn accept(&mut self) -> Session {
        let session = timeout(PATIENCE, self.sessions.recv()).await;
        let mut session = session.expect("an agent connects").unwrap();
        let hello = session.next().await;
        assert!(matches!(hello, agent_message::Body::Hello(_)), "{hello:?}");
        session
    }
}

impl Session {
    async fn say(&self, message: Bytes) {
        self.to_agent.send(Ok(message)).await.unwrap();
    }

    async fn next(&mut self) -> agent_message::Body {
        let message = timeout(PATIENCE, self.from_agent.message()).await;
        let bytes = message.expect("the agent speaks").unwrap().unwrap();
        AgentMessage::decode(bytes).unwrap().body.unwrap()
    }

    async fn event(&mut self) -> pb::Event {
        loop {
            if let agent_message::Body::Event(event) = self.next().await {
                return event;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_manager_is_understood_as_far_as_we_have_words() {
    let (address, admin, port) = (free_address(), free_address(), free_port());
    let mut manager = Manager::start(address).await;
    let _agent = Agent::start(kubevirt_wol::cli::AgentArgs {
        admin_bind: Some(admin),
        ..args(address, &[port])
    });
    let mut session = manager.accept().await;
    let welcome = pb::Welcome {
        replica_id: "manager-a".into(),
        version: "9.0.0".into(),
    };
    session.say(body(WELCOME, &extended(&welcome))).await;
    session.say(body(LATER, &later_field(1))).await;
    let configuration = extended(&settings(4, &[port]));
    session.say(body(CONFIGURATION, &configuration)).await;
    let agent_message::Body::ConfigurationStatus(status) = session.next().await else {
        panic!("no status");
    };
    assert!(status.accepted && status.generation == 4, "{status:?}");
    let filter = pb::WakeableMacs {
        kind: 9,
        bits: vec![1, 2, 3],
        hashes: 77,
    };
    session.say(body(WAKEABLE_MACS, &extended(&filter))).await;
    send(port, &magic(1));
    assert_eq!(session.event().await.seq, 1);
    let ack = pb::Ack {
        seq: 1,
        outcome: 77,
        message: "put into quarantine".into(),
        deferred_ms: 60_000,
    };
    session.say(body(ACK, &extended(&ack))).await;
    // It is final: nothing is sent again, and the next packet counts.
    let again = timeout(millis(2_700), session.event()).await;
    assert!(again.is_err(), "{again:?}");
    let metrics = get(admin, "/metrics").await;
    for line in [
        r#"agent_answers_total{outcome="unknown"} 1"#,
        "agent_unsettled_events 0",
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
    send(port, &magic(1));
    assert_eq!(session.event().await.seq, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_manager_that_names_no_wakeable_addresses_gets_every_wake() {
    let (_manager, mut session, _agent, port) = pair().await;
    for n in 1..=3 {
        send(port, &magic(n));
        let event = session.event().await;
        assert_eq!(event.mac[5], n);
        session.settle(event.seq, pb::Outcome::Started).await;
    }
}
