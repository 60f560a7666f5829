//! Owns what the manager's command line means: [`Options`], in which every time is a sensible one.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use k8s_openapi::jiff::SignedDuration;

use crate::{
    UsageError,
    cli::{AgentAuth, ManagerArgs},
    manager::{config::Windows, daemon_set::DaemonSetName, intents::Limits, leader::Timing},
};

/// Wakes that wait for their VM at most; the throttle works through so many in three minutes.
const MAX_INTENTS: usize = 4_096;
/// Agents that wait for an answer at most, over all wakes.
const MAX_REPORTERS: usize = 131_072;

/// How the connections of agents are protected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Protection {
    /// Not at all.
    Insecure,
    /// By certificates of the managers' own authority.
    OwnCa,
    /// By certificates that somebody else keeps.
    Directory(TlsFiles),
}

/// Where certificates are found that somebody else keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The directory with `tls.crt`, `tls.key` and, where agents show certificates, `ca.crt`.
    pub directory: PathBuf,
    /// Whether agents have to show a certificate.
    pub clients: bool,
    /// The files are looked at this often.
    pub interval: Duration,
}

/// What the manager is to do.
#[derive(Debug, Clone)]
pub struct Options {
    /// The name of this replica.
    pub replica: Arc<str>,
    /// How the connections of agents are protected.
    pub protection: Protection,
    /// Where `WOLService` is served in plaintext, too.
    pub legacy_plaintext: Option<SocketAddr>,
    /// The agents' times.
    pub windows: Windows,
    /// What intents may do.
    pub limits: Limits,
    /// How long a call to start a VM may take.
    pub start_timeout: Duration,
    /// The times of the election.
    pub timing: Timing,
    /// The agents' DaemonSet; its namespace is that of the Lease, too.
    pub daemon_set: DaemonSetName,
}

impl TryFrom<ManagerArgs> for Options {
    type Error = UsageError;

    fn try_from(args: ManagerArgs) -> Result<Self, UsageError> {
        let limits = limits(&args)?;
        Ok(Self {
            windows: Windows {
                dedup: time("--agent-dedup-window", args.agent_dedup_window)?,
                event_ttl: limits.event_ttl,
            },
            limits,
            start_timeout: time("--start-timeout", args.start_timeout)?,
            timing: timing(&args)?,
            protection: protection(&args)?,
            legacy_plaintext: args.legacy_plaintext_bind,
            replica: args.replica_id.into(),
            daemon_set: DaemonSetName {
                namespace: args.namespace,
                name: args.agent_daemon_set,
            },
        })
    }
}

fn protection(args: &ManagerArgs) -> Result<Protection, UsageError> {
    let clients = args.agent_auth == AgentAuth::Certificate;
    match (args.insecure, &args.tls_dir) {
        (true, Some(_)) => Err(UsageError::new(
            "--insecure and --tls-dir exclude each other; leave out --insecure to encrypt with the \
             certificates in --tls-dir",
        )),
        (_, None) if clients => Err(UsageError::new(
            "--agent-auth certificate needs --tls-dir, whose ca.crt says which client certificates \
             are good",
        )),
        (true, None) => Ok(Protection::Insecure),
        (false, None) => Ok(Protection::OwnCa),
        (false, Some(directory)) => Ok(Protection::Directory(TlsFiles {
            directory: directory.clone(),
            clients,
            interval: time("--tls-reload-interval", args.tls_reload_interval)?,
        })),
    }
}

fn limits(args: &ManagerArgs) -> Result<Limits, UsageError> {
    Ok(Limits {
        wake_deadline: time("--wake-deadline", args.wake_deadline)?,
        event_ttl: time("--event-ttl", args.event_ttl)?,
        dedup_window: time("--dedup-window", args.dedup_window)?,
        concurrency: usize::try_from(args.start_concurrency).unwrap_or(usize::MAX),
        rate: args.start_rate,
        burst: args.start_burst,
        intents: MAX_INTENTS,
        reporters: MAX_REPORTERS,
    })
}

fn timing(args: &ManagerArgs) -> Result<Timing, UsageError> {
    let timing = Timing {
        lease: time("--lease-duration", args.lease_duration)?,
        renew: time("--lease-renew-deadline", args.lease_renew_deadline)?,
        retry: time("--lease-retry-period", args.lease_retry_period)?,
    };
    if timing.lease > timing.renew && timing.renew > timing.retry {
        Ok(timing)
    } else {
        Err(UsageError::new(
            "--lease-duration must be longer than --lease-renew-deadline, and that longer than \
             --lease-retry-period",
        ))
    }
}

/// Reads a time of the command line.
fn time(flag: &str, value: SignedDuration) -> Result<Duration, UsageError> {
    let time = Duration::try_from(value)
        .ok()
        .filter(|time| !time.is_zero());
    time.ok_or_else(|| {
        UsageError::new(format!(
            "{flag} {value:#} is not a time above zero, such as 10s or 5m"
        ))
    })
}
