//! Rows 24 to 30 of the hostile inputs: frames, and what becomes of each.

use kubevirt_wol::{
    frame::{FrameRejection, parse},
    packet::{Rejection, scan},
};

use crate::{
    build::{CUSTOMER, IPV4, IPV6, SERVICE, WOL, ethernet, ipv4, ipv6, udp},
    fixtures::{self, TARGET, magic},
    targets,
};

const SENDER: [u8; 4] = [10, 0, 0, 7];
const SENDER6: [u8; 16] = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];

fn datagram() -> Vec<u8> {
    udp((40_000, 9), &magic(TARGET))
}

fn rejected(frame: &[u8]) -> Option<FrameRejection> {
    parse(frame, None).err()
}

/// A frame whose IPv4 packet is spoilt.
fn ipv4_frame(spoil: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut packet = ipv4(SENDER, 0, &datagram());
    spoil(&mut packet);
    ethernet(&[], IPV4, &packet)
}

/// A frame whose IPv6 packet is spoilt.
fn ipv6_frame(spoil: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut packet = ipv6(SENDER6, 17, &datagram());
    spoil(&mut packet);
    ethernet(&[], IPV6, &packet)
}

fn from_ipv4(source: [u8; 4]) -> Vec<u8> {
    ethernet(&[], IPV4, &ipv4(source, 0, &datagram()))
}

fn from_ipv6(source: &str) -> Vec<u8> {
    let source: std::net::Ipv6Addr = source.parse().unwrap();
    ethernet(&[], IPV6, &ipv6(source.octets(), 17, &datagram()))
}

#[test]
fn row_24_a_sender_without_an_address_yet_is_heard() {
    for frame in [from_ipv4([0; 4]), from_ipv6("::"), fixtures::frame("V14")] {
        assert_eq!(targets(parse(&frame, None).unwrap().bytes), [TARGET]);
    }
}

#[test]
fn row_24_an_impossible_sender_is_not() {
    for source in [[127, 0, 0, 1], [127, 255, 0, 9], [255; 4], [224, 0, 0, 251]] {
        let verdict = rejected(&from_ipv4(source));
        assert_eq!(verdict, Some(FrameRejection::Martian), "{source:?}");
    }
    for source in ["::1", "ff02::1", "::ffff:10.0.0.7", "::ffff:127.0.0.1"] {
        let verdict = rejected(&from_ipv6(source));
        assert_eq!(verdict, Some(FrameRejection::Martian), "{source}");
    }
}

#[test]
fn row_25_a_runt_padded_with_zeros_is_short() {
    for kept in [0, 1, 45] {
        let mut body = magic(TARGET)[..kept].to_vec();
        body.resize(46, 0);
        let frame = ethernet(&[], WOL, &body);
        assert_eq!(frame.len(), 60);
        let payload = parse(&frame, None).unwrap();
        assert_eq!(scan(payload.bytes).err(), Some(Rejection::Short), "{kept}");
    }
    for length in 0..14 {
        let frame = &fixtures::frame("V4")[..length];
        assert_eq!(rejected(frame), Some(FrameRejection::Short), "{length}");
    }
}

#[test]
fn row_26_up_to_two_tags_are_skipped_and_the_outermost_names_the_vlan() {
    let heard = |outer: Option<u16>, tags: &[(u16, u16)]| {
        for frame in [
            ethernet(tags, WOL, &magic(TARGET)),
            ethernet(tags, IPV4, &ipv4(SENDER, 0, &datagram())),
            ethernet(tags, IPV6, &ipv6(SENDER6, 17, &datagram())),
        ] {
            let payload = parse(&frame, outer).unwrap();
            assert_eq!(targets(payload.bytes), [TARGET], "{tags:?}");
        }
        let frame = ethernet(tags, WOL, &magic(TARGET));
        parse(&frame, outer).unwrap().vlan
    };
    assert_eq!(heard(None, &[]), None);
    assert_eq!(heard(None, &[(CUSTOMER, 5)]), Some(5));
    assert_eq!(heard(None, &[(SERVICE, 100), (CUSTOMER, 5)]), Some(100));
    assert_eq!(heard(Some(100), &[]), Some(100));
    assert_eq!(heard(Some(100), &[(CUSTOMER, 5)]), Some(100));
    // Priority bits are no part of the id, and a tag with a priority only names no VLAN.
    assert_eq!(heard(None, &[(CUSTOMER, 0xe005)]), Some(5));
    assert_eq!(heard(Some(0xe005), &[]), Some(5));
    assert_eq!(heard(None, &[(CUSTOMER, 0xe000)]), None);
    assert_eq!(heard(Some(0), &[(CUSTOMER, 5)]), Some(5));
}

