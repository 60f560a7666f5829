//! A cluster with one manager, one agent, and VMs that are off.

use std::{
    collections::HashMap,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    path::Path,
    time::{Duration, Instant, SystemTime},
};

use futures::{StreamExt as _, stream};
use http::Method;
use kubevirt_wol::{mac::MacAddr, packet::MagicPacket};
use serde_json::json;

use crate::common::{
    apiserver::Request,
    cluster::{Agent, Cluster, Manager, eventually, get},
    kubevirt::vm::vm,
    process::{free_tcp, free_udp},
};

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_kubevirt-wol");

const NAMESPACE: &str = "home";

/// Requests to the API at once while VMs are made.
const WRITERS: usize = 8;

pub(crate) struct Bed {
    pub(crate) cluster: Cluster,
    pub(crate) manager: Manager,
    pub(crate) agent: Agent,
    agent_admin: SocketAddr,
    socket: UdpSocket,
    vms: u32,
}

/// The address of the VM with this number.
pub(crate) fn mac(number: u32) -> MacAddr {
    let [a, b, c, d] = number.to_be_bytes();
    MacAddr::new([0x52, 0x54, a, b, c, d])
}

/// An address that no VM has.
pub(crate) fn unknown(number: u32) -> MacAddr {
    let [a, b, c, d] = number.to_be_bytes();
    MacAddr::new([0x02, 0x99, a, b, c, d])
}

/// The magic packet for an address.
pub(crate) fn packet(mac: MacAddr) -> Vec<u8> {
    let packet = MagicPacket::new(mac, &[]).expect("a station's address");
    packet.to_bytes()
}

/// The name of the VM with this number.
fn name(number: u32) -> String {
    format!("vm-{number}")
}

/// A cluster with the definitions and a config that makes every VM wakeable.
pub(crate) async fn cluster() -> Cluster {
    let cluster = Cluster::stand_in(Path::new(PROGRAM)).await;
    cluster.install_crd().await;
    cluster.namespace(NAMESPACE).await;
    cluster.config("default", json!({})).await;
    cluster
}

impl Bed {
    /// A manager with these flags and an agent.
    pub(crate) async fn new(manager_flags: &[&str]) -> Self {
        let cluster = cluster().await;
        let manager = cluster.manager(manager_flags).await;
        let port = free_udp();
        let agent_admin = free_tcp();
        let flags = ["--admin-bind", &agent_admin.to_string()];
        let agent = cluster.agent_at("node-1", manager.grpc, port, &flags);
        agent.configured();
        let socket = UdpSocket::bind("127.0.0.1:0").expect("loopback can be bound");
        socket.connect(("127.0.0.1", port)).expect("loopback");
        Self {
            cluster,
            manager,
            agent,
            agent_admin,
            socket,
            vms: 0,
        }
    }

    /// Makes so many VMs, waits until the manager knows them, and returns their numbers.
    pub(crate) async fn vms(&mut self, count: u32) -> Vec<u32> {
        let numbers: Vec<u32> = (self.vms..self.vms + count).collect();
        self.vms += count;
        let kubevirt = &self.cluster.kubevirt;
        stream::iter(&numbers)
            .for_each_concurrent(WRITERS, |number| async move {
                let vm = vm(NAMESPACE, &name(*number)).mac(&mac(*number).to_string());
                kubevirt.add(&vm).await;
            })
            .await;
        let series = "kubevirt_wol_directory_virtual_machines";
        eventually("the manager knows all VMs", async || {
            self.manager.metric(series) >= f64::from(self.vms)
        })
        .await;
        numbers
    }

    /// Sends to the agent's port, and tells when.
    pub(crate) fn send(&self, bytes: &[u8]) -> SystemTime {
        let sent = SystemTime::now();
        self.socket.send(bytes).expect("loopback can be sent to");
        sent
    }

