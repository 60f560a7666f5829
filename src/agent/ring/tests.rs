//! What becomes of wakes while time passes and the session with one manager comes and goes.

use super::*;
use crate::wake::Outcome;

pub(super) const TTL: Duration = Duration::from_secs(30);

/// The only replica.
pub(super) const A: &str = "manager-a";

pub(super) fn ring() -> Ring {
    let mut ring = Ring::new(TTL);
    ring.replica_came(A.into());
    ring
}

/// The session ends, and the next one begins.
fn lose_session(ring: &mut Ring) {
    ring.replica_lost(A);
    ring.replica_came(A.into());
}

pub(super) fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// The target with this number.
pub(super) fn mac(n: usize) -> MacAddr {
    let [.., a, b, c] = n.to_be_bytes();
    MacAddr::new([0x52, 0x54, 0, a, b, c])
}

pub(super) fn wake(n: usize, carrier: Carrier) -> Wake {
    Wake {
        target: mac(n),
        trailing: Trailing::default(),
        origin: Origin {
            carrier,
            interface: "eth0".into(),
            vlan: None,
            source_mac: None,
            source: None,
            source_port: 0,
            length: 102,
        },
    }
}

pub(super) fn key(n: usize) -> Key {
    (mac(n), Trailing::default(), 1)
}

pub(super) fn push(ring: &mut Ring, n: usize, now: Instant) -> Option<Settled> {
    let known = ring.knows(mac(n));
    ring.push(wake(n, Carrier::Udp), key(n), known, now)
}

/// The number and the age, in seconds, of all that is due.
pub(super) fn send_all(ring: &mut Ring, now: Instant) -> Vec<(u64, u64)> {
    std::iter::from_fn(|| {
        ring.next_unsent(A, now)
            .map(|due| (due.seq, due.age.as_secs()))
    })
    .collect()
}

pub(super) fn started() -> Answer {
    Answer::Final(Outcome::Started, String::new())
}

pub(super) fn deferred(time: Duration) -> Answer {
    Answer::Deferred(time, String::new())
}

fn settled(n: usize, retry: bool) -> Settled {
    Settled { key: key(n), retry }
}

#[test]
fn wakes_are_numbered_from_one_and_sent_once_with_their_true_age() {
    let (mut ring, t0) = (ring(), Instant::now());
    push(&mut ring, 1, t0);
    push(&mut ring, 2, t0 + seconds(3));
    assert!(ring.has_due(A, t0 + seconds(4)));
    assert_eq!(send_all(&mut ring, t0 + seconds(4)), [(1, 4), (2, 1)]);
    assert!(!ring.has_due(A, t0 + seconds(4)));
}

#[test]
fn after_a_lost_session_all_that_is_unsettled_is_replayed_oldest_first_with_its_number_and_age() {
    let (mut ring, t0) = (ring(), Instant::now());
    for n in 1..=4 {
        push(&mut ring, n, t0);
    }
    send_all(&mut ring, t0);
    ring.acked(&A.into(), 2, &started(), t0);
    ring.acked(&A.into(), 3, &deferred(seconds(60)), t0);
    push(&mut ring, 5, t0 + seconds(5));
    lose_session(&mut ring);
    let replayed = send_all(&mut ring, t0 + seconds(10));
    assert_eq!(
        replayed,
        [(3, 10), (1, 10), (4, 10), (5, 5)],
        "what a manager had deferred goes first"
    );
}

#[test]
fn what_is_known_to_be_wakeable_goes_first() {
    let (mut ring, t0) = (ring(), Instant::now());
    for n in 1..=6 {
        ring.push(wake(n, Carrier::Udp), key(n), n == 3, t0);
    }
    assert_eq!(ring.next_unsent(A, t0).unwrap().seq, 3);
    ring.recognize(|target| target == mac(5));
    let order: Vec<u64> = send_all(&mut ring, t0).iter().map(|sent| sent.0).collect();
    assert_eq!(order, [5, 1, 2, 4, 6]);
    lose_session(&mut ring);
    let order: Vec<u64> = send_all(&mut ring, t0).iter().map(|sent| sent.0).collect();
    assert_eq!(order, [3, 5, 1, 2, 4, 6]);
}

