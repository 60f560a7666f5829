//! Builds well-formed frames from their parts; tests then spoil them.

/// The tag of 802.1Q, and the outer one of 802.1ad.
pub(crate) const CUSTOMER: u16 = 0x8100;
pub(crate) const SERVICE: u16 = 0x88a8;

pub(crate) const WOL: u16 = 0x0842;
pub(crate) const IPV4: u16 = 0x0800;
pub(crate) const IPV6: u16 = 0x86dd;

/// A frame with the given tags (kind, and priority and id), outermost first.
pub(crate) fn ethernet(tags: &[(u16, u16)], ethertype: u16, body: &[u8]) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend([0x02, 0xaa, 0, 0, 0, 1]);
    for (kind, control) in tags {
        frame.extend(kind.to_be_bytes());
        frame.extend(control.to_be_bytes());
    }
    frame.extend(ethertype.to_be_bytes());
    frame.extend(body);
    frame
}

/// A datagram from `ports.0` to `ports.1`, without a checksum.
pub(crate) fn udp(ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + payload.len()).unwrap();
    let mut segment = Vec::new();
    for word in [ports.0, ports.1, length, 0] {
        segment.extend(word.to_be_bytes());
    }
    segment.extend(payload);
    segment
}

/// An IPv4 packet to 255.255.255.255 with up to ten words of options.
pub(crate) fn ipv4(source: [u8; 4], option_words: u8, segment: &[u8]) -> Vec<u8> {
    let options = vec![1; usize::from(option_words) * 4];
    let total = u16::try_from(20 + options.len() + segment.len()).unwrap();
    let mut packet = vec![0x45 + option_words, 0];
    packet.extend(total.to_be_bytes());
    packet.extend([0, 0, 0x40, 0, 64, 17, 0, 0]);
    packet.extend(source);
    packet.extend([255; 4]);
    packet.extend(options);
    packet.extend(segment);
    packet
}

/// An IPv6 packet to `ff02::1` whose first header is `next`.
pub(crate) fn ipv6(source: [u8; 16], next: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
    packet.extend([next, 64]);
    packet.extend(source);
    packet.extend([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    packet.extend(body);
    packet
}
