//! Owns the manager: maps MAC addresses to virtual machines and starts them.

pub mod census;
pub mod config;
pub mod daemon_set;
pub mod directory;
pub mod dirty;
pub mod events;
pub mod grant;
pub mod intents;
pub mod last_wake;
pub mod leader;
pub mod legacy;
pub mod marks;
pub mod metrics;
pub mod options;
pub mod peer;
pub mod pulse;
pub mod reconcile;
pub mod report;
pub mod rights;
pub mod server;
pub mod service;
pub mod sessions;
pub mod start;
pub mod status;
pub mod throttle;
pub mod vm;
pub mod waker;
pub mod watch;

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use kube::Client;
use prometheus_client::registry::Registry;
use tokio::{net::TcpListener, sync::watch as channel};
use tokio_util::sync::CancellationToken;

use crate::{
    admin::{self, Gate, Liveness, Readiness},
    cli::ManagerArgs,
    cluster,
    settings::Settings,
    shutdown::Tasks,
    telemetry,
};

use config::Windows;
use daemon_set::DaemonSetName;
use dirty::Dirty;
use events::{Events, Scribe};
use intents::Limits;
use last_wake::{LastWakeWriter, LastWakes};
use leader::{Elector, Leadership};
use legacy::Legacy;
use metrics::Metrics;
use options::Options;
use pulse::Pulse;
use reconcile::{Reconciler, Sources, Writer};
use server::Server;
use service::Agents;
use sessions::Sessions;
use start::Starter;
use status::DaemonSetSeen;
use waker::{Forbidden, Freshness, Front, Tools, Waker};
use watch::Watch;

/// A task that has not taken a turn for so long hangs; each takes one every few seconds.
const STUCK_AFTER: Duration = Duration::from_secs(30);

/// Serves agents until `token` is cancelled.
///
/// # Errors
///
/// The options make no sense, no cluster is configured, a port is taken, or a part of the manager
/// failed. An API server that does not answer is no error: the manager waits for it, not ready.
pub async fn run(args: ManagerArgs, token: CancellationToken) -> anyhow::Result<()> {
    if !args.insecure {
        bail!(
            "this version accepts agents only without encryption and without knowing who they \
             are; where that is acceptable, say so with --insecure (WOL_INSECURE=true)"
        );
    }
    tracing::warn!("agents are accepted without encryption, and without knowing who they are");
    let grpc = TcpListener::bind(args.grpc_bind).await.with_context(|| {
        format!(
            "cannot listen on {} for agents; choose another address with --grpc-bind",
            args.grpc_bind
        )
    })?;
    let admin = admin::bind(args.admin_bind).await?;
    let config = cluster::config().await?;
    tracing::info!(server = %config.cluster_url, "Kubernetes API");
    serve(args, cluster::client(config)?, (grpc, admin), token).await
}

/// As [`run`], with a client that does not retry by itself, and with the listeners for agents and
/// for `/metrics`, `/livez` and `/readyz`.
///
/// # Errors
///
/// An option makes no sense, or a part of the manager failed.
pub async fn serve(
    args: ManagerArgs,
    client: Client,
    (grpc, admin): (TcpListener, TcpListener),
    token: CancellationToken,
) -> anyhow::Result<()> {
    let options = Options::try_from(args)?;
    Manager::new(&options, client, grpc, token).run(admin).await
}

/// What writes the status of the configs, on the leader.
struct Leading {
    dirty: Arc<Dirty>,
    daemon_set: channel::Sender<Option<DaemonSetSeen>>,
    elector: Elector,
    reconciler: Reconciler,
}

/// What the leader needs of the other parts.
struct Others {
    sessions: Arc<Sessions>,
    events: Events,
    listed: Vec<Gate>,
    forbidden: Forbidden,
}

impl Leading {
    fn new(
        options: &Options,
        watch: &Watch,
        Others {
            sessions,
            events,
            listed,
            forbidden,
        }: Others,
        registry: &mut Registry,
    ) -> Self {
        let (client, directory) = (&watch.client, &watch.directory);
        let dirty = Arc::new(Dirty::default());
        let (daemon_set, seen) = channel::channel(None);
        let (held, leadership) = Leadership::channel();
        leadership.register(registry);
        let writer = Writer::new(client.clone(), events, directory.clone());
        writer.register(registry);
        let sources = Sources {
            directory: directory.clone(),
            dirty: dirty.clone(),
            in_force: watch.in_force.subscribe(),
            kubevirt: watch.kubevirt.subscribe(),
            stale: watch.stale.subscribe(),
            daemon_set: seen,
            forbidden,
            sessions,
            leadership,
        };
        let names = (&*options.daemon_set.namespace, &*options.replica);
        Self {
            dirty,
            daemon_set,
            elector: Elector::new(client.clone(), names, options.timing, listed, held),
            reconciler: Reconciler::new(sources, writer),
        }
    }
}

/// All parts, connected with each other and not running yet.
struct Manager {
    registry: Registry,
    readiness: Readiness,
    liveness: Liveness,
    scribe: Scribe,
    watch: Watch,
    windows: Windows,
    settings: channel::Sender<(u64, Arc<Settings>)>,
    /// Opened by the first lists of VMs and of configs.
    listed: [Gate; 2],
    waker: Waker,
    server: Server,
    leading: Leading,
    daemon_set: DaemonSetName,
    last_wakes: LastWakeWriter,
    token: CancellationToken,
}

