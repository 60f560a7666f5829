//! Owns [`Marks`]: which VMs were woken moments ago, so that late copies of a settled wake are
//! duplicates. Pure; the caller brings the clock.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

/// The wakes settled within a fixed time, by VM uid.
///
/// A wake is a VM and a window: what was *heard* before the window closes belongs to it, however
/// late the copy arrives. The window runs from the first packet and is never extended.
#[derive(Debug, Clone)]
pub struct Marks {
    window: Duration,
    /// How long after the first packet a copy can still arrive.
    kept: Duration,
    capacity: usize,
    closes: HashMap<Arc<str>, Instant>,
    order: VecDeque<(Instant, Arc<str>)>,
    evicted: u64,
}

impl Marks {
    /// Marks that hold for `window`, for copies that arrive up to `late` after that; at most
    /// `capacity` of them.
    #[must_use]
    pub fn new(window: Duration, late: Duration, capacity: usize) -> Self {
        Self {
            window,
            kept: late,
            capacity: capacity.max(1),
            closes: HashMap::new(),
            order: VecDeque::new(),
            evicted: 0,
        }
    }

    /// Marks a VM whose wake was first heard at `heard_at` and is settled now.
    pub fn set(&mut self, uid: &Arc<str>, heard_at: Instant, now: Instant) {
        self.expire(now);
        while self.order.len() >= self.capacity && self.drop_oldest() {
            self.evicted += 1;
        }
        let closes = heard_at + self.window;
        self.closes.insert(uid.clone(), closes);
        self.order.push_back((closes, uid.clone()));
    }

    /// Whether a packet heard at `heard_at` belongs to a wake that is settled already.
    #[must_use]
    pub fn covers(&self, uid: &str, heard_at: Instant) -> bool {
        self.closes
            .get(uid)
            .is_some_and(|closes| heard_at < *closes)
    }

    /// How many were forgotten before their time because there was no room.
    #[must_use]
    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    fn expire(&mut self, now: Instant) {
        while let Some((closes, _)) = self.order.front() {
            if now < *closes + self.kept {
                return;
            }
            self.drop_oldest();
        }
    }

    /// Drops the oldest entry; a VM that was marked again since keeps its newer mark.
    fn drop_oldest(&mut self) -> bool {
        let Some((closes, uid)) = self.order.pop_front() else {
            return false;
        };
        if self.closes.get(&uid) == Some(&closes) {
            self.closes.remove(&uid);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn marks(capacity: usize) -> Marks {
        Marks::new(10 * SECOND, 30 * SECOND, capacity)
    }

    #[test]
    fn what_was_heard_within_the_window_is_covered_however_late_it_comes() {
        let start = Instant::now();
        let mut marks = marks(8);
        marks.set(&"a".into(), start, start + SECOND);
        assert!(marks.covers("a", start));
        assert!(marks.covers("a", start + 9 * SECOND));
        assert!(!marks.covers("a", start + 10 * SECOND));
        assert!(!marks.covers("b", start));
    }

    #[test]
    fn repeats_do_not_extend_the_window_and_a_new_wake_opens_its_own() {
        let start = Instant::now();
        let mut marks = marks(8);
        marks.set(&"a".into(), start, start);
        marks.set(&"a".into(), start + 12 * SECOND, start + 12 * SECOND);
        assert!(marks.covers("a", start + 21 * SECOND));
        assert!(!marks.covers("a", start + 22 * SECOND));
    }

    #[test]
    fn memory_is_bounded_by_capacity_and_by_time() {
        let start = Instant::now();
        let mut marks = marks(2);
        for uid in ["a", "b", "c"] {
            marks.set(&uid.into(), start, start);
        }
        assert_eq!((marks.closes.len(), marks.evicted()), (2, 1));
        assert!(!marks.covers("a", start));
        marks.set(&"d".into(), start + 40 * SECOND, start + 40 * SECOND);
        assert_eq!((marks.closes.len(), marks.order.len()), (1, 1));
        assert_eq!(marks.evicted(), 1, "what ran out was not evicted");
    }
}