#[test]
fn a_stranger_does_not_push_out_what_is_known_to_be_wakeable() {
    let (mut ring, t0) = (ring(), Instant::now());
    for n in 1..=CAPACITY {
        ring.push(wake(n, Carrier::Udp), key(n), true, t0);
    }
    let dropped = ring.push(wake(5_000, Carrier::Udp), key(5_000), false, t0);
    assert_eq!(dropped, Some(settled(5_000, true)), "it counts again");
    assert_eq!(send_all(&mut ring, t0).len(), CAPACITY);
    let dropped = ring.push(wake(6_000, Carrier::Udp), key(6_000), true, t0);
    assert_eq!(dropped, Some(settled(1, true)));
}

#[test]
fn a_manager_that_defers_everything_teaches_nothing() {
    let (mut ring, t0) = (ring(), Instant::now());
    push(&mut ring, 1, t0);
    ring.acked(&A.into(), 1, &deferred(seconds(2)), t0);
    assert!(!ring.knows(mac(1)));
    push(&mut ring, 2, t0);
    ring.acked(&A.into(), 2, &started(), t0);
    assert!(ring.knows(mac(2)));
}

#[test]
fn a_wake_without_an_answer_is_sent_again_after_two_seconds() {
    let (mut ring, t0) = (ring(), Instant::now());
    push(&mut ring, 1, t0);
    send_all(&mut ring, t0);
    let almost = t0 + Duration::from_millis(1999);
    assert_eq!(ring.tick(almost), []);
    assert_eq!(send_all(&mut ring, almost), []);
    assert_eq!(ring.tick(t0 + ACK_TIMEOUT), []);
    assert_eq!(send_all(&mut ring, t0 + ACK_TIMEOUT), [(1, 2)]);
}

#[test]
fn a_wake_that_no_manager_took_within_the_ttl_is_stale_and_never_sent() {
    let (mut ring, t0) = (ring(), Instant::now());
    push(&mut ring, 1, t0);
    push(&mut ring, 2, t0 + seconds(1));
    assert_eq!(
        send_all(&mut ring, t0 + TTL),
        [(2, 29)],
        "even before the tick"
    );
    assert_eq!(ring.tick(t0 + TTL), [settled(1, true)]);
    assert_eq!(ring.len(), 1);
}

#[test]
fn a_wake_sent_in_time_may_be_answered_after_the_ttl() {
    let (mut ring, t0) = (ring(), Instant::now());
    push(&mut ring, 1, t0);
    let late = t0 + Duration::from_millis(29_999);
    send_all(&mut ring, late);
    assert_eq!(ring.tick(t0 + TTL + seconds(1)), []);
    assert_eq!(
        ring.acked(&A.into(), 1, &started(), t0 + TTL + seconds(1)),
        Some(settled(1, false))
    );
}

#[test]
fn a_changed_ttl_holds_for_what_is_there() {
    let (mut ring, t0) = (ring(), Instant::now());
    push(&mut ring, 1, t0);
    ring.set_ttl(seconds(1));
    assert_eq!(ring.tick(t0 + seconds(1)), [settled(1, true)]);
    ring.set_ttl(Duration::MAX);
    push(&mut ring, 2, t0);
    assert_eq!(ring.tick(t0 + seconds(1_000_000)), []);
}

#[test]
fn a_deferred_wake_outlives_the_ttl_and_goes_to_the_next_manager() {
    let (mut ring, t0) = (ring(), Instant::now());
    push(&mut ring, 1, t0);
    send_all(&mut ring, t0);
    assert_eq!(ring.acked(&A.into(), 1, &deferred(seconds(300)), t0), None);
    assert_eq!(ring.tick(t0 + seconds(200)), []);
    assert_eq!(
        send_all(&mut ring, t0 + seconds(200)),
        [],
        "this manager has it"
    );
    lose_session(&mut ring);
    assert_eq!(send_all(&mut ring, t0 + seconds(200)), [(1, 200)]);
}

#[test]
fn a_deferred_wake_is_asked_for_once_more_at_its_deadline_and_then_given_up() {
    let (mut ring, t0) = (ring(), Instant::now());
    push(&mut ring, 1, t0);
    send_all(&mut ring, t0);
    ring.acked(&A.into(), 1, &deferred(seconds(60)), t0);
    assert_eq!(ring.tick(t0 + seconds(60)), []);
    assert_eq!(send_all(&mut ring, t0 + seconds(60)), [(1, 60)]);
    assert_eq!(ring.tick(t0 + seconds(62)), [settled(1, true)]);
    assert!(ring.is_empty());
}

