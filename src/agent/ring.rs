//! Owns [`Ring`]: the wakes that were heard and are not settled yet. Pure; the caller brings the
//! clock.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet, VecDeque},
    time::{Duration, Instant},
};

use crate::{
    mac::MacAddr,
    packet::Trailing,
    wake::{Answer, Carrier, Origin, Outcome, Wake},
};

/// What makes two packets the same wake to an agent: the target, what followed it, and a
/// fingerprint of the source filters that the packet passed.
pub type Key = (MacAddr, Trailing, u64);

/// Unsettled wakes kept at most.
pub const CAPACITY: usize = 1024;

/// A wake without an answer for this long is sent again.
pub const ACK_TIMEOUT: Duration = Duration::from_secs(2);

/// A deferral outside these bounds is taken as the nearest of them: shorter ones would make a busy
/// loop, longer ones would hold a place for nothing.
const DEFERRAL: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3600));

/// Targets remembered as wakeable at most.
const KNOWN_CAPACITY: usize = 4096;

/// Copies of one packet come within microseconds, so only the newest entries can be its copies.
const COPY_DISTANCE: usize = 32;

/// The bounded, numbered wakes between the sockets and the session.
#[derive(Debug)]
pub struct Ring {
    entries: BTreeMap<u64, Entry>,
    /// The turns of the entries in [`State::Unsent`], the next one first.
    unsent: BTreeSet<Turn>,
    next_seq: u64,
    ttl: Duration,
    known: Known,
}

/// When an entry is sent: those that are not known to be wakeable after all others, and else the
/// oldest first.
type Turn = (bool, u64);

#[derive(Debug)]
struct Entry {
    wake: Wake,
    key: Key,
    heard_at: Instant,
    state: State,
    /// Set by a deferral, which lengthens the life of a wake and never shortens it.
    kept_until: Option<Instant>,
    /// Whether the target is known to be wakeable.
    known: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Unsent,
    Sent(Instant),
    Deferred(Instant),
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
            entries: BTreeMap::new(),
            unsent: BTreeSet::new(),
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

