//! Owns [`Recent`]: a map of bounded size that forgets what was used longest ago. Pure.

use std::{
    collections::{BTreeMap, HashMap},
    hash::Hash,
};

/// The values of the keys used last, at most `capacity` of them.
#[derive(Debug)]
pub(super) struct Recent<K, V> {
    capacity: usize,
    values: HashMap<K, (u64, V)>,
    order: BTreeMap<u64, K>,
    uses: u64,
}

impl<K: Clone + Eq + Hash, V: Default> Recent<K, V> {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            capacity: capacity.max(1),
            values: HashMap::new(),
            order: BTreeMap::new(),
            uses: 0,
        }
    }

    /// The value of `key`, a new one where there was none; it counts as used now.
    pub(super) fn of(&mut self, key: &K) -> &mut V {
        self.uses += 1;
        if let Some((used, _)) = self.values.get(key) {
            self.order.remove(used);
        } else if self.values.len() >= self.capacity
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.values.remove(&oldest);
        }
        self.order.insert(self.uses, key.clone());
        let (used, value) = self.values.entry(key.clone()).or_default();
        *used = self.uses;
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_longest_ago_is_forgotten_for_want_of_room() {
        let mut recent = Recent::<_, u32>::new(2);
        *recent.of(&"a") = 1;
        *recent.of(&"b") = 2;
        assert_eq!(*recent.of(&"a"), 1);
        *recent.of(&"c") = 3;
        assert_eq!((*recent.of(&"a"), *recent.of(&"c")), (1, 3));
        assert_eq!(*recent.of(&"b"), 0, "forgotten");
        assert_eq!((recent.values.len(), recent.order.len()), (2, 2));
    }
}
