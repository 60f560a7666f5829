//! Owns what the manager's command line means: [`Options`], in which every time is a sensible one.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use k8s_openapi::jiff::SignedDuration;
use rustls::pki_types::DnsName;

use crate::{
    UsageError,
    cli::{AgentAuth, AuthorityArgs, ManagerArgs},
    manager::{
        authority::{self, Names, rotation::Times},
        config::Windows,
        daemon_set::DaemonSetName,
        identity::TokenRules,
        intents::Limits,
        leader::Timing,
        passwords::Passwords,
    },
    pace,
    settings::Rates,
};

/// Certificates have whole seconds.
const SHORTEST_LIFE: Duration = Duration::from_secs(2);
/// Dates further ahead than this many seconds, which is a century, are a mistake.
const LONGEST_LIFE: Duration = Duration::from_secs(100 * 365 * 86_400);

/// Wakes that wait for their VM at most; the throttle works through so many in three minutes.
const MAX_INTENTS: usize = 4_096;
/// Agents that wait for an answer at most, over all wakes.
const MAX_REPORTERS: usize = 131_072;

/// Secrets with SecureOn passwords at most; each is watched.
const MAX_SECRETS: usize = 16;
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
    /// Which tokens are those of agents.
    pub tokens: TokenRules,
    /// The `ConfigMap` with the banned nodes.
    pub banned_nodes: String,
    /// The agents' times.
    pub windows: Windows,
    /// How often agents are told which addresses can wake a VM.
    pub wakeable_interval: Duration,
    /// What intents may do.
    pub limits: Limits,
    /// How long a call to start a VM may take.
    pub start_timeout: Duration,
    /// The times of the election.
    pub timing: Timing,
    /// The Secrets with SecureOn passwords, none of which has been read.
    pub passwords: Passwords,
    /// The agents' DaemonSet; its namespace is that of the Lease and the Secrets, too.
    pub daemon_set: DaemonSetName,
    /// The managers' CA.
    pub authority: authority::Options,
}

impl TryFrom<ManagerArgs> for Options {
    type Error = UsageError;

