//! Owns [`Entry`]: one wake of the ring, where it is, and who was asked for it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use super::Key;
use crate::{
    agent::route::{ReplicaId, Routes},
    sabotage::{self, Mechanism},
    wake::{Answer, Outcome, Wake},
};

/// When an entry is sent: those that are not known to be wakeable after all others, and else the
/// oldest first.
pub(super) type Turn = (bool, u64);

#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) seq: u64,
    pub(super) wake: Wake,
    pub(super) key: Key,
    pub(super) heard_at: Instant,
    pub(super) place: Place,
    /// The replicas that were sent it and have not answered. They are passed over as long as there
    /// is another one.
    pub(super) asked: Vec<ReplicaId>,
    /// The replicas that did not even take it in time. They are passed over, too.
    pub(super) passed: Vec<ReplicaId>,
    /// Since when it is in the queue where it is; none until time has passed there.
    pub(super) queued_at: Option<Instant>,
    /// Set by a deferral, which lengthens the life of a wake and never shortens it.
    pub(super) kept_until: Option<Instant>,
    /// Whether the target is known to be wakeable.
    pub(super) known: bool,
}

/// Who has an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// Nobody, as there is no replica.
    Homeless,
    /// The queue of a replica.
    Queued(ReplicaId),
    /// A replica that has to answer.
    Sent(ReplicaId, Instant),
    /// A replica that works on it until then.
    Deferred(ReplicaId, Instant),
}

impl Place {
    /// The replica, if any.
    pub(super) fn replica(&self) -> Option<&ReplicaId> {
        match self {
            Self::Homeless => None,
            Self::Queued(replica) | Self::Sent(replica, _) | Self::Deferred(replica, _) => {
                Some(replica)
            }
        }
    }

    /// Whether no replica has been sent it, or it is to be sent again.
    pub(super) fn is_waiting(&self) -> bool {
        matches!(self, Self::Homeless | Self::Queued(_))
    }
}

impl Entry {
    pub(super) fn turn(&self) -> Turn {
        (!self.known, self.seq)
    }

    pub(super) fn is_stale(&self, ttl: Duration, now: Instant) -> bool {
        !sabotage::is(Mechanism::Ttl)
            && now.saturating_duration_since(self.heard_at) >= ttl
            && self.kept_until.is_none_or(|until| now >= until)
    }

    /// A manager wants it kept until then; who was promised more keeps that.
    pub(super) fn keep(&mut self, until: Instant) {
        self.kept_until = self.kept_until.max(Some(until));
    }

    /// How much would be lost with it: little where a manager has it in its hands, most where one
    /// waits with it for its VM.
    pub(super) fn worth(&self) -> u8 {
        match (self.kept_until, &self.place) {
            (Some(_), _) => 2,
            (None, Place::Homeless | Place::Queued(_)) => 1,
            (None, _) => 0,
        }
    }

    /// How long it has waited for a replica to take it; no time where it does not.
    pub(super) fn waits(&mut self, now: Instant) -> Duration {
        if !matches!(self.place, Place::Queued(_)) {
            return Duration::ZERO;
        }
        let since = *self.queued_at.get_or_insert(now);
        now.saturating_duration_since(since)
    }

    /// Moves it, and keeps the queues in step.
    pub(super) fn move_to(&mut self, place: Place, queues: &mut Queues) {
        if sabotage::is(Mechanism::Replay) && !self.place.is_waiting() && place.is_waiting() {
            return;
        }
        if let Place::Queued(replica) = &self.place {
            queues.remove(replica, self.turn());
        }
        if let Place::Queued(replica) = &place {
            queues.insert(replica, self.turn());
        }
        if self.place != place {
            self.queued_at = None;
        }
        self.place = place;
    }

    /// It waits for a replica that does not take it: queues it for the next one, if there is one.
    pub(super) fn pass(&mut self, routes: &Routes, queues: &mut Queues) {
        if let Place::Queued(replica) = &self.place {
            self.passed.push(replica.clone());
            self.queued_at = None;
            self.route(routes, queues);
        }
    }

    /// Queues it for the best replica that has been neither asked nor passed over; where all have
    /// been, it starts over.
    pub(super) fn route(&mut self, routes: &Routes, queues: &mut Queues) {
        let target = self.wake.target;
        let tried = [&*self.asked, &*self.passed].concat();
        let mut best = routes.best(target, &tried);
        if best.is_none() {
            self.passed.clear();
            // One that leaves may still answer.
            self.asked.retain(|replica| !routes.contains(replica));
            best = routes.best(target, &self.asked);
        }
        let place = best.map_or(Place::Homeless, |replica| Place::Queued(replica.clone()));
        self.move_to(place, queues);
    }

    /// Its target is known to be wakeable: it goes before those that are not.
    pub(super) fn recognize(&mut self, queues: &mut Queues) {
        let place = std::mem::replace(&mut self.place, Place::Homeless);
        if let Place::Queued(replica) = &place {
            queues.remove(replica, self.turn());
        }
        self.known = true;
        let queued_at = self.queued_at;
        self.move_to(place, queues);
        self.queued_at = queued_at;
    }
}

/// What is to be sent to each replica, the next one first.
#[derive(Debug, Clone, Default)]
pub(super) struct Queues(pub(super) BTreeMap<ReplicaId, BTreeSet<Turn>>);

impl Queues {
    fn insert(&mut self, replica: &ReplicaId, turn: Turn) {
        self.0.entry(replica.clone()).or_default().insert(turn);
    }

    fn remove(&mut self, replica: &str, turn: Turn) {
        if let Some(queue) = self.0.get_mut(replica) {
            queue.remove(&turn);
            if queue.is_empty() {
                self.0.remove(replica);
            }
        }
    }

    /// The turns of a replica.
    pub(super) fn of(&self, replica: &str) -> impl Iterator<Item = Turn> {
        self.0.get(replica).into_iter().flatten().copied()
    }
}

/// Whether the same packet, heard once more within the dedup window, should be reported again. A
/// window is there against repeats of what was settled; it must not hide a second attempt at
/// something that may work by now: the VM was made, selected or untangled, the password was
/// changed, the right was given.
pub(super) fn worth_a_retry(outcome: Outcome) -> bool {
    match outcome {
        Outcome::Started
        | Outcome::AlreadyOn
        | Outcome::Duplicate
        | Outcome::Unsupported
        | Outcome::Invalid => false,
        Outcome::NotFound
        | Outcome::NotSelected
        | Outcome::Ambiguous
        | Outcome::WrongPassword
        | Outcome::Forbidden
        | Outcome::Expired
        | Outcome::Stuck
        | Outcome::Gone
        | Outcome::Unknown => true,
    }
}

/// Whether an answer shows that the target can be woken, now and later.
pub(super) fn shows_a_vm(answer: &Answer) -> bool {
    matches!(
        answer,
        Answer::Final(
            Outcome::Started | Outcome::AlreadyOn | Outcome::Duplicate,
            _
        )
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_retry_may_mend_counts_again_at_once() {
        let over = [
            "started",
            "already-on",
            "duplicate",
            "unsupported",
            "invalid",
        ];
        for outcome in Outcome::ALL {
            let retry = !over.contains(&outcome.as_str());
            assert_eq!(worth_a_retry(outcome), retry, "{outcome:?}");
        }
    }
}
