//! Owns the manager: maps MAC addresses to virtual machines and starts them.

pub mod accept;
pub mod authority;
pub mod census;
pub mod client_trust;
pub mod config;
pub mod daemon_set;
pub mod directory;
pub mod dirty;
pub mod events;
pub mod grant;
mod guarding;
pub mod identity;
pub mod intents;
pub mod last_wake;
pub mod leader;
mod leading;
pub mod legacy;
pub mod marks;
pub mod metrics;
pub mod options;
pub mod passwords;
pub mod peer;
pub mod pulse;
pub mod quota;
pub mod readers;
pub mod reconcile;
pub mod report;
pub mod rights;
pub mod server;
pub mod service;
pub mod sessions;
pub mod start;
pub mod status;
pub mod tls_dir;
pub mod transport;
pub mod vm;
pub mod wakeable_push;
pub mod waker;
pub mod watch;

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
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

use authority::{Authority, Serving};
use config::Windows;
use daemon_set::DaemonSetName;
use events::{Events, Scribe};
use guarding::Guarding;
use identity::Banned;
use intents::Limits;
use last_wake::{LastWakeWriter, LastWakes};
use leader::Leadership;
use leading::{Leading, Others};
use legacy::Legacy;
use metrics::{Metrics, TransportMetrics};
use options::{Options, Protection};
use server::Server;
use service::Agents;
use sessions::Sessions;
use start::Starter;
use transport::{Keeping, Transport};
use wakeable_push::Collector;
use waker::{Freshness, Front, Tools, Waker};
use watch::{Observer, Watch};

/// A task that has not taken a turn for so long hangs; each takes one every few seconds.
const STUCK_AFTER: Duration = Duration::from_secs(30);

/// What readiness waits for before anything can be woken.
const LISTS: [&str; 2] = ["the list of virtual machines", "the list of WolConfigs"];

/// Serves agents until `token` is cancelled.
///
/// # Errors
///
/// The options make no sense, no cluster is configured, a port is taken, or a part of the manager
/// failed. An API server that does not answer is no error: the manager waits for it, not ready.
pub async fn run(args: ManagerArgs, token: CancellationToken) -> anyhow::Result<()> {
    // Said before anything is opened.
    Options::try_from(args.clone())?;
    let grpc = accept::listen(args.grpc_bind).with_context(|| {
        format!(
            "cannot listen on {} for agents; choose another address with --grpc-bind",
            args.grpc_bind
        )
    })?;
    let admin = admin::bind(args.admin_bind).await?;
    let config = cluster::config().await?;
    tracing::info!(server = %config.cluster_url, "Kubernetes API");
    Box::pin(serve(args, cluster::client(config)?, (grpc, admin), token)).await
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
    let plaintext = transport::bind_plaintext(&options)?;
    let manager = Manager::new(&options, client, (grpc, plaintext), token)?;
    // Boxed: it holds every part.
    Box::pin(manager.run(admin)).await
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
    guarding: Guarding,
    leading: Leading,
    collector: Collector,
    daemon_set: DaemonSetName,
    last_wakes: LastWakeWriter,
    token: CancellationToken,
    /// Cancelled when the server and the waker have ended: what must outlive them ends then. They
    /// need the watches, as only these tell what came of the last starts.
    last: CancellationToken,
}

impl Manager {
    fn new(
        options: &Options,
        client: Client,
        (grpc, plaintext): (TcpListener, Option<TcpListener>),
        token: CancellationToken,
    ) -> anyhow::Result<Self> {
        let mut registry = telemetry::registry();
        let client = cluster::counted(client, &mut registry);
        let (metrics, transport) = reached(options, &mut registry)?;
        let (readiness, liveness) = (Readiness::default(), Liveness::default());
        let listed = LISTS.map(|name| readiness.gate(name));
        let replica = options.replica.clone();
        let (events, scribe) = Events::new(client.clone(), replica.clone(), metrics.clone());
        let last = CancellationToken::new();
        let lives = (liveness.clone(), last.clone());
        let watch = watched(options, client.clone(), &mut registry, lives);
        let last_wakes = Arc::new(LastWakes::default());
        let tools = tools(options, &watch, &events, (&last_wakes, &metrics));
        let (settings, pushed) = channel::channel((0, Arc::new(Settings::default())));
        let interval = options.wakeable_interval;
        let (collector, wakeable) = Collector::new(&watch, listed.to_vec(), interval);
        let (waker, reports) = wakes(options.limits.clone(), tools, listed.to_vec());
        let banned = Banned::new(options, client.clone(), &mut registry, &readiness);
        let agents = Agents {
            replica,
            authenticator: banned.authenticator(&options.protection, &transport),
            settings: pushed,
            wakeable: (wakeable, interval),
            reports,
            sessions: Sessions::new(metrics.clone()),
            metrics,
            pulse: watch.pulse.clone(),
            token: token.clone(),
        };
        let last_wakes =
            LastWakeWriter::new(client.clone(), last_wakes, watch.in_force.subscribe());
        let others = Others {
            sessions: agents.sessions.clone(),
            events,
            listed: listed.to_vec(),
            forbidden: waker.forbidden(),
        };
        let leading = Leading::new(options, &watch, others, &mut registry);
        let leadership = leading.leadership.clone();
        let authority = authority(options, client, &transport, (leadership, &mut registry));
        let (server, transport) = server((grpc, plaintext), transport, agents, &readiness);
        Ok(Self {
            registry,
            scribe,
            watch,
            windows: options.windows,
            settings,
            listed,
            waker,
            leading,
            collector,
            daemon_set: options.daemon_set.clone(),
            last_wakes,
            server,
            guarding: Guarding::new(transport, authority, banned),
            readiness,
            liveness,
            token,
            last,
        })
    }

