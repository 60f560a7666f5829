//! Owns what must hold for any bytes from outside: one function for each fuzz target. The tests
//! here and the targets in `fuzz/` run the same ones; each panics where something does not hold.

use std::time::Duration;

use kubevirt_wol::{
    frame::{ETHERTYPE_VLAN, ETHERTYPE_WOL, Payload, parse},
    mac::MacAddr,
    packet::{self, MAX_TARGETS},
    rpc::{self, pb},
    wake::Origin,
    wakeable::MAX_BYTES,
};
use prost::Message as _;

use crate::reference::{search, search_reason};

/// Splits the input of the target `frame`: whether the kernel took a tag out of the frame, that
/// tag, and the frame.
pub(crate) fn split(input: &[u8]) -> Option<(Option<u16>, &[u8])> {
    let ([taken, t0, t1], frame) = input.split_first_chunk()?;
    let tag = u16::from_be_bytes([*t0, *t1]);
    Some(((taken & 1 == 1).then_some(tag), frame))
}

/// A frame, behind the three bytes of [`split`]: the parser stays within it and within every
/// length, and takes a tag beside the frame for one within it.
pub(crate) fn frame(input: &[u8]) {
    let Some((outer, bytes)) = split(input) else {
        return;
    };
    let parsed = parse(bytes, outer);
    if let (Some(tag), true) = (outer, bytes.len() >= 14) {
        let tag = [ETHERTYPE_VLAN.to_be_bytes(), tag.to_be_bytes()].concat();
        let within = [&bytes[..12], &tag, &bytes[12..]].concat();
        assert_eq!(parse(&within, None), parsed, "a tag within the frame");
    }
    let Ok(payload) = parsed else { return };
    assert_eq!(payload.destination_mac.octets(), bytes[..6]);
    assert_eq!(payload.source_mac.octets(), bytes[6..12]);
    assert!(payload.vlan.is_none_or(|id| (1..=0x0fff).contains(&id)));
    let start = payload.bytes.as_ptr() as usize - bytes.as_ptr() as usize;
    assert_eq!(start..start + payload.bytes.len(), place(bytes, &payload));
    if payload.datagram.is_some() {
        let padded = [bytes, &[0xff; 120]].concat();
        assert_eq!(parse(&padded, outer), parsed, "padding is no payload");
    }
    scan(payload.bytes);
}

/// Where the payload of an accepted frame must lie, by the lengths that its headers name.
fn place(frame: &[u8], payload: &Payload<'_>) -> std::ops::Range<usize> {
    let word = |at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
    let mut body = 14;
    while matches!(word(body - 2), ETHERTYPE_VLAN | 0x88a8) {
        body += 4;
    }
    assert!(body <= 22, "at most two tags");
    if word(body - 2) == ETHERTYPE_WOL {
        assert_eq!(payload.datagram, None);
        return body..frame.len();
    }
    let (udp, end) = match word(body - 2) {
        0x0800 => {
            let header = usize::from(frame[body] % 16) * 4;
            (body + header, body + usize::from(word(body + 2)))
        }
        0x86dd => (body + 40, body + 40 + usize::from(word(body + 4))),
        other => panic!("{other:#06x} was accepted"),
    };
    let place = udp + 8..udp + usize::from(word(udp + 4));
    assert!(place.end <= end && end <= frame.len(), "beyond a length");
    let ports = payload
        .datagram
        .map(|d| (d.source_port, d.destination_port));
    assert_eq!(ports, Some((word(udp), word(udp + 2))));
    place
}

/// The payload of a frame or datagram: the scan finds what a search at every offset finds.
pub(crate) fn scan(bytes: &[u8]) {
    let expected = search(bytes);
    match packet::scan(bytes) {
        Ok(found) => {
            let shown = expected.len().min(MAX_TARGETS);
            assert_eq!(found.packets(), &expected[..shown]);
            assert_eq!(found.capped(), expected.len() > MAX_TARGETS);
        }
        Err(reason) => {
            assert_eq!(expected, []);
            assert_eq!(reason, search_reason(bytes));
        }
    }
}

/// A message of a session, read as each kind there is: what is understood is within its bounds and
/// survives being written and read again.
pub(crate) fn session(bytes: &[u8]) {
    if let Ok(message) = pb::AgentMessage::decode(bytes) {
        assert_eq!(again(&message), message);
        if let Some(pb::agent_message::Body::Event(event)) = &message.body {
            wake(event);
        }
    }
    if let Ok(message) = pb::ManagerMessage::decode(bytes) {
        assert_eq!(again(&message), message);
        match &message.body {
            Some(pb::manager_message::Body::Ack(ack)) => answer(ack),
            Some(pb::manager_message::Body::Configuration(configuration)) => {
                settings(configuration);
            }
            Some(pb::manager_message::Body::WakeableMacs(filter)) => wakeable(filter),
            _ => {}
        }
    }
    if let Ok(event) = pb::WolEvent::decode(bytes) {
        assert_eq!(again(&event), event);
        if let Ok(mac) = event.mac_address.parse::<MacAddr>() {
            assert_eq!(mac.to_string().parse(), Ok(mac));
        }
    }
}

/// A filter that is taken is small, and can be asked about any address.
fn wakeable(message: &pb::WakeableMacs) {
    if let Ok(Some(filter)) = rpc::wakeable(message.clone()) {
        assert!(filter.bits().len() <= MAX_BYTES);
        assert_eq!(
            rpc::wakeable(rpc::wakeable_macs(&filter)),
            Ok(Some(filter.clone()))
        );
        let _ = filter.contains(MacAddr::new([2, 0, 0, 0, 0, 1]));
    }
}

fn again<M: prost::Message + Default>(message: &M) -> M {
    match M::decode(&*message.encode_to_vec()) {
        Ok(read) => read,
        Err(error) => panic!("what was written cannot be read: {error}"),
    }
}

fn wake(event: &pb::Event) {
    let Ok((wake, age)) = rpc::wake(event) else {
        let octets = <[u8; 6]>::try_from(&*event.mac).map(MacAddr::new);
        assert!(octets.is_ok_and(|mac| !mac.is_station()) || event.mac.len() != 6);
        return;
    };
    let Origin {
        interface, source, ..
    } = &wake.origin;
    assert_eq!(wake.target.octets(), *event.mac);
    assert!(wake.target.is_station());
    let kept = event.trailing.len().min(6);
    assert_eq!(wake.trailing.as_bytes(), &event.trailing[..kept]);
    assert!(interface.len() <= 15 && event.interface.starts_with(&**interface));
    assert!(source.is_none_or(|ip| ip == ip.to_canonical()));
    let written = rpc::event(event.seq, &wake, age);
    assert_eq!(rpc::wake(&written), Ok((wake, age)));
}

fn answer(ack: &pb::Ack) {
    let answer = rpc::answer(ack);
    assert_eq!(rpc::answer(&rpc::ack(ack.seq, &answer)), answer);
}

fn settings(configuration: &pb::Configuration) {
    let Ok(settings) = rpc::settings(configuration) else {
        return;
    };
    assert!(!settings.udp_ports.contains(&0));
    assert_eq!(
        settings.dedup_window,
        Duration::from_millis(configuration.dedup_window_ms)
    );
    let written = rpc::configuration(configuration.generation, &settings);
    assert_eq!(rpc::settings(&written), Ok(settings));
}
