//! How long wakes take while one of two managers goes away: two agents hear 100 wakes per second,
//! each for another VM, and a manager is killed, cut off without a word, or asked to end. The real
//! program as processes on loopback, the API server and KubeVirt simulated in this one.
//!
//! `cargo bench --bench failover -- killed` measures one of the [`WAYS`]; without names, all. A number
//! is that of wakes per second instead.

#![allow(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a test bed that breaks has to stop the bench, and the table is what it is for"
)]

#[path = "../tests/common/mod.rs"]
mod common;

#[path = "fixtures/fleet.rs"]
mod cluster;
#[path = "wake_path/table.rs"]
#[allow(dead_code, reason = "each bench uses its own part")]
mod table;

use std::{
    net::UdpSocket,
    time::{Duration, SystemTime},
};

use kubevirt_wol::packet::MagicPacket;
use nix::sys::signal::Signal;

use cluster::{UNTHROTTLED, cluster, delays, knows, mac, quantile, starts};
use common::{
    cluster::{Agent, Cluster, Manager, eventually},
    process::{free_tcp, free_udp},
};
use table::Table;

/// How a manager goes: its name, what it is sent, how long wakes take at most, and for how long they
/// come afterwards. One that is stopped keeps its connections, and answers nothing; agents give
/// them up after 15 s.
const WAYS: [(&str, Signal, Duration, u32); 3] = [
    ("killed", Signal::SIGKILL, Duration::from_secs(1), 5),
    ("silent", Signal::SIGSTOP, Duration::from_secs(5), 20),
    ("asked to end", Signal::SIGTERM, Duration::from_secs(1), 5),
];

/// Wakes per second.
const RATE: u32 = 100;

/// Seconds before the manager goes.
const BEFORE: u32 = 5;

/// After the last packet, so long is waited for starts; then they count as lost.
const PATIENCE: Duration = Duration::from_secs(10);

const NODES: [&str; 2] = ["node-1", "node-2"];

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    // `cargo test --all-targets` runs benches, too, and must not wait for this one.
    if !args.iter().any(|arg| arg == "--bench") {
        println!("measures only when asked to by `cargo bench`");
        return;
    }
    let rate = args.iter().find_map(|arg| arg.parse().ok());
    let rate = rate.unwrap_or(RATE);
    let is_name = |arg: &&String| !arg.starts_with('-') && arg.parse::<u32>().is_err();
    let all = !args.iter().any(|arg| is_name(&arg));
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let mut table = Table::default();
    for way in WAYS {
        if all || args.iter().any(|arg| way.0.split(' ').next() == Some(arg)) {
            eprintln!("measuring: a manager is {}", way.0);
            runtime.block_on(measure(&mut table, way, rate));
        }
    }
    println!("{table}");
}

/// Two managers that know all VMs, and two agents that have a session with each of them.
struct Bed {
    cluster: Cluster,
    managers: Vec<Manager>,
    agents: Vec<Agent>,
    socket: UdpSocket,
}

impl Bed {
    async fn new(vms: u32) -> Self {
        let cluster = cluster(0..vms).await;
        let start = |replica: &&str| {
            let flags = [&["--replica-id", replica][..], &UNTHROTTLED].concat();
            cluster.manager_at(free_tcp(), &flags)
        };
        let managers: Vec<_> = ["manager-a", "manager-b"].iter().map(start).collect();
        for manager in &managers {
            manager.ready().await;
            knows(manager, vms).await;
        }
        let start = |node: &&str| cluster.agent_of(node, &managers, free_udp());
        let agents: Vec<_> = NODES.iter().map(start).collect();
        for manager in &managers {
            eventually("every agent has a session with every manager", async || {
                manager.metric("kubevirt_wol_configured_agents") > 1.5
            })
            .await;
        }
        Self {
            cluster,
            managers,
            agents,
            socket: UdpSocket::bind("127.0.0.1:0").expect("loopback can be bound"),
        }
    }

    /// Lets every agent hear the packet that wakes a VM.
    fn wake(&self, number: u32) -> SystemTime {
        let packet = MagicPacket::new(mac(number), &[]).expect("a station's address");
        let (bytes, sent) = (packet.to_bytes(), SystemTime::now());
        for agent in &self.agents {
            let sent = self.socket.send_to(&bytes, ("127.0.0.1", agent.port));
            sent.expect("loopback can be sent to");
        }
        sent
    }
}

async fn measure(
    table: &mut Table,
    (how, signal, limit, after): (&str, Signal, Duration, u32),
    rate: u32,
) {
    let wakes = rate * (BEFORE + after);
    let bed = Bed::new(wakes).await;
    let mut tick = tokio::time::interval(Duration::from_secs(1) / rate);
    let (mut sent, mut gone) = (Vec::new(), SystemTime::UNIX_EPOCH);
    for number in 0..wakes {
        tick.tick().await;
        if number == rate * BEFORE {
            gone = SystemTime::now();
            bed.managers[0].process.signal(signal);
        }
        sent.push((number, bed.wake(number)));
    }
    let times = delays(&bed.cluster, &sent, PATIENCE).await;
    let lasted = sent
        .last()
        .and_then(|(_, last)| last.duration_since(sent[0].1).ok());
    let what = format!("one of two managers {how}, {rate} wakes/s: VMs started");
    table.all(what, times.len() as u64, wakes.into());
    table.time("  the wakes came within", lasted.unwrap_or_default(), None);
    let before = |(_, at): &&(u32, SystemTime)| *at < gone;
    let (early, late) = times.split_at(sent.iter().filter(before).count().min(times.len()));
    table.time(
        "  packet to start call before: p99",
        quantile(early, 0.99),
        None,
    );
    table.time("  from then on: p50", quantile(late, 0.5), None);
    table.time("  p99", quantile(late, 0.99), None);
    table.time("  the longest of all", quantile(&times, 1.0), Some(limit));
    let calls: usize = starts(&bed.cluster).values().map(Vec::len).sum();
    let twice = (calls as u64).saturating_sub(times.len() as u64);
    table.count("  VMs called twice, which KubeVirt takes once", twice, None);
}
