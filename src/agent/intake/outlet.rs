//! Owns [`Outlet`]: what one session takes out of the intake, and brings back.

use std::{sync::Arc, time::Instant};

use tokio::sync::Notify;

use super::Intake;
use crate::{agent::route::ReplicaId, rpc::pb, wake::Answer, wakeable::WakeableMacs};

/// The share of one replica in the events. Dropped, it goes to the others.
#[derive(Debug)]
pub struct Outlet {
    intake: Arc<Intake>,
    replica: ReplicaId,
    /// Something may be due.
    due: Arc<Notify>,
}

impl Outlet {
    /// Opens the one of a replica; none where it is open already.
    #[must_use]
    pub fn open(intake: &Arc<Intake>, replica: ReplicaId) -> Option<Self> {
        let due = intake.attach(&replica)?;
        let intake = Arc::clone(intake);
        Some(Self {
            intake,
            replica,
            due,
        })
    }

    /// Whose it is.
    #[must_use]
    pub fn replica(&self) -> &ReplicaId {
        &self.replica
    }

    /// Writes the event that is due first; it counts as sent from now on.
    #[must_use]
    pub fn next_event(&self, now: Instant) -> Option<pb::Event> {
        self.intake.next_event(&self.replica, now)
    }

    /// Whether an event is due.
    #[must_use]
    pub fn has_due(&self, now: Instant) -> bool {
        self.intake.has_due(&self.replica, now)
    }

    /// Waits until an event may be due.
    pub async fn due(&self) {
        self.due.notified().await;
    }

    /// Takes an answer.
    pub fn answer(&self, seq: u64, answer: &Answer, now: Instant) {
        self.intake.answer(&self.replica, seq, answer, now);
    }

    /// Whether an answer is outstanding for what was sent.
    #[must_use]
    pub fn awaits_answers(&self) -> bool {
        self.intake.awaits_answers(&self.replica)
    }

    /// Takes over which addresses go first.
    pub fn prefer(&self, wakeable: WakeableMacs) {
        self.intake.prefer(&self.replica, wakeable);
    }

    /// Gives the share to the others; answers to what was sent still count.
    pub fn leave(&self) {
        self.intake.leave(&self.replica);
    }
}

impl Drop for Outlet {
    fn drop(&mut self) {
        self.intake.detach(&self.replica);
    }
}
