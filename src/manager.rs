//! Owns the manager: maps MAC addresses to virtual machines and starts them.

pub mod config;
pub mod directory;
pub mod events;
pub mod grant;
pub mod intents;
pub mod legacy;
pub mod marks;
pub mod metrics;
pub mod pulse;
pub mod report;
pub mod server;
pub mod service;
pub mod sessions;
pub mod start;
pub mod throttle;
pub mod vm;
pub mod waker;
pub mod watch;

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use k8s_openapi::jiff::SignedDuration;
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
use directory::Directory;
use events::{Events, Scribe};
use intents::Limits;
use legacy::Legacy;
use metrics::Metrics;
use pulse::Pulse;
use server::Server;
use service::Agents;
use sessions::Sessions;
use start::Starter;
use waker::{Freshness, Front, Tools, Waker};
use watch::Watch;

/// Wakes that wait for their VM at most; the throttle works through so many in three minutes.
const MAX_INTENTS: usize = 4_096;
/// Agents that wait for an answer at most, over all wakes.
const MAX_REPORTERS: usize = 131_072;
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
    Manager::new(args, client, grpc, token)?.run(admin).await
}

/// All parts, connected with each other and not running yet.
struct Manager {
    registry: Registry,
    readiness: Readiness,
    liveness: Liveness,
    starter: Starter,
    scribe: Scribe,
    watch: Watch,
    windows: Windows,
    settings: channel::Sender<(u64, Arc<Settings>)>,
    /// Opened by the first lists of VMs and of configs.
    listed: [Gate; 2],
    waker: Waker,
    server: Server,
    token: CancellationToken,
}

impl Manager {
    fn new(
        args: ManagerArgs,
        client: Client,
        grpc: TcpListener,
        token: CancellationToken,
    ) -> anyhow::Result<Self> {
        let limits = limits(&args)?;
        let windows = Windows {
            dedup: time("--agent-dedup-window", args.agent_dedup_window)?,
            event_ttl: limits.event_ttl,
        };
        let mut registry = telemetry::registry();
        let client = cluster::counted(client, &mut registry);
        let starter = Starter::new(client.clone(), time("--start-timeout", args.start_timeout)?);
        let metrics = Metrics::new(&mut registry);
        metrics.insecure.set(i64::from(args.insecure));
        let (readiness, liveness) = (Readiness::default(), Liveness::default());
        let listed = ["the list of virtual machines", "the list of WolConfigs"]
            .map(|name| readiness.gate(name));
        let replica: Arc<str> = args.replica_id.into();
        let (events, scribe) = Events::new(client.clone(), replica.clone(), metrics.clone());
        let watch = Watch {
            client,
            directory: Arc::new(Directory::new()),
            metrics: watch::Metrics::register(&mut registry),
            liveness: liveness.clone(),
            token: token.clone(),
        };
        let tools = Tools {
            directory: watch.directory.clone(),
            starter: starter.clone(),
            events,
            journal: Arc::default(),
            metrics: metrics.clone(),
        };
        let (sender, settings) = channel::channel((0, Arc::new(Settings::default())));
        let (waker, reports) = wakes(limits, tools, listed.to_vec());
        let agents = Agents {
            replica,
            settings,
            reports,
            sessions: Sessions::new(metrics.clone()),
            metrics,
            pulse: Pulse::new(),
            token: token.clone(),
        };
        Ok(Self {
            registry,
            starter,
            scribe,
            watch,
            windows,
            settings: sender,
            listed,
            waker,
            server: server(grpc, agents, &readiness),
            readiness,
            liveness,
            token,
        })
    }

    async fn run(self, admin: TcpListener) -> anyhow::Result<()> {
        let (token, server) = (self.token, self.server);
        let [vms, configs] = self.listed;
        let heart = |name| self.liveness.task(name, STUCK_AFTER);
        let warmth = 2 * self.starter.longest_turn();
        let warmth = self.liveness.task("connection", warmth);
        let health = (self.readiness, self.liveness.clone());
        // Cancelled when the server and the waker have ended: what must outlive them ends then.
        let last = CancellationToken::new();
        let guard = Arc::new(last.clone().drop_guard());
        let mut tasks = Tasks::new(token.clone());
        tasks.spawn(
            "admin",
            admin::serve(admin, self.registry.into(), health, last.clone()),
        );
        tasks.spawn("events", self.scribe.run(last, heart("events")));
        let pulse = server.agents.pulse.clone();
        tasks.spawn("pulse", pulse.run(token.clone(), heart("pulse")));
        tasks.spawn("connection", self.starter.keep_warm(token.clone(), warmth));
        tasks.spawn(
            "virtual machines",
            self.watch
                .clone()
                .virtual_machines(self.waker.changes(), vms),
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

fn limits(args: &ManagerArgs) -> anyhow::Result<Limits> {
    Ok(Limits {
        wake_deadline: time("--wake-deadline", args.wake_deadline)?,
        event_ttl: time("--event-ttl", args.event_ttl)?,
        dedup_window: time("--dedup-window", args.dedup_window)?,
        concurrency: usize::try_from(args.start_concurrency)?,
        rate: args.start_rate,
        burst: args.start_burst,
        intents: MAX_INTENTS,
        reporters: MAX_REPORTERS,
    })
}

/// Reads a time of the command line.
fn time(flag: &str, value: SignedDuration) -> anyhow::Result<Duration> {
    Duration::try_from(value)
        .ok()
        .filter(|time| !time.is_zero())
        .with_context(|| format!("{flag} {value:#} is not a time above zero, such as 10s or 5m"))
}
