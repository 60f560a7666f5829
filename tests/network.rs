//! Real senders on real networks: every host is a network namespace. Needs root.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test bed that breaks has to fail the test"
)]

#[path = "network/capture.rs"]
mod capture;
mod common;
#[path = "network/flood.rs"]
mod flood;
#[path = "network/rolls.rs"]
mod rolls;
#[path = "network/senders.rs"]
mod senders;
#[path = "network/world.rs"]
mod world;

use std::{
    fs,
    net::{Ipv4Addr, UdpSocket},
};

use capture::Capture;
use common::{
    netns::{self, Host, Switch},
    skip::skipped,
};
use world::{Node, World};

/// Whether the tests of this file cannot run here; says so.
fn cannot_run() -> bool {
    let missing = netns::unavailable().or_else(senders::missing);
    missing.inspect(|reason| skipped(reason)).is_some()
}

/// The bytes of a UDP frame that differ from one send to the next: IP identification and
/// checksum, source port, UDP checksum.
fn without_chance(mut frame: Vec<u8>) -> Vec<u8> {
    for place in [18..20, 24..26, 34..36, 40..42] {
        frame[place].fill(0);
    }
    frame
}

#[test]
fn our_packets_are_those_of_wakeonlan_and_etherwake() {
    if cannot_run() {
        return;
    }
    let lan = Switch::new("lan");
    let [sender, node] = ["sender", "node"].map(Host::new);
    sender.plug(&lan, "lan0", Some("10.77.0.1/28"));
    sender.ip("route add default dev lan0");
    node.plug(&lan, "lan0", None);
    let capture = Capture::start(&node);
    let vm = "52:54:00:12:34:56";
    for (theirs, ours) in [
        (
            "wakeonlan MAC",
            "send --count 1 --port 9 --broadcast 255.255.255.255 MAC",
        ),
        (
            "wakeonlan -i 10.77.0.15 -p 7 MAC",
            "send --count 1 --port 7 --broadcast 10.77.0.0/28 MAC",
        ),
        (
            "etherwake -i lan0 MAC",
            "send --count 1 --raw --unicast-l2 MAC",
        ),
        ("etherwake -i lan0 -b MAC", "send --count 1 --raw MAC"),
        (
            "etherwake -i lan0 -b -p 192.168.1.1 MAC",
            "send --count 1 --raw --password 192.168.1.1 MAC",
        ),
        (
            "etherwake -i lan0 -b -p 01:23:45:67:89:ab MAC",
            "send --count 1 --raw --password 01:23:45:67:89:ab MAC",
        ),
    ] {
        let [theirs, ours] = [theirs, ours].map(|command| {
            senders::wake(&sender, command, vm);
            without_chance(capture.next())
        });
        assert_eq!(ours, theirs, "{ours:02x?}");
    }
    assert!(capture.is_quiet());
}

#[test]
fn every_interface_sends_to_its_subnet_and_to_all() {
    if cannot_run() {
        return;
    }
    let lan = Switch::new("lan");
    let [sender, node] = ["sender", "node"].map(Host::new);
    sender.plug(&lan, "lan0", Some("10.77.0.1/28"));
    sender.plug(&lan, "lan1", None);
    node.plug(&lan, "lan0", None);
    let capture = Capture::start(&node);
    senders::wake(
        &sender,
        "send --count 2 --interval 0 MAC",
        "52:54:00:12:34:56",
    );
    // The destination address and port of each datagram; lan1 has only the limited broadcast.
    let mut heard: Vec<_> = (0..12)
        .map(|_| {
            let frame = capture.next();
            let to = Ipv4Addr::from([frame[30], frame[31], frame[32], frame[33]]);
            format!("{to}:{}", u16::from_be_bytes([frame[36], frame[37]]))
        })
        .collect();
    heard.sort();
    let expected = [
        ("10.77.0.15:7", 2),
        ("10.77.0.15:9", 2),
        ("255.255.255.255:7", 4),
        ("255.255.255.255:9", 4),
    ];
    let expected: Vec<_> = expected
        .iter()
        .flat_map(|(to, count)| vec![*to; *count])
        .collect();
    assert_eq!(heard, expected);
    assert!(capture.is_quiet());
}

