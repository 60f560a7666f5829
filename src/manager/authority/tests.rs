//! The rotation with a clock of its own: whatever happens, no leaf is signed by a CA that agents
//! have not had the time to trust, and no CA is dropped before its last leaf is over.

mod world;

use std::time::Duration;

use proptest::prelude::*;

use super::{
    ca::{Ca, Unusable, trusts},
    rotation::Step,
    state::{Data, Trust, Unreadable},
};
use world::{Replica, TIMES, World, start};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);
const NAME: &str = "kubevirt-wol-grpc";

#[test]
fn a_year_and_more_goes_by_in_the_promised_order() {
    let mut world = World::new(3);
    world.look(1);
    let first = world.trust().signer;
    world.pass(243 * DAY, 12 * HOUR);
    assert_eq!(world.steps, [Step::Create, Step::Publish]);
    world.pass(DAY, HOUR);
    assert_eq!(world.steps[2..], [Step::Prepare, Step::Publish]);
    assert_eq!(world.trust().signer, first, "not before the wait is over");
    world.pass(DAY, HOUR);
    assert_eq!(world.steps[4..], [Step::Switch]);
    assert_ne!(world.trust().signer, first);
    assert_eq!(world.bundle().unwrap().certificates.len(), 2);
    world.pass(7 * DAY, HOUR);
    assert_eq!(world.steps[5..], [Step::Drop, Step::Withdraw]);
    assert_eq!(
        world.bundle().unwrap().certificates,
        [world.trust().signer.certificate]
    );
    world.pass(235 * DAY, 12 * HOUR);
    assert_eq!(world.steps[7..], [Step::Prepare, Step::Publish]);
}

#[test]
fn a_bundle_that_was_lost_makes_the_next_ca_wait_again() {
    let mut world = World::new(2);
    world.look(0);
    world.pass(244 * DAY, DAY);
    assert!(world.trust().next.is_some());
    world.map = None;
    world.pass(10 * DAY, DAY);
    assert!(world.trust().next.is_some(), "nobody has read it");
    world.map = Some((String::new(), None));
    world.pass(23 * HOUR, HOUR);
    assert!(world.trust().next.is_some(), "nor for long enough");
    world.pass(2 * HOUR, HOUR);
    assert!(world.trust().next.is_none());
}

#[test]
fn after_months_of_suspension_everybody_is_served_again_at_once() {
    let mut world = World::new(1);
    world.look(0);
    let first = world.trust().signer;
    world.now += 400 * DAY;
    world.look(0);
    let (leaf, by) = world.replicas[0].leaf.as_ref().unwrap();
    assert!(!leaf.certificate.is_over(world.now));
    assert_ne!(*by, first.certificate);
    assert!(world.bundle().unwrap().has(by));
    world.look(0);
    assert!(!world.bundle().unwrap().has(&first.certificate));
}

#[test]
fn replicas_recover_from_an_expired_ca_and_from_a_clock_that_was_far_ahead() {
    let mut world = World::new(3);
    for replica in 0..3 {
        world.look(replica);
    }
    let everybody_serves = |world: &mut World| {
        // Nobody but the leader may renew it, so the others come first in vain.
        for replica in [1, 2, 0, 1, 2] {
            world.look(replica);
        }
        let bundle = world.bundle().unwrap();
        for Replica { leaf, .. } in &world.replicas {
            let (leaf, by) = leaf.as_ref().unwrap();
            assert!(bundle.has(by));
            assert!(trusts(by, &leaf.certificate, NAME, world.now));
        }
        world.trust().signer
    };
    let first = everybody_serves(&mut world);
    world.now += 400 * DAY;
    let ahead = everybody_serves(&mut world);
    assert_ne!(ahead, first, "it has expired");
    world.now -= 400 * DAY;
    let right = everybody_serves(&mut world);
    assert_ne!(right, ahead, "it does not hold yet");
    world.now += HOUR;
    assert_eq!(everybody_serves(&mut world), right);
    world.now -= HOUR / 2;
    assert_eq!(
        everybody_serves(&mut world),
        right,
        "a clock that is set a little"
    );
}

#[test]
fn a_new_replica_leaves_an_emptied_secret_to_one_that_knows_the_ca_for_a_while() {
    let second = Duration::from_secs(1);
    let mut world = World::new(2);
    world.look(0);
    let known = world.trust();
    world.secret.clear();
    for _ in 0..29 {
        world.look(1);
        world.passed += second;
    }
    assert_eq!(world.found(), None, "agents trust what replica 0 serves");
    let mut other = World::new(2);
    other.passed = world.passed + second;
    other.map.clone_from(&world.map);
    other.replicas = vec![
        Replica::default(),
        Replica {
            empty_since: Some(Duration::ZERO),
            ..Replica::default()
        },
    ];
    other.look(1);
    assert_eq!(
        other.steps,
        [Step::Create, Step::Publish],
        "nobody knows it"
    );
    world.look(0);
    world.look(1);
    assert_eq!(world.trust(), known);
    let mut first = World::new(1);
    first.look(0);
    assert_eq!(
        first.steps[0],
        Step::Create,
        "no agent trusts anybody: at once"
    );
}

