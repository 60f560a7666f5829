//! Owns [`Known`]: the targets that answers showed to be wakeable.

use std::collections::{HashSet, VecDeque};

use crate::mac::MacAddr;

/// Targets remembered as wakeable at most.
const CAPACITY: usize = 4096;

/// Targets that a manager once knew, the latest [`CAPACITY`] of them.
#[derive(Debug, Clone, Default)]
pub(super) struct Known {
    targets: HashSet<MacAddr>,
    order: VecDeque<MacAddr>,
}

impl Known {
    pub(super) fn contains(&self, target: MacAddr) -> bool {
        self.targets.contains(&target)
    }

    /// False where it was there before.
    pub(super) fn insert(&mut self, target: MacAddr) -> bool {
        if !self.targets.insert(target) {
            return false;
        }
        self.order.push_back(target);
        if self.order.len() > CAPACITY
            && let Some(oldest) = self.order.pop_front()
        {
            self.targets.remove(&oldest);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_of_wakeable_targets_is_bounded_and_forgets_the_oldest() {
        let mac = |n: usize| {
            let [.., a, b, c] = n.to_be_bytes();
            MacAddr::new([0x52, 0x54, 0, a, b, c])
        };
        let mut known = Known::default();
        for n in 0..=CAPACITY {
            known.insert(mac(n));
            known.insert(mac(n));
        }
        assert_eq!(
            (known.targets.len(), known.order.len()),
            (CAPACITY, CAPACITY)
        );
        assert!(!known.contains(mac(0)) && known.contains(mac(1)));
    }
}