    fn try_from(args: ManagerArgs) -> Result<Self, UsageError> {
        let limits = limits(&args)?;
        Ok(Self {
            windows: Windows {
                dedup: time("--agent-dedup-window", args.agent_dedup_window)?,
                event_ttl: limits.event_ttl,
                rates: Rates {
                    source: args.source_rate,
                    agent: args.agent_rate,
                },
            },
            wakeable_interval: time("--wakeable-macs-interval", args.wakeable_macs_interval)?,
            tokens: token_rules(&args)?,
            timing: timing(&args)?,
            limits,
            start_timeout: time("--start-timeout", args.start_timeout)?,
            passwords: passwords(&args.secure_on_secrets, &args.authority.ca_secret)?,
            protection: protection(&args)?,
            legacy_plaintext: args.legacy_plaintext_bind,
            authority: authority(&args.namespace, &args.authority)?,
            replica: args.replica_id.into(),
            banned_nodes: args.banned_nodes,
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
        rate: pace::rate(args.start_rate),
        burst: args.start_burst,
        intents: MAX_INTENTS,
        reporters: MAX_REPORTERS,
    })
}

/// The Secrets of `--secure-on-secret`; an empty name says that there are none.
fn passwords(names: &[String], authority: &str) -> Result<Passwords, UsageError> {
    let names: Vec<Arc<str>> = names.iter().map(|name| name.trim().into()).collect();
    let names: Vec<Arc<str>> = names.into_iter().filter(|name| !name.is_empty()).collect();
    let valid = |name: &str| {
        let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.');
        name.len() <= 253 && name.bytes().all(allowed)
    };
    if let Some(name) = names.iter().find(|name| !valid(name)) {
        return Err(UsageError::new(format!(
            "--secure-on-secret {name:?} is not the name of a Secret"
        )));
    }
    if names.iter().any(|name| **name == *authority) {
        return Err(UsageError::new(format!(
            "--secure-on-secret {authority} is the Secret of the managers' certificate authority; \
             keep passwords in one of their own"
        )));
    }
    if names.len() > MAX_SECRETS {
        return Err(UsageError::new(format!(
            "--secure-on-secret was given {} times; at most {MAX_SECRETS} Secrets are read",
            names.len()
        )));
    }
    Ok(Passwords::new(&names, &authority.into()))
}

fn token_rules(args: &ManagerArgs) -> Result<TokenRules, UsageError> {
    let audience = args.audience.clone();
    Ok(TokenRules {
        audience: audience.unwrap_or_else(|| format!("kubevirt-wol.{}", args.namespace)),
        namespace: args.namespace.clone(),
        account: args.agent_service_account.clone(),
        cache: time("--token-cache", args.token_cache)?,
        interval: time("--token-review-interval", args.token_review_interval)?,
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

fn authority(namespace: &str, args: &AuthorityArgs) -> Result<authority::Options, UsageError> {
    let service = &args.service;
    let servers = vec![
        service.clone(),
        format!("{service}.{namespace}"),
        format!("{service}.{namespace}.svc"),
        format!("{service}.{namespace}.svc.{}", args.cluster_domain),
    ];
    if let Some(name) = servers
        .iter()
        .find(|name| DnsName::try_from(name.as_str()).is_err())
    {
        return Err(UsageError::new(format!(
            "{name:?}, which --service, --namespace and --cluster-domain make, is no name of the DNS"
        )));
    }
    Ok(authority::Options {
        names: Names {
            namespace: namespace.to_owned(),
            secret: args.ca_secret.clone(),
            bundle: args.ca_bundle.clone(),
        },
        servers,
        times: times(args)?,
    })
}

fn times(args: &AuthorityArgs) -> Result<Times, UsageError> {
    let times = Times {
        ca_life: time("--ca-lifetime", args.ca_lifetime)?,
        publish_wait: time("--ca-publish-wait", args.ca_publish_wait)?,
        leaf_life: time("--leaf-lifetime", args.leaf_lifetime)?,
    };
    if times.leaf_life < SHORTEST_LIFE || times.ca_life > LONGEST_LIFE {
        return Err(UsageError::new(
            "--leaf-lifetime must be at least 2s, and --ca-lifetime at most 100 years (876000h)",
        ));
    }
    // All within the last third: the wait, then the whole life of the last leaf of the old CA.
    if times.publish_wait.saturating_add(times.leaf_life) > times.ca_life / 3 {
        return Err(UsageError::new(
            "--ca-publish-wait and --leaf-lifetime together must not be longer than a third of \
             --ca-lifetime",
        ));
    }
    Ok(times)
}

/// Reads a time of the command line, at the pace of this process.
fn time(flag: &str, value: SignedDuration) -> Result<Duration, UsageError> {
    let time = Duration::try_from(value)
        .ok()
        .filter(|time| !time.is_zero());
    time.map(pace::of).ok_or_else(|| {
        UsageError::new(format!(
            "{flag} {value:#} is not a time above zero, such as 10s or 5m"
        ))
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command};

    fn parsed(flags: &str) -> Result<authority::Options, UsageError> {
        let words = ["kubevirt-wol", "manager"].into_iter();
        let cli = Cli::try_parse_from(words.chain(flags.split_whitespace())).unwrap();
        let Command::Manager(args) = cli.command else {
            unreachable!("it is the manager's command line");
        };
        authority(&args.namespace, &args.authority)
    }

    #[test]
    fn agents_know_the_managers_by_every_name_of_their_service() {
        let options = parsed("--namespace lan --cluster-domain example.org").unwrap();
        let names = [
            "kubevirt-wol-grpc",
            "kubevirt-wol-grpc.lan",
            "kubevirt-wol-grpc.lan.svc",
            "kubevirt-wol-grpc.lan.svc.example.org",
        ];
        assert_eq!(options.servers, names);
    }

    #[test]
    fn certificates_that_cannot_be_renewed_in_time_are_refused_with_the_flags_to_change() {
        let refused = |flags| parsed(flags).unwrap_err().to_string();
        let hasty = "--ca-lifetime 30s --ca-publish-wait 3s --leaf-lifetime 6s";
        assert_eq!(parsed(hasty).unwrap().times.leaf_life.as_secs(), 6);
        let words = refused("--ca-lifetime 30s --ca-publish-wait 5s --leaf-lifetime 6s");
        assert!(words.contains("third of --ca-lifetime"), "{words}");
        assert!(refused("--ca-lifetime 480h").contains("third of --ca-lifetime"));
        assert!(refused("--leaf-lifetime 1s").contains("at least 2s"));
        assert!(refused("--ca-lifetime 9000000h").contains("at most 100 years"));
        assert!(refused("--ca-publish-wait 0s").contains("--ca-publish-wait"));
        assert!(refused("--service a..b").contains("--service"));
    }
}
