//! Owns the agent: hears magic packets on a node and reports them to a manager.
//!
//! A packet goes from a socket ([`raw`], [`udp`]) to the [`intake`], which filters, drops repeats
//! and keeps what is left in the [`ring`], which chooses a manager for each by its [`route`], and from
//! there over the [`session`] with that manager.

mod arrival;
mod bpf;
pub mod budget;
mod configuration;
mod connect;
mod credentials;
pub mod intake;
mod interfaces;
mod lines;
mod listen;
mod listeners;
mod managers;
pub mod metrics;
pub mod monitor;
mod privileges;
mod raw;
mod resolve;
pub mod ring;
pub mod route;
mod session;
mod udp;
mod wishes;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use anyhow::Context as _;
use tokio::{runtime::Runtime, task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

pub use self::listeners::Ears;
use self::{
    configuration::Configuration, connect::Target, credentials::Credentials, intake::Intake,
    listeners::Listeners, managers::Managers, metrics::Metrics, privileges::Later, session::Common,
};
use crate::{
    admin::{self, Liveness, Readiness, SocketFile},
    cli::AgentArgs,
    rpc::pb,
    settings::Settings,
    shutdown::{DRAIN, Tasks},
    telemetry,
};

/// A task that has not taken a turn for so long hangs; each takes one every few seconds.
const STUCK_AFTER: Duration = Duration::from_secs(30);

/// One thread reads sockets while another one talks to the manager; more would only cost memory on
/// nodes with many cores.
const THREADS: usize = 2;

/// Opens the sockets and drops every privilege that is not needed any more. Call it before any
/// other thread exists: privileges belong to threads. A socket that cannot be opened is logged, and
/// the agent goes on with the others, or with those that a manager asks for later.
///
/// # Errors
///
/// The options make no sense, or the privileges cannot be dropped.
pub fn open(args: &AgentArgs) -> anyhow::Result<Ears> {
    if args.monitor.monitor {
        monitor::settings(args)?;
        return open_for_a_person(args);
    }
    Target::all(args)?;
    if args.insecure {
        tracing::warn!(
            "sessions with managers are neither encrypted nor authenticated (--insecure)"
        );
    }
    let ears = Ears::open(!args.no_raw, &ports(args));
    let later = match &*args.wol_ports {
        [] => Later::Any,
        _ => Later::Only(ears.not_open()),
    };
    privileges::drop_unneeded(&later)?;
    Ok(ears)
}

/// The same where a person watches: nothing is opened later, and nothing is taken from an agent.
fn open_for_a_person(args: &AgentArgs) -> anyhow::Result<Ears> {
    let ears = Ears::open_beside_an_agent(!args.no_raw, &ports(args));
    privileges::drop_unneeded(&Later::Only(BTreeSet::new()))?;
    Ok(ears)
}

/// The ports to listen on until a manager says which.
fn ports(args: &AgentArgs) -> BTreeSet<u16> {
    match &*args.wol_ports {
        [] => Settings::DEFAULT_PORTS.into(),
        given => given.iter().copied().collect(),
    }
}

/// The runtime for [`run`]; its threads have the privileges of this one.
///
/// # Errors
///
/// The threads cannot be started.
pub fn runtime() -> anyhow::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .enable_all()
        .build()
        .context("cannot start the async runtime")
}

/// Hears and reports until `token` is cancelled; then reads what the sockets have queued, waits
/// until managers have taken it, [`DRAIN`] at most, and returns.
///
/// # Errors
///
/// A part of the agent failed.
pub async fn run(args: AgentArgs, ears: Ears, token: CancellationToken) -> anyhow::Result<()> {
    let metrics = Metrics::default();
    let mut registry = telemetry::registry();
    metrics.register(&mut registry);
    let (readiness, liveness) = (Readiness::default(), Liveness::default());
    let listening = readiness.gate("a socket that listens");
    let configured = readiness.gate("the settings from a manager");

    let intake = Arc::new(Intake::new(args.node_name.clone(), metrics));
    let listeners = Listeners::start(ears, Arc::clone(&intake), listening, liveness.clone());
    let listeners = Arc::new(listeners);
    let targets = Target::all(&args)?;
    let common = Arc::new(Common {
        credentials: Credentials::new(args.token_file, args.client_tls_dir.is_some()),
        hello: pb::Hello {
            node_name: args.node_name,
            boot_id: fastrand::u64(1..),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        },
        intake: Arc::clone(&intake),
        configuration: Configuration::new(
            Arc::clone(&intake),
            Arc::clone(&listeners),
            args.wol_ports.iter().copied().collect(),
            configured,
        ),
    });
    let sessions = sessions(targets, common, liveness.clone());
    let clock = liveness.task("clock", STUCK_AFTER);
    let supervision = liveness.task("listeners", STUCK_AFTER);

    let mut tasks = Tasks::new(token.clone());
    let (registry, health) = (Arc::new(registry), (readiness, liveness));
    if let Some(address) = args.admin_bind {
        let listener = admin::bind_beside(address)?;
        let (registry, health) = (registry.clone(), health.clone());
        let admin = admin::serve(listener, registry, health, token.clone());
        tasks.spawn("admin", admin);
    }
    if let Some(path) = args.health_socket {
        let listener = SocketFile::bind(&path)?;
        let admin = admin::serve(listener, registry, health, token.clone());
        tasks.spawn("health socket", admin);
    }
    let (asked, heard_all) = (token.clone(), CancellationToken::new());
    let ears_closed = heard_all.clone();
    tasks.spawn("listeners", async move {
        listeners.supervise(token, supervision).await;
        ears_closed.cancel();
        Ok(())
    });
    tasks.spawn("sessions", async move {
        tokio::select! {
            failed = sessions => failed,
            never = managers::keep_time(&intake, clock) => match never {},
            () = flush(&intake, asked, heard_all) => Ok(()),
        }
    });
    tasks.join().await
}

/// Keeps a session with every manager, until one of them fails for good.
async fn sessions(
    targets: Vec<Target>,
    common: Arc<Common>,
    liveness: Liveness,
) -> anyhow::Result<()> {
    let mut names = JoinSet::new();
    for target in targets {
        let managers = Managers::new(Arc::clone(&common), target, liveness.clone());
        names.spawn(managers.keep());
    }
    // None of them ends but by failing.
    match names.join_next().await {
        Some(ended) => match ended.context("the sessions of a name failed")?? {},
        None => Ok(()),
    }
}

/// Waits until the end is asked for, the sockets are closed, and everything they heard is in a
/// manager's hands.
async fn flush(intake: &Intake, asked: CancellationToken, heard_all: CancellationToken) {
    asked.cancelled().await;
    let patience = Instant::now() + crate::pace::of(DRAIN);
    let flushed = async {
        heard_all.cancelled().await;
        intake.flushed(patience.into_std()).await;
    };
    if tokio::time::timeout_at(patience, flushed).await.is_err() {
        let wakes = intake.metrics().unsettled.get();
        tracing::warn!(wakes, "ends although no manager took all that was heard");
    }
}
