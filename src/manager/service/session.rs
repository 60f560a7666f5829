//! Owns one agent's session, from its hello to its end. It is a stream that the transport polls,
//! not a task: a session whose agent does not read does not run, until `readers` ends it.

use std::{collections::HashSet, sync::Arc, time::Duration};

use futures::{Stream, stream};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep, sleep_until, timeout},
};
use tonic::{Status, Streaming};

use crate::{
    manager::{
        identity::Standing,
        metrics::{SessionEnd, Verdict},
        readers::Reading,
        report::{Reply, Report},
        sessions::{AgentId, Membership, Place, Trouble, is_node_name},
        wakeable_push::Outlet,
    },
    rpc::{
        self,
        pb::{self, AgentMessage, ManagerMessage, agent_message, manager_message},
    },
    settings::Settings,
    telemetry::Word,
    wake::{Answer, Outcome},
};

use super::{
    Agents,
    error::{HELLO_WITHIN, SessionError},
};

/// Events without any answer; past this many nothing is read until some are answered.
const MAX_UNANSWERED: usize = 1_024;
/// Answers on their way out; an event has two at most, one that defers it and the final one.
const MAX_ANSWERS: usize = 2 * MAX_UNANSWERED;
/// Events are answered within a second. Past this time their answers were lost for want of room,
/// and the agent asks again.
const ANSWERED_WITHIN: Duration = Duration::from_secs(2);
/// How often it is looked whether a late review has an answer.
const LOOK: Duration = Duration::from_millis(250);
/// A session that was sent away ends after this time at the latest.
const DRAIN: Duration = crate::shutdown::DRAIN;
/// It ends as soon as every event is answered and the agent was silent for this time.
const QUIET: Duration = Duration::from_millis(200);
/// The agent comes back to this replica after a random time up to this.
const RETRY_AFTER: Duration = Duration::from_secs(2);
/// Failed listeners of an agent that are kept.
const MAX_LISTENERS: usize = 8;
/// Characters of an agent's version and messages that are kept.
const MAX_TEXT: usize = 200;

/// How far a session got.
enum Phase {
    Greeting,
    /// An agent keeps its ports until the `WolConfig`s are known here.
    Configuring,
    Open,
    Draining {
        until: Instant,
    },
    Over,
}

pub(super) struct Session {
    agents: Agents,
    inbound: Streaming<AgentMessage>,
    standing: Standing,
    phase: Phase,
    membership: Option<Membership>,
    settings: watch::Receiver<(u64, Arc<Settings>)>,
    wakeable: Outlet,
    /// How often the process had stood still when the session began.
    gaps: (u64, watch::Receiver<u64>),
    replies: mpsc::Sender<(u64, Answer)>,
    answers: mpsc::Receiver<(u64, Answer)>,
    unanswered: HashSet<u64>,
    last_event: Instant,
    /// The agent will send nothing more.
    half_closed: bool,
    end: SessionEnd,
    reading: Reading,
    _place: Place,
}

impl Session {
    pub(super) fn new(
        agents: Agents,
        inbound: Streaming<AgentMessage>,
        standing: Standing,
        (place, reading): (Place, Reading),
    ) -> Self {
        let (replies, answers) = mpsc::channel(MAX_ANSWERS);
        Self {
            settings: agents.settings.clone(),
            wakeable: Outlet::new(agents.wakeable.0.clone(), agents.wakeable.1),
            gaps: (agents.pulse.gaps(), agents.pulse.subscribe()),
            agents,
            inbound,
            standing,
            phase: Phase::Greeting,
            membership: None,
            replies,
            answers,
            unanswered: HashSet::new(),
            last_event: Instant::now(),
            half_closed: false,
            end: SessionEnd::Lost,
            reading,
            _place: place,
        }
    }

    pub(super) fn into_stream(self) -> impl Stream<Item = Result<ManagerMessage, Status>> + Send {
        let taken = self.reading.tap();
        let messages = stream::unfold(self, |mut session| async move {
            let message = session.step().await?;
            Some((message, session))
        });
        taken.over(messages)
    }

    async fn step(&mut self) -> Option<Result<ManagerMessage, Status>> {
        match self.next().await {
            Ok(Some(body)) => Some(Ok(ManagerMessage { body: Some(body) })),
            Ok(None) => {
                if !matches!(self.phase, Phase::Over) {
                    self.end = SessionEnd::Closed;
                }
                None
            }
            Err(error) => {
                self.end = error.end();
                self.phase = Phase::Over;
                Some(Err(error.into()))
            }
        }
    }

