//! Owns [`Window`]: which keys were seen within a fixed time. Pure; the caller brings the clock.

use std::{
    hash::{BuildHasher as _, Hash, RandomState},
    time::{Duration, Instant},
};

use hashbrown::HashTable;

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
///
/// Each key is stored once, in a slot; the slots form a list from the oldest to the newest. Memory
/// grows with the keys, never beyond `capacity` slots, and is kept for the next burst.
#[derive(Debug)]
pub struct Window<K> {
    length: Duration,
    capacity: usize,
    hasher: RandomState,
    /// Finds the slot of a key.
    index: HashTable<u32>,
    slots: Vec<Slot<K>>,
    oldest: u32,
    newest: u32,
    /// The first of the unused slots, which are chained by `newer`.
    unused: u32,
    evicted: u64,
}

#[derive(Debug)]
struct Slot<K> {
    key: K,
    since: Instant,
    older: u32,
    newer: u32,
}

/// The end of a list of slots.
const NONE: u32 = u32::MAX;

impl<K: Eq + Hash> Window<K> {
    /// Makes an empty window.
    #[must_use]
    pub fn new(length: Duration, capacity: usize) -> Self {
        Self {
            length,
            capacity: capacity.clamp(1, NONE as usize),
            hasher: RandomState::new(),
            index: HashTable::new(),
            slots: Vec::new(),
            oldest: NONE,
            newest: NONE,
            unused: NONE,
            evicted: 0,
        }
    }

    /// Sets the length for all keys, those already seen included.
    pub fn set_length(&mut self, length: Duration) {
        self.length = length;
    }

    /// Admits `key` at `now`; where that is before the newest key, as of that one.
    pub fn admit(&mut self, key: K, now: Instant) -> Verdict {
        let newest = self.slots.get(self.newest as usize);
        let now = newest.map_or(now, |newest| newest.since.max(now));
        self.expire(now);
        let hash = self.hasher.hash_one(&key);
        let slots = &self.slots;
        let same = |slot: &u32| slots[*slot as usize].key == key;
        if self.index.find(hash, same).is_some() {
            return Verdict::Repeat;
        }
        if self.len() >= self.capacity {
            self.drop_oldest();
            self.evicted += 1;
        }
        let slot = self.push_newest(key, now);
        let (slots, hasher) = (&self.slots, &self.hasher);
        self.index.insert_unique(hash, slot, |slot| {
            hasher.hash_one(&slots[*slot as usize].key)
        });
        Verdict::First
    }

    /// Forgets a key whose report came to nothing, so that the next packet counts again.
    pub fn forget(&mut self, key: &K) {
        let slots = &self.slots;
        let same = |slot: &u32| slots[*slot as usize].key == *key;
        if let Ok(entry) = self.index.find_entry(self.hasher.hash_one(key), same) {
            let (slot, _) = entry.remove();
            self.unlink(slot);
        }
    }

