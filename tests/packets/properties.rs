//! What holds for any bytes: the scan finds what a search at every offset finds, and no frame can
//! make the parser panic or read past a length.
//!
//! Inputs are spliced from recipes, lists of numbers of which each stands for a piece: proptest
//! shrinks those to the few pieces that matter. `PROPTEST_CASES` sets how many.

use std::collections::BTreeMap;

use kubevirt_wol::{
    frame::{FrameRejection, parse},
    mac::MacAddr,
    packet::{MAGIC_LEN, MAX_TARGETS, MagicPacket, scan},
};
use proptest::{
    prelude::*,
    strategy::ValueTree as _,
    test_runner::{RngAlgorithm, TestRng, TestRunner},
};

use crate::{
    build::{CUSTOMER, IPV4, IPV6, SERVICE, WOL, ethernet, ipv4, ipv6, udp},
    checks,
    fixtures::{TARGET, VECTORS, magic, pattern},
    packet,
    reference::search,
};

fn config() -> ProptestConfig {
    let mut config = ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = 20_000;
    }
    config
}

/// Addresses that are awkward: FF at either end, every byte the same, groups, zero.
const ADDRESSES: [[u8; 6]; 12] = [
    [0x52, 0x54, 0x00, 0x12, 0x34, 0x56],
    [0x52, 0x54, 0x00, 0x12, 0x34, 0xff],
    [0x02, 0xff, 0xff, 0xff, 0xff, 0xff],
    [0x52, 0x54, 0xff, 0xff, 0xff, 0xff],
    [0x00, 0xff, 0xff, 0xff, 0xff, 0xff],
    [0x02, 0x02, 0x02, 0x02, 0x02, 0x02],
    [0x02, 0x00, 0x00, 0x00, 0x00, 0xff],
    [0xfe, 0xff, 0xfe, 0xff, 0xfe, 0xff],
    [0x00; 6],
    [0x01, 0x00, 0x5e, 0x00, 0x00, 0xfb],
    [0xff, 0x02, 0x04, 0x06, 0x08, 0x0a],
    [0xff; 6],
];

fn recipe() -> impl Strategy<Value = Vec<u32>> {
    prop::collection::vec(any::<u32>(), 0..8)
}

fn splice(recipe: &[u32]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(1024);
    for word in recipe {
        add_piece(&mut bytes, *word);
    }
    bytes
}

