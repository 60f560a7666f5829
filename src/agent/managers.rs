//! Owns [`Managers`]: a session with each manager that a name leads to.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use tokio::{task::JoinSet, time::MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::{
    STUCK_AFTER,
    connect::Target,
    intake::Intake,
    resolve::Resolver,
    session::{Common, Session},
};
use crate::admin::{Heartbeat, Liveness};

/// How often the intake is told that time has passed.
const TICK: Duration = Duration::from_millis(250);

/// Sessions at most for one name: far more than anybody runs replicas, as whoever answers for the
/// name must not make the agent open connections without end.
const MAX_SESSIONS: usize = 32;

/// The managers behind one name, or at one address.
pub(super) struct Managers {
    common: Arc<Common>,
    target: Arc<Target>,
    liveness: Liveness,
    sessions: JoinSet<SocketAddr>,
    /// Those that run; cancelled once the address is none of a manager any more.
    running: BTreeMap<SocketAddr, CancellationToken>,
}

impl Managers {
    pub(super) fn new(common: Arc<Common>, target: Target, liveness: Liveness) -> Self {
        Self {
            common,
            target: Arc::new(target),
            liveness,
            sessions: JoinSet::new(),
            running: BTreeMap::new(),
        }
    }

    /// Keeps the sessions for ever.
    ///
    /// # Errors
    ///
    /// A session panicked.
    pub(super) async fn keep(mut self) -> anyhow::Result<Infallible> {
        let (host, port) = self.target.host();
        let resolver = Resolver::new(host, port, self.common.intake.metrics().clone());
        let mut found = resolver.subscribe();
        let asking = resolver.run(self.liveness.task("name resolution", STUCK_AFTER));
        let mut asking = std::pin::pin!(asking);
        loop {
            let ended = tokio::select! {
                never = &mut asking => match never {},
                // The other end is `asking`, so it does not go away.
                _ = found.changed() => None,
                Some(ended) = self.sessions.join_next() => Some(ended),
            };
            if let Some(ended) = ended {
                let address = ended.context("the session with a manager failed")?;
                self.running.remove(&address);
            }
            let wanted = found.borrow_and_update().clone();
            self.arrange(&wanted.unwrap_or_default());
        }
    }

    /// Begins the sessions that are missing, and asks those to end that are too many. One that is
    /// about to end while its address comes back is begun anew when it has.
    fn arrange(&mut self, wanted: &BTreeSet<SocketAddr>) {
        for (address, gone) in &self.running {
            if !wanted.contains(address) {
                gone.cancel();
            }
        }
        for address in wanted.iter().take(MAX_SESSIONS) {
            if !self.running.contains_key(address) {
                self.begin(*address);
            }
        }
    }

    fn begin(&mut self, address: SocketAddr) {
        let gone = CancellationToken::new();
        let session = Session {
            common: Arc::clone(&self.common),
            target: Arc::clone(&self.target),
            address,
            gone: gone.clone(),
            heart: self.liveness.task("session", STUCK_AFTER),
        };
        self.running.insert(address, gone);
        self.sessions.spawn(async move {
            session.keep().await;
            address
        });
    }
}

/// Lets the time of the intake pass, for ever.
pub(super) async fn keep_time(intake: &Intake, heart: Heartbeat) -> Infallible {
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let now = tick.tick().await;
        heart.beat();
        intake.tick(now.into_std());
    }
}
