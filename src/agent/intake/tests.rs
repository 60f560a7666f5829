//! Which packets become events.

use std::{net::IpAddr, time::Duration};

use super::*;
use crate::{
    frame::FrameRejection,
    wake::{Carrier, Outcome},
};

/// The replica that all sessions are with.
const A: &str = "manager-a";

fn origin(carrier: Carrier, interface: &str) -> Origin {
    Origin {
        carrier,
        interface: interface.into(),
        vlan: None,
        source_mac: None,
        source: Some(IpAddr::from([10, 0, 0, 7])),
        source_port: 40_000,
        length: 102,
    }
}

fn udp() -> Origin {
    origin(Carrier::Udp, "eth0")
}

fn magic(last: u8, rest: &[u8]) -> Vec<u8> {
    let address = [0x52, 0x54, 0, 0, 0, last];
    [&[0xff; 6], &*address.repeat(16), rest].concat()
}

fn intake() -> (Intake, Instant) {
    let intake = Intake::new("node-1".to_owned(), Metrics::default());
    intake.attach(&A.into()).unwrap();
    (intake, Instant::now())
}

fn with_filters(filters: &[(&[&str], &[&str])]) -> (Intake, Instant) {
    let (intake, t0) = intake();
    let filter =
        |(interfaces, ranges): &(&[&str], &[&str])| SourceFilter::new(interfaces, ranges).unwrap();
    intake.apply(&Settings {
        filters: filters.iter().map(filter).collect(),
        ..Settings::default()
    });
    (intake, t0)
}

const NONE: [u8; 0] = [];

/// The last octets of the targets of all events that are due.
fn reported(intake: &Intake, now: Instant) -> Vec<u8> {
    std::iter::from_fn(|| intake.next_event(A, now).map(|event| event.mac[5])).collect()
}

fn answer(intake: &Intake, seq: u64, outcome: Outcome, now: Instant) {
    intake.answer(&A.into(), seq, &Answer::Final(outcome, String::new()), now);
}

fn counted(intake: &Intake) -> String {
    let mut registry = prometheus_client::registry::Registry::default();
    intake.metrics().register(&mut registry);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    text
}

#[test]
fn a_repeat_within_two_seconds_is_one_wake_and_one_after_them_another() {
    let (intake, t0) = intake();
    let mut seen = Vec::new();
    for ms in [0, 100, 200, 1900, 1999, 2000, 2100, 3999, 4000] {
        let now = t0 + Duration::from_millis(ms);
        intake.hear(&magic(1, &[]), &udp(), now);
        seen.extend(reported(&intake, now).iter().map(|_| ms));
    }
    assert_eq!(seen, [0, 2000, 4000], "the window does not slide");
}

