//! What real senders send wakes the VM that they mean.

use std::net::IpAddr;

use kubevirt_wol::{frame, mac::MacAddr, packet::scan, wake::Carrier};

use crate::{
    fixtures::{self, SENDER, TARGET, VECTORS},
    packet, targets,
};

#[test]
fn every_captured_frame_wakes_its_target() {
    for vector in &VECTORS {
        let id = vector.id;
        let frame = vector.frame();
        let payload = frame::parse(&frame, None).unwrap();
        let found = scan(payload.bytes).unwrap();
        let expected = packet(vector.target, &vector.trailing());
        assert_eq!(found.packets(), [expected], "{id} {}", vector.sender);
        assert!(!found.capped(), "{id}");
    }
}

#[test]
fn every_captured_frame_says_how_it_came() {
    for vector in &VECTORS {
        let id = vector.id;
        let frame = vector.frame();
        let payload = frame::parse(&frame, None).unwrap();
        assert_eq!(payload.source_mac, SENDER, "{id}");
        assert_eq!(payload.destination_mac.octets(), frame[..6], "{id}");
        assert_eq!(payload.vlan, vector.vlan, "{id}");
        let Some((source, source_port, destination, destination_port)) = vector.datagram else {
            assert_eq!(payload.carrier, Carrier::Ethernet, "{id}");
            assert_eq!(payload.datagram, None, "{id}");
            continue;
        };
        assert_eq!(payload.carrier, Carrier::EthernetUdp, "{id}");
        let expected = frame::Datagram {
            source: source.parse::<IpAddr>().unwrap(),
            source_port,
            destination: destination.parse::<IpAddr>().unwrap(),
            destination_port,
        };
        assert_eq!(payload.datagram, Some(expected), "{id}");
    }
}

#[test]
fn captured_frames_have_the_length_they_had_on_the_wire() {
    let lengths = VECTORS.map(|vector| vector.frame().len());
    let expected = [
        144, 144, 116, 116, 120, 122, 144, 150, 164, 144, 144, 144, 144, 148, 144, 144,
    ];
    assert_eq!(lengths, expected);
}

#[test]
fn etherwake_names_its_target_in_the_payload_not_in_the_destination() {
    let mut frame = fixtures::frame("V3");
    frame[..6].copy_from_slice(&[0x52, 0x54, 0, 0, 0, 1]);
    let payload = frame::parse(&frame, None).unwrap();
    assert_eq!(targets(payload.bytes), [TARGET]);
}

#[test]
fn one_digit_octets_wake_the_address_they_mean() {
    let frame = fixtures::frame("V16");
    let payload = frame::parse(&frame, None).unwrap();
    let expected: MacAddr = "2:4:6:8:a:c".parse().unwrap();
    assert_eq!(targets(payload.bytes), [expected]);
}

#[test]
fn v17_ansible_repeats_twenty_times_and_wakes_once() {
    let payload = fixtures::v17();
    assert_eq!(payload.len(), 126);
    let expected = packet(TARGET, &TARGET.octets());
    assert_eq!(scan(&payload).unwrap().packets(), [expected]);
}

#[test]
fn v18_and_v19_bursts_name_one_target_in_every_copy() {
    let (moonlight, upsnap) = (fixtures::v18(), fixtures::v19());
    assert_eq!((moonlight.len(), upsnap.len()), (28, 6));
    for datagram in moonlight.iter().chain(&upsnap) {
        let at = (datagram.destination, datagram.port);
        assert_eq!(targets(&datagram.payload), [TARGET], "{at:?}");
    }
}
