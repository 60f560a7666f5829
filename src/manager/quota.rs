//! Owns [`Quota`]: how many wakes of VMs are taken in, so that one node, be it compromised, takes
//! the room of no other. Pure; the caller brings the clock.
//!
//! Only what means a VM is counted: to answer all else costs less than to be asked again.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use crate::{shares::Shares, throttle::Throttle};

/// Nodes whose shares are remembered at most, twice as many as the largest cluster has.
const MAX_NODES: usize = 10_000;

/// So many per second, and at once after a quiet time.
#[derive(Debug, Clone, Copy)]
pub struct Rate {
    /// Per second.
    pub rate: u32,
    /// At once.
    pub burst: u32,
}

/// For one node: more than an agent holds at once, so that none of an honest one's is put off.
const NODE: Rate = Rate {
    rate: 2_000,
    burst: 4_096,
};

/// For all together: every node of the largest cluster may report some broadcasts at once.
const ALL: Rate = Rate {
    rate: 20_000,
    burst: 65_536,
};

/// What may still be taken in.
#[derive(Debug)]
pub struct Quota(Mutex<(Shares<Arc<str>>, Throttle)>);

impl Default for Quota {
    fn default() -> Self {
        Self::new(NODE, ALL)
    }
}

impl Quota {
    /// Full quotas for each node and for all.
    #[must_use]
    pub fn new(node: Rate, all: Rate) -> Self {
        let shares = Shares::new(Throttle::new(node.rate, node.burst), MAX_NODES);
        Self(Mutex::new((shares, Throttle::new(all.rate, all.burst))))
    }

    /// Takes in one wake that this node reports, if there is room.
    #[must_use]
    pub fn admit(&self, node: &Arc<str>, now: Instant) -> bool {
        let mut quota = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (nodes, all) = &mut *quota;
        // What a node's share refuses takes nothing from the others.
        nodes.admit(node, now) && all.admit(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admitted(quota: &Quota, node: &str, tries: u32, now: Instant) -> usize {
        let node = node.into();
        (0..tries).filter(|_| quota.admit(&node, now)).count()
    }

    #[test]
    fn a_node_that_floods_leaves_room_for_all_others() {
        let (quota, now) = (Quota::default(), Instant::now());
        assert_eq!(admitted(&quota, "bad", 1_000_000, now), 4_096);
        for node in 0..5_000 {
            let name = format!("node-{node}");
            assert_eq!(admitted(&quota, &name, 10, now), 10, "{name}");
        }
    }

    #[test]
    fn all_together_are_bounded() {
        let [node, all] = [10, 25].map(|burst| Rate { rate: 1, burst });
        let (quota, now) = (Quota::new(node, all), Instant::now());
        let counts = ["a", "b", "c", "d"].map(|node| admitted(&quota, node, 100, now));
        assert_eq!(counts, [10, 10, 5, 0]);
    }
}
