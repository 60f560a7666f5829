//! Who may report how much.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::wake::Carrier;

const SECOND: Duration = Duration::from_secs(1);

/// Before a share that is used up has room for one more.
const SOON: Duration = Duration::from_micros(979_500);

fn from(source: u32) -> Origin {
    Origin {
        carrier: Carrier::Udp,
        interface: "eth0".into(),
        vlan: None,
        source_mac: None,
        source: Some(IpAddr::from(source.to_be_bytes())),
        source_port: 9,
        length: 102,
    }
}

fn mac(number: u32) -> MacAddr {
    let [a, b, c, d] = number.to_be_bytes();
    MacAddr::new([0x52, 0x54, a, b, c, d])
}

fn budget() -> (Budget, Instant) {
    (Budget::new(Rates::default()), Instant::now())
}

/// How many of so many strangers' wakes, spread evenly over that time, one sender gets reported.
fn flood(budget: &mut Budget, origin: &Origin, count: u32, start: Instant) -> usize {
    let taken = (0..count).filter(|n| {
        let now = start + SOON * *n / count;
        budget.take(mac(*n), origin, false, now).is_ok()
    });
    taken.count()
}

#[test]
fn one_sender_of_strangers_is_held_to_its_share_and_the_others_have_theirs() {
    let (mut budget, t0) = budget();
    let flood = flood(&mut budget, &from(1), 50_000, t0);
    assert_eq!(flood, 2_979, "the burst, and what comes in that time");
    let refused = budget.take(mac(7), &from(1), false, t0 + SOON);
    assert_eq!(refused, Err(Limit::Source));
    assert_eq!(budget.take(mac(7), &from(2), false, t0 + SOON), Ok(()));
}

#[test]
fn senders_without_an_ip_address_are_told_apart_by_their_station() {
    let (mut budget, t0) = budget();
    let station = |number| Origin {
        source: None,
        source_mac: Some(mac(number)),
        ..from(0)
    };
    flood(&mut budget, &station(1), 50_000, t0);
    let now = t0 + SOON;
    assert_eq!(
        budget.take(mac(7), &station(1), false, now),
        Err(Limit::Source)
    );
    assert_eq!(budget.take(mac(7), &station(2), false, now), Ok(()));
}

#[test]
fn twenty_thousand_strangers_a_second_from_many_senders_are_all_reported() {
    let (mut budget, t0) = budget();
    for n in 0..200_000 {
        let now = t0 + SECOND * n / 20_000;
        assert_eq!(budget.take(mac(n), &from(n % 25), false, now), Ok(()));
    }
}

#[test]
fn forged_senders_are_bounded_all_together() {
    let (mut budget, t0) = budget();
    let taken = (0..900_000_u32).filter(|n| {
        let now = t0 + 10 * SECOND * *n / 900_000;
        budget.take(mac(*n), &from(*n), false, now).is_ok()
    });
    let taken = taken.count();
    assert!((299_000..=300_000).contains(&taken), "{taken}");
    assert_eq!(
        budget.forgotten(),
        900_000 - u64::try_from(REMEMBERED).unwrap()
    );
}

#[test]
fn who_knows_the_addresses_is_bounded_for_each_and_for_all() {
    let (mut budget, t0) = budget();
    let one = (0..10_000).filter(|_| budget.take(mac(1), &from(1), true, t0).is_ok());
    assert_eq!(one.count(), 2_020, "the first few, and its share");
    let others = (0..200_000).map(|n| mac(2 + n % 4_000));
    let all = others.filter(|mac| budget.take(*mac, &from(1), true, t0).is_ok());
    assert_eq!(all.count(), 20 * 4_000 + 8_000);
    assert_eq!(budget.take(mac(1), &from(1), true, t0), Err(Limit::Target));
    assert_eq!(budget.take(mac(7), &from(1), true, t0), Err(Limit::Reserve));
}

#[test]
fn a_flood_for_a_hundred_vms_hides_no_packet_for_another() {
    let (mut budget, t0) = budget();
    let mut taken = 0;
    for n in 0..90_000 {
        let now = t0 + SECOND * n / 90_000;
        taken += u32::from(budget.take(mac(n % 100), &from(1), true, now).is_ok());
        if n % 30_000 == 29_999 {
            assert_eq!(budget.take(mac(1_000), &from(2), true, now), Ok(()));
        }
    }
    assert!(taken < 24_000, "the flood itself is bounded: {taken}");
}

#[test]
fn a_thousand_vms_at_once_and_a_password_after_a_thousand_wrong_ones_pass() {
    let (mut budget, t0) = budget();
    for n in 0..1_000 {
        assert_eq!(budget.take(mac(n), &from(1), true, t0), Ok(()));
        assert_eq!(budget.take(mac(5_000), &from(1), true, t0), Ok(()));
    }
    assert_eq!(budget.take(mac(5_000), &from(1), true, t0), Ok(()));
}

#[test]
fn other_rates_hold_at_once_and_the_same_ones_refill_nothing() {
    let (mut budget, t0) = budget();
    flood(&mut budget, &from(1), 50_000, t0);
    let now = t0 + SOON;
    budget.set_rates(Rates::default());
    assert_eq!(
        budget.take(mac(7), &from(1), false, now),
        Err(Limit::Source)
    );
    let (source, agent) = (1, 10);
    budget.set_rates(Rates { source, agent });
    let taken = (0..100).filter(|n| budget.take(mac(*n), &from(1), false, now).is_ok());
    assert_eq!(taken.count(), 2);
}

proptest! {
    #[test]
    fn whatever_strangers_send_a_vm_is_not_refused(
        flood in prop::collection::vec((any::<u32>(), 0..50_u32), 0..3_000),
        rates in (1..100_u32, 1..100_u32),
    ) {
        let (source, agent) = rates;
        let mut budget = Budget::new(Rates { source, agent });
        let now = Instant::now();
        for (target, sender) in flood {
            let _ = budget.take(mac(target), &from(sender), false, now);
        }
        for n in 0..100 {
            prop_assert_eq!(budget.take(mac(n), &from(n % 50), true, now), Ok(()));
        }
    }
}
