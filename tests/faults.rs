//! The promise of the delivery contract under faults that a seed draws: managers and agents of the
//! real program, killed, frozen, drained, cut off and flooded. docs/faults.md tells how to run more of
//! them and how to replay one.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that breaks has to fail"
)]

mod common;
mod faults {
    pub(crate) mod bed;
    pub(crate) mod deeds;
    pub(crate) mod draw;
    pub(crate) mod flood;
    pub(crate) mod heard;
    pub(crate) mod judge;
    pub(crate) mod outage;
    pub(crate) mod plan;
    pub(crate) mod pulse;
    pub(crate) mod record;
    pub(crate) mod seeds;
    pub(crate) mod strike;
    pub(crate) mod tally;
    pub(crate) mod told;
    pub(crate) mod wires;
}

use std::time::Duration;

use common::{envtest, netns, skip};
use faults::{
    plan::{Plan, on_the_real},
    seeds::{Wanted, run_all, setting},
};

/// Seeds of a run without settings.
const FEW: u64 = 3;
/// What can be turned off, and what it breaks.
const MECHANISMS: [(&str, &str); 4] = [
    ("replay", "neither started nor told"),
    ("dedup", "a second time for one wake"),
    ("ttl", "nobody had asked for it within the TTL"),
    ("age", "from before the VM went on and off"),
];
/// Of one seed so many findings are shown; the first names its logs.
const SHOWN: usize = 6;
/// A mechanism that is off has to be found out within so many seeds.
const ENOUGH: u64 = 20;

#[tokio::test(flavor = "multi_thread")]
async fn every_wake_ends_as_promised_whatever_strikes() {
    if let Some(why) = netns::unavailable() {
        eprintln!("no interface is deleted: {why}");
    }
    if on_the_real() && envtest::programs().is_none() {
        return;
    }
    let one = setting("WOL_FAULT_SEED");
    let seconds = setting("WOL_FAULT_SECONDS").unwrap_or_default();
    let seeds = setting("WOL_FAULT_SEEDS");
    let wanted = Wanted {
        first: one.or_else(|| setting("WOL_FAULT_FIRST")).unwrap_or(1),
        at_least: one.map_or_else(|| seeds.unwrap_or(FEW), |_| 1),
        time: Duration::from_secs(if one.is_some() { 0 } else { seconds }),
        sabotage: sabotaged(),
    };
    let (tally, failed) = run_all(wanted).await;
    eprintln!("{tally}");
    for ran in &failed {
        let seed = ran.seed;
        eprintln!("seed {seed} failed:");
        for broken in ran.broken.iter().take(SHOWN) {
            eprintln!("  {broken}");
        }
        eprintln!("replay: WOL_FAULT_SEED={seed} cargo test --test faults -- --nocapture");
    }
    assert!(failed.is_empty(), "{} seeds failed", failed.len());
    let least = usize::try_from(wanted.at_least).unwrap_or(usize::MAX);
    let valid = tally.valid();
    if valid < least {
        skip::skipped("this machine has too much to do for times at a tenth");
    }
}

/// A mechanism that is to be off although nobody asks for proof: to replay what a proof has shown.
fn sabotaged() -> Option<(&'static str, &'static str)> {
    let wanted = std::env::var("WOL_FAULT_WITHOUT").ok()?;
    let found = MECHANISMS.iter().find(|(name, _)| *name == wanted);
    Some(*found.expect("replay, dedup, ttl or age"))
}

/// Whether the suite finds out that a mechanism is off.
async fn expect_found_out((mechanism, words): (&'static str, &'static str)) {
    if setting::<u64>("WOL_FAULT_SEED").is_some() {
        return;
    }
    if !cfg!(debug_assertions) {
        return skip::skipped("only debug builds can be sabotaged");
    }
    let (_, failed) = run_all(Wanted {
        first: 1,
        at_least: ENOUGH,
        time: Duration::ZERO,
        sabotage: Some((mechanism, words)),
    })
    .await;
    let first = failed.first();
    let first = first.unwrap_or_else(|| panic!("nobody noticed that {mechanism} is off"));
    eprintln!(
        "without {mechanism}, seed {} shows: {}",
        first.seed, first.broken[0]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn without_replay_the_suite_fails() {
    expect_found_out(MECHANISMS[0]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_dedup_the_suite_fails() {
    expect_found_out(MECHANISMS[1]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_ttl_the_suite_fails() {
    expect_found_out(MECHANISMS[2]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_age_check_the_suite_fails() {
    expect_found_out(MECHANISMS[3]).await;
}

#[test]
fn a_seed_means_the_same_plan_each_time() {
    for seed in 0..200 {
        assert_eq!(Plan::new(seed), Plan::new(seed));
    }
    assert_ne!(Plan::new(1).steps, Plan::new(2).steps);
}
