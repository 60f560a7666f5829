//! What the waker does after the process stood still.

use kubevirt_wol::{
    manager::{report::Reports as _, vm::Power},
    wake::Answer,
};

use super::{Bed, START, machine};
use crate::world::SECOND;

#[tokio::test(start_paused = true)]
async fn a_manager_that_stood_still_starts_nothing_on_what_it_knew_before() {
    let mut bed = Bed::new();
    bed.listed.open();
    bed.in_contact();
    bed.brings(machine(Power::Stopping, "1"));
    bed.front.report(bed.report());
    assert!(matches!(bed.answer().await, Answer::Deferred(..)));
    tokio::time::advance(7 * SECOND).await;
    // Since this was so, another manager may have started it, and its owner stopped it again.
    bed.brings(machine(Power::Off, "2"));
    tokio::time::sleep(SECOND).await;
    assert!(bed.starts().is_empty());
    assert!(matches!(bed.answer().await, Answer::Deferred(..)));
    bed.front.report(bed.report());
    let Answer::Deferred(_, why) = bed.answer().await else {
        panic!("answered before it knows");
    };
    assert!(why.contains("stood still"), "{why}");
    tokio::time::sleep(3 * SECOND).await;
    bed.front.report(bed.report());
    tokio::time::sleep(SECOND).await;
    assert_eq!(bed.starts(), [START]);
}

#[tokio::test(start_paused = true)]
async fn a_wake_that_was_queued_before_the_manager_stood_still_waits_until_it_has_caught_up() {
    let mut bed = Bed::new();
    bed.listed.open();
    bed.in_contact();
    bed.brings(machine(Power::Stopping, "1"));
    bed.front.report(bed.report());
    assert!(matches!(bed.answer().await, Answer::Deferred(..)));
    // Frozen before the waker had its turn for either.
    bed.brings(machine(Power::Off, "2"));
    bed.front.report(bed.report());
    tokio::time::advance(7 * SECOND).await;
    tokio::time::sleep(2 * SECOND).await;
    assert!(bed.starts().is_empty());
    tokio::time::sleep(2 * SECOND).await;
    assert_eq!(bed.starts(), [START], "the one that was queued");
}