#[test]
fn row_26_a_third_tag_or_half_a_tag_is_rejected() {
    let three = [(SERVICE, 1), (CUSTOMER, 2), (CUSTOMER, 3)];
    let frame = ethernet(&three, WOL, &magic(TARGET));
    assert_eq!(rejected(&frame), Some(FrameRejection::TooManyTags));
    let frame = ethernet(&three[1..], WOL, &magic(TARGET));
    let verdict = parse(&frame, Some(1)).err();
    assert_eq!(verdict, Some(FrameRejection::TooManyTags));
    for tags in [&[(CUSTOMER, 5)][..], &[(SERVICE, 100), (CUSTOMER, 5)]] {
        let whole = ethernet(tags, WOL, &[]);
        for missing in 1..=4 {
            let frame = &whole[..whole.len() - missing];
            assert_eq!(rejected(frame), Some(FrameRejection::TruncatedTag));
        }
    }
}

#[test]
fn row_27_a_malformed_ipv4_header_is_rejected() {
    for first_byte in [0x40, 0x44, 0x55, 0x65, 0x05] {
        let frame = ipv4_frame(|packet| packet[0] = first_byte);
        let verdict = rejected(&frame);
        assert_eq!(verdict, Some(FrameRejection::IpHeader), "{first_byte:#x}");
    }
    for length in 0..20 {
        let frame = ipv4_frame(|packet| packet.truncate(length));
        assert_eq!(rejected(&frame), Some(FrameRejection::IpHeader), "{length}");
    }
    let header_beyond_packet = ipv4_frame(|packet| {
        packet[0] = 0x4f;
        packet.truncate(59);
    });
    let verdict = rejected(&header_beyond_packet);
    assert_eq!(verdict, Some(FrameRejection::IpHeader));
}

#[test]
fn row_27_an_ipv4_length_must_fit_header_and_frame() {
    for total in [0, 19, 131, u16::MAX] {
        let frame = ipv4_frame(|packet| packet[2..4].copy_from_slice(&total.to_be_bytes()));
        assert_eq!(rejected(&frame), Some(FrameRejection::IpLength), "{total}");
    }
}

#[test]
fn row_27_fragments_are_left_to_the_udp_socket() {
    // More fragments; a later one; the last one. "Do not fragment" alone is no fragment.
    for flags in [0x2000_u16, 0x2010, 0x0010, 0x1fff] {
        let frame = ipv4_frame(|packet| packet[6..8].copy_from_slice(&flags.to_be_bytes()));
        assert_eq!(
            rejected(&frame),
            Some(FrameRejection::Fragment),
            "{flags:#x}"
        );
    }
    let whole = ipv4_frame(|packet| packet[6] = 0x40);
    assert_eq!(targets(parse(&whole, None).unwrap().bytes), [TARGET]);
}

#[test]
fn row_27_a_udp_length_must_fit_header_and_packet() {
    for length in [0, 7, 111, u16::MAX] {
        let spoil = |at: usize| {
            move |packet: &mut Vec<u8>| packet[at..at + 2].copy_from_slice(&length.to_be_bytes())
        };
        for frame in [ipv4_frame(spoil(24)), ipv6_frame(spoil(44))] {
            let verdict = rejected(&frame);
            assert_eq!(verdict, Some(FrameRejection::UdpLength), "{length}");
        }
    }
    let header_cut = ethernet(&[], IPV4, &ipv4(SENDER, 0, &datagram()[..7]));
    assert_eq!(rejected(&header_cut), Some(FrameRejection::UdpLength));
}

