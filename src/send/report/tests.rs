use std::net::Ipv4Addr;

use super::Report;
use crate::{
    kubevirt::VmKey,
    mac::MacAddr,
    send::{
        lookup::Unresolved,
        plan::{Carrier, Plan, Transmission, Unusable},
        transmit::Outcome,
    },
};

fn plan() -> Plan {
    let target = MacAddr::new([0x52, 0x54, 0, 0x12, 0x34, 0x56]);
    let udp = Transmission {
        target,
        vm: None,
        interface: Some("eth0".to_owned()),
        carrier: Carrier::Udp((Ipv4Addr::new(10, 0, 0, 255), 9).into()),
        bytes: vec![0xab, 0x01],
    };
    let routed = Transmission {
        vm: Some(VmKey::new("shop", "web")),
        interface: None,
        carrier: Carrier::Udp((Ipv4Addr::BROADCAST, 7).into()),
        ..udp.clone()
    };
    let frame = Transmission {
        carrier: Carrier::Ethernet {
            source: target,
            destination: MacAddr::BROADCAST,
            vlan: Some(5),
        },
        ..udp.clone()
    };
    Plan {
        transmissions: vec![udp, routed, frame],
        unusable: vec![Unusable {
            interface: "eth7".to_owned(),
            reason: "no such interface".to_owned(),
        }],
        unresolved: vec![Unresolved {
            vm: VmKey::new("shop", "db"),
            reason: "no MAC address".to_owned(),
        }],
    }
}

fn outcome(copies: u32, failure: Option<&str>) -> Outcome {
    Outcome {
        copies,
        failure: failure.map(str::to_owned),
    }
}

fn done() -> Report {
    let outcomes = vec![
        outcome(3, None),
        outcome(2, Some("no buffer space available; raise --interval")),
        outcome(0, Some("operation not permitted; run as root")),
    ];
    Report::done(plan(), outcomes)
}

fn written(report: &Report, json: bool) -> String {
    let mut out = Vec::new();
    report.write(json, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn text_has_a_line_for_each_destination() {
    assert_eq!(
        written(&done(), false),
        "\
sent    52:54:00:12:34:56 to 10.0.0.255:9 on eth0, 3 x 2 bytes
sent    52:54:00:12:34:56 (vm/shop/web) to 255.255.255.255:7, 2 x 2 bytes; not every copy: no buffer space \
available; raise --interval
failed  52:54:00:12:34:56 to ff:ff:ff:ff:ff:ff by Ethernet in VLAN 5 on eth0: operation not \
permitted; run as root
failed  eth7: no such interface
failed  vm/shop/db: no MAC address
"
    );
}

#[test]
fn a_dry_run_shows_the_bytes() {
    assert_eq!(
        written(&Report::planned(plan(), 3), false),
        "\
planned 52:54:00:12:34:56 to 10.0.0.255:9 on eth0, 3 x 2 bytes
    ab01
planned 52:54:00:12:34:56 (vm/shop/web) to 255.255.255.255:7, 3 x 2 bytes
    ab01
planned 52:54:00:12:34:56 to ff:ff:ff:ff:ff:ff by Ethernet in VLAN 5 on eth0, 3 x 2 bytes
    ab01
failed  eth7: no such interface
failed  vm/shop/db: no MAC address
"
    );
}

#[test]
fn json_says_the_same() {
    let value: serde_json::Value = serde_json::from_str(&written(&done(), true)).unwrap();
    assert_eq!(
        value,
        serde_json::json!({
            "dryRun": false,
            "results": [
                {
                    "status": "sent", "target": "52:54:00:12:34:56", "carrier": "udp",
                    "address": "10.0.0.255", "port": 9, "interface": "eth0",
                    "bytes": 2, "copies": 3,
                },
                {
                    "status": "sent", "target": "52:54:00:12:34:56", "carrier": "udp",
                    "address": "255.255.255.255", "port": 7, "vm": "shop/web",
                    "bytes": 2, "copies": 2,
                    "failure": "no buffer space available; raise --interval",
                },
                {
                    "status": "failed", "target": "52:54:00:12:34:56", "carrier": "ethernet",
                    "destination": "ff:ff:ff:ff:ff:ff", "vlan": 5, "interface": "eth0",
                    "bytes": 2, "copies": 0,
                    "failure": "operation not permitted; run as root",
                },
            ],
            "unusableInterfaces": [{ "interface": "eth7", "reason": "no such interface" }],
            "unresolvedVms": [{ "vm": "shop/db", "reason": "no MAC address" }],
        })
    );
    let planned: serde_json::Value =
        serde_json::from_str(&written(&Report::planned(plan(), 1), true)).unwrap();
    assert_eq!(planned["dryRun"], true);
    assert_eq!(planned["results"][0]["hex"], "ab01");
}

#[test]
fn only_a_report_without_any_success_is_a_failure() {
    assert!(!done().is_failure());
    let failed = vec![outcome(0, Some("network is unreachable")); 3];
    assert!(Report::done(plan(), failed).is_failure());
    let nothing = Plan {
        transmissions: vec![],
        ..plan()
    };
    assert!(Report::planned(nothing, 3).is_failure());
}