#[test]
fn a_deferred_wake_that_no_manager_takes_back_ends_at_its_deadline() {
    let (mut ring, t0) = (ring(), Instant::now());
    push(&mut ring, 1, t0);
    send_all(&mut ring, t0);
    ring.acked(&A.into(), 1, &deferred(seconds(60)), t0);
    lose_session(&mut ring);
    assert_eq!(ring.tick(t0 + seconds(59)), []);
    assert_eq!(ring.tick(t0 + seconds(60)), [settled(1, true)]);
}

#[test]
fn a_deferral_shorter_than_the_ttl_does_not_shorten_the_life_of_a_wake() {
    let (mut ring, t0) = (ring(), Instant::now());
    push(&mut ring, 1, t0);
    send_all(&mut ring, t0);
    ring.acked(&A.into(), 1, &deferred(seconds(2)), t0);
    lose_session(&mut ring);
    let back = t0 + TTL.saturating_sub(seconds(1));
    assert_eq!(ring.tick(back), [], "the next manager may be slow to come");
    assert_eq!(send_all(&mut ring, back), [(1, 29)]);
    lose_session(&mut ring);
    assert_eq!(ring.tick(t0 + TTL), [settled(1, true)]);
}

#[test]
fn a_short_deferral_does_not_shorten_what_another_manager_promised() {
    let (mut ring, t0) = (ring(), Instant::now());
    push(&mut ring, 1, t0);
    send_all(&mut ring, t0);
    ring.acked(&A.into(), 1, &deferred(seconds(300)), t0);
    lose_session(&mut ring);
    let later = t0 + seconds(100);
    assert_eq!(send_all(&mut ring, later), [(1, 100)]);
    ring.acked(&A.into(), 1, &deferred(seconds(2)), later);
    assert_eq!(ring.tick(later + seconds(2)), []);
    lose_session(&mut ring);
    assert_eq!(ring.tick(t0 + seconds(299)), [], "the VM may be stopping");
    assert_eq!(send_all(&mut ring, t0 + seconds(299)), [(1, 299)]);
    lose_session(&mut ring);
    assert_eq!(ring.tick(t0 + seconds(300)), [settled(1, true)]);
}

#[test]
fn a_wake_tells_whether_it_was_deferred_however_often_it_is_replayed() {
    let (mut ring, t0) = (ring(), Instant::now());
    push(&mut ring, 1, t0);
    push(&mut ring, 2, t0);
    let told = |ring: &mut Ring| {
        let due = std::iter::from_fn(|| ring.next_unsent(A, t0).map(|due| (due.seq, due.deferred)));
        due.collect::<Vec<_>>()
    };
    assert_eq!(told(&mut ring), [(1, false), (2, false)]);
    ring.acked(&A.into(), 2, &deferred(seconds(300)), t0);
    for _ in 0..2 {
        lose_session(&mut ring);
        assert_eq!(told(&mut ring), [(2, true), (1, false)]);
    }
}

#[test]
fn a_deferral_of_no_time_or_of_all_time_is_bounded() {
    let (mut ring, t0) = (ring(), Instant::now());
    push(&mut ring, 1, t0);
    push(&mut ring, 2, t0);
    send_all(&mut ring, t0);
    ring.acked(&A.into(), 1, &deferred(Duration::ZERO), t0);
    ring.acked(&A.into(), 2, &deferred(Duration::from_millis(u64::MAX)), t0);
    ring.tick(t0);
    assert_eq!(send_all(&mut ring, t0), [], "no busy loop");
    ring.tick(t0 + seconds(3600));
    assert_eq!(ring.len(), 2, "asked for once more");
    ring.tick(t0 + seconds(3610));
    assert!(ring.is_empty());
}

#[test]
fn an_answer_for_what_is_not_there_changes_nothing() {
    let (mut ring, t0) = (ring(), Instant::now());
    push(&mut ring, 1, t0);
    assert_eq!(ring.acked(&A.into(), 7, &started(), t0), None);
    assert_eq!(
        ring.acked(&A.into(), 1, &started(), t0),
        Some(settled(1, false))
    );
    assert_eq!(ring.acked(&A.into(), 1, &started(), t0), None);
}

