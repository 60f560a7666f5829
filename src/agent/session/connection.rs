//! Owns [`Connection`]: a session from its welcome to its end.

use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::{sync::mpsc, time::Instant};
use tonic::Streaming;

use super::{Session, from_agent};
use crate::{
    agent::{
        credentials::{Renewal, Token},
        intake::Outlet,
    },
    rpc::{
        self,
        pb::{
            self, AgentMessage, ConfigurationStatus, Credential, ManagerMessage,
            agent_message::Body as FromAgent, manager_message::Body as FromManager,
        },
    },
};

/// How often it is looked for what changed without a message.
const TICK: Duration = Duration::from_millis(250);

/// A manager that goes away gets this long to answer what it has been sent.
const FAREWELL: Duration = Duration::from_secs(1);

/// And this long where it is only not named any more: it may be well, and unready.
const LONG_FAREWELL: Duration = Duration::from_secs(10);

/// A manager cannot keep the agent away for longer, as what is heard meanwhile gets old.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(5);

/// One connection, after its welcome.
pub(super) struct Connection<'a> {
    session: &'a Session,
    outlet: Outlet,
    renewal: Renewal<'a>,
    /// The token that the manager is to be sent next.
    renewed: Option<Token>,
    /// When to leave, and when to come back; set once the manager is sent nothing new.
    leaving: Option<(Instant, Duration)>,
    /// What the manager was told last about its settings, and the revision of the listeners then.
    told: Option<(ConfigurationStatus, u64)>,
    /// What it is to be told next.
    news: Option<ConfigurationStatus>,
}

impl<'a> Connection<'a> {
    pub(super) fn new(session: &'a Session, outlet: Outlet, renewal: Renewal<'a>) -> Self {
        Self {
            session,
            outlet,
            renewal,
            renewed: None,
            leaving: None,
            told: None,
            news: None,
        }
    }

    /// Serves until the manager goes away; tells when to come back.
    pub(super) async fn serve(
        mut self,
        outgoing: &mpsc::Sender<AgentMessage>,
        mut incoming: Streaming<ManagerMessage>,
    ) -> anyhow::Result<Duration> {
        let mut tick = tokio::time::interval(crate::pace::of(TICK));
        loop {
            self.session.heart.beat();
            if let Some((deadline, retry_after)) = self.leaving
                && (Instant::now() >= deadline || !self.outlet.awaits_answers())
            {
                return Ok(retry_after);
            }
            let has_due = self.outlet.has_due(Instant::now().into_std());
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
                        None => send_due(&self.outlet, permit, outgoing),
                    }
                }
                () = self.outlet.due() => {}
                () = self.session.gone.cancelled(), if self.leaving.is_none() => {
                    tracing::info!(manager = &**self.outlet.replica(), "not a manager any more");
                    self.leave(crate::pace::of(LONG_FAREWELL), Duration::ZERO);
                }
                _ = tick.tick() => self.look_for_news(),
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

    /// All that is not answered goes to other managers at once, and this one may still answer.
    fn leave(&mut self, farewell: Duration, retry_after: Duration) {
        self.outlet.leave();
        self.leaving = Some((Instant::now() + farewell, retry_after));
    }

    fn take(&mut self, message: ManagerMessage) {
        match message.body {
            Some(FromManager::Ack(ack)) => {
                let answer = rpc::answer(&ack);
                tracing::debug!(seq = ack.seq, ?answer, "answered");
                let now = Instant::now().into_std();
                self.outlet.answer(ack.seq, &answer, now);
            }
            Some(FromManager::Configuration(configuration)) => {
                let replica = self.outlet.replica();
                let status = self
                    .session
                    .common
                    .configuration
                    .take(replica, &configuration);
                self.tell(status);
            }
            Some(FromManager::GoAway(away)) => {
                let manager = &**self.outlet.replica();
                tracing::info!(manager, reason = away.reason, "the manager goes away");
                let retry_after = Duration::from_millis(away.retry_after_ms)
                    .min(crate::pace::of(MAX_RETRY_AFTER));
                self.leave(crate::pace::of(FAREWELL), retry_after);
            }
            Some(FromManager::WakeableMacs(message)) => self.prefer(message),
            // A repeated welcome says nothing new; an unknown message is from the future.
            Some(FromManager::Welcome(_)) | None => {}
        }
    }

    fn prefer(&self, message: pb::WakeableMacs) {
        match rpc::wakeable(message) {
            Ok(Some(wakeable)) => self.outlet.prefer(wakeable),
            Ok(None) => tracing::debug!("the manager knows a newer kind of filter"),
            Err(error) => tracing::warn!(%error, "the filter of wakeable addresses is not used"),
        }
    }

    /// Whether the token changed, or a listener since the manager was told.
    fn look_for_news(&mut self) {
        if let Some((status, revision)) = &self.told
            && *revision != self.session.common.configuration.revision()
        {
            let status = status.clone();
            self.tell(status);
        }
        if let Some(token) = self.renewal.due() {
            tracing::info!("a new token is sent to the manager");
            self.renewed = Some(token);
        }
    }

    fn tell(&mut self, mut status: ConfigurationStatus) {
        let (revision, listeners) = self.session.common.configuration.listeners();
        status.listeners = listeners;
        self.told = Some((status.clone(), revision));
        self.news = Some(status);
    }
}

impl Drop for Connection<'_> {
    fn drop(&mut self) {
        let replica = self.outlet.replica();
        self.session.common.configuration.withdraw(replica);
    }
}

/// Sends what is due, as long as the connection takes it at once.
fn send_due(
    outlet: &Outlet,
    first: mpsc::Permit<'_, AgentMessage>,
    outgoing: &mpsc::Sender<AgentMessage>,
) {
    let mut place = Some(first);
    while let Some(permit) = place {
        let Some(event) = outlet.next_event(Instant::now().into_std()) else {
            return;
        };
        permit.send(from_agent(FromAgent::Event(event)));
        place = outgoing.try_reserve().ok();
    }
}
