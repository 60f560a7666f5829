//! Many wakes for one target, which are none of the other targets' business.

use super::{
    tests::{A, deferred, mac, push, ring, seconds, send_all, wake},
    *,
};

/// Pushes a wake for target 1 that differs from all others by what follows the address.
fn try_password(ring: &mut Ring, n: usize, now: Instant) -> Option<Settled> {
    let [.., a, b] = n.to_be_bytes();
    let trailing = Trailing::cut(&[0, 0, 0, 0, a, b]);
    let wake = Wake {
        trailing,
        ..wake(1, Carrier::Udp)
    };
    ring.push(wake, (mac(1), trailing, 1), true, now)
}

#[test]
fn ever_new_passwords_for_one_target_leave_room_for_the_others() {
    let (mut ring, t0) = (ring(), Instant::now());
    push(&mut ring, 2, t0);
    for n in 0..PER_TARGET {
        assert_eq!(try_password(&mut ring, n, t0), None);
    }
    assert!(ring.is_crowded(mac(1)) && !ring.is_crowded(mac(2)));
    for n in PER_TARGET..5 * CAPACITY {
        let left = try_password(&mut ring, n, t0).expect("one has to leave");
        assert!(left.retry && left.key.0 == mac(1));
    }
    assert_eq!(ring.len(), PER_TARGET + 1);
    push(&mut ring, 3, t0);
    assert_eq!(ring.len(), PER_TARGET + 2);
    let sent = send_all(&mut ring, t0);
    assert_eq!(sent.len(), PER_TARGET + 2, "and each of them is sent");
}

#[test]
fn of_too_many_for_one_target_those_leave_first_that_a_manager_has_in_its_hands() {
    let (mut ring, t0) = (ring(), Instant::now());
    try_password(&mut ring, 0, t0);
    try_password(&mut ring, 1, t0);
    send_all(&mut ring, t0);
    ring.acked(&A.into(), 1, &deferred(seconds(300)), t0);
    for n in 2..PER_TARGET {
        try_password(&mut ring, n, t0);
    }
    let seq = |left: Option<Settled>| {
        let key = left.expect("one has to leave").key;
        usize::from(key.1.as_bytes()[5])
    };
    assert_eq!(
        seq(try_password(&mut ring, PER_TARGET, t0)),
        1,
        "it was sent"
    );
    assert_eq!(
        seq(try_password(&mut ring, PER_TARGET + 1, t0)),
        2,
        "the oldest that waits"
    );
    let is_kept = ring.entries.contains_key(&1);
    assert!(is_kept, "what was deferred");
}
