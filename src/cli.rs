//! Owns the command line: types only. Every flag has an environment twin.

#![allow(
    clippy::doc_markdown,
    reason = "these comments are the help text, where backticks would show"
)]

mod authority;
mod hooks;
mod installation;
mod monitor;

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};
use k8s_openapi::jiff::SignedDuration;

pub use self::{
    authority::AuthorityArgs, hooks::HookArgs, installation::Installation, monitor::MonitorArgs,
};
use crate::telemetry::LogFormat;
pub use crate::{check::CheckArgs, explain::ExplainArgs, send::SendArgs};

/// Wake-on-LAN for KubeVirt: a magic packet starts the powered-off virtual machine.
///
/// Agents on the nodes hear magic packets and report them; managers look up which virtual machine
/// has the address, and start it.
#[derive(Debug, Parser)]
#[command(name = "kubevirt-wol", version, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// How log lines look.
    #[arg(
        long,
        global = true,
        help_heading = "Logging",
        env = "WOL_LOG_FORMAT",
        value_name = "FORMAT",
        value_enum,
        default_value = "auto"
    )]
    pub log_format: LogFormat,
    /// Which log lines are written, for example info or info,kubevirt_wol=debug. Never those of
    /// kube_client::client, in which answers of the API server, and so Secrets, may stand, nor the errors of
    /// kube_client::client::builder, which say nothing.
    #[arg(
        long,
        global = true,
        help_heading = "Logging",
        env = "WOL_LOG",
        default_value = "info",
        value_name = "FILTER"
    )]
    pub log: String,
    /// What only tests set.
    #[command(flatten)]
    pub hooks: HookArgs,
}

/// What the program can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Maps the MAC addresses of magic packets to virtual machines and starts them.
    ///
    /// The cluster is that of the kubeconfig that KUBECONFIG names, or ~/.kube/config; where there is
    /// none, the one whose pod this runs in, by its service account.
    Manager(Box<ManagerArgs>),
    /// Listens for magic packets on this node and reports them to a manager.
    ///
    /// An agent does not talk to the API server and needs no kubeconfig.
    Agent(AgentArgs),
    /// Prints the CustomResourceDefinition of WolConfig, for kubectl apply -f -.
    Crd,
    /// Sends magic packets, as real senders do.
    Send(SendArgs),
    /// Looks whether everything is set up as it should be, and tells what helps where it is not.
    ///
    /// Nothing is changed. It exits with 1 where something keeps packets from waking VMs. The
    /// cluster is that of the kubeconfig, or in a pod the pod's.
    Check(CheckArgs),
    /// Says what would happen to a packet now, and why, without sending one.
    ///
    /// The answer is the manager's own, by the objects of the cluster as they are. It exits with 0
    /// where the virtual machine would be on, and with 1 where not.
    Explain(ExplainArgs),
    /// Asks the agent of this pod whether it is ready or alive, for kubelet's exec probes.
    ///
    /// Exits with 0 where it is; otherwise with 1, and says what the agent waits for, or which of its
    /// tasks is stuck. An agent that does not answer within 3 seconds is neither.
    Probe(ProbeArgs),
}

/// What an agent can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Question {
    /// Whether it listens and has the settings from a manager.
    Ready,
    /// Whether all of its tasks take their turns.
    Live,
}

/// Options of `kubevirt-wol probe`.
#[derive(Debug, Clone, Args)]
pub struct ProbeArgs {
    /// What to ask.
    #[arg(value_enum)]
    pub what: Question,
    /// The agent's own --health-socket.
    #[arg(long, env = "WOL_HEALTH_SOCKET", value_name = "FILE")]
    pub health_socket: PathBuf,
}

/// How agents prove who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AgentAuth {
    /// By a token of their service account, bound to their pod.
    Token,
    /// By a client certificate, whose first DNS name is the node's.
    Certificate,
}

