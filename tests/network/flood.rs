//! More packets on the wire than anybody reads: what is lost, and what is not.

use std::{
    fs,
    net::UdpSocket,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;

use super::{
    cannot_run, senders,
    world::{self, Node, World},
};
use crate::common::{cluster::SOON, netns::Host};

/// Packets per second that are sent, if the machine can.
const OFFERED: u32 = 50_000;

/// With fewer, which is twice what is reported of one sender, the test says nothing.
const LEAST: u32 = 2_000;

/// How long it is looked at what the machine can do.
const TRIAL: Duration = Duration::from_secs(3);

/// VMs that are woken one after the other.
const VMS: u16 = 10;

/// How many copies of each packet there are, and how far apart: as most senders have it.
const WAKE: &str = "send --count 3 --interval 100 --port 9 --broadcast 10.77.0.255 MAC";

/// Memory that an agent may have, without the program's file.
const MEMORY_KIB: u64 = 10 * 1024;

/// Sends packets for random addresses until it is stopped.
struct Flood {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<(u32, Duration)>,
}

impl Flood {
    fn start(host: &Host, rate: u32) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = host.thread(move || {
            let socket = UdpSocket::bind("10.77.0.1:0").unwrap();
            socket.set_broadcast(true).unwrap();
            socket.connect("10.77.0.255:9").unwrap();
            let (start, mut sent) = (Instant::now(), 0);
            let mut packet = [0xff; 102];
            while !stopped.load(Ordering::Relaxed) {
                let due = start.elapsed().as_micros() * u128::from(rate) / 1_000_000;
                while u128::from(sent) < due {
                    let [a, b, c, d] = fastrand::u32(..).to_be_bytes();
                    for place in packet[6..].chunks_exact_mut(6) {
                        place.copy_from_slice(&[0x02, 0x99, a, b, c, d]);
                    }
                    // Refused where the way is full, as a wire would be.
                    sent += u32::from(socket.send(&packet).is_ok());
                }
                thread::sleep(Duration::from_micros(200));
            }
            (sent, start.elapsed())
        });
        Self { stop, thread }
    }

    /// Packets per second that were sent.
    fn stop(self) -> u32 {
        self.stop.store(true, Ordering::Relaxed);
        let (sent, took) = self.thread.join().unwrap();
        let rate = u128::from(sent) * 1_000_000 / took.as_micros();
        u32::try_from(rate).unwrap()
    }
}

/// Memory of a process that is not a file's, in KiB.
fn anonymous(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"));
    let number = line.unwrap().trim().trim_end_matches("kB").trim();
    number.parse().unwrap()
}

/// Floods a node with all that the machine can send; gives the rate at which its agent, which is not
/// optimised here and has two sockets to read each packet from, is busy and not drowned. Both rates
/// are printed.
fn trial(world: &World, node: &Node) -> u32 {
    let read = || node.metric("kubevirt_wol_agent_packets_total");
    let flood = Flood::start(&world.sender, OFFERED);
    let before = read();
    thread::sleep(TRIAL);
    let packets = u128::from(read() - before) / 2;
    let per_second = u32::try_from(packets * 1_000 / TRIAL.as_millis()).unwrap();
    let sent = flood.stop();
    eprintln!("{sent} packets per second were sent, {per_second} were read");
    (per_second / 2).clamp(LEAST, OFFERED)
}

#[test]
fn under_a_flood_of_random_addresses_every_vm_is_woken_and_what_is_lost_is_told() {
    if cannot_run() {
        return;
    }
    let world = World::new(VMS);
    let mut node = world.node(11);
    node.host.plug(&world.lan, "lan0", Some("10.77.0.11/24"));
    node.start_agent();
    node.wait_for("kubevirt_wol_agent_wakeable_filter_bytes");

    let rate = trial(&world, &node);
    let flood = Flood::start(&world.sender, rate);
    for number in 1..=VMS {
        senders::wake(&world.sender, WAKE, &world::mac(number).to_string());
    }
    for number in 1..=VMS {
        world.expect_running(number);
    }
    // For as long as it stands still it reads nothing.
    node.agent().signal(Signal::SIGSTOP);
    thread::sleep(Duration::from_millis(500));
    node.agent().signal(Signal::SIGCONT);
    for socket in ["raw", "udp"] {
        node.wait_for(&format!(
            "kubevirt_wol_agent_kernel_dropped_packets_total{{socket=\"{socket}\"}}"
        ));
    }
    let rate = flood.stop();
    for told in [
        "the kernel dropped packets",
        "more wakes came than are reported",
    ] {
        let said = |line: &crate::common::process::Line| line.message().contains(told);
        node.agent().wait_for(told, SOON, said);
    }
    let memory = anonymous(node.agent().pid());
    let packets = node.metric("kubevirt_wol_agent_packets_total");
    let dropped = node.metric("kubevirt_wol_agent_kernel_dropped_packets_total");
    eprintln!(
        "{rate} packets per second; read from both sockets: {packets}, dropped by the kernel: \
         {dropped}; the agent's own memory: {memory} KiB"
    );
    assert!(rate > LEAST / 2, "only {rate} packets per second were sent");
    assert!(memory <= MEMORY_KIB, "{memory} KiB");
    world.expect_no_second_start(VMS);
}
