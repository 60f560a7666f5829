//! Owns [`Window`]: which keys were seen within a fixed time. Pure; the caller brings the clock.

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    hash::Hash,
    time::{Duration, Instant},
};

/// Whether a key is new to the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The first within the window; the window for this key starts now.
    First,
    /// A repeat. It does not extend the window.
    Repeat,
}

/// The keys seen within a fixed time, at most `capacity` of them.
///
/// The window of a key runs from its first admission and is never extended by repeats, so that a
/// sender that repeats for ever is heard again and again. When the window is full, the oldest key
/// is forgotten, which costs at most one extra report.
#[derive(Debug)]
pub struct Window<K> {
    length: Duration,
    capacity: usize,
    seen: HashMap<K, Instant>,
    order: VecDeque<(Instant, K)>,
    evicted: u64,
}

impl<K: Clone + Eq + Hash> Window<K> {
    /// Makes an empty window.
    #[must_use]
    pub fn new(length: Duration, capacity: usize) -> Self {
        Self {
            length,
            capacity: capacity.max(1),
            seen: HashMap::new(),
            order: VecDeque::new(),
            evicted: 0,
        }
    }

    /// Sets the length for all keys, those already seen included.
    pub fn set_length(&mut self, length: Duration) {
        self.length = length;
    }

    /// Admits `key` at `now`, which must not go backwards between calls.
    pub fn admit(&mut self, key: K, now: Instant) -> Verdict {
        self.expire(now);
        if self.seen.len() >= self.capacity && !self.seen.contains_key(&key) {
            self.evict_oldest();
        }
        match self.seen.entry(key.clone()) {
            Entry::Occupied(_) => Verdict::Repeat,
            Entry::Vacant(entry) => {
                entry.insert(now);
                self.order.push_back((now, key));
                Verdict::First
            }
        }
    }

    /// Forgets a key whose report came to nothing, so that the next packet counts again.
    pub fn forget(&mut self, key: &K) {
        self.seen.remove(key);
    }

    /// Keys in the window.
    #[must_use]
    pub fn len(&self) -> usize {
        self.seen.len()
    }

    /// Whether no key is in the window.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.seen.is_empty()
    }

    /// How many keys were forgotten before their time because the window was full.
    #[must_use]
    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    fn expire(&mut self, now: Instant) {
        while let Some((since, _)) = self.order.front() {
            if now.saturating_duration_since(*since) < self.length {
                return;
            }
            self.drop_front();
        }
    }

    fn evict_oldest(&mut self) {
        let before = self.seen.len();
        while self.seen.len() == before && self.drop_front() {}
        self.evicted += 1;
    }

    /// Drops the oldest entry; one that was forgotten and admitted again lives on.
    fn drop_front(&mut self) -> bool {
        let Some((since, key)) = self.order.pop_front() else {
            return false;
        };
        if self.seen.get(&key) == Some(&since) {
            self.seen.remove(&key);
        }
        true
    }
}
