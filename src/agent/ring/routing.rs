//! Which replica gets which wake, and that none is lost on the way.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::{
    tests::{TTL, deferred, key, mac, seconds, started, wake},
    *,
};

const NOTHING: [u64; 0] = [];

fn ring(replicas: &[&str]) -> Ring {
    let mut ring = Ring::new(TTL);
    for replica in replicas {
        ring.replica_came((*replica).into());
    }
    ring
}

fn push(ring: &mut Ring, n: usize, now: Instant) {
    ring.push(wake(n, Carrier::Udp), key(n), false, now);
}

/// The numbers of all that is due to a replica, which count as sent.
fn send(ring: &mut Ring, replica: &str, now: Instant) -> Vec<u64> {
    let due = std::iter::from_fn(|| ring.next_unsent(replica, now).map(|due| due.seq));
    due.collect()
}

/// The first of two replicas that the target with this number goes to, and the other.
fn ways(n: usize) -> (&'static str, &'static str) {
    let mut routes = Routes::default();
    for replica in ["a", "b"] {
        routes.insert(replica.into());
    }
    match &**routes.best(mac(n), &[]).unwrap() {
        "a" => ("a", "b"),
        _ => ("b", "a"),
    }
}

#[test]
fn each_target_goes_to_its_replica_and_all_agents_choose_the_same() {
    let (mut one, mut other, t0) = (
        ring(&["a", "b", "c"]),
        ring(&["c", "b", "a"]),
        Instant::now(),
    );
    for n in 1..=60 {
        push(&mut one, n, t0);
        push(&mut other, n, t0);
    }
    let mut all = BTreeSet::new();
    for replica in ["a", "b", "c"] {
        let sent = send(&mut one, replica, t0);
        assert_eq!(send(&mut other, replica, t0), sent);
        assert!(sent.len() >= 10 && sent.is_sorted(), "{replica}: {sent:?}");
        all.extend(sent);
    }
    assert_eq!(all.len(), 60);
}

#[test]
fn what_is_not_answered_in_two_seconds_is_sent_to_the_next_replica_too() {
    let (mut ring, t0) = (ring(&["a", "b"]), Instant::now());
    let (first, second) = ways(1);
    push(&mut ring, 1, t0);
    assert_eq!(send(&mut ring, first, t0), [1]);
    for (replica, other, after) in [(second, first, 2), (first, second, 4), (second, first, 6)] {
        let now = t0 + seconds(after);
        ring.tick(now);
        assert_eq!(send(&mut ring, other, now), NOTHING);
        assert_eq!(send(&mut ring, replica, now), [1], "after {after} s");
    }
}

#[test]
fn what_a_replica_does_not_even_take_goes_to_the_next_one_after_two_seconds() {
    let (mut ring, t0) = (ring(&["a", "b"]), Instant::now());
    let (first, second) = ways(1);
    push(&mut ring, 1, t0);
    ring.tick(t0 + Duration::from_millis(1_999));
    assert!(ring.has_due(first, t0) && !ring.has_due(second, t0));
    ring.tick(t0 + seconds(2));
    assert!(!ring.has_due(first, t0));
    // Nor does this one: it is back with the first, as soon as that takes anything.
    ring.tick(t0 + seconds(3));
    ring.tick(t0 + seconds(5));
    assert_eq!(send(&mut ring, second, t0 + seconds(5)), NOTHING);
    assert_eq!(send(&mut ring, first, t0 + seconds(5)), [1]);
    ring.acked(&first.into(), 1, &started(), t0 + seconds(5));
    assert!(ring.is_empty());
}

#[test]
fn a_replica_that_takes_nothing_keeps_nobody_waiting_for_its_answer() {
    let (mut ring, t0) = (ring(&["a", "b"]), Instant::now());
    let (first, second) = ways(1);
    push(&mut ring, 1, t0);
    ring.tick(t0 + seconds(2));
    ring.replica_leaves(first);
    assert!(!ring.awaits_answers(first), "it was never asked");
    assert_eq!(send(&mut ring, second, t0 + seconds(2)), [1]);
}

