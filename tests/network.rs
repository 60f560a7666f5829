//! Real senders on real networks: every host is a network namespace. Needs root.

#[path = "network/capture.rs"]
mod capture;
mod common;
#[path = "network/senders.rs"]
mod senders;

use capture::Capture;
use common::{
    netns::{self, Host, Switch},
    skip::skipped,
};

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
            let to = std::net::Ipv4Addr::from([frame[30], frame[31], frame[32], frame[33]]);
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