    /// Sends the packet that wakes a VM, and tells when.
    pub(crate) fn wake(&self, number: u32) -> SystemTime {
        self.send(&packet(mac(number)))
    }

    /// So many senders that the share of each is enough for 20,000 packets per second together.
    pub(crate) fn senders(&self) -> Vec<UdpSocket> {
        let sender = |number: u8| {
            let address = Ipv4Addr::new(127, 0, 1, number);
            let socket = UdpSocket::bind((address, 0)).expect("loopback can be bound");
            let agent = (Ipv4Addr::LOCALHOST, self.agent.port);
            socket.connect(agent).expect("loopback");
            socket
        };
        (1..=50).map(sender).collect()
    }

    /// Waits until the agent has been told of the VMs.
    pub(crate) async fn knows_what_is_wakeable(&self) {
        // An empty filter has 64 bytes.
        let filter = "kubevirt_wol_agent_wakeable_filter_bytes";
        eventually("the agent knows the VMs", async || {
            self.agent_metric(filter) > 64
        })
        .await;
    }

    /// When each VM was first asked to start.
    pub(crate) fn arrivals(&self) -> HashMap<String, SystemTime> {
        let mut arrivals = HashMap::new();
        for request in self.starts() {
            let vm = request.path.split('/').nth_back(1).unwrap_or_default();
            arrivals.entry(vm.to_owned()).or_insert(request.at);
        }
        arrivals
    }

    /// The calls of `start`.
    pub(crate) fn starts(&self) -> Vec<Request> {
        let is_start =
            |request: &Request| request.method == Method::PUT && request.path.ends_with("/start");
        self.requests().into_iter().filter(is_start).collect()
    }

    /// What the API server was asked.
    pub(crate) fn requests(&self) -> Vec<Request> {
        let server = self.cluster.server().expect("the bench is on the stand-in");
        server.requests()
    }

    /// From the sending of packets to the arrival of the calls: of those that came, sorted.
    pub(crate) async fn times(
        &self,
        sent: &[(u32, SystemTime)],
        patience: Duration,
    ) -> Vec<Duration> {
        let deadline = Instant::now() + patience;
        loop {
            let arrivals = self.arrivals();
            let mut times: Vec<Duration> = sent
                .iter()
                .filter_map(|(number, sent)| {
                    arrivals.get(&name(*number))?.duration_since(*sent).ok()
                })
                .collect();
            if times.len() == sent.len() || Instant::now() > deadline {
                times.sort();
                return times;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// What the agent's `/metrics` says of one series, or 0.
    pub(crate) fn agent_metric(&self, series: &str) -> u64 {
        let (_, text) = get(self.agent_admin, "/metrics").expect("metrics are served");
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value.map_or(0, |value| value.parse().expect("a number"))
    }

    /// Packets and events that the agent lost in any way.
    pub(crate) fn lost(&self) -> u64 {
        [
            r#"kubevirt_wol_agent_kernel_dropped_packets_total{socket="udp"}"#,
            r#"kubevirt_wol_agent_lost_events_total{reason="overflow"}"#,
            r#"kubevirt_wol_agent_lost_events_total{reason="stale"}"#,
            r#"kubevirt_wol_agent_limited_wakes_total{limit="source"}"#,
            r#"kubevirt_wol_agent_limited_wakes_total{limit="agent"}"#,
            r#"kubevirt_wol_agent_limited_wakes_total{limit="target"}"#,
            r#"kubevirt_wol_agent_limited_wakes_total{limit="reserve"}"#,
        ]
        .map(|series| self.agent_metric(series))
        .iter()
        .sum()
    }
}

/// The time that this share of all did not exceed; the times are sorted.
pub(crate) fn quantile(times: &[Duration], share: f64) -> Duration {
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a rank among some hundred"
    )]
    let rank = (times.len() as f64 * share).ceil() as usize;
    times
        .get(rank.saturating_sub(1))
        .copied()
        .unwrap_or_default()
}
