//! Owns the session with a manager: it comes back by itself, brings events there, and takes answers
//! and settings from there.

use std::{collections::BTreeSet, convert::Infallible, sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use tokio::{sync::mpsc, time::Instant};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Streaming};

use super::{
    connect::{Backoff, CONNECT_TIMEOUT, Failure, Target},
    credentials::{Credentials, Renewal, Token},
    intake::Intake,
    listeners::Listeners,
};
use crate::{
    admin::{Gate, Heartbeat},
    rpc::{
        self,
        pb::{
            self, AgentMessage, ConfigurationStatus, Credential, ManagerMessage,
            agent_message::Body as FromAgent, agent_service_client::AgentServiceClient,
            manager_message::Body as FromManager,
        },
    },
    settings::Settings,
};

/// How often the ring is asked what has become due by the passing of time.
const TICK: Duration = Duration::from_millis(250);

/// Messages on their way to the connection at most: few, because their age is already written.
const OUTGOING: usize = 64;

/// A manager that goes away gets this long to answer what it has been sent.
const FAREWELL: Duration = Duration::from_secs(1);

/// A manager cannot keep the agent away for longer, as what is heard meanwhile gets old.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(5);

/// A session that ends sooner counts as another failed attempt. Else a manager that welcomes and
/// then breaks would be asked, and would break, without a pause.
const LASTING: Duration = Duration::from_secs(5);

/// UDP ports that a manager may ask for.
const MAX_PORTS: usize = 64;

/// What a session works with.
pub(super) struct Session {
    pub(super) target: Target,
    pub(super) credentials: Credentials,
    pub(super) hello: pb::Hello,
    pub(super) intake: Arc<Intake>,
    pub(super) listeners: Arc<Listeners>,
    /// Ports from the command line, which no manager overrides; none where there were none.
    pub(super) fixed_ports: BTreeSet<u16>,
    /// Opened by the first settings that were taken over.
    pub(super) configured: Gate,
    /// Beats several times a second.
    pub(super) heart: Heartbeat,
}

/// Bounds what a manager can make the agent open.
fn bounded(settings: Settings) -> Result<Settings, String> {
    match settings.udp_ports.len() {
        0..=MAX_PORTS => Ok(settings),
        n => Err(format!(
            "{n} UDP ports are too many; an agent opens at most {MAX_PORTS}"
        )),
    }
}

fn list(ports: &BTreeSet<u16>) -> String {
    let ports: Vec<_> = ports.iter().map(ToString::to_string).collect();
    ports.join(", ")
}

/// How one connection ended.
enum End {
    /// The manager asked the agent to come back after this time.
    Dismissed(Duration),
    /// The connection broke, or the manager closed it.
    Broken(anyhow::Error),
}

impl Session {
    /// Connects again and again.
    pub(super) async fn keep(&self) -> Infallible {
        let mut backoff = Backoff::default();
        let mut last = None;
        loop {
            self.heart.beat();
            let mut welcomed = None;
            let end = self.attend(&mut welcomed).await;
            self.intake.session_lost();
            self.intake.metrics().session_connected.set(0);
            if welcomed.is_some_and(|since: Instant| since.elapsed() >= LASTING) {
                backoff = Backoff::default();
            }
            let pause = match end {
                End::Dismissed(pause) => pause.max(backoff.next()),
                End::Broken(error) => {
                    let pause = backoff.next();
                    let failure = Failure::of(&error);
                    self.intake.metrics().unconnected(failure);
                    let new = last.replace(failure) != Some(failure);
                    self.complain(&error, new || backoff.attempts.is_power_of_two());
                    pause
                }
            };
            self.wait(pause).await;
            self.intake.metrics().reconnects.inc();
        }
    }

    /// A long outage is told less and less often.
    fn complain(&self, error: &anyhow::Error, news: bool) {
        let manager = self.target.uri();
        if news {
            tracing::warn!(%manager, "no session with a manager, trying on: {error:#}");
        } else {
            tracing::debug!(%manager, "no session with a manager, trying on: {error:#}");
        }
    }