impl Manager {
    fn new(options: &Options, client: Client, grpc: TcpListener, token: CancellationToken) -> Self {
        let mut registry = telemetry::registry();
        let client = cluster::counted(client, &mut registry);
        let metrics = Metrics::new(&mut registry);
        metrics.insecure.set(i64::from(options.insecure));
        let (readiness, liveness) = (Readiness::default(), Liveness::default());
        let listed = ["the list of virtual machines", "the list of WolConfigs"]
            .map(|name| readiness.gate(name));
        let replica = options.replica.clone();
        let (events, scribe) = Events::new(client.clone(), replica.clone(), metrics.clone());
        let watch = Watch::new(
            client.clone(),
            &mut registry,
            liveness.clone(),
            token.clone(),
        );
        let last_wakes = Arc::new(LastWakes::default());
        let tools = Tools {
            directory: watch.directory.clone(),
            contact: watch.contact.clone(),
            starter: Starter::new(client.clone(), options.start_timeout),
            events: events.clone(),
            journal: Arc::default(),
            last_wakes: last_wakes.clone(),
            metrics: metrics.clone(),
        };
        let (settings, pushed) = channel::channel((0, Arc::new(Settings::default())));
        let (waker, reports) = wakes(options.limits.clone(), tools, listed.to_vec());
        let agents = Agents {
            replica,
            settings: pushed,
            reports,
            sessions: Sessions::new(metrics.clone()),
            metrics,
            pulse: Pulse::new(),
            token: token.clone(),
        };
        let last_wakes = LastWakeWriter::new(client, last_wakes, watch.in_force.subscribe());
        let others = Others {
            sessions: agents.sessions.clone(),
            events,
            listed: listed.to_vec(),
            forbidden: waker.forbidden(),
        };
        let leading = Leading::new(options, &watch, others, &mut registry);
        Self {
            registry,
            scribe,
            watch,
            windows: options.windows,
            settings,
            listed,
            waker,
            leading,
            daemon_set: options.daemon_set.clone(),
            last_wakes,
            server: server(grpc, agents, &readiness),
            readiness,
            liveness,
            token,
        }
    }

    async fn run(self, admin: TcpListener) -> anyhow::Result<()> {
        let (token, server) = (self.token, self.server);
        let [vms, configs] = self.listed;
        let heart = |name| self.liveness.task(name, STUCK_AFTER);
        let health = (self.readiness, self.liveness.clone());
        // Cancelled when the server and the waker have ended: what must outlive them ends then.
        let last = CancellationToken::new();
        let guard = Arc::new(last.clone().drop_guard());
        let mut tasks = Tasks::new(token.clone());
        tasks.spawn(
            "admin",
            admin::serve(admin, self.registry.into(), health, last.clone()),
        );
        tasks.spawn("events", self.scribe.run(last.clone(), heart("events")));
        // Given back when nothing is done any more that needs it.
        tasks.spawn("leader", self.leading.elector.run(last, heart("leader")));
        let reconciler = self.leading.reconciler;
        tasks.spawn("status", reconciler.run(token.clone(), heart("status")));
        let seen = self.leading.daemon_set;
        let client = self.watch.client.clone();
        let heartbeat = heart("daemon set");
        tasks.spawn(
            "daemon set",
            daemon_set::watch(client, self.daemon_set, seen, token.clone(), heartbeat),
        );
        let last_wakes = self.last_wakes;
        tasks.spawn(
            "last wakes",
            last_wakes.run(token.clone(), heart("last wakes")),
        );
        let pulse = server.agents.pulse.clone();
        tasks.spawn("pulse", pulse.run(token.clone(), heart("pulse")));
        tasks.spawn(
            "staleness",
            self.watch.clone().staleness(heart("staleness")),
        );
        tasks.spawn(
            "virtual machines",
            self.watch
                .clone()
                .virtual_machines(vec![self.waker.changes(), self.leading.dirty], vms),
        );
        tasks.spawn(
            "configs",
            self.watch.wol_configs(self.windows, self.settings, configs),
        );
        let waker = self.waker.run(token, heart("waker"));
        tasks.spawn("waker", holding(guard.clone(), waker));
        tasks.spawn("agents", holding(guard, server.run(heart("agents"))));
        tasks.join().await
    }
}

/// Drops `guard` when `task` has ended.
async fn holding<G, T>(guard: G, task: impl Future<Output = T>) -> T {
    let result = task.await;
    drop(guard);
    result
}

fn wakes(limits: Limits, tools: Tools, listed: Vec<Gate>) -> (Waker, Arc<Front>) {
    let freshness = Freshness {
        event_ttl: limits.event_ttl,
        wake_deadline: limits.wake_deadline,
    };
    let (waker, queue) = Waker::new(limits, tools.clone());
    let front = Front::new(tools, queue, freshness, listed);
    (waker, Arc::new(front))
}

fn server(listener: TcpListener, agents: Agents, readiness: &Readiness) -> Server {
    Server {
        listener,
        serving: readiness.gate("the listener for agents"),
        legacy: Legacy {
            reports: agents.reports.clone(),
            metrics: agents.metrics.clone(),
            readiness: readiness.clone(),
            token: agents.token.clone(),
        },
        agents,
    }
}
