//! Wake-on-LAN for KubeVirt: a magic packet starts the powered-off virtual machine.
//!
//! One program, several subcommands. The path of one wake, top to bottom:
//!
//! ```text
//! agent    agent::raw, agent::udp   sockets; opened before the async runtime exists
//!          frame, packet            bytes -> targets, or a typed reason why not
//!          agent::intake            source filter, repeats within 2 s
//!          agent::budget            how many wakes per sender, agent and target are reported
//!          agent::ring              numbered, kept until settled
//!          agent::route             which manager each goes to, the same from every node
//!          agent::managers          a session with every manager that DNS knows
//!          agent::session           one gRPC session: events out, acknowledgements back
//!          agent::monitor           or a person instead of managers: what is heard, and its verdict
//! wire     rpc                      proto/wol/v1/wol.proto <-> our own words in wake, settings
//! trust    tls                      what both sides have in common
//!          agent::connect           whom an agent trusts, and agent::credentials how it proves itself
//!          manager::authority       the managers' own CA; each replica signs its certificate with it
//!          manager::tls_dir         or the certificates that somebody else keeps
//!          manager::accept          TLS connections -> manager::server
//!          manager::identity        who an agent is, and whether it is banned
//! manager  manager::service         a session of an agent -> reports
//!          manager::directory       MAC -> VM, kept by manager::watch
//!          manager::grant           may this packet wake this VM? one grant per WolConfig
//!          manager::passwords       what the SecureOn Secrets say, kept by manager::watch
//!          manager::intents         one wake of one VM until it is settled; pure
//!          manager::quota           no node takes the room of the others
//!          manager::waker           does what intents decide: start, re-read, answer, tell
//!          manager::events          the Events on the VM and on the WolConfig
//! status   manager::watch           WolConfigs -> manager::config, a pure plan -> in force
//!          manager::census          what each config makes of the VMs, change by change
//!          manager::reconcile       the leader writes the status that differs
//! ```
//!
//! `agent` and `manager` do not know each other. The core (`mac`, `packet`, `password`, `frame`,
//! `filter`, `dedup`, `wake`, `wakeable`, `throttle`, `shares`, `manager::directory`) knows neither
//! tokio nor Kubernetes; a test keeps it so.
//! [`send`] makes packets, [`check`] looks whether an installation is as it should be, [`explain`]
//! says what a packet would do, [`probe`] asks an agent how it is, [`crd`] is the configuration's
//! schema, [`kubevirt`] the slice of a
//! virtual machine that we read, [`cluster`] the way to the API server.

#![allow(
    rustdoc::private_intra_doc_links,
    reason = "who reads this develops it, and builds it with private items"
)]

use std::{ffi::OsString, process::ExitCode};

use anyhow::Context as _;
use clap::Parser as _;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

pub mod admin;
pub mod agent;
pub mod check;
pub mod cli;
pub mod cluster;
pub mod crd;
pub mod dedup;
pub mod explain;
pub mod filter;
pub mod frame;
pub mod kubevirt;
pub mod mac;
pub mod manager;
pub mod pace;
pub mod packet;
pub mod password;
pub mod probe;
pub mod rpc;
pub mod sabotage;
pub mod send;
pub mod settings;
pub mod shares;
pub mod shutdown;
pub mod telemetry;
pub mod throttle;
pub mod tls;
pub mod wake;
pub mod wakeable;

/// Options that were understood one by one and make no sense together, or not here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(String);

impl UsageError {
    /// Says what is wrong and what to write instead.
    pub fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

/// Runs the program as `args` say, the first of which is its name. Exit codes: 0 done, 1 failed,
/// 2 wrong usage.
pub fn run<I, T>(args: I) -> ExitCode
where
    I: IntoIterator<Item = T>,
    T: Into<OsString> + Clone,
{
    let cli = match cli::Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Where even this cannot be written, the exit code has to do.
            let _ = error.print();
            return if error.use_stderr() {
                ExitCode::from(2)
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    match execute(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kubevirt-wol: {error:#}");
            if error.is::<UsageError>() {
                ExitCode::from(2)
            } else {
                ExitCode::FAILURE
            }
        }
    }
}

fn execute(cli: cli::Cli) -> anyhow::Result<()> {
    telemetry::init(cli.log_format, &cli.log)?;
    cli.hooks.apply();
    // An error means that somebody installed one before, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match cli.command {
        cli::Command::Manager(args) => {
            keep_memory_private()?;
            raise_open_files();
            let runtime = Runtime::new().context("cannot start the async runtime")?;
            serve(runtime, |token| manager::run(*args, token))
        }
        cli::Command::Agent(args) => {
            keep_memory_private()?;
            // Before the runtime exists: capabilities belong to threads, and the runtime's threads
            // inherit what is left.
            let ears = agent::open(&args)?;
            let (runtime, format) = (agent::runtime()?, cli.log_format);
            if args.monitor.monitor {
                return serve(runtime, |token| {
                    agent::monitor::run(args, ears, format, token)
                });
            }
            serve(runtime, |token| agent::run(args, ears, token))
        }
        cli::Command::Crd => crd::print(&mut std::io::stdout().lock()),
        cli::Command::Send(args) => send::run(&args, &mut std::io::stdout().lock()),
        cli::Command::Explain(args) => explain::run(&args, &mut std::io::stdout().lock()),
        cli::Command::Check(args) => check::run(&args, &mut std::io::stdout().lock()),
        cli::Command::Probe(args) => probe::run(&args, &mut std::io::stdout().lock()),
    }
}

/// Has the kernel write no core dump of this process, and lets no other process of the same user look
/// into its memory: the CA's key, passwords and tokens are there.
fn keep_memory_private() -> anyhow::Result<()> {
    nix::sys::prctl::set_dumpable(false).context(
        "cannot keep core dumps from being written; allow the system call prctl in the seccomp profile",
    )
}

/// Has the kernel allow as many open files as it may: each connection is one, and many programs still
/// begin with 1,024. Where it does not, the manager serves fewer agents.
fn raise_open_files() {
    let limit = getrlimit(Resource::RLIMIT_NOFILE);
    let raised = limit.and_then(|(_, most)| setrlimit(Resource::RLIMIT_NOFILE, most, most));
    if let Err(error) = raised {
        tracing::warn!("cannot raise the number of open files: {error}");
    }
}

/// Runs a service until it ends by itself or a signal asks it to.
fn serve<F>(runtime: Runtime, service: impl FnOnce(CancellationToken) -> F) -> anyhow::Result<()>
where
    F: Future<Output = anyhow::Result<()>>,
{
    let result = runtime.block_on(async {
        // First of all: from here on the service may have something to finish.
        let signals = shutdown::Signals::listen()?;
        let token = CancellationToken::new();
        tokio::select! {
            result = service(token.clone()) => result,
            never = signals.obey(token.clone()) => match never {},
        }
    });
    // Without waiting for its threads: one may be looking up a name, for as long as the resolver
    // is patient with a name server that is gone.
    runtime.shutdown_background();
    result
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, thread, time::Duration};

    use super::{agent, serve};

    #[test]
    fn a_name_server_that_is_gone_does_not_hold_up_the_end() {
        let (_hold, held) = mpsc::channel::<()>();
        let (ended, end) = mpsc::channel();
        thread::spawn(move || {
            let result = serve(agent::runtime().unwrap(), |_| async {
                tokio::task::spawn_blocking(move || held.recv());
                Ok(())
            });
            ended.send(result.is_ok())
        });
        assert_eq!(end.recv_timeout(Duration::from_secs(20)), Ok(true));
    }
}