/// Adds what `word` stands for: most are packets, whole or nearly so.
fn add_piece(bytes: &mut Vec<u8>, word: u32) {
    let [kind, which, amount, place] = word.to_le_bytes();
    let (amount, place) = (usize::from(amount), usize::from(place));
    let target = MacAddr::new(ADDRESSES[usize::from(which) % ADDRESSES.len()]);
    let start = bytes.len();
    match kind % 16 {
        0 => bytes.push(which),
        1 => bytes.extend(word.to_le_bytes().repeat(amount % 40)),
        2 => bytes.extend([0xff; 16].iter().take(amount % 16)),
        3 => bytes.extend([0xff; 128].iter().take(90 + amount % 30)),
        4 => bytes.extend(pattern(0, target, amount % 20)),
        5 => bytes.extend(pattern(5 + amount % 4, target, 16)),
        6 => bytes.extend(pattern(6, target, 14 + amount % 7)),
        7 => {
            // One byte is wrong, or by chance is not.
            bytes.extend(magic(target));
            bytes[start + place % MAGIC_LEN] = which;
        }
        8 => {
            bytes.extend(magic(target));
            bytes.truncate(start + amount % MAGIC_LEN);
        }
        9 => {
            bytes.extend(magic(target));
            bytes.extend(&word.to_le_bytes().repeat(2)[..amount % 8]);
        }
        10 => {
            for number in 0..which % 12 {
                bytes.extend(magic(MacAddr::new([2, 0, 0, 0, 0, number])));
            }
        }
        _ => bytes.extend(magic(target)),
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn the_scan_finds_what_a_search_at_every_offset_finds(recipe in recipe()) {
        checks::scan(&splice(&recipe));
    }

    #[test]
    fn a_packet_that_was_made_is_found_wherever_it_stands(
        octets in any::<[u8; 6]>(),
        password in prop::sample::select(vec![0_usize, 4, 6]),
        before in prop::collection::vec(0..=0xfe_u8, 0..40),
    ) {
        let target = MacAddr::new(octets);
        let made = MagicPacket::new(target, &octets[..password]);
        if target.is_group() || target.is_zero() {
            prop_assert!(made.is_err());
            return Ok(());
        }
        let made = made.unwrap();
        let bytes = made.to_bytes();
        prop_assert_eq!(bytes.len(), MAGIC_LEN + password);
        let found = scan(&[before, bytes].concat()).unwrap();
        prop_assert_eq!(found.packets(), [made]);
    }

    #[test]
    fn no_frame_makes_the_parser_panic_or_leave_the_frame(
        which in 0..VECTORS.len(),
        changes in prop::collection::vec((0..64_usize, any::<u8>()), 0..6),
        length in 0..200_usize,
        outer in any::<Option<u16>>(),
    ) {
        let mut frame = VECTORS[which].frame();
        for (at, byte) in changes {
            frame[at] = byte;
        }
        frame.resize(length, 0xff);
        if let Ok(payload) = parse(&frame, outer) {
            let within = frame.as_ptr_range();
            let bytes = payload.bytes.as_ptr_range();
            prop_assert!(within.start <= bytes.start && bytes.end <= within.end);
            let _ = scan(payload.bytes);
        }
    }

    #[test]
    fn no_bytes_make_the_parser_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..80),
        start in prop::sample::select(vec![0, WOL, IPV4, IPV6, CUSTOMER, SERVICE]),
    ) {
        let _ = parse(&bytes, None);
        let _ = parse(&ethernet(&[], start, &bytes), Some(5));
    }

    #[test]
    fn a_frame_gives_back_what_was_put_into_it(
        kind in 0..3_u8,
        tags in prop::collection::vec((any::<bool>(), 1..0x0fff_u16), 0..=3),
        option_words in 0..=10_u8,
        payload in prop::collection::vec(any::<u8>(), 0..40),
        ports in any::<(u16, u16)>(),
        padding in 0..10_usize,
    ) {
        let tags: Vec<(u16, u16)> = tags
            .into_iter()
            .map(|(service, id)| (if service { SERVICE } else { CUSTOMER }, id))
            .collect();
        let segment = udp(ports, &payload);
        let mut frame = match kind {
            0 => ethernet(&tags, WOL, &payload),
            1 => ethernet(&tags, IPV4, &ipv4([10, 0, 0, 7], option_words, &segment)),
            _ => ethernet(&tags, IPV6, &ipv6([0xfe; 16], 17, &segment)),
        };
        if kind != 0 {
            frame.resize(frame.len() + padding, 0xff);
        }
        let parsed = parse(&frame, None);
        if tags.len() > 2 {
            prop_assert_eq!(parsed, Err(FrameRejection::TooManyTags));
            return Ok(());
        }
        let parsed = parsed.unwrap();
        prop_assert_eq!(parsed.bytes, payload);
        prop_assert_eq!(parsed.vlan, tags.first().map(|(_, id)| *id));
        let found = parsed.datagram.map(|d| (d.source_port, d.destination_port));
        prop_assert_eq!(found, (kind != 0).then_some(ports));
    }
}

/// The comparison proves something only if the inputs are worth comparing.
#[test]
#[allow(
    clippy::print_stdout,
    reason = "the shares are worth reading with --nocapture"
)]
fn the_recipes_make_packets_and_every_kind_of_rejection() {
    const SAMPLES: u32 = 20_000;
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(config(), rng);
    let mut share: BTreeMap<&str, f64> = BTreeMap::new();
    for _ in 0..SAMPLES {
        let bytes = splice(&recipe().new_tree(&mut runner).unwrap().current());
        let kinds: &[&str] = match (search(&bytes).len(), scan(&bytes)) {
            (0, Err(reason)) => &[reason.as_str()],
            (1, _) => &["one target"],
            (2..=MAX_TARGETS, _) => &["several targets"],
            _ => &["several targets", "capped"],
        };
        for kind in kinds {
            *share.entry(kind).or_default() += 100.0 / f64::from(SAMPLES);
        }
    }
    println!("percent of inputs: {share:.1?}");
    let least = [
        ("one target", 20.0),
        ("several targets", 20.0),
        ("capped", 0.5),
        ("short", 5.0),
        ("no-sync", 0.5),
        ("truncated", 0.5),
        ("repetition", 2.0),
        ("group-target", 2.0),
        ("zero-target", 0.5),
    ];
    for (kind, percent) in least {
        let found = share.get(kind).copied().unwrap_or_default();
        assert!(found >= percent, "{kind}: {found:.2} %");
    }
    assert_eq!(
        scan(&splice(&[11])).unwrap().packets(),
        [packet(TARGET, &[])]
    );
}
