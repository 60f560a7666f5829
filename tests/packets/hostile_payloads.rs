//! Rows 1 to 21 of the hostile inputs: payloads, and what becomes of each.

use kubevirt_wol::{
    mac::MacAddr,
    packet::{MAGIC_LEN, MAX_TARGETS, Rejection, scan},
};

use crate::{
    fixtures::{TARGET, magic, pattern},
    packet, targets,
};

/// The largest payload of a datagram over IPv4.
const LARGEST: usize = 65_507;

fn rejected(bytes: &[u8]) -> Option<Rejection> {
    scan(bytes).err()
}

fn station(number: u16) -> MacAddr {
    let [high, low] = number.to_be_bytes();
    MacAddr::new([0x02, 0, 0, 0, high, low])
}

#[test]
fn row_01_an_empty_datagram_is_short() {
    assert_eq!(rejected(&[]), Some(Rejection::Short));
}

#[test]
fn row_02_a_piece_of_a_packet_is_short() {
    let whole = magic(TARGET);
    for length in 1..MAGIC_LEN {
        assert_eq!(
            rejected(&whole[..length]),
            Some(Rejection::Short),
            "{length}"
        );
    }
}

#[test]
fn row_03_exactly_102_bytes_wake() {
    let found = scan(&magic(TARGET)).unwrap();
    assert_eq!(found.packets(), [packet(TARGET, &[])]);
}

#[test]
fn row_04_longer_packets_wake_and_what_follows_may_be_a_password() {
    for length in [106, 108, 126, 1024, 1472] {
        let rest: Vec<u8> = (0..200).cycle().take(length - MAGIC_LEN).collect();
        let found = scan(&[magic(TARGET), rest.clone()].concat()).unwrap();
        assert_eq!(found.packets(), [packet(TARGET, &rest)], "{length}");
        let kept = found.packets()[0].trailing;
        assert_eq!(kept.as_bytes(), &rest[..rest.len().min(6)], "{length}");
    }
}

#[test]
fn row_05_bytes_that_are_no_whole_password_are_kept_as_they_are() {
    for length in [103, 104, 105, 107] {
        let rest = vec![0xa5; length - MAGIC_LEN];
        let found = scan(&[magic(TARGET), rest.clone()].concat()).unwrap();
        assert_eq!(found.packets()[0].trailing.as_bytes(), rest, "{length}");
    }
}

#[test]
fn row_06_five_bytes_of_ff_are_no_sync() {
    let mut bytes = pattern(5, TARGET, 16);
    bytes.push(0);
    assert_eq!(rejected(&bytes), Some(Rejection::NoSync));
}

#[test]
fn row_07_more_than_six_bytes_of_ff_are_as_good() {
    for sync in [7, 8, 11, 12, 13, 100, 1000] {
        assert_eq!(targets(&pattern(sync, TARGET, 16)), [TARGET], "{sync}");
    }
}

#[test]
fn row_08_nothing_but_ff_names_the_broadcast_group() {
    for length in [MAGIC_LEN, 1472, LARGEST] {
        assert_eq!(rejected(&vec![0xff; length]), Some(Rejection::GroupTarget));
    }
}

#[test]
fn row_09_a_packet_for_everybody_does_not_hide_the_next_one() {
    let bytes = [magic(MacAddr::BROADCAST), magic(TARGET)].concat();
    assert_eq!(targets(&bytes), [TARGET]);
}

#[test]
fn row_10_a_group_is_never_woken() {
    for group in [
        "01:00:5e:00:00:fb",
        "33:33:00:00:00:01",
        "ff:ff:ff:ff:ff:ff",
    ] {
        let bytes = magic(group.parse().unwrap());
        assert_eq!(rejected(&bytes), Some(Rejection::GroupTarget), "{group}");
    }
}

#[test]
fn row_11_the_zero_address_is_never_woken() {
    let bytes = magic(MacAddr::new([0; 6]));
    assert_eq!(rejected(&bytes), Some(Rejection::ZeroTarget));
}

#[test]
fn row_12_one_wrong_byte_wakes_nothing_but_does_not_stop_the_search() {
    let mut fifteen = pattern(6, TARGET, 15);
    fifteen.extend([7; 20]);
    let mut last_byte = magic(TARGET);
    last_byte[MAGIC_LEN - 1] ^= 1;
    let mut eighth = magic(TARGET);
    eighth[6 + 7 * 6] ^= 1;
    for bytes in [fifteen, last_byte, eighth] {
        assert_eq!(rejected(&bytes), Some(Rejection::Repetition));
        assert_eq!(targets(&[bytes, magic(station(1))].concat()), [station(1)]);
    }
}