    /// Keys in the window, as of the last admission.
    #[must_use]
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether no key is in the window.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// How many keys were forgotten before their time because the window was full.
    #[must_use]
    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    fn expire(&mut self, now: Instant) {
        while let Some(slot) = self.slots.get(self.oldest as usize) {
            if now.saturating_duration_since(slot.since) < self.length {
                return;
            }
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        let oldest = self.oldest;
        if let Some(slot) = self.slots.get(oldest as usize) {
            let hash = self.hasher.hash_one(&slot.key);
            if let Ok(entry) = self.index.find_entry(hash, |slot| *slot == oldest) {
                entry.remove();
            }
            self.unlink(oldest);
        }
    }

    /// Puts a key at the end of the list and returns its slot.
    fn push_newest(&mut self, key: K, since: Instant) -> u32 {
        let older = self.newest;
        let filled = Slot {
            key,
            since,
            older,
            newer: NONE,
        };
        let slot = if let Some(reused) = self.slots.get_mut(self.unused as usize) {
            let slot = self.unused;
            self.unused = reused.newer;
            *reused = filled;
            slot
        } else {
            self.slots.push(filled);
            u32::try_from(self.slots.len() - 1).unwrap_or(NONE)
        };
        match self.slots.get_mut(older as usize) {
            Some(older) => older.newer = slot,
            None => self.oldest = slot,
        }
        self.newest = slot;
        slot
    }

    /// Takes a slot out of the list and keeps it for another key.
    fn unlink(&mut self, slot: u32) {
        let unlinked = &mut self.slots[slot as usize];
        let (older, newer) = (unlinked.older, unlinked.newer);
        unlinked.newer = self.unused;
        self.unused = slot;
        match self.slots.get_mut(older as usize) {
            Some(older) => older.newer = newer,
            None => self.oldest = newer,
        }
        match self.slots.get_mut(newer as usize) {
            Some(newer) => newer.older = older,
            None => self.newest = older,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn window(capacity: usize) -> (Window<&'static str>, Instant) {
        (Window::new(2 * SECOND, capacity), Instant::now())
    }

    #[test]
    fn a_repeat_is_dropped_until_the_window_ends() {
        let (mut window, start) = window(8);
        assert_eq!(window.admit("a", start), Verdict::First);
        assert_eq!(window.admit("a", start), Verdict::Repeat);
        let last = start + Duration::from_nanos(1_999_999_999);
        assert_eq!(window.admit("a", last), Verdict::Repeat);
        assert_eq!(window.admit("a", start + 2 * SECOND), Verdict::First);
    }

    #[test]
    fn a_sender_that_repeats_for_ever_is_heard_once_per_window() {
        let (mut window, start) = window(8);
        let firsts: Vec<u32> = (0..100)
            .filter(|tenth| window.admit("a", start + SECOND / 10 * *tenth) == Verdict::First)
            .collect();
        assert_eq!(firsts, [0, 20, 40, 60, 80]);
    }

    #[test]
    fn keys_do_not_touch_each_other() {
        let (mut window, start) = window(8);
        assert_eq!(window.admit("a", start), Verdict::First);
        assert_eq!(window.admit("b", start + SECOND), Verdict::First);
        assert_eq!(window.admit("a", start + 2 * SECOND), Verdict::First);
        assert_eq!(window.admit("b", start + 2 * SECOND), Verdict::Repeat);
        assert_eq!(window.len(), 2);
    }

    #[test]
    fn a_full_window_forgets_its_oldest_key_and_counts_that() {
        let (mut window, start) = window(2);
        window.admit("a", start);
        window.admit("b", start);
        assert_eq!(window.admit("b", start), Verdict::Repeat);
        assert_eq!(window.evicted(), 0);
        assert_eq!(window.admit("c", start), Verdict::First);
        assert_eq!((window.len(), window.evicted()), (2, 1));
        assert_eq!(window.admit("b", start), Verdict::Repeat);
        assert_eq!(window.admit("a", start), Verdict::First);
        assert_eq!((window.len(), window.evicted()), (2, 2));
    }

    #[test]
    fn an_expired_key_is_not_an_eviction() {
        let (mut window, start) = window(1);
        window.admit("a", start);
        assert_eq!(window.admit("b", start + 2 * SECOND), Verdict::First);
        assert_eq!((window.len(), window.evicted()), (1, 0));
    }

    #[test]
    fn a_forgotten_key_counts_again_with_a_window_of_its_own() {
        let (mut window, start) = window(8);
        window.admit("a", start);
        window.forget(&"a");
        assert!(window.is_empty());
        assert_eq!(window.admit("a", start + SECOND), Verdict::First);
        // The end of the first window does not end the second.
        assert_eq!(window.admit("a", start + 2 * SECOND), Verdict::Repeat);
        assert_eq!(window.admit("a", start + 3 * SECOND), Verdict::First);
    }

    #[test]
    fn forgetting_what_was_never_seen_changes_nothing() {
        let (mut window, start) = window(8);
        window.admit("a", start);
        window.forget(&"b");
        assert_eq!(window.admit("a", start), Verdict::Repeat);
    }

    #[test]
    fn a_new_length_holds_for_keys_already_seen() {
        let (mut window, start) = window(8);
        window.admit("a", start);
        window.set_length(10 * SECOND);
        assert_eq!(window.admit("a", start + 9 * SECOND), Verdict::Repeat);
        window.set_length(5 * SECOND);
        assert_eq!(window.admit("a", start + 9 * SECOND), Verdict::First);
    }

    #[test]
    fn a_length_of_zero_lets_everything_through() {
        let mut window = Window::new(Duration::ZERO, 8);
        let now = Instant::now();
        assert_eq!(window.admit("a", now), Verdict::First);
        assert_eq!(window.admit("a", now), Verdict::First);
    }

    #[test]
    fn a_clock_that_goes_back_neither_panics_nor_admits() {
        let (mut window, start) = window(8);
        window.admit("a", start + SECOND);
        assert_eq!(window.admit("a", start), Verdict::Repeat);
    }

    #[test]
    fn memory_is_bounded_however_many_keys_come_and_are_forgotten() {
        let mut window = Window::new(2 * SECOND, 64);
        let now = Instant::now();
        for key in 0..100_000_u32 {
            assert_eq!(window.admit(key, now), Verdict::First);
            if key % 3 == 0 {
                window.forget(&key);
            }
            assert!(window.len() <= 64);
        }
        assert_eq!(window.slots.len(), 64);
        assert!(window.index.capacity() < 64 * 8);
    }

    /// The window as one would write it without a thought for speed.
    fn admit_slowly(
        seen: &mut VecDeque<(u8, Instant)>,
        capacity: usize,
        key: u8,
        now: Instant,
    ) -> Verdict {
        seen.retain(|(_, since)| now - *since < 2 * SECOND);
        if seen.iter().any(|(k, _)| *k == key) {
            return Verdict::Repeat;
        }
        if seen.len() == capacity {
            seen.pop_front();
        }
        seen.push_back((key, now));
        Verdict::First
    }

    proptest! {
        #[test]
        fn any_sequence_goes_as_in_a_plain_list(
            capacity in 1..6_usize,
            steps in prop::collection::vec((any::<bool>(), 0..8_u8, 0..700_u64), 0..60),
        ) {
            let mut window = Window::new(2 * SECOND, capacity);
            let mut plain = VecDeque::new();
            let mut now = Instant::now();
            for (forget, key, wait) in steps {
                now += Duration::from_millis(wait);
                if forget {
                    window.forget(&key);
                    plain.retain(|(k, _)| *k != key);
                } else {
                    let expected = admit_slowly(&mut plain, capacity, key, now);
                    prop_assert_eq!(window.admit(key, now), expected);
                    prop_assert_eq!(window.len(), plain.len());
                }
            }
        }
    }
}