#[test]
fn a_lone_replica_that_takes_nothing_for_a_while_gets_all_in_the_end() {
    let (mut ring, t0) = (ring(&["a"]), Instant::now());
    for n in 1..=5 {
        push(&mut ring, n, t0);
    }
    for after in 1..20 {
        ring.tick(t0 + seconds(after));
    }
    assert_eq!(send(&mut ring, "a", t0 + seconds(20)), [1, 2, 3, 4, 5]);
}

#[test]
fn the_answer_of_whoever_was_asked_settles_or_defers() {
    for late in [true, false] {
        let (mut ring, t0) = (ring(&["a", "b"]), Instant::now());
        let (first, second) = ways(1);
        push(&mut ring, 1, t0);
        send(&mut ring, first, t0);
        ring.tick(t0 + seconds(2));
        let answers: ReplicaId = if late { first } else { second }.into();
        // The second has not been sent it yet where the first is only late.
        if !late {
            send(&mut ring, second, t0 + seconds(2));
        }
        ring.acked(&answers, 1, &deferred(seconds(60)), t0 + seconds(2));
        assert!(ring.is_flushed(t0 + seconds(30)));
        assert_eq!(send(&mut ring, second, t0 + seconds(3)), NOTHING);
        // Whom it is with decides, not who was asked first.
        let other = if late { second } else { first };
        ring.replica_lost(other);
        assert!(ring.is_flushed(t0 + seconds(30)));
        assert!(
            ring.acked(&answers, 1, &started(), t0 + seconds(5))
                .is_some()
        );
        assert!(ring.is_empty());
    }
}

#[test]
fn what_a_lost_replica_had_goes_to_the_others_at_once() {
    let (mut ring, t0) = (ring(&["a", "b"]), Instant::now());
    for n in 1..=40 {
        push(&mut ring, n, t0);
    }
    let of_a: Vec<u64> = send(&mut ring, "a", t0);
    let of_b: Vec<u64> = send(&mut ring, "b", t0);
    ring.acked(&"a".into(), of_a[1], &deferred(seconds(60)), t0);
    push(&mut ring, of_a[0].try_into().unwrap(), t0);
    ring.replica_lost("a");
    // First what is known to be kept, then the oldest.
    let expected = [&of_a[1..2], &of_a[..1], &of_a[2..], &[41]].concat();
    assert_eq!(send(&mut ring, "b", t0), expected);
    assert_eq!(of_a.len() + of_b.len(), 40);
}

#[test]
fn a_replica_that_leaves_is_sent_nothing_more_and_may_still_answer() {
    let (mut ring, t0) = (ring(&["a", "b"]), Instant::now());
    let (first, second) = ways(1);
    push(&mut ring, 1, t0);
    send(&mut ring, first, t0);
    ring.replica_leaves(first);
    assert!(ring.awaits_answers(first));
    push(&mut ring, 1, t0);
    assert_eq!(send(&mut ring, first, t0), NOTHING);
    // It will not be there to keep it.
    ring.acked(&first.into(), 1, &deferred(seconds(60)), t0);
    assert_eq!(send(&mut ring, second, t0), [1, 2]);
    assert!(!ring.awaits_answers(first));
    assert!(ring.acked(&first.into(), 2, &started(), t0).is_some());
}

#[test]
fn a_replica_that_comes_gets_what_waits_and_nothing_that_is_under_way() {
    let (mut ring, t0) = (ring(&["a"]), Instant::now());
    let of_b: Vec<usize> = (1..100).filter(|n| ways(*n).0 == "b").collect();
    push(&mut ring, of_b[0], t0);
    assert_eq!(send(&mut ring, "a", t0), [1]);
    push(&mut ring, of_b[1], t0);
    ring.replica_came("b".into());
    assert_eq!(send(&mut ring, "a", t0), NOTHING);
    assert_eq!(send(&mut ring, "b", t0), [2]);
}

#[test]
fn what_is_heard_without_a_replica_waits_for_the_first() {
    let (mut ring, t0) = (ring(&[]), Instant::now());
    push(&mut ring, 1, t0);
    push(&mut ring, 2, t0);
    ring.replica_came("a".into());
    assert_eq!(send(&mut ring, "a", t0), [1, 2]);
}

