//! Sessions of many agents without their processes: each delivers events to one manager, and keeps
//! the record of what became of them. A session that ends is not opened again.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use http::Uri;
use hyper_util::rt::TokioIo;
use kubevirt_wol::rpc::pb::{
    self, AgentMessage, ManagerMessage, Outcome, agent_message::Body as FromAgent,
    agent_service_client::AgentServiceClient, manager_message::Body as FromManager,
};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use tokio::{net::TcpStream, sync::mpsc, task::JoinSet};
use tokio_rustls::TlsConnector;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Request, Status, Streaming,
    transport::{Channel, Endpoint},
};
use tower::service_fn;

use super::cluster::{SOON, eventually};

/// By what agents reach a manager.
#[derive(Clone)]
pub struct Way {
    pub manager: SocketAddr,
    /// How its certificate is checked, and for which name; plaintext where there is none.
    pub tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
}

/// Trust in the authorities of a bundle, in PEM, and in nobody else.
pub fn trusting(bundle: &str) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(bundle.as_bytes()) {
        let certificate = certificate.expect("the bundle is PEM");
        roots.add(certificate).expect("an authority");
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.expect("ring knows the versions");
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(config)
}

impl Way {
    /// A connection of its own.
    pub async fn connect(&self) -> Result<Channel, tonic::transport::Error> {
        let way = self.clone();
        let dial = service_fn(move |_: Uri| {
            let way = way.clone();
            async move { way.dial().await.map(TokioIo::new) }
        });
        // What tonic is to do: were it https, it would want to encrypt by itself.
        let endpoint = Endpoint::from_static("http://manager").connect_timeout(SOON);
        endpoint.connect_with_connector(dial).await
    }

    async fn dial(&self) -> std::io::Result<Box<dyn Bytes>> {
        let stream = TcpStream::connect(self.manager).await?;
        let Some((config, name)) = self.tls.clone() else {
            return Ok(Box::new(stream));
        };
        let stream = TlsConnector::from(config).connect(name, stream).await?;
        Ok(Box::new(stream))
    }
}

/// A connection, encrypted or not.
trait Bytes: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin {}
impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin> Bytes for T {}

/// What became of a session's events.
#[derive(Debug, Clone, Default)]
pub struct Record {
    pub sent: u64,
    /// Those with a final answer.
    pub settled: BTreeSet<u64>,
    /// Those that a manager asked to keep, for now.
    pub deferred: BTreeSet<u64>,
    /// Every answer, in order.
    pub answers: Vec<(u64, Outcome)>,
    /// Why the session has ended, or is about to.
    pub ended: Option<String>,
}

/// One agent's session. It ends with this value.
pub struct Session {
    sender: mpsc::Sender<AgentMessage>,
    record: Arc<Mutex<Record>>,
    _reader: JoinSet<()>,
}

impl Session {
    /// Opens one, with a token where the manager wants one, and waits for its welcome.
    ///
    /// # Errors
    ///
    /// The manager cannot be reached, or refuses.
    pub async fn open(way: &Way, node: &str, token: Option<&str>) -> Result<Self, Status> {
        let channel = way.connect().await;
        let channel = channel.map_err(|error| Status::from_error(error.into()))?;
        let (sender, messages) = mpsc::channel(1_024);
        let mut request = Request::new(ReceiverStream::new(messages));
        if let Some(token) = token {
            let value = format!("Bearer {token}").parse().expect("a token is text");
            request.metadata_mut().insert("authorization", value);
        }
        let hello = pb::Hello {
            node_name: node.to_owned(),
            boot_id: fastrand::u64(..),
            version: "test".to_owned(),
        };
        let hello = message(FromAgent::Hello(hello));
        sender.send(hello).await.expect("there is room");
        let answers = AgentServiceClient::new(channel).session(request).await?;
        let mut answers = answers.into_inner();
        let first = answers.message().await?.and_then(|message| message.body);
        if !matches!(first, Some(FromManager::Welcome(_))) {
            return Err(Status::internal(format!("{first:?} in place of a welcome")));
        }
        let record = Arc::new(Mutex::new(Record::default()));
        let mut reader = JoinSet::new();
        reader.spawn(read(answers, record.clone()));
        Ok(Self {
            sender,
            record,
            _reader: reader,
        })
    }

