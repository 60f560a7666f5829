//! Owns [`Shares`]: the same number per second for each of many, so that nobody takes the room of
//! the others. Pure; the caller brings the clock.

use std::{
    collections::{BTreeMap, HashMap},
    hash::Hash,
    time::Instant,
};

use crate::throttle::Throttle;

/// Equal shares, bounded in number: where there are too many, the one used longest ago is forgotten.
/// Who is forgotten has a full share again, so that forgetting refuses nobody.
#[derive(Debug)]
pub struct Shares<K> {
    full: Throttle,
    capacity: usize,
    known: HashMap<K, Share>,
    /// The keys in the order of their last use.
    order: BTreeMap<u64, K>,
    uses: u64,
    forgotten: u64,
}

#[derive(Debug)]
struct Share {
    throttle: Throttle,
    used: u64,
}

impl<K: Clone + Eq + Hash> Shares<K> {
    /// Every share is like `full`; `capacity` of them are remembered.
    #[must_use]
    pub fn new(full: Throttle, capacity: usize) -> Self {
        Self {
            full,
            capacity,
            known: HashMap::new(),
            order: BTreeMap::new(),
            uses: 0,
            forgotten: 0,
        }
    }

    /// Takes one from the share of `key`, if there is one left.
    pub fn admit(&mut self, key: &K, now: Instant) -> bool {
        self.uses += 1;
        let used = self.uses;
        self.order.insert(used, key.clone());
        if let Some(share) = self.known.get_mut(key) {
            self.order.remove(&share.used);
            share.used = used;
            return share.throttle.admit(now);
        }
        if self.known.len() >= self.capacity
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.known.remove(&oldest);
            self.forgotten += 1;
        }
        let mut throttle = self.full.clone();
        let admitted = throttle.admit(now);
        self.known.insert(key.clone(), Share { throttle, used });
        admitted
    }

    /// How many were forgotten for want of room.
    #[must_use]
    pub fn forgotten(&self) -> u64 {
        self.forgotten
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn shares(capacity: usize) -> (Shares<u32>, Instant) {
        let shares = Shares::new(Throttle::new(10, 3), capacity);
        (shares, Instant::now())
    }

    #[test]
    fn one_that_uses_up_its_share_takes_nothing_from_another() {
        let (mut shares, t0) = shares(10);
        let admitted = (0..1_000).filter(|_| shares.admit(&1, t0)).count();
        assert_eq!(admitted, 3);
        assert!(shares.admit(&2, t0));
        assert!(shares.admit(&1, t0 + Duration::from_millis(100)));
        assert_eq!(shares.forgotten(), 0);
    }

    #[test]
    fn memory_is_bounded_and_the_one_used_last_is_kept() {
        let (mut shares, t0) = shares(10);
        for _ in 0..4 {
            shares.admit(&0, t0);
        }
        for key in 1..100_000 {
            assert!(shares.admit(&key, t0), "everybody has a share");
            assert!(!shares.admit(&0, t0), "a busy one is not forgotten");
        }
        assert_eq!((shares.known.len(), shares.order.len()), (10, 10));
        assert_eq!(shares.forgotten(), 100_000 - 10);
    }
}