    async fn wait(&self, pause: Duration) {
        let end = Instant::now() + pause;
        let mut tick = tokio::time::interval(TICK);
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(end) => return,
                now = tick.tick() => {
                    self.heart.beat();
                    self.intake.tick(now.into_std());
                }
            }
        }
    }

    /// Takes settings over, or keeps the old ones, and says which.
    fn configure(&self, configuration: &pb::Configuration) -> ConfigurationStatus {
        let generation = configuration.generation;
        let result = rpc::settings(configuration)
            .map_err(|error| error.to_string())
            .and_then(bounded);
        match result {
            Ok(settings) => {
                let message = self.apply(&settings);
                self.configured.open();
                let ports = list(self.ports(&settings));
                tracing::info!(generation, ports, "configured");
                ConfigurationStatus {
                    generation,
                    accepted: true,
                    message,
                    listeners: Vec::new(),
                }
            }
            Err(message) => {
                tracing::warn!(
                    generation,
                    "the settings are refused, the old ones stay: {message}"
                );
                ConfigurationStatus {
                    generation,
                    accepted: false,
                    message,
                    listeners: Vec::new(),
                }
            }
        }
    }

    /// Says what of the settings is not as it was asked for.
    fn apply(&self, settings: &Settings) -> String {
        self.intake.apply(settings);
        let (ports, wanted) = (self.ports(settings), &settings.udp_ports);
        self.listeners.apply(ports);
        if ports == wanted {
            String::new()
        } else {
            format!(
                "listens on UDP ports {} as --wol-port says, not on {}",
                list(ports),
                list(wanted)
            )
        }
    }

    /// The ports to listen on.
    fn ports<'a>(&'a self, settings: &'a Settings) -> &'a BTreeSet<u16> {
        if self.fixed_ports.is_empty() {
            &settings.udp_ports
        } else {
            &self.fixed_ports
        }
    }

    /// Connects, and serves that connection to its end; tells since when it was welcome.
    async fn attend(&self, welcomed: &mut Option<Instant>) -> End {
        let (outgoing, messages) = mpsc::channel(OUTGOING);
        let connecting = self.connect(&outgoing, messages);
        let (incoming, sent) = match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
            Ok(Ok(connected)) => connected,
            Ok(Err(error)) => return End::Broken(error),
            Err(_) => {
                let error = anyhow::anyhow!("no welcome within {CONNECT_TIMEOUT:?}");
                return End::Broken(error);
            }
        };
        *welcomed = Some(Instant::now());
        self.intake.metrics().session_connected.set(1);
        let connection = Connection {
            session: self,
            renewal: Renewal::new(&self.credentials, sent),
            renewed: None,
            leaving: None,
            told: None,
            news: None,
        };
        match connection.serve(&outgoing, incoming).await {
            Ok(retry_after) => End::Dismissed(retry_after),
            Err(error) => End::Broken(error),
        }
    }

    /// Says hello and waits for the welcome; tells by which token this session was opened.
    async fn connect(
        &self,
        outgoing: &mpsc::Sender<AgentMessage>,
        messages: mpsc::Receiver<AgentMessage>,
    ) -> anyhow::Result<(Streaming<ManagerMessage>, Option<Token>)> {
        // Read anew each time: it may have come, or changed, since the last.
        let token = self.credentials.for_session(self.target.is_protected())?;
        let mut request = Request::new(ReceiverStream::new(messages));
        if let Some(token) = &token {
            let header = token.header()?;
            request.metadata_mut().insert("authorization", header);
        }
        let (channel, fate) = self.target.connect().await?;
        outgoing
            .send(from_agent(FromAgent::Hello(self.hello.clone())))
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
                tracing::info!(manager, version, "welcomed by a manager");
                Ok((incoming, token))
            }
            Some(FromManager::GoAway(away)) => bail!("turned away: {}", away.reason),
            _ => bail!("the manager did not begin with a welcome"),
        }
    }
}

/// One connection, after its welcome.
struct Connection<'a> {
    session: &'a Session,
    renewal: Renewal<'a>,
    /// The token that the manager is to be sent next.
    renewed: Option<Token>,
    /// When to leave, and when to come back; set once the manager said that it goes away.
    leaving: Option<(Instant, Duration)>,
    /// What the manager was told last about its settings, and the revision of the listeners then.
    told: Option<(ConfigurationStatus, u64)>,
    /// What it is to be told next.
    news: Option<ConfigurationStatus>,
}