/// Runs the senders, each for a VM of its own, and expects that each of `nodes` reports it once and
/// that it is started once.
fn expect_each_wakes_once(world: &World, nodes: &[Node], commands: &[&str]) {
    let count = u16::try_from(commands.len()).unwrap();
    for (number, command) in (1..).zip(commands) {
        senders::wake(&world.sender, command, &world::mac(number).to_string());
    }
    for number in 1..=count {
        world.expect_running(number);
    }
    world.expect_no_second_start(count);
    for node in nodes {
        assert_eq!(node.reported(), u64::from(count), "{}", node.name);
    }
}

/// What real people type, and our own program.
const SENDERS: [&str; 12] = [
    "wakeonlan MAC",
    "wakeonlan -i 10.77.0.255 MAC",
    "wakeonlan -i 10.77.0.255 -p 7 MAC",
    "wakeonlan -p 40000 MAC",
    "etherwake -i lan0 MAC",
    "etherwake -i lan0 -b MAC",
    "etherwake -i lan0 -b -p 01:23:45:67:89:ab MAC",
    "send MAC",
    "send --ipv6 MAC",
    "send --raw MAC",
    "send --raw --vlan 5 MAC",
    "send --raw --vlan 5 --unicast-l2 MAC",
];

/// Where the pattern is not at the start of the datagram, only the UDP sockets look; the second one
/// comes in three fragments.
const LATE_PATTERNS: [&str; 2] = ["send --offset 7 MAC", "send --offset 3000 MAC"];

/// Enough VMs for all of these.
const VMS: u16 = 14;

#[test]
fn every_real_sender_starts_its_vm_once_though_two_nodes_hear_it() {
    if cannot_run() {
        return;
    }
    let world = World::new(VMS);
    let mut nodes = [11, 12].map(|number| world.node(number));
    for (node, address) in nodes.iter_mut().zip(["10.77.0.11/24", "10.77.0.12/24"]) {
        node.host.plug(&world.lan, "lan0", Some(address));
        node.start_agent();
    }
    let all = [&SENDERS[..], &LATE_PATTERNS].concat();
    expect_each_wakes_once(&world, &nodes, &all);
}

#[test]
fn a_nic_without_any_address_hears_every_sender() {
    if cannot_run() {
        return;
    }
    let world = World::new(VMS);
    let mut node = world.node(11);
    // With strict reverse path filtering, no UDP socket gets what this interface receives.
    node.host.sysctl("net/ipv4/conf/default/rp_filter", "1");
    node.host.sysctl("net/ipv6/conf/default/disable_ipv6", "1");
    node.host.plug(&world.lan, "lan0", None);
    node.start_agent();
    expect_each_wakes_once(&world, &[node], &SENDERS);
}

#[test]
fn a_nic_in_a_bridge_hears_every_sender_once() {
    if cannot_run() {
        return;
    }
    let world = World::new(VMS);
    let mut node = world.node(11);
    node.host.ip("link add br0 type bridge stp_state 0");
    node.host.plug(&world.lan, "lan0", None);
    node.host.ip("link set lan0 master br0");
    node.host.ip("link set br0 up");
    node.host.ip("address add 10.77.0.11/24 dev br0");
    node.start_agent();
    let all = [&SENDERS[..], &LATE_PATTERNS].concat();
    expect_each_wakes_once(&world, &[node], &all);
}

#[test]
fn where_another_program_has_the_udp_ports_the_packet_socket_hears() {
    if cannot_run() {
        return;
    }
    let world = World::new(VMS);
    let mut node = world.node(11);
    node.host.plug(&world.lan, "lan0", Some("10.77.0.11/24"));
    let owners = node.host.thread(|| {
        let bind = |port| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap();
        [9, 7].map(bind)
    });
    let _owners = owners.join().unwrap();
    node.start_agent();
    expect_each_wakes_once(&world, &[node], &SENDERS);
}

#[test]
fn without_the_right_to_a_packet_socket_the_udp_ports_hear() {
    if cannot_run() {
        return;
    }
    let world = World::new(VMS);
    let mut node = world.node(11);
    node.host.plug(&world.lan, "lan0", Some("10.77.0.11/24"));
    node.start_agent_without("net_raw");
    node.expect_trouble("raw", "NET_RAW");
    let by_udp = ["wakeonlan MAC", "wakeonlan -i 10.77.0.255 -p 7 MAC"];
    expect_each_wakes_once(&world, &[node], &by_udp);
}