#[test]
fn a_secret_that_was_emptied_gets_the_same_cas_back_and_the_order_goes_on() {
    let mut world = World::new(2);
    world.look(0);
    world.pass(244 * DAY, DAY);
    let before = world.trust();
    assert!(before.next.is_some());
    world.look(1);
    world.secret.clear();
    world.until = None;
    world.look(1);
    assert_eq!(world.trust(), before);
    assert_eq!(world.steps.last(), Some(&Step::Refill));
}

#[test]
fn a_secret_that_makes_no_sense_is_named_by_its_keys_and_not_by_their_content() {
    let ours = Trust::new(Ca::generate(start(), TIMES.ca_life).unwrap())
        .write()
        .0;
    let other = Trust::new(Ca::generate(start(), TIMES.ca_life).unwrap())
        .write()
        .0;
    let read = |data: &Data| Trust::read(data, None);
    assert_eq!(read(&Data::new()), Ok(None));
    let blank = [
        ("tls.crt".to_owned(), Vec::new()),
        ("tls.key".to_owned(), Vec::new()),
    ];
    assert_eq!(
        read(&blank.into()),
        Ok(None),
        "keys without a value are empty, too"
    );
    let mut foreign = ours.clone();
    foreign.insert("tls.key".to_owned(), other["tls.key"].clone());
    let mismatch = Err(Unreadable::Signer(Unusable::Mismatch));
    assert_eq!(read(&foreign), mismatch);
    let mut garbage = ours.clone();
    garbage.insert("tls.crt".to_owned(), b"garbage".to_vec());
    assert_eq!(
        read(&garbage),
        Err(Unreadable::Signer(Unusable::Certificate))
    );
    let mut half = ours;
    half.remove("tls.key");
    assert_eq!(read(&half), Err(Unreadable::Incomplete));
}

#[test]
fn a_leaf_is_for_its_names_and_ends_with_its_ca_at_the_latest() {
    let ca = Ca::generate(start(), 3 * DAY).unwrap();
    let leaf = ca
        .sign(&[NAME.to_owned()], start(), TIMES.leaf_life)
        .unwrap();
    let now = start() - MINUTE;
    assert!(
        trusts(&ca.certificate, &leaf.certificate, NAME, now),
        "a clock that is a little late"
    );
    assert!(!trusts(
        &ca.certificate,
        &leaf.certificate,
        "elsewhere",
        now
    ));
    assert!(!trusts(
        &leaf.certificate,
        &leaf.certificate,
        "elsewhere",
        now
    ));
    assert_eq!(leaf.certificate.not_after, ca.certificate.not_after);
    let other = Ca::generate(start(), 3 * DAY).unwrap();
    assert!(!trusts(&other.certificate, &leaf.certificate, NAME, now));
}

#[test]
fn what_is_shown_of_keys_is_not_the_keys() {
    let ca = Ca::generate(start(), DAY).unwrap();
    let leaf = ca.sign(&[NAME.to_owned()], start(), HOUR).unwrap();
    let secret = ca.key_pem();
    let line = secret.lines().nth(1).unwrap();
    let shown = format!("{ca:?} {leaf:?} {:?}", Trust::new(ca.clone()));
    assert!(
        !shown.contains("PRIVATE") && !shown.contains(line),
        "{shown}"
    );
    assert!(shown.len() < 1_000, "{shown}");
}

/// What may happen between two looks.
#[derive(Debug, Clone, Copy)]
enum Act {
    Pass(u32),
    Restart(usize),
    EmptySecret,
    EmptySecretAndRestart(usize),
    EmptyBundle,
    LoseBundle,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        10 => (1..40_u32).prop_map(Act::Pass),
        2 => (0..2_usize).prop_map(Act::Restart),
        1 => Just(Act::EmptySecret),
        2 => (0..2_usize).prop_map(Act::EmptySecretAndRestart),
        1 => Just(Act::EmptyBundle),
        1 => Just(Act::LoseBundle),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn whatever_happens_agents_trust_what_is_served(acts in prop::collection::vec(act(), 1..30)) {
        let mut world = World::new(2);
        world.look(0);
        world.look(1);
        for act in acts {
            match act {
                Act::Pass(days) => world.pass(DAY * days, DAY),
                // Another one holds what was in the Secret.
                Act::Restart(replica) => world.replicas[replica] = Replica::default(),
                Act::EmptySecret => world.secret.clear(),
                // The new one looks before the one that knows what was in it.
                Act::EmptySecretAndRestart(replica) => {
                    world.secret.clear();
                    world.replicas[replica] = Replica::default();
                    world.look(replica);
                }
                Act::EmptyBundle => {
                    world.map = Some((String::new(), None));
                }
                Act::LoseBundle => {
                    let kept = world.map.take();
                    world.pass(3 * HOUR, HOUR);
                    world.map = kept;
                }
            }
            let holders = (0..2).rev().filter(|n| world.replicas[*n].held.is_some());
            for replica in holders.collect::<Vec<_>>() {
                world.look(replica);
            }
            world.pass(HOUR, HOUR);
        }
        let created = world.steps.iter().filter(|step| **step == Step::Create);
        prop_assert_eq!(created.count(), 1, "one of the replicas always knew it");
        let trust = world.trust();
        prop_assert!(!trust.signer.certificate.is_over(world.now));
        prop_assert!(trust.trusted().all(|ca| world.bundle().unwrap().has(ca)));
    }
}
