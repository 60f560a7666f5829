//! A gRPC server on loopback whose wakes end in the test, and clients of both kinds.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use kubevirt_wol::{
    admin::{Gate, Heartbeat, Readiness},
    manager::{
        identity::{self, Authenticator, Bans},
        legacy::Legacy,
        metrics::{Metrics, TransportMetrics},
        options::Protection,
        pulse::Pulse,
        report::{Report, Reports},
        server::Server,
        service::Agents,
        sessions::Sessions,
        transport::Transport,
        vm::Vm,
    },
    rpc::pb::{
        self, AgentMessage, ManagerMessage, agent_message,
        agent_service_client::AgentServiceClient, manager_message,
        wol_service_client::WolServiceClient,
    },
    settings::Settings,
    telemetry,
    wake::{Answer, Wake},
    wakeable::WakeableMacs,
};
use prometheus_client::{encoding::text::encode, registry::Registry};
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    task::JoinSet,
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status, Streaming, transport::Channel};

/// Nothing here takes so long unless it is broken.
pub(crate) const SOON: Duration = Duration::from_secs(5);

/// Takes reports for the test, and answers those that it was told to.
#[derive(Default)]
pub(crate) struct Desk {
    pub(crate) reports: Mutex<Vec<Report>>,
    pub(crate) answer: Mutex<Option<Answer>>,
    pub(crate) vm: Mutex<Option<Arc<Vm>>>,
}

impl Reports for Desk {
    fn report(&self, report: Report) {
        if let Some(answer) = &*self.answer.lock().unwrap() {
            assert!(report.reply.send(answer.clone()));
        }
        self.reports.lock().unwrap().push(report);
    }

    fn vm(&self, _wake: &Wake) -> Option<Arc<Vm>> {
        self.vm.lock().unwrap().clone()
    }
}