impl Connection<'_> {
    /// Serves until the manager goes away; tells when to come back.
    async fn serve(
        mut self,
        outgoing: &mpsc::Sender<AgentMessage>,
        mut incoming: Streaming<ManagerMessage>,
    ) -> anyhow::Result<Duration> {
        let intake = &self.session.intake;
        let mut tick = tokio::time::interval(TICK);
        loop {
            self.session.heart.beat();
            if let Some((deadline, retry_after)) = self.leaving
                && (Instant::now() >= deadline || !intake.awaits_answers())
            {
                return Ok(retry_after);
            }
            let has_due = self.leaving.is_none() && intake.has_due(Instant::now().into_std());
            tokio::select! {
                message = incoming.message() => match message.context("the session broke")? {
                    Some(message) => self.take(message),
                    None => match self.leaving {
                        Some((_, retry_after)) => return Ok(retry_after),
                        None => bail!("the manager closed the session"),
                    },
                },
                // A connection that takes no more leaves the events in the ring, and does not
                // keep the answers from being read.
                permit = outgoing.reserve(), if has_due || self.has_news() => {
                    let permit = permit.context("the session broke")?;
                    match self.message() {
                        Some(message) => permit.send(from_agent(message)),
                        None => send_due(intake, permit, outgoing),
                    }
                }
                () = intake.due() => {}
                now = tick.tick() => {
                    intake.tick(now.into_std());
                    self.look_for_news();
                    if let Some(token) = self.renewal.due() {
                        tracing::info!("a new token is sent to the manager");
                        self.renewed = Some(token);
                    }
                }
            }
        }
    }

    fn has_news(&self) -> bool {
        self.renewed.is_some() || self.news.is_some()
    }

    /// What goes before the events.
    fn message(&mut self) -> Option<FromAgent> {
        if let Some(token) = self.renewed.take() {
            let token = token.into_secret();
            return Some(FromAgent::Credential(Credential { token }));
        }
        self.news.take().map(FromAgent::ConfigurationStatus)
    }

    fn take(&mut self, message: ManagerMessage) {
        match message.body {
            Some(FromManager::Ack(ack)) => {
                let answer = rpc::answer(&ack);
                tracing::debug!(seq = ack.seq, ?answer, "answered");
                let now = Instant::now().into_std();
                self.session.intake.answer(ack.seq, &answer, now);
            }
            Some(FromManager::Configuration(configuration)) => {
                let status = self.session.configure(&configuration);
                self.tell(status);
            }
            Some(FromManager::GoAway(away)) => {
                tracing::info!(reason = away.reason, "the manager goes away");
                let retry_after = Duration::from_millis(away.retry_after_ms).min(MAX_RETRY_AFTER);
                self.leaving = Some((Instant::now() + FAREWELL, retry_after));
            }
            Some(FromManager::WakeableMacs(message)) => self.prefer(message),
            // A repeated welcome says nothing new; an unknown message is from the future.
            Some(FromManager::Welcome(_)) | None => {}
        }
    }

    fn prefer(&self, message: pb::WakeableMacs) {
        match rpc::wakeable(message) {
            Ok(Some(wakeable)) => self.session.intake.prefer(wakeable),
            Ok(None) => tracing::debug!("the manager knows a newer kind of filter"),
            Err(error) => tracing::warn!(%error, "the filter of wakeable addresses is not used"),
        }
    }

    /// Whether a listener changed since the manager was told.
    fn look_for_news(&mut self) {
        if let Some((status, revision)) = &self.told
            && *revision != self.session.listeners.revision()
        {
            let status = status.clone();
            self.tell(status);
        }
    }

    fn tell(&mut self, mut status: ConfigurationStatus) {
        let (revision, listeners) = self.session.listeners.report();
        status.listeners = listeners;
        self.told = Some((status.clone(), revision));
        self.news = Some(status);
    }
}

/// Sends what is due, as long as the connection takes it at once.
fn send_due(
    intake: &Intake,
    first: mpsc::Permit<'_, AgentMessage>,
    outgoing: &mpsc::Sender<AgentMessage>,
) {
    let mut place = Some(first);
    while let Some(permit) = place {
        let Some(event) = intake.next_event(Instant::now().into_std()) else {
            return;
        };
        permit.send(from_agent(FromAgent::Event(event)));
        place = outgoing.try_reserve().ok();
    }
}

fn from_agent(body: FromAgent) -> AgentMessage {
    AgentMessage { body: Some(body) }
}
