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
        for address in wanted {
            if self.running.len() < MAX_SESSIONS && !self.running.contains_key(address) {
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
    let mut tick = tokio::time::interval(crate::pace::of(TICK));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let now = tick.tick().await;
        heart.beat();
        intake.tick(now.into_std());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        admin::Readiness,
        agent::{Ears, Listeners, Metrics, configuration::Configuration, credentials::Credentials},
        cli::AgentArgs,
        rpc::pb,
    };

    fn managers() -> Managers {
        let args = AgentArgs {
            node_name: "node-1".to_owned(),
            monitor: crate::cli::MonitorArgs::default(),
            managers: vec!["managers:9090".to_owned()],
            token_file: "/nonexistent/token".into(),
            insecure: true,
            ca_file: "/nonexistent/ca.crt".into(),
            server_name: None,
            client_tls_dir: None,
            wol_ports: Vec::new(),
            no_raw: true,
            admin_bind: None,
            health_socket: None,
        };
        let target = Target::all(&args).unwrap().remove(0);
        let intake = Arc::new(Intake::new(args.node_name, Metrics::default()));
        let (readiness, liveness) = (Readiness::default(), Liveness::default());
        let ears = Ears::open(false, &BTreeSet::new());
        let (gate, configured) = (readiness.gate("a socket"), readiness.gate("settings"));
        let listeners = Listeners::start(ears, Arc::clone(&intake), gate, liveness.clone());
        let listeners = Arc::new(listeners);
        let common = Common {
            credentials: Credentials::new(args.token_file, false),
            hello: pb::Hello::default(),
            configuration: Configuration::new(
                Arc::clone(&intake),
                listeners,
                BTreeSet::new(),
                configured,
            ),
            intake,
        };
        Managers::new(Arc::new(common), target, liveness)
    }

    /// Addresses where nobody listens.
    fn addresses(ports: std::ops::Range<u16>) -> BTreeSet<SocketAddr> {
        ports.map(|port| ([127, 0, 0, 1], port).into()).collect()
    }

    #[tokio::test]
    async fn a_session_ends_when_its_address_is_gone_and_may_begin_anew() {
        let mut managers = managers();
        managers.arrange(&addresses(1..3));
        assert_eq!(managers.running.len(), 2);
        managers.arrange(&addresses(2..3));
        let ended = managers.sessions.join_next().await.unwrap().unwrap();
        assert_eq!(ended.port(), 1, "and the other goes on");
        managers.running.remove(&ended);
        managers.arrange(&addresses(1..3));
        assert_eq!(managers.running.len(), 2);
        assert!(managers.running.values().all(|gone| !gone.is_cancelled()));
    }

    #[tokio::test]
    async fn a_name_of_too_many_addresses_makes_no_more_sessions_than_that() {
        let mut managers = managers();
        managers.arrange(&addresses(1..200));
        assert_eq!(managers.running.len(), MAX_SESSIONS);
        // Others take the places of those that are gone only once they have ended.
        managers.arrange(&addresses(100..300));
        assert_eq!(managers.sessions.len(), MAX_SESSIONS);
    }
}
