use clap::Parser as _;

use super::{Carrier, Plan, plan};
use crate::{
    mac::MacAddr,
    packet::Trailing,
    send::{
        SendArgs,
        interfaces::Interface,
        lookup::{Recipient, Recipients},
    },
};

#[derive(clap::Parser)]
struct Cli {
    #[command(flatten)]
    args: SendArgs,
}

const VM: MacAddr = MacAddr::new([0x52, 0x54, 0, 0x12, 0x34, 0x56]);
const NIC: MacAddr = MacAddr::new([2, 0xaa, 0, 0, 0, 1]);

fn interface(name: &str, index: u32, ipv4: &[&str]) -> Interface {
    Interface {
        name: name.to_owned(),
        index,
        up: true,
        can_broadcast: true,
        mac: Some(NIC),
        ipv4: ipv4.iter().map(|text| text.parse().unwrap()).collect(),
        has_ipv6: true,
    }
}

fn loopback() -> Interface {
    Interface {
        can_broadcast: false,
        mac: Some(MacAddr::new([0; 6])),
        ..interface("lo", 1, &["127.0.0.1/8"])
    }
}

/// A tunnel: no Ethernet, no broadcast, one address at each end.
fn tunnel() -> Interface {
    Interface {
        can_broadcast: false,
        mac: None,
        ..interface("tun0", 9, &["10.8.0.2/32"])
    }
}

fn vm() -> Recipients {
    Recipients {
        found: vec![Recipient { mac: VM, vm: None }],
        unresolved: vec![],
    }
}

fn planned(options: &[&str], interfaces: &[Interface]) -> Plan {
    let args = Cli::parse_from([&["send", "52:54:00:12:34:56"], options].concat()).args;
    plan(&args, vm(), None, interfaces).unwrap()
}

/// What a plan says, as `destination interface`.
fn routes(plan: &Plan) -> Vec<String> {
    let route = |one: &super::Transmission| {
        let to = match one.carrier {
            Carrier::Udp(to) => to.to_string(),
            Carrier::Ethernet { destination, .. } => destination.to_string(),
        };
        format!("{to} {}", one.interface.as_deref().unwrap_or("-"))
    };
    plan.transmissions.iter().map(route).collect()
}

#[test]
fn by_default_every_interface_that_can_broadcast_sends_to_its_subnet_and_to_all() {
    let interfaces = [
        loopback(),
        interface("eth0", 2, &["192.168.1.35/28"]),
        interface("eth1", 3, &[]),
        Interface {
            up: false,
            ..interface("eth2", 4, &["10.2.0.1/24"])
        },
        tunnel(),
    ];
    let plan = planned(&[], &interfaces);
    assert_eq!(
        routes(&plan),
        [
            "192.168.1.47:9 eth0",
            "192.168.1.47:7 eth0",
            "255.255.255.255:9 eth0",
            "255.255.255.255:7 eth0",
            "255.255.255.255:9 eth1",
            "255.255.255.255:7 eth1",
        ]
    );
    assert_eq!(plan.unusable, []);
    let magic = [vec![0xff; 6], VM.octets().repeat(16)].concat();
    assert!(plan.transmissions.iter().all(|one| one.bytes == magic));
}

#[test]
fn one_subnet_is_sent_to_once_however_many_addresses_are_in_it() {
    let addresses = ["10.0.0.1/24", "10.0.0.2/24", "10.1.0.1/16", "10.9.0.0/31"];
    let plan = planned(&["--port", "9"], &[interface("eth0", 2, &addresses)]);
    assert_eq!(
        routes(&plan),
        [
            "10.0.0.255:9 eth0",
            "10.1.255.255:9 eth0",
            "255.255.255.255:9 eth0",
        ]
    );
}

#[test]
fn a_destination_goes_where_the_routing_table_says_unless_interfaces_are_named() {
    let interfaces = [
        loopback(),
        interface("eth0", 2, &["10.0.0.1/24"]),
        interface("eth1", 3, &[]),
    ];
    let to = ["--port", "40009", "--broadcast", "127.0.0.1,10.0.0.0/24"];
    assert_eq!(
        routes(&planned(&to, &interfaces)),
        ["127.0.0.1:40009 -", "10.0.0.255:40009 -"]
    );
    let named = [&to[..], &["--interface", "eth1"]].concat();
    assert_eq!(
        routes(&planned(&named, &interfaces)),
        ["127.0.0.1:40009 eth1", "10.0.0.255:40009 eth1"]
    );
    let all = ["--broadcast", "10.0.0.9", "--port=9", "--all-interfaces"];
    assert_eq!(
        routes(&planned(&all, &interfaces)),
        ["10.0.0.9:9 eth0", "10.0.0.9:9 eth1"]
    );
}