#[test]
fn row_13_more_repetitions_wake_once() {
    for repetitions in 17..=20 {
        assert_eq!(targets(&pattern(6, TARGET, repetitions)), [TARGET]);
    }
}

#[test]
fn row_14_the_pattern_may_begin_anywhere() {
    for (offset, length) in [(1, 200), (7, 200), (1298, 1400), (65_405, LARGEST)] {
        let mut bytes = vec![0x20; length];
        bytes[offset..offset + MAGIC_LEN].copy_from_slice(&magic(TARGET));
        assert_eq!(targets(&bytes), [TARGET], "{offset} of {length}");
    }
}

#[test]
fn row_15_a_sync_at_the_very_end_is_truncated() {
    let sync_only = [vec![0; 200], vec![0xff; 6]].concat();
    let one_byte_less = [vec![0; 200], magic(TARGET)[..MAGIC_LEN - 1].to_vec()].concat();
    for bytes in [sync_only, one_byte_less] {
        assert_eq!(rejected(&bytes), Some(Rejection::Truncated));
    }
}

#[test]
fn row_16_a_broken_packet_does_not_swallow_the_start_of_the_next() {
    for good in [0, 1, 50, 89] {
        let broken = &pattern(6, station(1), 16)[..6 + good];
        let bytes = [broken, &magic(TARGET)].concat();
        assert_eq!(targets(&bytes), [TARGET], "{good}");
    }
}

#[test]
fn row_17_a_double_sync_wakes_once() {
    let found = scan(&pattern(12, TARGET, 16)).unwrap();
    assert_eq!(found.packets(), [packet(TARGET, &[])]);
}

#[test]
fn row_18_several_targets_wake_up_to_the_cap_and_the_cap_shows() {
    let datagram = |count: u16| {
        (1..=count)
            .flat_map(|n| magic(station(n)))
            .collect::<Vec<u8>>()
    };
    for (count, expected, capped) in [(2, 2, false), (8, 8, false), (9, 8, true), (642, 8, true)] {
        let found = scan(&datagram(count)).unwrap();
        let woken: Vec<MacAddr> = found.packets().iter().map(|p| p.target).collect();
        let first: Vec<MacAddr> = (1..=expected).map(station).collect();
        assert_eq!((woken, found.capped()), (first, capped), "{count}");
    }
    assert_eq!(MAX_TARGETS, 8);
}

#[test]
fn row_19_one_target_named_642_times_is_one_event() {
    let bytes = magic(TARGET).repeat(642);
    assert_eq!(bytes.len(), 65_484);
    let found = scan(&bytes).unwrap();
    assert_eq!((found.packets().len(), found.capped()), (1, false));
    assert_eq!(found.packets()[0].target, TARGET);
}

#[test]
fn row_19_one_datagram_tries_one_password_per_target() {
    let attempt = |n: u8| [magic(TARGET), vec![n; 6]].concat();
    let bytes: Vec<u8> = (0..100).flat_map(attempt).collect();
    assert_eq!(scan(&bytes).unwrap().packets(), [packet(TARGET, &[0; 6])]);
}

// That the time is linear shows in benches/parse.rs: a timed test would fail on a busy machine.
#[test]
fn row_20_bait_for_a_quadratic_search_wakes_nothing() {
    let short_bait = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0].repeat(LARGEST / 7);
    assert_eq!(rejected(&short_bait), Some(Rejection::Repetition));
    let long_bait = magic(TARGET)[..MAGIC_LEN - 1].repeat(LARGEST / (MAGIC_LEN - 1));
    assert_eq!(rejected(&long_bait), Some(Rejection::Repetition));
}

#[test]
fn row_21_an_address_with_ff_inside_wakes_once() {
    for address in [
        "02:ff:ff:ff:ff:ff",
        "52:54:ff:ff:ff:ff",
        "00:ff:ff:ff:ff:ff",
    ] {
        let target = address.parse().unwrap();
        let found = scan(&magic(target)).unwrap();
        assert_eq!(found.packets(), [packet(target, &[])], "{address}");
    }
}

#[test]
fn row_21_the_end_of_an_address_may_begin_the_next_sync() {
    let first = MacAddr::new([0x02, 0xff, 0xff, 0xff, 0xff, 0xff]);
    let bytes = [magic(first), pattern(1, TARGET, 16)].concat();
    assert_eq!(targets(&bytes), [first, TARGET]);
}