impl Desk {
    /// Waits for so many reports.
    pub(crate) async fn reported(&self, count: usize) -> Vec<Report> {
        timeout(SOON, async {
            while self.reports.lock().unwrap().len() < count {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await
        .expect("the reports arrive");
        self.reports.lock().unwrap().clone()
    }
}

/// The port for agents without any protection.
fn plaintext(registry: &mut Registry) -> Transport {
    Transport::new(&Protection::Insecure, TransportMetrics::new(registry)).unwrap()
}

pub(crate) struct Bed {
    pub(crate) desk: Arc<Desk>,
    pub(crate) settings: watch::Sender<(u64, Arc<Settings>)>,
    pub(crate) filter: watch::Sender<Option<Arc<WakeableMacs>>>,
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) ready: Gate,
    pub(crate) token: CancellationToken,
    pub(crate) tasks: JoinSet<anyhow::Result<()>>,
    /// Ends the pulse when cancelled.
    pub(crate) beating: CancellationToken,
    pub(crate) url: String,
    channel: Channel,
    registry: Registry,
}

impl Bed {
    pub(crate) async fn new() -> Self {
        Self::with(|metrics| Authenticator::believing(Bans::none(), metrics)).await
    }

    pub(crate) async fn with(
        authenticator: impl FnOnce(identity::Metrics) -> Authenticator,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let mut registry = telemetry::registry();
        let metrics = Metrics::new(&mut registry);
        let (readiness, token) = (Readiness::default(), CancellationToken::new());
        let desk = Arc::new(Desk::default());
        let (settings, receiver) = watch::channel((1, Arc::new(Settings::default())));
        let (filter, wakeable) = watch::channel(None);
        let sessions = Sessions::new(metrics.clone());
        let pulse = Pulse::new();
        let identities = identity::Metrics::new(&mut registry);
        let authenticator = Arc::new(authenticator(identities));
        let ready = readiness.gate("the test");
        let transport = plaintext(&mut registry);
        let server = Server {
            acceptor: transport.acceptor(listener),
            certificate: transport.certificate(&readiness),
            serving: readiness.gate("the server"),
            legacy: Legacy {
                authenticator: authenticator.clone(),
                reports: desk.clone(),
                metrics: metrics.clone(),
                readiness,
                token: token.clone(),
            },
            agents: Agents {
                replica: "replica-a".into(),
                authenticator,
                settings: receiver,
                wakeable: (wakeable, Duration::from_secs(1)),
                reports: desk.clone(),
                sessions: sessions.clone(),
                metrics,
                pulse: pulse.clone(),
                token: token.clone(),
            },
        };
        let mut tasks = JoinSet::new();
        let beating = token.child_token();
        tasks.spawn(pulse.run(beating.clone(), Heartbeat::default()));
        tasks.spawn(server.run(Heartbeat::default()));
        Self {
            desk,
            settings,
            filter,
            sessions,
            ready,
            token,
            tasks,
            beating,
            channel: Channel::from_shared(url.clone())
                .unwrap()
                .connect()
                .await
                .unwrap(),
            url,
            registry,
        }
    }

    pub(crate) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    pub(crate) fn legacy(&self) -> WolServiceClient<Channel> {
        WolServiceClient::new(self.channel())
    }

    /// A session whose agent has said nothing yet.
    pub(crate) async fn silent(&self) -> Agent {
        self.silent_over(self.channel()).await
    }

    pub(crate) async fn silent_over(&self, channel: Channel) -> Agent {
        open(channel, None).await.unwrap()
    }

    /// A session past hello, welcome and configuration.
    pub(crate) async fn agent(&self, node: &str) -> Agent {
        let agent = self.silent().await;
        agent.welcomed(node).await
    }

    /// The value of a metric, by its full name and labels.
    pub(crate) fn metric(&self, name: &str) -> Option<f64> {
        let mut text = String::new();
        encode(&mut text, &self.registry).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().parse().ok()
    }
}

/// Opens a session, with the value of an `authorization` header.
pub(crate) async fn open(channel: Channel, authorization: Option<&str>) -> Result<Agent, Status> {
    let (sender, messages) = mpsc::channel(4_096);
    let mut request = Request::new(ReceiverStream::new(messages));
    if let Some(value) = authorization {
        let value = value.parse().unwrap();
        request.metadata_mut().insert("authorization", value);
    }
    let answers = AgentServiceClient::new(channel).session(request).await?;
    Ok(Agent {
        sender: Some(sender),
        answers: answers.into_inner(),
    })
}

pub(crate) struct Agent {
    sender: Option<mpsc::Sender<AgentMessage>>,
    answers: Streaming<ManagerMessage>,
}

impl Agent {
    /// Says hello and takes welcome and configuration.
    pub(crate) async fn welcomed(mut self, node: &str) -> Self {
        self.hello(node).await;
        let manager_message::Body::Welcome(welcome) = self.next().await else {
            panic!("no welcome");
        };
        assert_eq!(welcome.replica_id, "replica-a");
        let manager_message::Body::Configuration(_) = self.next().await else {
            panic!("no configuration");
        };
        self
    }

    pub(crate) async fn send(&self, body: agent_message::Body) {
        let message = AgentMessage { body: Some(body) };
        self.sender.as_ref().unwrap().send(message).await.unwrap();
    }

    pub(crate) async fn hello(&self, node: &str) {
        let hello = pb::Hello {
            node_name: node.into(),
            boot_id: 1,
            version: "0.1.0".into(),
        };
        self.send(agent_message::Body::Hello(hello)).await;
    }

    pub(crate) async fn event(&self, seq: u64, mac: &[u8]) {
        let event = pb::Event {
            seq,
            mac: mac.into(),
            age_ms: 1_500,
            interface: "eth0".into(),
            ..pb::Event::default()
        };
        self.send(agent_message::Body::Event(event)).await;
    }

    /// Sends nothing any more.
    pub(crate) fn half_close(&mut self) {
        self.sender = None;
    }

    pub(crate) async fn message(&mut self) -> Result<Option<ManagerMessage>, Status> {
        timeout(SOON, self.message_ever())
            .await
            .expect("the manager says something")
    }

    /// As [`message`](Self::message), with no end of patience.
    pub(crate) async fn message_ever(&mut self) -> Result<Option<ManagerMessage>, Status> {
        self.answers.message().await
    }

    pub(crate) async fn next(&mut self) -> manager_message::Body {
        self.message().await.unwrap().unwrap().body.unwrap()
    }

    pub(crate) async fn ack(&mut self) -> (u64, pb::Outcome) {
        match self.next().await {
            manager_message::Body::Ack(ack) => (ack.seq, ack.outcome()),
            other => panic!("not an answer: {other:?}"),
        }
    }
}