#[test]
fn without_the_right_to_low_ports_the_packet_socket_hears() {
    if cannot_run() {
        return;
    }
    let world = World::new(VMS);
    let mut node = world.node(11);
    node.host.plug(&world.lan, "lan0", Some("10.77.0.11/24"));
    node.start_agent_without("net_bind_service");
    for port in ["udp/9", "udp/7"] {
        node.expect_trouble(port, "NET_BIND_SERVICE");
    }
    expect_each_wakes_once(&world, &[node], &SENDERS);
}

#[test]
fn what_a_pod_broadcasts_on_its_bridge_wakes_nothing_and_is_counted() {
    if cannot_run() {
        return;
    }
    let world = World::new(2);
    let mut node = world.node(11);
    node.host.plug(&world.lan, "lan0", Some("10.77.0.11/24"));
    let pod = node.pod("cni0", "10.88.0.1/24", "10.88.0.2/24");
    node.start_agent();
    senders::wake(
        &pod,
        "wakeonlan -i 10.88.0.255 MAC",
        &world::mac(1).to_string(),
    );
    senders::wake(&pod, "etherwake -i eth0 -b MAC", &world::mac(1).to_string());
    for way in ["udp", "ethernet", "ethernet-udp"] {
        let filtered =
            format!("kubevirt_wol_agent_packets_total{{carrier=\"{way}\",verdict=\"filtered\"}}");
        node.wait_for(&filtered);
    }
    senders::wake(
        &world.sender,
        "wakeonlan -i 10.77.0.255 MAC",
        &world::mac(2).to_string(),
    );
    world.expect_running(2);
    assert_eq!(node.reported(), 1, "only what came over the LAN");
}

#[test]
fn people_read_which_station_woke_a_vm_over_which_vlan() {
    if cannot_run() {
        return;
    }
    let world = World::new(2);
    let mut node = world.node(11);
    node.host.plug(&world.lan, "lan0", None);
    node.start_agent();
    let station = world.sender.run("cat", &["/sys/class/net/lan0/address"]);
    let station = station.trim();
    for (number, command, words) in [
        (1, "etherwake -i lan0 MAC", format!("{station} on lan0")),
        (
            2,
            "send --raw --vlan 5 MAC",
            format!("{station} on lan0 (VLAN 5)"),
        ),
    ] {
        senders::wake(&world.sender, command, &world::mac(number).to_string());
        world.expect_event(number, &words);
    }
}

#[test]
fn a_node_that_sends_hears_its_datagrams_once_and_its_frames_not_at_all() {
    if cannot_run() {
        return;
    }
    let world = World::new(2);
    let mut node = world.node(11);
    node.host.plug(&world.lan, "lan0", Some("10.77.0.11/24"));
    node.start_agent();
    let frames = "send --raw --interface lan0 MAC";
    senders::wake(&node.host, frames, &world::mac(2).to_string());
    let datagrams = "send --interface lan0 MAC";
    senders::wake(&node.host, datagrams, &world::mac(1).to_string());
    world.expect_running(1);
    world.expect_no_second_start(1);
    assert_eq!(node.reported(), 1);
}

#[test]
fn an_agent_that_has_given_up_its_privileges_hears_interfaces_that_come_later() {
    if cannot_run() {
        return;
    }
    let world = World::new(VMS);
    let mut node = world.node(11);
    node.host.plug(&world.lan, "lan0", Some("10.77.0.11/24"));
    node.start_agent();
    assert_eq!(capabilities(node.agent().pid()), [CAP_NET_BIND_SERVICE]);

    node.host.ip("link delete lan0");
    node.host.plug(&world.lan, "lan0", Some("10.77.0.11/24"));
    node.host.plug(&world.lan, "new0", None);
    expect_each_wakes_once(&world, &[node], &SENDERS);
}

/// Its number in `linux/capability.h`.
const CAP_NET_BIND_SERVICE: u32 = 10;

/// The capabilities that any thread of a process has or can get.
fn capabilities(pid: u32) -> Vec<u32> {
    let mut bits = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task")).unwrap() {
        let status = fs::read_to_string(thread.unwrap().path().join("status")).unwrap();
        for name in ["CapPrm:", "CapEff:", "CapInh:", "CapAmb:"] {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            bits |= u64::from_str_radix(line.unwrap().trim(), 16).unwrap();
        }
    }
    (0..64).filter(|number| bits >> number & 1 == 1).collect()
}
