//! Owns [`Ring`]: the wakes that were heard and are not settled yet, and which manager replica each
//! of them goes to. Pure; the caller brings the clock.

mod entry;
mod known;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use self::{
    entry::{Entry, Place, Queues, Turn, shows_a_vm, worth_a_retry},
    known::Known,
};
use super::route::{ReplicaId, Routes};
use crate::{
    mac::MacAddr,
    pace,
    packet::Trailing,
    sabotage::{self, Mechanism},
    wake::{Answer, Carrier, Origin, Wake},
};

/// What makes two packets the same wake to an agent: the target, what followed it, and a
/// fingerprint of the source filters that the packet passed.
pub type Key = (MacAddr, Trailing, u64);

/// Unsettled wakes kept at most.
pub const CAPACITY: usize = 1024;

/// Of these, those of one target: each with other bytes after the address, or by ways that other
/// configs trust. A sender that goes through passwords must not take the places of other targets.
pub const PER_TARGET: usize = 64;

/// A wake without an answer for this long is sent to the next replica too, or again where there is
/// no other. One that a replica did not even take for so long goes to the next one, too.
pub const ACK_TIMEOUT: Duration = Duration::from_secs(2);

/// A deferral outside these bounds is taken as the nearest of them: shorter ones would make a busy
/// loop, longer ones would hold a place for nothing.
const DEFERRAL: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3600));

/// Copies of one packet come within microseconds, so only the newest entries can be its copies.
const COPY_DISTANCE: usize = 32;

/// The bounded, numbered wakes between the sockets and the sessions.
#[derive(Debug, Clone)]
pub struct Ring {
    capacity: usize,
    entries: BTreeMap<u64, Entry>,
    /// The numbers of the entries, by target.
    targets: BTreeSet<(MacAddr, u64)>,
    routes: Routes,
    queues: Queues,
    next_seq: u64,
    ttl: Duration,
    known: Known,
}

/// A wake that is due to be sent.
#[derive(Debug, PartialEq, Eq)]
pub struct Due<'a> {
    /// Its number, the same at every replay.
    pub seq: u64,
    /// What was heard.
    pub wake: &'a Wake,
    /// How long ago it was heard.
    pub age: Duration,
    /// Whether a manager deferred it, so that it may be older than a fresh one.
    pub deferred: bool,
}

/// A wake that left the ring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// Its key in the dedup window.
    pub key: Key,
    /// Whether a repeat of the packet should count again at once.
    pub retry: bool,
}

impl Ring {
    /// Makes an empty ring whose wakes are stale after `ttl`.
    #[must_use]
    pub fn new(ttl: Duration) -> Self {
        Self {
            capacity: CAPACITY,
            entries: BTreeMap::new(),
            targets: BTreeSet::new(),
            routes: Routes::default(),
            queues: Queues::default(),
            next_seq: 1,
            ttl,
            known: Known::default(),
        }
    }

    /// Sets the age at which wakes are stale, those already in the ring included.
    pub fn set_ttl(&mut self, ttl: Duration) {
        self.ttl = ttl;
    }

    /// Whether an answer once showed that the target is wakeable.
    #[must_use]
    pub fn knows(&self, target: MacAddr) -> bool {
        self.known.contains(target)
    }

    /// Whether a wake that was heard then may start nothing any more.
    #[must_use]
    pub fn is_too_old(&self, heard_at: Instant, now: Instant) -> bool {
        !sabotage::is(Mechanism::Ttl) && now.saturating_duration_since(heard_at) >= self.ttl
    }

    /// Takes a wake in; `known` says whether its target is known to be wakeable. Where the ring is
    /// full, the oldest leaves it that is not, so that a flood of unknown addresses cannot push out
    /// a real wake; where all are, an unknown one is not even taken. Of too many for one target the
    /// oldest leaves.
    pub fn push(
        &mut self,
        wake: Wake,
        key: Key,
        known: bool,
        heard_at: Instant,
    ) -> Option<Settled> {
        let mut dropped = self.make_room_for(wake.target);
        if self.entries.len() >= self.capacity {
            let stranger = self.entries.iter().find(|(_, entry)| !entry.known);
            let victim = match stranger {
                None if !known => return Some(Settled { key, retry: true }),
                None => *self.entries.first_key_value()?.0,
                Some((seq, _)) => *seq,
            };
            dropped = self.remove(victim, true);
        }
        let seq = self.next_seq;
        self.next_seq += 1;
        let mut entry = Entry {
            seq,
            key,
            heard_at,
            place: Place::Homeless,
            asked: Vec::new(),
            passed: Vec::new(),
            queued_at: None,
            kept_until: None,
            known,
            wake,
        };
        entry.route(&self.routes, &mut self.queues);
        entry.queued_at = Some(heard_at);
        self.targets.insert((entry.wake.target, seq));
        self.entries.insert(seq, entry);
        dropped
    }