#[test]
fn what_waited_while_the_agent_was_frozen_does_not_hide_what_came_last() {
    let (intake, t0) = intake();
    let now = t0 + Duration::from_secs(40);
    let read = |ago, target| {
        let heard_at = now.checked_sub(Duration::from_secs(ago)).unwrap();
        intake.take(&magic(target, &[]), &udp(), heard_at, now);
    };
    // A stale one, one that may still start something, its copy, and one of just now.
    for ago in [39, 20, 19, 0] {
        read(ago, 1);
    }
    // From another socket, behind the clock of the first: once.
    read(20, 2);
    read(0, 2);
    let events = std::iter::from_fn(|| intake.next_event(A, now));
    let events: Vec<_> = events.map(|event| (event.seq, event.mac[5])).collect();
    assert_eq!(events, [(1, 1), (2, 1), (3, 2)]);
    let text = counted(&intake);
    for line in [
        r#"agent_packets_total{carrier="udp",verdict="stale"} 1"#,
        r#"agent_packets_total{carrier="udp",verdict="repeat"} 2"#,
        r#"agent_lost_events_total{reason="stale"} 1"#,
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}

#[test]
fn another_password_is_another_wake() {
    let (intake, t0) = intake();
    intake.hear(&magic(1, b"wrong!"), &udp(), t0);
    intake.hear(&magic(1, b"right!"), &udp(), t0);
    intake.hear(&magic(1, b"right!ignored"), &udp(), t0);
    assert_eq!(reported(&intake, t0), [1, 1]);
}

#[test]
fn every_target_of_a_packet_is_reported_once() {
    let (intake, t0) = intake();
    let packets = [magic(1, &[]), magic(2, &[]), magic(1, &[])].concat();
    intake.hear(&packets, &udp(), t0);
    assert_eq!(reported(&intake, t0), [1, 2]);
}

#[test]
fn a_failure_that_a_retry_may_mend_does_not_hide_the_retry() {
    let (intake, t0) = intake();
    intake.hear(&magic(1, &[]), &udp(), t0);
    reported(&intake, t0);
    answer(&intake, 1, Outcome::NotFound, t0);
    intake.hear(&magic(1, &[]), &udp(), t0);
    assert_eq!(reported(&intake, t0), [1]);
    answer(&intake, 2, Outcome::Started, t0);
    intake.hear(&magic(1, &[]), &udp(), t0);
    assert_eq!(reported(&intake, t0), NONE, "started: a repeat is a repeat");
}

#[test]
fn a_wake_that_was_pushed_out_counts_again() {
    let (intake, t0) = intake();
    intake.hear(&magic(0, &[]), &udp(), t0);
    for n in 0..1024_u32 {
        let [a, b, c, d] = n.to_be_bytes();
        let payload = [&[0xff; 6], &*[0x52, 1, a, b, c, d].repeat(16)].concat();
        intake.hear(&payload, &udp(), t0);
    }
    intake.hear(&magic(0, &[]), &udp(), t0);
    let events: Vec<_> = std::iter::from_fn(|| intake.next_event(A, t0)).collect();
    assert_eq!(events.len(), 1024);
    assert_eq!(events[1023].seq, 1026);
    assert_eq!(events[1023].mac, [0x52, 0x54, 0, 0, 0, 0]);
}

#[test]
fn what_no_config_wants_is_not_reported_and_marks_nothing() {
    let (intake, t0) = with_filters(&[(&["eth*"], &["10.0.0.0/24"])]);
    intake.hear(&magic(1, &[]), &origin(Carrier::Udp, "wlan0"), t0);
    let mut foreign = udp();
    foreign.source = Some(IpAddr::from([192, 168, 0, 1]));
    intake.hear(&magic(1, &[]), &foreign, t0);
    assert_eq!(reported(&intake, t0), NONE);
    intake.hear(&magic(1, &[]), &udp(), t0);
    assert_eq!(reported(&intake, t0), [1]);

    let (intake, t0) = with_filters(&[]);
    intake.hear(&magic(1, &[]), &udp(), t0);
    assert_eq!(reported(&intake, t0), NONE, "no config at all wants it");
}

#[test]
fn ways_that_different_configs_trust_are_different_wakes() {
    let (intake, t0) = with_filters(&[(&["eth*"], &[]), (&["eth0", "br0"], &[])]);
    for interface in ["eth0", "eth1", "br0", "eth2"] {
        intake.hear(&magic(1, &[]), &origin(Carrier::Udp, interface), t0);
    }
    assert_eq!(
        reported(&intake, t0).len(),
        3,
        "eth1 and eth2 are trusted alike"
    );
}

#[test]
fn pods_cannot_wake_over_their_own_links_by_default() {
    let (intake, t0) = intake();
    for interface in [
        "veth12",
        "cali0",
        "lxc1",
        "cilium_host",
        "ovn-k8s-mp0",
        "cni0",
    ] {
        intake.hear(&magic(1, &[]), &origin(Carrier::EthernetUdp, interface), t0);
    }
    assert_eq!(reported(&intake, t0), NONE);
    intake.hear(&magic(1, &[]), &origin(Carrier::Udp, ""), t0);
    assert_eq!(
        reported(&intake, t0),
        [1],
        "an unknown interface is not held against it"
    );
}

#[test]
fn the_frame_of_a_wake_is_told_rather_than_its_datagram() {
    let (intake, t0) = intake();
    intake.hear(&magic(1, &[]), &udp(), t0);
    intake.hear(&magic(1, &[]), &origin(Carrier::EthernetUdp, "eth0"), t0);
    let event = intake.next_event(A, t0).unwrap();
    assert_eq!(event.carrier(), pb::Carrier::EthernetUdp);
    assert_eq!(intake.next_event(A, t0), None);
}

#[test]
fn every_packet_is_counted_once_under_what_became_of_it() {
    let (intake, t0) = with_filters(&[(&["eth0"], &[])]);
    intake.hear(&magic(1, &[]), &udp(), t0);
    intake.hear(&magic(1, &[]), &udp(), t0);
    intake.hear(&magic(2, &[]), &origin(Carrier::Ethernet, "eth1"), t0);
    intake.hear(&[], &udp(), t0);
    intake.hear(&[0xff; 102], &udp(), t0);
    intake.reject("eth0", Invalid::Frame(FrameRejection::Fragment));
    let text = counted(&intake);
    for line in [
        r#"agent_packets_total{carrier="udp",verdict="reported"} 1"#,
        r#"agent_packets_total{carrier="udp",verdict="repeat"} 1"#,
        r#"agent_packets_total{carrier="ethernet",verdict="filtered"} 1"#,
        r#"agent_packets_total{carrier="udp",verdict="invalid"} 2"#,
        r#"agent_packets_total{carrier="unknown",verdict="invalid"} 1"#,
        r#"agent_invalid_packets_total{reason="short"} 1"#,
        r#"agent_invalid_packets_total{reason="group-target"} 1"#,
        r#"agent_invalid_packets_total{reason="fragment"} 1"#,
        "agent_unsettled_events 1",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}

/// The packet for the stranger with this number.
fn stranger(n: u32) -> Vec<u8> {
    let mac = [&[0x02, 0x99], &n.to_be_bytes()[..]].concat();
    [&[0xff; 6], &*mac.repeat(16)].concat()
}

#[test]
fn a_flood_of_addresses_is_bounded() {
    let (intake, t0) = intake();
    for n in 0..100_000_u32 {
        let mut origin = udp();
        origin.source = Some(IpAddr::from(n.to_be_bytes()));
        intake.hear(&stranger(n), &origin, t0);
    }
    let state = intake.lock();
    assert!(state.window.len() <= WINDOW_CAPACITY);
    assert_eq!(state.ring.len(), 1024);
    drop(state);
    let text = counted(&intake);
    for line in [
        // Twice what an agent reports in a second, less what the ring holds.
        r#"agent_lost_events_total{reason="overflow"} 48976"#,
        r#"agent_limited_wakes_total{limit="agent"} 50000"#,
        r#"agent_packets_total{carrier="udp",verdict="limited"} 50000"#,
        "agent_forgotten_shares_total 95904",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}

#[test]
fn a_vm_comes_through_a_flood_from_its_own_sender() {
    let (intake, t0) = intake();
    let mut wakeable = WakeableMacs::for_addresses(1);
    wakeable.insert(MacAddr::new([0x52, 0x54, 0, 0, 0, 1]));
    intake.prefer(&A.into(), wakeable);
    assert!(counted(&intake).contains("agent_wakeable_filter_bytes 64"));
    for n in 0..10_000 {
        intake.hear(&stranger(n), &udp(), t0);
    }
    intake.hear(&magic(1, &[]), &udp(), t0);
    for n in 10_000..20_000 {
        intake.hear(&stranger(n), &udp(), t0);
    }
    assert_eq!(reported(&intake, t0)[0], 1, "and goes first");
    let text = counted(&intake);
    let line = r#"agent_limited_wakes_total{limit="source"} 18000"#;
    assert!(text.contains(line), "{line} is not in\n{text}");
}

#[test]
fn a_copy_of_what_was_refused_counts_as_soon_as_there_is_room() {
    let (intake, t0) = intake();
    for n in 0..2_000 {
        intake.hear(&stranger(n), &udp(), t0);
    }
    reported(&intake, t0);
    intake.hear(&magic(1, &[]), &udp(), t0);
    assert_eq!(reported(&intake, t0), NONE);
    let later = t0 + Duration::from_millis(100);
    intake.hear(&magic(1, &[]), &udp(), later);
    assert_eq!(reported(&intake, later), [1]);
}

#[test]
fn repeats_take_nothing_from_a_share() {
    let (intake, t0) = intake();
    for _ in 0..10_000 {
        intake.hear(&magic(1, &[]), &udp(), t0);
    }
    for n in 0..1_000 {
        intake.hear(&stranger(n), &udp(), t0);
    }
    assert_eq!(reported(&intake, t0).len(), 1_001);
}

#[test]
fn what_a_flood_left_unwritten_is_told_when_it_is_over() {
    let (intake, t0) = intake();
    for n in 0..150 {
        intake.hear(&magic(n, &[]), &udp(), t0);
    }
    intake.tick(t0 + Duration::from_secs(1));
    let untold = intake.lock().lines.settle(t0 + Duration::from_secs(2));
    assert_eq!(untold, 0, "told without another wake");
}

#[test]
fn every_reason_is_counted_from_zero() {
    let text = counted(&intake().0);
    for reason in ["short", "zero-target", "udp-length", "martian"] {
        let line = format!(r#"agent_invalid_packets_total{{reason="{reason}"}} 0"#);
        assert!(text.contains(&line), "{line} is not in\n{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_end_waits_for_answers_and_no_longer() {
    let (intake, t0) = intake();
    let patience = t0 + Duration::from_secs(10);
    intake.flushed(patience).await;
    intake.hear(&magic(1, &[]), &udp(), t0);
    reported(&intake, t0);
    let waiting = tokio::time::timeout(Duration::from_secs(10), intake.flushed(patience));
    assert!(waiting.await.is_err());
    let (waited, ()) = tokio::join!(intake.flushed(patience), async {
        answer(&intake, 1, Outcome::Started, t0);
    });
    assert_eq!(waited, ());
}

#[tokio::test(start_paused = true)]
async fn each_session_is_woken_for_what_is_its_own() {
    let intake = Arc::new(Intake::new("node-1".to_owned(), Metrics::default()));
    let t0 = Instant::now();
    let open = |replica: &str| Outlet::open(&intake, replica.into());
    let (a, b) = (open("a").unwrap(), open("b").unwrap());
    assert!(open("a").is_none(), "one session with each replica");
    let woken = async |outlet: &Outlet| {
        let due = tokio::time::timeout(Duration::from_secs(1), outlet.due());
        due.await.is_ok()
    };
    let take = |outlet: &Outlet| {
        let events = std::iter::from_fn(|| outlet.next_event(t0).map(|event| event.mac[5]));
        events.collect::<Vec<_>>()
    };
    let mut both = Vec::new();
    for last in 0..20 {
        intake.hear(&magic(last, &[]), &udp(), t0);
        let (for_a, for_b) = (woken(&a).await, woken(&b).await);
        assert!(for_a != for_b, "{last}");
        let mine = take(if for_a { &a } else { &b });
        assert_eq!(mine, [last]);
        both.push(for_a);
    }
    assert!(both.contains(&true) && both.contains(&false));
    assert!(counted(&intake).contains("agent_connected_managers 2"));
    // What was sent to a goes to b at once.
    let mut ended = intake.ended();
    drop(a);
    assert!(ended.has_changed().unwrap() && woken(&b).await);
    assert_eq!(take(&b).len(), both.iter().filter(|for_a| **for_a).count());
    ended.mark_unchanged();
    assert!(counted(&intake).contains("agent_connected_managers 1"));
    assert!(open("a").is_some());
}

#[test]
fn what_any_replica_knows_to_be_wakeable_goes_first() {
    let intake = Intake::new("node-1".to_owned(), Metrics::default());
    let t0 = Instant::now();
    let knows = |replica: &str, last: u8| {
        intake.attach(&replica.into()).unwrap();
        let target = MacAddr::new([0x52, 0x54, 0, 0, 0, last]);
        intake.prefer(&replica.into(), WakeableMacs::of(&[target]));
    };
    let wakeable = |last: u8| {
        let target = MacAddr::new([0x52, 0x54, 0, 0, 0, last]);
        intake.lock().is_wakeable(target)
    };
    knows("a", 1);
    knows("b", 2);
    assert!(wakeable(1) && wakeable(2) && !wakeable(3));
    intake.detach("a");
    intake.detach("b");
    assert!(
        wakeable(1) && wakeable(2),
        "while there is nobody who knows better"
    );
    knows("c", 3);
    assert!(!wakeable(1) && !wakeable(2) && wakeable(3));
    intake.hear(&magic(4, &[]), &udp(), t0);
    intake.hear(&magic(3, &[]), &udp(), t0);
    let first = intake.next_event("c", t0).unwrap();
    assert_eq!(first.mac[5], 3);
}
