//! The agent of a node is replaced by a newer one, again and again, while packets come.

use std::{
    net::UdpSocket,
    os::fd::AsRawFd as _,
    path::PathBuf,
    process::{Command, Output},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use kubevirt_wol::packet::MagicPacket;
use nix::{ifaddrs::getifaddrs, sys::signal::Signal, sys::socket::bind};
use socket2::{Domain, Protocol, Socket, Type};

use super::{
    cannot_run,
    senders::OURS,
    world::{self, MANAGER, Node, World},
};
use crate::common::{cluster::SOON, netns::Host, process::Process};

/// VMs, each of which is woken by one packet.
const VMS: u16 = 600;

/// How far the packets are apart.
const PERIOD: Duration = Duration::from_millis(5);

/// The throttle is not what is of interest here.
const THROTTLE: &[&str] = &["--start-rate", "1000", "--start-burst", "1000"];

/// The node's address on the LAN.
const NODE: &str = "10.77.0.11";

/// An agent as in a pod of its own.
struct Pod {
    agent: Process,
    socket: PathBuf,
    _volume: tempfile::TempDir,
}

impl Pod {
    /// Starts it on a node and waits until kubelet would call it ready.
    fn ready(node: &Node, options: &[&str]) -> Self {
        let volume = tempfile::tempdir().unwrap();
        let socket = volume.path().join("health.sock");
        let mut command = node.host.command(OURS);
        command.args(["agent", "--insecure", "--node-name", &node.name]);
        command.args(["--manager", MANAGER]).args(options);
        command.arg("--health-socket").arg(&socket);
        let pod = Self {
            agent: Process::spawn_command(&node.name, command),
            socket,
            _volume: volume,
        };
        let deadline = Instant::now() + SOON;
        while !pod.probe().status.success() {
            assert!(Instant::now() < deadline, "{:?}", pod.probe());
            thread::sleep(Duration::from_millis(20));
        }
        pod
    }

    fn probe(&self) -> Output {
        let mut command = Command::new(OURS);
        command.args(["probe", "ready", "--health-socket"]);
        command.arg(&self.socket).output().unwrap()
    }

    /// Ends it as kubelet does.
    fn end(mut self) {
        self.agent.signal(Signal::SIGTERM);
        assert!(self.agent.ended(SOON).success());
    }
}

/// How a packet comes.
#[derive(Clone, Copy)]
enum Way {
    /// A datagram for all hosts of the LAN.
    Broadcast,
    /// A datagram to the node: of the sockets that share the port, one gets it.
    Unicast,
    /// A frame to all stations.
    Frame,
    /// A frame to the VM, which is off, as etherwake sends it.
    FrameToTarget,
}

/// Sends one packet for each VM, by one way after the other.
fn wake_each(host: &Host, ways: &'static [Way]) -> JoinHandle<()> {
    host.thread(move || {
        let frames = frames("lan0");
        for (number, way) in (1..=VMS).zip(ways.iter().cycle()) {
            let target = world::mac(number);
            let magic = MagicPacket::new(target, &[]).unwrap().to_bytes();
            let datagram = |to: &str| {
                // From another port each time, by which the kernel chooses among sockets.
                let socket = UdpSocket::bind("10.77.0.1:0").unwrap();
                socket.set_broadcast(true).unwrap();
                socket.send_to(&magic, to).unwrap();
            };
            let frame = |to: [u8; 6]| {
                let source = [2, 0xaa, 0, 0, 0, 1];
                let frame = [&to[..], &source, &[0x08, 0x42], &magic].concat();
                frames.send(&frame).unwrap();
            };
            match way {
                Way::Broadcast => datagram("10.77.0.255:9"),
                Way::Unicast => datagram(&format!("{NODE}:9")),
                Way::Frame => frame([0xff; 6]),
                Way::FrameToTarget => frame(target.octets()),
            }
            thread::sleep(PERIOD);
        }
    })
}

/// A socket that sends frames by an interface.
fn frames(interface: &str) -> Socket {
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0))).unwrap();
    let addresses = getifaddrs().unwrap();
    let link = addresses
        .filter(|entry| entry.interface_name == interface)
        .find_map(|entry| entry.address?.as_link_addr().copied());
    bind(socket.as_raw_fd(), &link.unwrap()).unwrap();
    socket
}

/// Rolls the agent of a node for as long as packets come; each must have started its VM, once.
fn expect_no_gap(options: &[&str], ways: &'static [Way]) {
    let world = World::with(VMS, THROTTLE);
    let node = world.node(11);
    let address = format!("{NODE}/24");
    node.host.plug(&world.lan, "lan0", Some(&address));
    let mut old = Pod::ready(&node, options);
    let sender = wake_each(&world.sender, ways);
    let mut rolls = 0;
    while !sender.is_finished() {
        let new = Pod::ready(&node, options);
        std::mem::replace(&mut old, new).end();
        rolls += 1;
    }
    sender.join().unwrap();
    eprintln!("{rolls} rolls while {VMS} packets came");
    assert!(rolls >= 2, "{rolls} rolls");
    world.expect_all_started(VMS);
    world.expect_no_second_start(VMS);
}

#[test]
fn no_packet_falls_between_an_agent_and_its_successor() {
    if cannot_run() {
        return;
    }
    expect_no_gap(
        &[],
        &[Way::Unicast, Way::Frame, Way::Broadcast, Way::FrameToTarget],
    );
}

#[test]
fn no_datagram_to_the_node_falls_between_the_sockets_that_share_a_port() {
    if cannot_run() {
        return;
    }
    // Nothing else hears what the one socket that the kernel chooses does not.
    expect_no_gap(&["--no-raw"], &[Way::Unicast, Way::Unicast, Way::Broadcast]);
}