    /// Takes a wake in; `known` says whether its target is known to be wakeable. Where the ring is
    /// full, the oldest leaves it that is not, so that a flood of unknown addresses cannot push out
    /// a real wake; where all are, an unknown one is not even taken.
    pub fn push(&mut self, wake: Wake, key: Key, known: bool, now: Instant) -> Option<Settled> {
        let mut dropped = None;
        if self.entries.len() >= CAPACITY {
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
        self.unsent.insert((!known, seq));
        let entry = Entry {
            key,
            heard_at: now,
            state: State::Unsent,
            kept_until: None,
            known,
            wake,
        };
        self.entries.insert(seq, entry);
        dropped
    }

    /// Targets for which `wakeable` holds are known from now on, as far as they are in the ring.
    pub fn recognize(&mut self, wakeable: impl Fn(MacAddr) -> bool) {
        for (seq, entry) in &mut self.entries {
            if !entry.known && wakeable(entry.wake.target) {
                entry.known = true;
                if self.unsent.remove(&(true, *seq)) {
                    self.unsent.insert((false, *seq));
                }
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
            if entry.state == State::Unsent && origin_kept.carrier == Carrier::Udp {
                *origin_kept = origin.clone();
            }
        }
    }

    /// Whether a wake is due.
    #[must_use]
    pub fn has_due(&self, now: Instant) -> bool {
        self.first_due(now).is_some()
    }

    fn first_due(&self, now: Instant) -> Option<Turn> {
        let fresh = |(_, seq): &Turn| {
            let entry = self.entries.get(seq);
            entry.is_some_and(|entry| !entry.is_stale(self.ttl, now))
        };
        self.unsent.iter().copied().find(fresh)
    }

    /// The wake that is due first, which counts as sent from now on.
    pub fn next_unsent(&mut self, now: Instant) -> Option<Due<'_>> {
        let turn = self.first_due(now)?;
        self.unsent.remove(&turn);
        let seq = turn.1;
        let entry = self.entries.get_mut(&seq)?;
        entry.state = State::Sent(now);
        Some(Due {
            seq,
            wake: &entry.wake,
            age: now.saturating_duration_since(entry.heard_at),
            deferred: entry.kept_until.is_some(),
        })
    }

    /// A manager answered. None where the wake stays (deferred) or had left before.
    pub fn acked(&mut self, seq: u64, answer: &Answer, now: Instant) -> Option<Settled> {
        let target = self.entries.get(&seq)?.wake.target;
        if shows_a_vm(answer) && self.known.insert(target) {
            self.recognize(|other| other == target);
        }
        let entry = self.entries.get_mut(&seq)?;
        match answer {
            Answer::Deferred(time, _) => {
                let until = now + (*time).clamp(DEFERRAL.0, DEFERRAL.1);
                entry.kept_until = Some(until);
                entry.state = State::Deferred(until);
                self.unsent.remove(&entry.turn(seq));
                // Kept, but not remembered: a manager that knows nothing yet defers everything.
                entry.known = true;
                None
            }
            Answer::Final(outcome, _) => self.remove(seq, worth_a_retry(*outcome)),
        }
    }

    /// The session is gone: whatever is not settled goes to the next manager.
    pub fn session_lost(&mut self) {
        for (seq, entry) in &mut self.entries {
            entry.state = State::Unsent;
            self.unsent.insert(entry.turn(*seq));
        }
    }

    /// Lets time pass: what got no answer becomes due again, what is stale leaves.
    pub fn tick(&mut self, now: Instant) -> Vec<Settled> {
        let mut stale = Vec::new();
        for (seq, entry) in &mut self.entries {
            match entry.state {
                State::Sent(at) if now.saturating_duration_since(at) >= ACK_TIMEOUT => {
                    entry.state = State::Unsent;
                }
                // The final answer may have been lost on its way: ask once more.
                State::Deferred(until) if now >= until => {
                    entry.state = State::Unsent;
                    entry.kept_until = Some(now + ACK_TIMEOUT);
                }
                _ => {}
            }
            if entry.state == State::Unsent {
                self.unsent.insert(entry.turn(*seq));
                if entry.is_stale(self.ttl, now) {
                    stale.push(*seq);
                }
            }
        }
        stale
            .into_iter()
            .filter_map(|seq| self.remove(seq, true))
            .collect()
    }

    fn remove(&mut self, seq: u64, retry: bool) -> Option<Settled> {
        let entry = self.entries.remove(&seq)?;
        self.unsent.remove(&entry.turn(seq));
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
            .all(|entry| matches!(entry.state, State::Deferred(until) if until >= patience))
    }

    /// Whether a sent wake waits for its first answer.
    #[must_use]
    pub fn awaits_answers(&self) -> bool {
        self.entries
            .values()
            .any(|entry| matches!(entry.state, State::Sent(_)))
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

impl Entry {
    fn turn(&self, seq: u64) -> Turn {
        (!self.known, seq)
    }

    fn is_stale(&self, ttl: Duration, now: Instant) -> bool {
        now.saturating_duration_since(self.heard_at) >= ttl
            && self.kept_until.is_none_or(|until| now >= until)
    }
}

/// Whether the same packet, heard once more within the dedup window, should be reported again. A
/// window is there against repeats of what was settled; it must not hide a second attempt at
/// something that may work by now: the VM was made, selected or untangled, the password was
/// changed, the right was given.
fn worth_a_retry(outcome: Outcome) -> bool {
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
        | Outcome::Gone => true,
    }
}

/// Whether an answer shows that the target can be woken, now and later.
fn shows_a_vm(answer: &Answer) -> bool {
    matches!(
        answer,
        Answer::Final(
            Outcome::Started | Outcome::AlreadyOn | Outcome::Duplicate,
            _
        )
    )
}

/// Targets that a manager once knew, the latest [`KNOWN_CAPACITY`] of them.
#[derive(Debug, Default)]
struct Known {
    targets: HashSet<MacAddr>,
    order: VecDeque<MacAddr>,
}

impl Known {
    fn contains(&self, target: MacAddr) -> bool {
        self.targets.contains(&target)
    }

    /// False where it was there before.
    fn insert(&mut self, target: MacAddr) -> bool {
        if !self.targets.insert(target) {
            return false;
        }
        self.order.push_back(target);
        if self.order.len() > KNOWN_CAPACITY
            && let Some(oldest) = self.order.pop_front()
        {
            self.targets.remove(&oldest);
        }
        true
    }
}

#[cfg(test)]
mod tests;