    /// Delivers a wake for an address.
    pub async fn event(&self, mac: [u8; 6]) {
        self.aged(mac, Duration::ZERO).await;
    }

    /// Delivers a wake that was heard so long ago; returns its number.
    pub async fn aged(&self, mac: [u8; 6], age: Duration) -> u64 {
        let seq = {
            let mut record = lock(&self.record);
            record.sent += 1;
            record.sent
        };
        let event = pb::Event {
            seq,
            mac: mac.into(),
            age_ms: u64::try_from(age.as_millis()).expect("a short time"),
            carrier: pb::Carrier::Udp.into(),
            interface: "eth0".to_owned(),
            length: 102,
            ..pb::Event::default()
        };
        // It fails where the session has ended, which the record tells.
        let _ = self.sender.send(message(FromAgent::Event(event))).await;
        seq
    }

    /// Waits for the final answer to an event.
    pub async fn outcome(&self, seq: u64) -> Outcome {
        let mut found = None;
        eventually("the event is settled", async || {
            let record = self.record();
            let mut answers = record.answers.iter();
            let last = answers.find(|(own, outcome)| *own == seq && *outcome != Outcome::Deferred);
            found = last.map(|(_, outcome)| *outcome);
            found.is_some()
        })
        .await;
        found.expect("it was found")
    }

    /// What became of its events so far.
    pub fn record(&self) -> Record {
        lock(&self.record).clone()
    }
}

fn message(body: FromAgent) -> AgentMessage {
    AgentMessage { body: Some(body) }
}

fn lock(record: &Mutex<Record>) -> MutexGuard<'_, Record> {
    record.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn read(mut answers: Streaming<ManagerMessage>, record: Arc<Mutex<Record>>) {
    let ended = loop {
        match answers.message().await {
            Ok(Some(message)) => match message.body {
                Some(FromManager::Ack(ack)) => {
                    let mut record = lock(&record);
                    record.answers.push((ack.seq, ack.outcome()));
                    if ack.outcome() == Outcome::Deferred {
                        record.deferred.insert(ack.seq);
                    } else {
                        record.settled.insert(ack.seq);
                    }
                }
                // Answers may follow.
                Some(FromManager::GoAway(away)) => {
                    lock(&record).ended = Some(format!("sent away: {}", away.reason));
                }
                _ => {}
            },
            Ok(None) => break "closed by the manager".to_owned(),
            Err(status) => break status.to_string(),
        }
    };
    lock(&record).ended.get_or_insert(ended);
}

/// Many sessions with one manager.
pub struct Crowd(pub Vec<Session>);

impl Crowd {
    /// One for each token, or so many without one.
    pub async fn open(way: &Way, tokens: &[Option<String>]) -> Self {
        let mut sessions = Vec::new();
        for (index, token) in tokens.iter().enumerate() {
            let session = Session::open(way, &format!("node-{index}"), token.as_deref()).await;
            sessions.push(session.expect("the manager takes the session"));
        }
        Self(sessions)
    }

    /// Each delivers one event, for an address that is only its own, and new in each round.
    pub async fn deliver(&self, round: u16) {
        let [high, low] = round.to_be_bytes();
        for (index, session) in self.0.iter().enumerate() {
            let [a, b] = u16::try_from(index).expect("not so many").to_be_bytes();
            session.event([0x52, 0x54, a, b, high, low]).await;
        }
    }

    /// Waits until every event has a final answer, and fails where a session has ended.
    pub async fn settled(&self) {
        eventually("every event is settled", async || {
            self.0.iter().all(|session| {
                let record = session.record();
                assert_eq!(record.ended, None, "a session has ended");
                record.settled.len() as u64 == record.sent
            })
        })
        .await;
    }
}
