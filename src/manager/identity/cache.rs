//! Owns [`Cache`]: what was learnt moments ago, as what the API server said of a token. Pure; the
//! caller brings the clock.

use std::{
    collections::{HashMap, VecDeque},
    hash::Hash,
    time::{Duration, Instant},
};

/// Keeps a value per key for a fixed time, and so many at most: the oldest goes first.
#[derive(Debug)]
pub(super) struct Cache<K, V> {
    life: Duration,
    room: usize,
    entries: HashMap<K, (Instant, V)>,
    /// In the order of their making; one that was renewed is here twice, and counts as its newer.
    order: VecDeque<(Instant, K)>,
}

impl<K: Copy + Eq + Hash, V: Clone> Cache<K, V> {
    pub(super) fn new(life: Duration, room: usize) -> Self {
        Self {
            life,
            room,
            entries: HashMap::new(),
            order: VecDeque::new(),
        }
    }

    pub(super) fn get(&self, key: &K, now: Instant) -> Option<V> {
        let (since, value) = self.entries.get(key)?;
        let fresh = now.saturating_duration_since(*since) < self.life;
        fresh.then(|| value.clone())
    }

    pub(super) fn put(&mut self, key: K, value: V, now: Instant) {
        self.remove_old(now);
        self.entries.insert(key, (now, value));
        self.order.push_back((now, key));
        while self.order.len() > self.room {
            self.remove_first();
        }
    }

    pub(super) fn remove(&mut self, key: &K) {
        self.entries.remove(key);
    }

    fn remove_old(&mut self, now: Instant) {
        let life = self.life;
        let old = |since: Instant| now.saturating_duration_since(since) >= life;
        while self.order.front().is_some_and(|(since, _)| old(*since)) {
            self.remove_first();
        }
    }

    fn remove_first(&mut self) {
        if let Some((since, key)) = self.order.pop_front()
            && self.entries.get(&key).is_some_and(|(at, _)| *at == since)
        {
            self.entries.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFE: Duration = Duration::from_secs(60);

    #[test]
    fn a_value_lives_for_its_time_from_the_last_word_on() {
        let (start, key) = (Instant::now(), [1; 32]);
        let mut cache = Cache::new(LIFE, 4);
        cache.put(key, "old", start);
        assert_eq!(cache.get(&key, start + LIFE / 2), Some("old"));
        assert_eq!(cache.get(&key, start + LIFE), None);
        cache.put(key, "new", start + LIFE / 2);
        cache.put([2; 32], "other", start + LIFE);
        assert_eq!(cache.get(&key, start + LIFE), Some("new"));
        cache.remove(&key);
        assert_eq!(cache.get(&key, start + LIFE), None);
    }

    #[test]
    fn it_holds_no_more_than_it_may_and_forgets_the_oldest() {
        let start = Instant::now();
        let mut cache = Cache::new(LIFE, 3);
        for n in 0..100u8 {
            cache.put([n; 32], n, start);
            // One that is renewed again and again takes no room from itself.
            cache.put([99; 32], 99, start + Duration::from_millis(n.into()));
        }
        assert!(cache.entries.len() <= 3 && cache.order.len() <= 3);
        assert_eq!(cache.get(&[99; 32], start), Some(99));
        assert_eq!(cache.get(&[0; 32], start), None);
    }
}