#[test]
fn row_27_padding_is_no_payload() {
    let short = udp((40_000, 9), b"nothing to see");
    for mut frame in [
        ethernet(&[], IPV4, &ipv4(SENDER, 0, &short)),
        ethernet(&[], IPV6, &ipv6(SENDER6, 17, &short)),
    ] {
        frame.extend(magic(TARGET));
        assert_eq!(parse(&frame, None).unwrap().bytes, b"nothing to see");
    }
    // The same between the end of the datagram and the end of the IP packet.
    let inner_padding = [short, magic(TARGET)].concat();
    let frame = ethernet(&[], IPV4, &ipv4(SENDER, 0, &inner_padding));
    assert_eq!(parse(&frame, None).unwrap().bytes, b"nothing to see");
}

#[test]
fn row_27_options_in_the_ipv4_header_are_skipped() {
    for words in 0..=10 {
        let frame = ethernet(&[], IPV4, &ipv4(SENDER, words, &datagram()));
        let payload = parse(&frame, None).unwrap();
        assert_eq!(payload.bytes, magic(TARGET), "{words}");
    }
}

#[test]
fn row_28_ipv6_with_extension_headers_is_left_to_the_udp_socket() {
    for next in [0, 43, 44, 60] {
        let frame = ipv6_frame(|packet| packet[6] = next);
        let verdict = rejected(&frame);
        assert_eq!(verdict, Some(FrameRejection::ExtensionHeader), "{next}");
    }
    for length in 0..40 {
        let frame = ipv6_frame(|packet| packet.truncate(length));
        assert_eq!(rejected(&frame), Some(FrameRejection::IpHeader), "{length}");
    }
    let wrong_version = ipv6_frame(|packet| packet[0] = 0x40);
    assert_eq!(rejected(&wrong_version), Some(FrameRejection::IpHeader));
    let too_long = ipv6_frame(|packet| packet[5] += 1);
    assert_eq!(rejected(&too_long), Some(FrameRejection::IpLength));
}

#[test]
fn other_protocols_are_rejected() {
    let tcp = [
        ipv4_frame(|packet| packet[9] = 6),
        ipv6_frame(|packet| packet[6] = 6),
    ];
    for frame in tcp {
        assert_eq!(rejected(&frame), Some(FrameRejection::Protocol));
    }
    // ARP, and a length instead of a type (LLC).
    for ethertype in [0x0806, 0x0066] {
        let frame = ethernet(&[], ethertype, &magic(TARGET));
        assert_eq!(rejected(&frame), Some(FrameRejection::EtherType));
    }
}

#[test]
fn row_29_a_wrong_checksum_does_not_matter() {
    let udp_sum = ipv4_frame(|packet| packet[26..28].copy_from_slice(&[0xde, 0xad]));
    let header_sum = ipv4_frame(|packet| packet[10..12].copy_from_slice(&[0xde, 0xad]));
    for frame in [udp_sum, header_sum] {
        assert_eq!(targets(parse(&frame, None).unwrap().bytes), [TARGET]);
    }
}

#[test]
fn row_30_a_frame_of_64_kib_is_read_to_its_end() {
    let payload = [vec![0x20; 65_507 - 102], magic(TARGET)].concat();
    let frame = ethernet(&[], IPV4, &ipv4(SENDER, 0, &udp((40_000, 9), &payload)));
    assert_eq!(targets(parse(&frame, None).unwrap().bytes), [TARGET]);
}

#[test]
fn every_reason_has_a_word_that_no_other_has() {
    let frames = FrameRejection::ALL.map(FrameRejection::as_str);
    let packets = Rejection::ALL.map(Rejection::as_str);
    let mut words = [&frames[..], &packets[..]].concat();
    words.sort_unstable();
    words.dedup();
    assert_eq!(words.len(), frames.len() + packets.len());
}