#[derive(Debug, Clone)]
enum Step {
    Push(usize),
    Come(usize),
    Leave(usize),
    Lose(usize),
    Send(usize),
    /// Of the wakes that were sent, one is answered by a replica.
    Answer(usize, usize, bool),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..50_usize).prop_map(Step::Push),
        2 => (0..4_usize).prop_map(Step::Come),
        1 => (0..4_usize).prop_map(Step::Leave),
        1 => (0..4_usize).prop_map(Step::Lose),
        4 => (0..4_usize).prop_map(Step::Send),
        3 => (0..4_usize, 0..100_usize, any::<bool>()).prop_map(|(r, n, f)| Step::Answer(r, n, f)),
        2 => (100..2_500_u64).prop_map(Step::Wait),
    ]
}

/// Every wake of the ring is in one place, where it goes on, and the queues say the same.
pub(super) fn consistent(ring: &Ring) {
    let queued = ring.queues.0.iter();
    let queued: Vec<_> = queued
        .flat_map(|(replica, turns)| turns.iter().map(move |turn| (replica, *turn)))
        .collect();
    let waiting = |entry: &&Entry| matches!(entry.place, Place::Queued(_));
    assert_eq!(queued.len(), ring.entries.values().filter(waiting).count());
    for (replica, turn) in queued {
        let entry = &ring.entries[&turn.1];
        assert_eq!(entry.place, Place::Queued(replica.clone()));
        assert_eq!(entry.turn(), turn);
    }
    for entry in ring.entries.values() {
        match entry.place.replica() {
            Some(replica) => assert!(ring.routes.contains(replica), "{entry:?}"),
            None => assert!(ring.routes.is_empty(), "{entry:?}"),
        }
    }
}

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

/// A ring, and what is to be true of it.
struct Model {
    ring: Ring,
    now: Instant,
    pushed: u64,
    /// Settled, deferred for good, or stale.
    left: usize,
    /// Which replicas were sent which wake.
    sent: BTreeMap<u64, BTreeSet<usize>>,
}

impl Model {
    fn take(&mut self, step: &Step) {
        let now = self.now;
        match *step {
            Step::Push(n) => {
                self.pushed += 1;
                push(&mut self.ring, n, now);
            }
            Step::Come(r) => self.ring.replica_came(NAMES[r].into()),
            Step::Leave(r) => self.ring.replica_leaves(NAMES[r]),
            Step::Lose(r) => self.ring.replica_lost(NAMES[r]),
            Step::Send(r) => {
                for seq in send(&mut self.ring, NAMES[r], now) {
                    self.sent.entry(seq).or_default().insert(r);
                }
            }
            Step::Answer(r, n, last) => {
                let mut had = self.sent.iter().filter(|(_, who)| who.contains(&r));
                let Some((&seq, _)) = had.nth(n % 10) else {
                    return;
                };
                let answer = if last {
                    started()
                } else {
                    deferred(seconds(3))
                };
                let settled = self.ring.acked(&NAMES[r].into(), seq, &answer, now);
                self.left += usize::from(settled.is_some());
            }
            Step::Wait(ms) => {
                self.now += Duration::from_millis(ms);
                self.left += self.ring.tick(self.now).len();
            }
        }
    }

    /// Every wake is in exactly one place, which is one where it goes on.
    fn check(&self) {
        let ring = &self.ring;
        assert_eq!(
            ring.len() + self.left,
            usize::try_from(self.pushed).unwrap()
        );
        consistent(ring);
    }
}

proptest! {
    #[test]
    fn whatever_comes_and_goes_each_wake_is_in_one_place_and_gets_on(
        steps in prop::collection::vec(step(), 1..200)
    ) {
        let mut model = Model {
            ring: Ring::new(TTL),
            now: Instant::now(),
            pushed: 0,
            left: 0,
            sent: BTreeMap::new(),
        };
        for step in &steps {
            model.take(step);
            model.check();
        }
        // However it went: one replica that answers is enough.
        for name in NAMES {
            model.ring.replica_lost(name);
        }
        model.ring.replica_came("e".into());
        model.check();
        let left = model.ring.len();
        let stale = model.ring.tick(model.now).len();
        let sent = send(&mut model.ring, "e", model.now);
        prop_assert_eq!(sent.len() + stale, left);
        for seq in sent {
            prop_assert!(model.ring.acked(&"e".into(), seq, &started(), model.now).is_some());
        }
        prop_assert!(model.ring.is_empty());
    }
}