    async fn run(self, admin: TcpListener) -> anyhow::Result<()> {
        let (token, server) = (self.token, self.server);
        let [vms, configs] = self.listed;
        let heart = |name| self.liveness.task(name, STUCK_AFTER);
        let health = (self.readiness, self.liveness.clone());
        let last = self.last;
        let guard = Arc::new(last.clone().drop_guard());
        let mut tasks = Tasks::new(token.clone());
        tasks.spawn(
            "admin",
            admin::serve(admin, self.registry.into(), health, last.clone()),
        );
        tasks.spawn("events", self.scribe.run(last.clone(), heart("events")));
        let observers: Vec<Arc<dyn Observer>> = vec![
            self.waker.changes(),
            self.leading.dirty.clone(),
            self.collector.dirty.clone(),
        ];
        passwords(&self.watch, &self.daemon_set.namespace, &mut tasks);
        let followed = (self.watch.client.clone(), self.daemon_set);
        // The Lease is given back when nothing is done any more that needs it.
        let ends = (token.clone(), last.clone());
        self.leading.spawn(&mut tasks, followed, ends, heart);
        let last_wakes = self.last_wakes;
        tasks.spawn(
            "last wakes",
            last_wakes.run(last.clone(), heart("last wakes")),
        );
        // Beats as long as anybody asks it: who starves it is taken for a process that stood still.
        let pulse = server.agents.pulse.clone();
        tasks.spawn("pulse", pulse.run(last, heart("pulse")));
        tasks.spawn(
            "staleness",
            self.watch.clone().staleness(heart("staleness")),
        );
        tasks.spawn(
            "virtual machines",
            self.watch.clone().virtual_machines(observers, vms),
        );
        let collector = self.collector;
        tasks.spawn(
            "wakeable addresses",
            collector.run(token.clone(), heart("wakeable addresses")),
        );
        tasks.spawn(
            "configs",
            self.watch.wol_configs(self.windows, self.settings, configs),
        );
        self.guarding.spawn(&mut tasks, &token, heart);
        let waker = self.waker.run(token, heart("waker"));
        tasks.spawn("waker", holding(guard.clone(), waker));
        tasks.spawn("agents", holding(guard, server.run(heart("agents"))));
        tasks.join().await
    }
}

/// What is counted, and how agents reach the manager.
fn reached(options: &Options, registry: &mut Registry) -> anyhow::Result<(Metrics, Transport)> {
    let metrics = Metrics::new(registry);
    let insecure = options.protection == Protection::Insecure;
    metrics.insecure.set(i64::from(insecure));
    let transport = Transport::new(&options.protection, TransportMetrics::new(registry))?;
    Ok((metrics, transport))
}

/// Drops `guard` when `task` has ended.
async fn holding<G, T>(guard: G, task: impl Future<Output = T>) -> T {
    let result = task.await;
    drop(guard);
    result
}

/// The watches, with the names of the Secrets that may be read.
fn watched(
    options: &Options,
    client: Client,
    registry: &mut Registry,
    (liveness, token): (Liveness, CancellationToken),
) -> Watch {
    let watch = Watch::new(client, registry, liveness, token);
    watch.directory.set_passwords(options.passwords.clone());
    watch
}

/// Follows the Secrets with SecureOn passwords.
fn passwords(watch: &Watch, namespace: &str, tasks: &mut Tasks) {
    for secret in watch.directory.passwords().names() {
        let watch = watch.clone();
        let passwords = watch.secure_on(namespace.into(), secret.clone());
        tasks.spawn("passwords", passwords);
    }
}

fn tools(
    options: &Options,
    watch: &Watch,
    events: &Events,
    (last_wakes, metrics): (&Arc<LastWakes>, &Metrics),
) -> Tools {
    Tools {
        directory: watch.directory.clone(),
        contact: watch.contact.clone(),
        pulse: watch.pulse.clone(),
        starter: Starter::new(watch.client.clone(), options.start_timeout),
        events: events.clone(),
        journal: Arc::default(),
        last_wakes: last_wakes.clone(),
        metrics: metrics.clone(),
    }
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

/// What makes the serving certificate, where the managers make it themselves.
fn authority(
    options: &Options,
    client: Client,
    transport: &Transport,
    (leadership, registry): (Leadership, &mut Registry),
) -> Option<Authority> {
    let metrics = authority::metrics::Metrics::register(registry);
    if options.protection != Protection::OwnCa {
        return None;
    }
    let serving = Serving {
        slot: transport.slot.clone(),
        expiry: transport.metrics.serving_expiry.clone(),
    };
    let options = options.authority.clone();
    Some(Authority::new(
        client, options, serving, leadership, metrics,
    ))
}

fn server(
    (grpc, plaintext): (TcpListener, Option<TcpListener>),
    transport: Transport,
    agents: Agents,
    readiness: &Readiness,
) -> (Server, Keeping) {
    let legacy = Legacy {
        authenticator: agents.authenticator.clone(),
        reports: agents.reports.clone(),
        metrics: agents.metrics.clone(),
        readiness: readiness.clone(),
        token: agents.token.clone(),
    };
    let server = Server {
        serving: readiness.gate("the listener for agents"),
        certificate: transport.certificate(readiness),
        acceptor: transport.acceptor(grpc),
        legacy: legacy.clone(),
        agents,
    };
    (server, transport.keeping(plaintext, legacy))
}