    /// Where a target has as many entries as it may, one goes: of those that a manager was sent
    /// already, else of those that wait, and only then of those that one has deferred; the oldest.
    fn make_room_for(&mut self, target: MacAddr) -> Option<Settled> {
        if !self.is_crowded(target) {
            return None;
        }
        let worth = |seq: &u64| self.entries.get(seq).map(|entry| (entry.worth(), *seq));
        let (_, victim) = self.of_target(target).filter_map(worth).min()?;
        self.remove(victim, true)
    }

    /// Whether a target has as many entries as one may have.
    #[must_use]
    pub fn is_crowded(&self, target: MacAddr) -> bool {
        self.of_target(target).count() >= PER_TARGET
    }

    fn of_target(&self, target: MacAddr) -> impl Iterator<Item = &u64> {
        let own = self.targets.range((target, 0)..=(target, u64::MAX));
        own.map(|(_, seq)| seq)
    }

    /// Targets for which `wakeable` holds are known from now on, as far as they are in the ring.
    pub fn recognize(&mut self, wakeable: impl Fn(MacAddr) -> bool) {
        for entry in self.entries.values_mut() {
            if !entry.known && wakeable(entry.wake.target) {
                entry.recognize(&mut self.queues);
            }
        }
    }

    /// A copy of a wake came another way. Where that way says more and the wake has not been sent
    /// yet, it is told instead. A frame says more than a datagram; of several frames the first
    /// came from the lowest interface, so it stays.
    pub fn improve(&mut self, key: &Key, origin: &Origin) {
        if origin.carrier == Carrier::Udp {
            return;
        }
        let newest = self.entries.values_mut().rev().take(COPY_DISTANCE);
        for entry in newest.filter(|entry| entry.key == *key) {
            let origin_kept = &mut entry.wake.origin;
            if entry.place.is_waiting() && origin_kept.carrier == Carrier::Udp {
                *origin_kept = origin.clone();
            }
        }
    }

    /// A replica can be sent events: what waits, and is best sent to it, is sent to it.
    pub fn replica_came(&mut self, replica: ReplicaId) {
        self.routes.insert(replica);
        for entry in self.entries.values_mut() {
            if entry.place.is_waiting() {
                entry.route(&self.routes, &mut self.queues);
            }
        }
    }

    /// A replica is to be sent nothing more: all that it has goes to others. It may still answer.
    pub fn replica_leaves(&mut self, replica: &str) {
        self.routes.remove(replica);
        for entry in self.entries.values_mut() {
            if entry.place.replica().is_some_and(|one| **one == *replica) {
                entry.route(&self.routes, &mut self.queues);
            }
        }
    }

    /// A replica is gone, and will answer nothing more.
    pub fn replica_lost(&mut self, replica: &str) {
        for entry in self.entries.values_mut() {
            entry.asked.retain(|asked| **asked != *replica);
        }
        self.replica_leaves(replica);
    }

    /// Whether anything is queued for a replica.
    #[must_use]
    pub fn has_queued(&self, replica: &str) -> bool {
        self.queues.of(replica).next().is_some()
    }

    /// Whether a wake is due to be sent to a replica.
    #[must_use]
    pub fn has_due(&self, replica: &str, now: Instant) -> bool {
        self.first_due(replica, now).is_some()
    }

    fn first_due(&self, replica: &str, now: Instant) -> Option<Turn> {
        let fresh = |(_, seq): &Turn| {
            let entry = self.entries.get(seq);
            entry.is_some_and(|entry| !entry.is_stale(self.ttl, now))
        };
        self.queues.of(replica).find(fresh)
    }