    /// The next message for the agent; none when the session is over.
    async fn next(&mut self) -> Result<Option<manager_message::Body>, SessionError> {
        match self.phase {
            Phase::Greeting => {
                self.greet().await?;
                self.phase = Phase::Configuring;
                Ok(Some(manager_message::Body::Welcome(pb::Welcome {
                    replica_id: self.agents.replica.to_string(),
                    version: env!("CARGO_PKG_VERSION").into(),
                })))
            }
            Phase::Configuring => {
                self.phase = Phase::Open;
                if self.settings.borrow_and_update().0 == 0 {
                    return self.serve().await;
                }
                Ok(Some(self.configuration()))
            }
            Phase::Open => self.serve().await,
            Phase::Draining { until } => Ok(self.drain(until).await),
            // The error was the last message.
            Phase::Over => Ok(None),
        }
    }

    async fn greet(&mut self) -> Result<(), SessionError> {
        let message = timeout(crate::pace::of(HELLO_WITHIN), self.inbound.message())
            .await
            .map_err(|_| SessionError::HelloLate)?
            .map_err(SessionError::Broken)?;
        let Some(agent_message::Body::Hello(hello)) = message.and_then(|message| message.body)
        else {
            return Err(SessionError::NoHello);
        };
        let node = self.node(&hello.node_name)?;
        let version = cut(&hello.version);
        tracing::info!(node = &*node, version, "agent connected");
        let id = AgentId {
            node,
            boot_id: hello.boot_id,
        };
        self.membership = Some(self.agents.sessions.join(id, version));
        Ok(())
    }

    /// The node of this agent: what it proved; only where nothing has to be proven, what it says.
    fn node(&mut self, said: &str) -> Result<Arc<str>, SessionError> {
        if let Some(node) = self.standing.node() {
            if **node != *said {
                let said = cut(said);
                tracing::debug!(
                    node = &**node,
                    said,
                    "says to be of another node than it is"
                );
            }
            return Ok(node.clone());
        }
        if !is_node_name(said) {
            return Err(SessionError::Node(said.chars().take(64).collect()));
        }
        Ok(self.standing.believe(said)?)
    }

    async fn serve(&mut self) -> Result<Option<manager_message::Body>, SessionError> {
        loop {
            if self.half_closed && self.unanswered.is_empty() {
                return Ok(None);
            }
            let full = self.unanswered.len() >= MAX_UNANSWERED;
            // Who did not read was not reviewed meanwhile, and may have been refused.
            let overdue = self.standing.is_overdue();
            tokio::select! {
                biased;
                // So that an agent without a wake comes back before it has one.
                Ok(()) = self.gaps.1.changed() => return Err(self.frozen()),
                refusal = self.standing.ended() => return Err(refusal.into()),
                Some(answer) = self.answers.recv() => return Ok(Some(self.ack(answer))),
                () = self.agents.token.cancelled() => return Ok(Some(self.send_away())),
                Ok(()) = self.settings.changed() => return Ok(Some(self.configuration())),
                macs = self.wakeable.next() => {
                    let macs = rpc::wakeable_macs(&macs);
                    return Ok(Some(manager_message::Body::WakeableMacs(macs)));
                }
                () = sleep_until(self.last_event + crate::pace::of(ANSWERED_WITHIN)), if full || self.half_closed => {
                    self.unanswered.clear();
                }
                () = sleep(crate::pace::of(LOOK)), if overdue => {}
                message = self.inbound.message(), if !full && !self.half_closed && !overdue => {
                    self.take(message.map_err(SessionError::Broken)?)?;
                }
            }
        }
    }

    fn send_away(&mut self) -> manager_message::Body {
        let until = Instant::now() + crate::pace::of(DRAIN);
        self.phase = Phase::Draining { until };
        let retry_after = crate::pace::of(RETRY_AFTER).mul_f64(fastrand::f64());
        manager_message::Body::GoAway(pb::GoAway {
            reason: "this manager is shutting down".into(),
            retry_after_ms: rpc::millis(retry_after),
        })
    }