#[test]
fn a_named_interface_that_cannot_be_used_is_told_and_the_others_send() {
    let interfaces = [
        interface("eth0", 2, &[]),
        Interface {
            up: false,
            ..interface("eth1", 3, &[])
        },
        tunnel(),
    ];
    let names = ["--raw", "-i", "eth0,eth1,tun0,eth7"];
    let plan = planned(&names, &interfaces);
    assert_eq!(routes(&plan), ["ff:ff:ff:ff:ff:ff eth0"]);
    let told = plan.unusable.iter().map(|u| (&*u.interface, &*u.reason));
    assert_eq!(
        told.collect::<Vec<_>>(),
        [
            (
                "eth1",
                "the interface is down; bring it up with: ip link set eth1 up"
            ),
            ("tun0", "not an Ethernet interface; leave out --raw"),
            ("eth7", "no such interface; this host has eth0, eth1, tun0"),
        ]
    );
    let udp = planned(&["-i", "tun0", "--port", "9"], &interfaces);
    assert_eq!(routes(&udp), ["255.255.255.255:9 tun0"]);
}

#[test]
fn ipv6_reaches_all_nodes_of_each_link_that_has_it() {
    let without = Interface {
        has_ipv6: false,
        ..interface("eth1", 3, &["10.0.0.1/24"])
    };
    let interfaces = [loopback(), interface("eth0", 2, &[]), without, tunnel()];
    let plan = planned(&["--ipv6"], &interfaces);
    assert_eq!(routes(&plan), ["[ff02::1%2]:9 eth0", "[ff02::1%2]:7 eth0"]);
}

#[test]
fn an_ipv6_address_of_a_link_needs_a_link() {
    let interfaces = [interface("eth0", 2, &[])];
    let parse = |options: &[&str]| Cli::parse_from([&["send", "525400123456"], options].concat());
    let args = parse(&["--broadcast", "fe80::1"]).args;
    let error = plan(&args, vm(), None, &interfaces).unwrap_err();
    assert!(error.to_string().contains("--interface"), "{error}");
    let with = planned(
        &["--broadcast=fe80::1", "-i", "eth0", "--port=9"],
        &interfaces,
    );
    assert_eq!(routes(&with), ["[fe80::1%2]:9 eth0"]);
    let global = planned(&["--broadcast=2001:db8::1", "--port=9"], &interfaces);
    assert_eq!(routes(&global), ["[2001:db8::1]:9 -"]);
}

#[test]
fn a_frame_is_what_etherwake_sends() {
    let interfaces = [loopback(), interface("eth0", 2, &[]), tunnel()];
    let magic = [vec![0xff; 6], VM.octets().repeat(16)].concat();
    for (options, header) in [
        (&["--raw"][..], "ffffffffffff02aa000000010842"),
        (&["--raw", "--unicast-l2"], "52540012345602aa000000010842"),
        (
            &["--raw", "--vlan", "5"],
            "ffffffffffff02aa00000001810000050842",
        ),
        (
            &["--raw", "--vlan", "4094"],
            "ffffffffffff02aa0000000181000ffe0842",
        ),
    ] {
        let plan = planned(options, &interfaces);
        assert_eq!(plan.transmissions.len(), 1);
        let frame = &plan.transmissions[0].bytes;
        let (head, payload) = frame.split_at(frame.len() - magic.len());
        let head: Vec<_> = head.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(head.concat(), header);
        assert_eq!(payload, magic);
    }
}

#[test]
fn password_and_filler_stand_behind_and_before_the_pattern() {
    let args = Cli::parse_from(["send", "525400123456", "--offset=2", "--broadcast=10.0.0.1"]).args;
    for password in [&[1, 2, 3, 4][..], &[1, 2, 3, 4, 5, 6]] {
        let plan = plan(&args, vm(), Some(Trailing::cut(password)), &[]).unwrap();
        let bytes = &plan.transmissions[0].bytes;
        assert_eq!(bytes.len(), 2 + 102 + password.len());
        assert_eq!(bytes[..2], [0, 0]);
        assert_eq!(bytes[2..8], [0xff; 6]);
        assert_eq!(&bytes[104..], password);
    }
}

#[test]
fn without_any_usable_interface_there_is_nothing_to_send() {
    assert_eq!(planned(&[], &[loopback(), tunnel()]), Plan::default());
}