/// Options of `kubevirt-wol manager`.
#[derive(Debug, Clone, Args)]
pub struct ManagerArgs {
    /// Where agents connect.
    #[arg(
        long,
        env = "WOL_GRPC_BIND",
        default_value = "[::]:9090",
        value_name = "ADDRESS:PORT"
    )]
    pub grpc_bind: SocketAddr,
    /// Where /metrics, /livez and /readyz are served.
    #[arg(
        long,
        env = "WOL_ADMIN_BIND",
        default_value = "[::]:8081",
        value_name = "ADDRESS:PORT"
    )]
    pub admin_bind: SocketAddr,
    /// Accept agents without encryption and without knowing who they are. Whoever reaches the port
    /// can then wake any virtual machine that a WolConfig makes wakeable.
    #[arg(long, env = "WOL_INSECURE")]
    pub insecure: bool,
    /// Serve agents with the certificate in this directory (tls.crt, tls.key), from cert-manager or
    /// your own, instead of one of the managers' own authority. Changed files are taken over.
    #[arg(long, env = "WOL_TLS_DIR", value_name = "DIRECTORY")]
    pub tls_dir: Option<PathBuf>,
    /// How often the files in --tls-dir are looked at.
    #[arg(
        long,
        env = "WOL_TLS_RELOAD_INTERVAL",
        default_value = "5s",
        value_name = "TIME"
    )]
    pub tls_reload_interval: SignedDuration,
    /// How agents prove who they are: by the service account tokens of their pods, or by client
    /// certificates, of which those that an authority in ca.crt of --tls-dir has signed are good.
    #[arg(
        long,
        env = "WOL_AGENT_AUTH",
        value_enum,
        default_value = "token",
        value_name = "HOW"
    )]
    pub agent_auth: AgentAuth,
    /// For whom the tokens of the agents have to be; kubevirt-wol.NAMESPACE by default.
    #[arg(long, env = "WOL_AUDIENCE", value_name = "AUDIENCE")]
    pub audience: Option<String>,
    /// The service account of the agents, in the namespace of this installation.
    #[arg(
        long,
        env = "WOL_AGENT_SERVICE_ACCOUNT",
        default_value = "kubevirt-wol-agent",
        value_name = "NAME"
    )]
    pub agent_service_account: String,
    /// For how long the API server is not asked again about a token that comes with another call.
    #[arg(
        long,
        env = "WOL_TOKEN_CACHE",
        default_value = "60s",
        value_name = "TIME"
    )]
    pub token_cache: SignedDuration,
    /// How often it is reviewed whether the agent of an open session is still who it was.
    #[arg(
        long,
        env = "WOL_TOKEN_REVIEW_INTERVAL",
        default_value = "5m",
        value_name = "TIME"
    )]
    pub token_review_interval: SignedDuration,
    /// The ConfigMap, in the namespace of this installation, whose key nodes names the nodes from
    /// which no agent is accepted. It is followed; without it nobody is banned.
    #[arg(
        long,
        env = "WOL_BANNED_NODES",
        default_value = "kubevirt-wol-banned-nodes",
        value_name = "NAME"
    )]
    pub banned_nodes: String,
    /// Serve WOLService here in plaintext, too, to whoever connects, while agents of the original
    /// implementation are being replaced. Such wakes are limited in number, and never satisfy
    /// SecureOn.
    #[arg(long, env = "WOL_LEGACY_PLAINTEXT_BIND", value_name = "ADDRESS:PORT")]
    pub legacy_plaintext_bind: Option<SocketAddr>,
    /// The name of this replica; in a pod, its name.
    #[arg(long, env = "POD_NAME", default_value = "manager", value_name = "NAME")]
    pub replica_id: String,
    /// The namespace of this installation: of its Lease and of the agents' DaemonSet. In a pod, the
    /// pod's.
    #[arg(
        long,
        env = "POD_NAMESPACE",
        default_value = "kubevirt-wol-system",
        value_name = "NAME"
    )]
    pub namespace: String,
    /// The agents' DaemonSet, whose numbers the status of each WolConfig shows.
    #[arg(
        long,
        env = "WOL_AGENT_DAEMON_SET",
        default_value = "kubevirt-wol-agent",
        value_name = "NAME"
    )]
    pub agent_daemon_set: String,
    /// A Secret of this installation's namespace with SecureOn passwords, which WolConfigs may
    /// name; may be given several times, each in place of the default. The manager's Role has to allow each by its name.
    #[arg(
        long = "secure-on-secret",
        env = "WOL_SECURE_ON_SECRETS",
        default_value = "kubevirt-wol-secureon",
        value_delimiter = ',',
        value_name = "NAME"
    )]
    pub secure_on_secrets: Vec<String>,
    /// Repeats of a wake within this time of the first are dropped by the managers.
    #[arg(
        long,
        env = "WOL_DEDUP_WINDOW",
        default_value = "10s",
        value_name = "TIME"
    )]
    pub dedup_window: SignedDuration,
    /// Repeats of a wake within this time of the first are dropped by each agent, unless it came to
    /// nothing and may be worth another try.
    #[arg(
        long,
        env = "WOL_AGENT_DEDUP_WINDOW",
        default_value = "2s",
        value_name = "TIME"
    )]
    pub agent_dedup_window: SignedDuration,
    /// Wakes per second that each agent reports of one sender, for addresses that are not known to
    /// be a virtual machine's.
    #[arg(long, env = "WOL_SOURCE_RATE", default_value_t = 1_000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub source_rate: u32,
    /// The same of all senders together.
    #[arg(long, env = "WOL_AGENT_RATE", default_value_t = 25_000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub agent_rate: u32,
    /// Agents are told which MAC addresses can wake a virtual machine no more often than this; they
    /// report those first.
    #[arg(
        long,
        env = "WOL_WAKEABLE_MACS_INTERVAL",
        default_value = "30s",
        value_name = "TIME"
    )]
    pub wakeable_macs_interval: SignedDuration,
    /// A wake that could not be reported within this time is stale and starts nothing.
    #[arg(
        long,
        env = "WOL_EVENT_TTL",
        default_value = "30s",
        value_name = "TIME"
    )]
    pub event_ttl: SignedDuration,
    /// How long a wake waits for a virtual machine that cannot start yet.
    #[arg(
        long,
        env = "WOL_WAKE_DEADLINE",
        default_value = "5m",
        value_name = "TIME"
    )]
    pub wake_deadline: SignedDuration,
    /// How long a call to start a virtual machine may take.
    #[arg(
        long,
        env = "WOL_START_TIMEOUT",
        default_value = "10s",
        value_name = "TIME"
    )]
    pub start_timeout: SignedDuration,
    /// Starts per second, once the burst is used up.
    #[arg(long, env = "WOL_START_RATE", default_value_t = 20, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub start_rate: u32,
    /// Starts that may be made at once after a quiet time.
    #[arg(long, env = "WOL_START_BURST", default_value_t = 50, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub start_burst: u32,
    /// Calls to start a virtual machine that may be under way at once.
    #[arg(long, env = "WOL_START_CONCURRENCY", default_value_t = 16, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub start_concurrency: u32,
    /// The other replicas wait for so long after the last sign of the leader, which alone writes
    /// the status of the WolConfigs. Wakes do not depend on it.
    #[arg(
        long,
        env = "WOL_LEASE_DURATION",
        default_value = "15s",
        value_name = "TIME"
    )]
    pub lease_duration: SignedDuration,
    /// A leader that cannot renew its Lease for so long is none any more.
    #[arg(
        long,
        env = "WOL_LEASE_RENEW_DEADLINE",
        default_value = "10s",
        value_name = "TIME"
    )]
    pub lease_renew_deadline: SignedDuration,
    /// The pause between two attempts to become or to stay the leader.
    #[arg(
        long,
        env = "WOL_LEASE_RETRY_PERIOD",
        default_value = "2s",
        value_name = "TIME"
    )]
    pub lease_retry_period: SignedDuration,
    /// How the managers' certificates are made.
    #[command(flatten)]
    pub authority: AuthorityArgs,
}