    /// Answers what still comes, and ends when nothing does.
    async fn drain(&mut self, until: Instant) -> Option<manager_message::Body> {
        let mut quiet = Instant::now() + crate::pace::of(QUIET);
        loop {
            let done = self.unanswered.is_empty();
            if self.half_closed && done {
                return None;
            }
            tokio::select! {
                biased;
                _ = self.standing.ended() => return None,
                Some(answer) = self.answers.recv() => return Some(self.ack(answer)),
                () = sleep_until(quiet), if done => return None,
                () = sleep_until(until) => return None,
                message = self.inbound.message(), if !self.half_closed => {
                    // An agent that breaks off has gone, as it was asked to.
                    self.take(message.ok()?).ok()?;
                    quiet = Instant::now() + crate::pace::of(QUIET);
                }
            }
        }
    }

    fn take(&mut self, message: Option<AgentMessage>) -> Result<(), SessionError> {
        let Some(message) = message else {
            self.half_closed = true;
            return Ok(());
        };
        match message.body {
            Some(agent_message::Body::Event(event)) => self.event(&event),
            Some(agent_message::Body::ConfigurationStatus(status)) => {
                self.configured(&status);
                Ok(())
            }
            Some(agent_message::Body::Credential(credential)) => {
                self.standing.renew(&credential.token);
                Ok(())
            }
            // A second hello changes nothing; what a newer agent may say is not for us.
            Some(agent_message::Body::Hello(_)) | None => Ok(()),
        }
    }

    fn event(&mut self, event: &pb::Event) -> Result<(), SessionError> {
        // What waited in the socket may be read before the pulse has had its turn.
        if self.agents.pulse.gaps() != self.gaps.0 {
            return Err(self.frozen());
        }
        let Some(membership) = &self.membership else {
            return Err(SessionError::NoHello);
        };
        let now = Instant::now();
        self.last_event = now;
        self.unanswered.insert(event.seq);
        let reply = Reply::new(event.seq, self.replies.clone());
        let (answer, verdict) = match rpc::wake(event) {
            Ok((wake, age)) => {
                if let Some(heard_at) = now.into_std().checked_sub(age) {
                    self.agents.reports.report(Report {
                        node: membership.node().clone(),
                        wake,
                        heard_at,
                        deferred: event.deferred,
                        reply,
                    });
                    return Ok(());
                }
                let message = "heard before the clock of this machine began".into();
                (Answer::Final(Outcome::Expired, message), Verdict::Expired)
            }
            Err(error) => {
                let answer = Answer::Final(Outcome::Invalid, error.to_string());
                (answer, Verdict::Invalid)
            }
        };
        self.agents.metrics.reported(verdict);
        if !reply.send(answer) {
            self.agents.metrics.dropped_answers.inc();
        }
        Ok(())
    }

    fn configured(&self, status: &pb::ConfigurationStatus) {
        let Some(membership) = &self.membership else {
            return;
        };
        let failed = status.listeners.iter().filter(|l| !l.error.is_empty());
        let refused = !status.accepted && status.message.is_empty();
        let message = if refused {
            "it refuses, and does not say why"
        } else {
            &status.message
        };
        let trouble = Trouble {
            message: cut(message),
            listeners: failed
                .map(|listener| (cut(&listener.name), cut(&listener.error)))
                .take(MAX_LISTENERS)
                .collect(),
        };
        let trouble = Some(trouble).filter(Trouble::is_any);
        let (node, generation) = (&**membership.node(), status.generation);
        match &trouble {
            None => tracing::info!(node, generation, "agent configured"),
            Some(trouble) => tracing::warn!(
                node,
                generation,
                accepted = status.accepted,
                %trouble,
                "agent could not do all that was asked"
            ),
        }
        membership.answered(generation, status.accepted, trouble);
    }

    fn ack(&mut self, (seq, answer): (u64, Answer)) -> manager_message::Body {
        self.unanswered.remove(&seq);
        manager_message::Body::Ack(rpc::ack(seq, &answer))
    }

    fn configuration(&mut self) -> manager_message::Body {
        let (generation, settings) = self.settings.borrow_and_update().clone();
        if let Some(membership) = &self.membership {
            membership.sent(generation);
        }
        manager_message::Body::Configuration(rpc::configuration(generation, &settings))
    }

    fn frozen(&self) -> SessionError {
        self.agents.metrics.reported(Verdict::Frozen);
        SessionError::Frozen
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let end = if self.reading.is_late() {
            SessionEnd::Unread
        } else {
            self.end
        };
        self.agents.metrics.ended(end);
        if let Some(membership) = &self.membership {
            let node = &**membership.node();
            tracing::info!(node, reason = %Word(end), "agent disconnected");
        }
    }
}

fn cut(text: &str) -> String {
    text.trim().chars().take(MAX_TEXT).collect()
}