    /// The wake that is due first, which counts as sent to that replica from now on.
    pub fn next_unsent(&mut self, replica: &str, now: Instant) -> Option<Due<'_>> {
        let (_, seq) = self.first_due(replica, now)?;
        let entry = self.entries.get_mut(&seq)?;
        let replica = entry.place.replica()?.clone();
        entry.asked.push(replica.clone());
        entry.move_to(Place::Sent(replica, now), &mut self.queues);
        let known = !sabotage::is(Mechanism::Age);
        let heard_at = if known { entry.heard_at } else { now };
        Some(Due {
            seq,
            wake: &entry.wake,
            age: now.saturating_duration_since(heard_at),
            deferred: entry.kept_until.is_some(),
        })
    }

    /// A replica answered, be it the one that was asked last or another. None where the wake stays
    /// (deferred) or had left before.
    pub fn acked(
        &mut self,
        replica: &ReplicaId,
        seq: u64,
        answer: &Answer,
        now: Instant,
    ) -> Option<Settled> {
        let target = self.entries.get(&seq)?.wake.target;
        if shows_a_vm(answer) && self.known.insert(target) {
            self.recognize(|other| other == target);
        }
        let entry = self.entries.get_mut(&seq)?;
        match answer {
            Answer::Deferred(time, _) => {
                let until = now + (*time).clamp(pace::of(DEFERRAL.0), pace::of(DEFERRAL.1));
                entry.keep(until);
                entry.asked.retain(|asked| asked != replica);
                // Kept, but not remembered: a manager that knows nothing yet defers everything.
                entry.recognize(&mut self.queues);
                // One that leaves keeps nothing.
                if self.routes.contains(replica) {
                    entry.move_to(Place::Deferred(replica.clone(), until), &mut self.queues);
                }
                None
            }
            Answer::Final(outcome, _) => self.remove(seq, worth_a_retry(*outcome)),
        }
    }

    /// Lets time pass: what got no answer becomes due again, what is stale leaves.
    pub fn tick(&mut self, now: Instant) -> Vec<Settled> {
        let mut stale = Vec::new();
        for entry in self.entries.values_mut() {
            let waits = entry.waits(now);
            match &entry.place {
                Place::Queued(_) if waits >= pace::of(ACK_TIMEOUT) => {
                    entry.pass(&self.routes, &mut self.queues);
                }
                Place::Sent(_, at)
                    if now.saturating_duration_since(*at) >= pace::of(ACK_TIMEOUT) =>
                {
                    entry.route(&self.routes, &mut self.queues);
                }
                // The final answer may have been lost on its way: ask once more.
                Place::Deferred(by, until) if now >= *until => {
                    let place = Place::Queued(by.clone());
                    entry.keep(now + pace::of(ACK_TIMEOUT));
                    entry.move_to(place, &mut self.queues);
                }
                _ => {}
            }
            if entry.place.is_waiting() && entry.is_stale(self.ttl, now) {
                stale.push(entry.seq);
            }
        }
        stale
            .into_iter()
            .filter_map(|seq| self.remove(seq, true))
            .collect()
    }

    fn remove(&mut self, seq: u64, retry: bool) -> Option<Settled> {
        let mut entry = self.entries.remove(&seq)?;
        entry.move_to(Place::Homeless, &mut self.queues);
        self.targets.remove(&(entry.wake.target, seq));
        Some(Settled {
            key: entry.key,
            retry,
        })
    }

    /// Whether nothing would be lost if the process ended: every wake is settled, or a manager has
    /// deferred it to `patience` or later. An earlier deferral may be of a manager that had no room
    /// for the wake and waits to be asked again.
    #[must_use]
    pub fn is_flushed(&self, patience: Instant) -> bool {
        self.entries
            .values()
            .all(|entry| matches!(entry.place, Place::Deferred(_, until) if until >= patience))
    }

    /// Whether a replica has been sent a wake that it has not answered.
    #[must_use]
    pub fn awaits_answers(&self, replica: &str) -> bool {
        let mut asked = self.entries.values().flat_map(|entry| &entry.asked);
        asked.any(|one| **one == *replica)
    }

    /// Unsettled wakes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether every wake is settled.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod crowds;
#[cfg(test)]
mod routing;
#[cfg(test)]
mod states;
#[cfg(test)]
mod tests;