/// Options of `kubevirt-wol agent`.
#[derive(Debug, Clone, Args)]
pub struct AgentArgs {
    /// The Kubernetes node that this agent runs on.
    #[arg(
        long,
        env = "NODE_NAME",
        value_name = "NAME",
        required = false,
        required_unless_present = "monitor",
        default_value_if("monitor", "true", "")
    )]
    pub node_name: String,
    /// Where the managers listen: a name that all their addresses are looked up by, or an address;
    /// several are separated by commas. The agent keeps a session with each manager.
    #[arg(
        long = "manager",
        env = "WOL_MANAGER",
        default_value = "kubevirt-wol-grpc.kubevirt-wol-system.svc:9090",
        value_name = "HOST:PORT",
        value_delimiter = ','
    )]
    pub managers: Vec<String>,
    /// The service account token by which this agent proves which node it is on. It is read again
    /// when it changes, and sent over TLS only. With --client-tls-dir there need be none.
    #[arg(
        long,
        env = "WOL_TOKEN_FILE",
        default_value = "/var/run/secrets/kubevirt-wol/token/token",
        value_name = "FILE"
    )]
    pub token_file: PathBuf,
    /// Report without encryption, to whoever answers.
    #[arg(long, env = "WOL_INSECURE")]
    pub insecure: bool,
    /// The certificates of the authorities that sign the managers' certificates; read anew for each
    /// connection.
    #[arg(
        long,
        env = "WOL_CA_FILE",
        default_value = "/var/run/secrets/kubevirt-wol/ca/ca.crt",
        value_name = "FILE"
    )]
    pub ca_file: PathBuf,
    /// The name that the managers' certificates have to be for. Without it: the host of --manager.
    #[arg(long, env = "WOL_SERVER_NAME", value_name = "NAME")]
    pub server_name: Option<String>,
    /// Show managers the client certificate in this directory (tls.crt, tls.key); read anew for
    /// each connection.
    #[arg(long, env = "WOL_CLIENT_TLS_DIR", value_name = "DIRECTORY")]
    pub client_tls_dir: Option<PathBuf>,
    /// Listen on these UDP ports only, whatever the managers ask for. Without it: 9 and 7 until a
    /// manager says which.
    #[arg(long = "wol-port", env = "WOL_PORT", value_name = "PORT", value_delimiter = ',', value_parser = clap::value_parser!(u16).range(1..))]
    pub wol_ports: Vec<u16>,
    /// Do not open the packet socket: hear only what the node's UDP sockets get.
    #[arg(long, env = "WOL_NO_RAW")]
    pub no_raw: bool,
    /// What makes it an agent to watch.
    #[command(flatten)]
    pub monitor: MonitorArgs,
    /// Serve /metrics, /livez and /readyz here; by default the agent opens no TCP port.
    #[arg(long, env = "WOL_ADMIN_BIND", value_name = "ADDRESS:PORT")]
    pub admin_bind: Option<SocketAddr>,
    /// Serve the same by a socket in the file system, which is made here, for kubevirt-wol probe. No
    /// two agents can share one.
    #[arg(long, env = "WOL_HEALTH_SOCKET", value_name = "FILE")]
    pub health_socket: Option<PathBuf>,
}