#[test]
fn a_full_ring_drops_the_oldest_and_lets_its_repeat_count() {
    let (mut ring, t0) = (ring(), Instant::now());
    for n in 1..=CAPACITY {
        assert_eq!(push(&mut ring, n, t0), None);
    }
    assert_eq!(push(&mut ring, CAPACITY + 1, t0), Some(settled(1, true)));
    assert_eq!(ring.len(), CAPACITY);
    assert_eq!(send_all(&mut ring, t0)[0].0, 2);
}

#[test]
fn a_flood_does_not_push_out_what_is_known_to_be_wakeable() {
    let (mut ring, t0) = (ring(), Instant::now());
    // Targets 1 and 2 have been woken before; 3 waits for its VM.
    for (n, answer) in [
        (1, started()),
        (2, Answer::Final(Outcome::AlreadyOn, String::new())),
    ] {
        push(&mut ring, n, t0);
        ring.acked(&A.into(), n as u64, &answer, t0);
    }
    push(&mut ring, 3, t0);
    ring.acked(&A.into(), 3, &deferred(seconds(300)), t0);
    push(&mut ring, 1, t0);
    push(&mut ring, 2, t0);
    for n in 0..2 * CAPACITY {
        push(&mut ring, 1000 + n, t0);
    }
    let kept = |n| ring.entries.values().any(|entry| entry.key == key(n));
    assert!(kept(1) && kept(2) && kept(3));
    assert_eq!(ring.len(), CAPACITY);
}

#[test]
fn where_all_is_wakeable_the_oldest_goes() {
    let (mut ring, t0) = (ring(), Instant::now());
    for n in 1..=CAPACITY {
        push(&mut ring, n, t0);
        ring.acked(&A.into(), n as u64, &deferred(seconds(300)), t0);
    }
    let dropped = ring.push(wake(5000, Carrier::Udp), key(5000), true, t0);
    assert_eq!(dropped, Some(settled(1, true)));
}

#[test]
fn a_frame_tells_more_than_a_datagram_until_the_wake_is_sent() {
    let (mut ring, t0) = (ring(), Instant::now());
    let mut frame = wake(1, Carrier::EthernetUdp).origin;
    frame.vlan = Some(5);
    push(&mut ring, 1, t0);
    push(&mut ring, 2, t0);
    ring.improve(&key(1), &frame);
    let bridge = Origin {
        interface: "br0".into(),
        ..frame.clone()
    };
    ring.improve(&key(1), &bridge);
    ring.improve(&key(1), &wake(1, Carrier::Udp).origin);
    assert_eq!(ring.next_unsent(A, t0).unwrap().wake.origin, frame);
    assert_eq!(
        ring.next_unsent(A, t0).unwrap().wake.origin.carrier,
        Carrier::Udp
    );
    ring.improve(&key(2), &frame);
    lose_session(&mut ring);
    send_all(&mut ring, t0);
    assert_eq!(ring.entries[&2].wake.origin.carrier, Carrier::Udp);
}

#[test]
fn flushed_means_that_everything_is_settled_or_with_a_manager() {
    let (mut ring, t0) = (ring(), Instant::now());
    let patience = t0 + seconds(10);
    assert!(ring.is_flushed(patience));
    push(&mut ring, 1, t0);
    push(&mut ring, 2, t0);
    assert!(!ring.is_flushed(patience) && !ring.awaits_answers(A));
    send_all(&mut ring, t0);
    assert!(ring.awaits_answers(A));
    ring.acked(&A.into(), 1, &started(), t0);
    assert!(!ring.is_flushed(patience));
    ring.acked(&A.into(), 2, &deferred(seconds(60)), t0);
    assert!(ring.is_flushed(patience) && !ring.awaits_answers(A));
    lose_session(&mut ring);
    assert!(!ring.is_flushed(patience));
}

#[test]
fn a_wake_that_a_manager_had_no_room_for_is_not_flushed() {
    let (mut ring, t0) = (ring(), Instant::now());
    push(&mut ring, 1, t0);
    send_all(&mut ring, t0);
    ring.acked(&A.into(), 1, &deferred(seconds(2)), t0);
    assert!(!ring.is_flushed(t0 + seconds(10)));
    ring.tick(t0 + seconds(2));
    assert_eq!(send_all(&mut ring, t0 + seconds(2)), [(1, 2)]);
    ring.acked(&A.into(), 1, &deferred(seconds(60)), t0 + seconds(2));
    assert!(ring.is_flushed(t0 + seconds(10)));
}
