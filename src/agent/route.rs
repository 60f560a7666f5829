//! Owns [`Routes`]: which replica an event goes to. All agents choose the same one for a target, as
//! long as they see the same replicas, so that all copies of a wake meet there. Pure.
//!
//! The choice is by rendezvous hashing: each replica has a weight for each target, and the heaviest
//! is chosen. When one goes, only its targets move; when one comes, it takes its share of each.

use std::{collections::BTreeSet, sync::Arc};

use crate::mac::MacAddr;

/// The parameters of FNV-1a, 64 bits.
const FNV: (u64, u64) = (0xcbf2_9ce4_8422_2325, 0x0100_0000_01b3);

/// Names a replica, as it says in its welcome.
pub type ReplicaId = Arc<str>;

/// The weight of a replica for a target, as `wol.proto` fixes it: FNV-1a over the bytes of the
/// replica's name, a zero byte and the six bytes of the address, then the finalizer of `MurmurHash3`
/// (`fmix64`), without which the last bytes would hardly reach the high bits.
#[must_use]
pub fn weight(replica: &str, target: MacAddr) -> u64 {
    let bytes = replica.bytes().chain([0]).chain(target.octets());
    let hash = bytes.fold(FNV.0, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(FNV.1)
    });
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

/// The replicas that events can go to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Routes {
    replicas: BTreeSet<ReplicaId>,
}

impl Routes {
    /// Adds a replica; false where it was there.
    pub fn insert(&mut self, replica: ReplicaId) -> bool {
        self.replicas.insert(replica)
    }

    /// Takes a replica out; false where it was not there.
    pub fn remove(&mut self, replica: &str) -> bool {
        self.replicas.remove(replica)
    }

    /// Whether events can go to this replica.
    #[must_use]
    pub fn contains(&self, replica: &str) -> bool {
        self.replicas.contains(replica)
    }

    /// Whether events can go nowhere.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.replicas.is_empty()
    }

    /// Where an event for `target` goes, of the replicas that `tried` does not hold. Of equal weights,
    /// the name that sorts last wins.
    #[must_use]
    pub fn best(&self, target: MacAddr, tried: &[ReplicaId]) -> Option<&ReplicaId> {
        let left = self.replicas.iter().filter(|one| !tried.contains(one));
        left.max_by_key(|one| weight(one, target))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes(names: &[&str]) -> Routes {
        let replicas = names.iter().map(|name| ReplicaId::from(*name)).collect();
        Routes { replicas }
    }

    fn targets() -> impl Iterator<Item = MacAddr> {
        (0..1000_u32).map(|n| {
            let [_, a, b, c] = n.to_be_bytes();
            MacAddr::new([0x52, 0x54, 0x00, a, b, c])
        })
    }

    #[test]
    fn weights_are_those_of_the_protocol() {
        let vm = MacAddr::new([0x52, 0x54, 0x00, 0x12, 0x34, 0x56]);
        let pod = "kubevirt-wol-controller-manager-7d9c5b8f6-x2x4z";
        for (replica, target, expected) in [
            ("manager-a", vm, 0x40f4_c3a2_2e1a_39f9),
            ("manager-b", vm, 0x3a4f_6709_259e_2398),
            ("", MacAddr::new([0; 6]), 0x6b31_b81c_083f_547e),
            (pod, MacAddr::new([2, 0, 0, 0, 0, 1]), 0x2d56_f975_1592_9b06),
        ] {
            assert_eq!(weight(replica, target), expected, "{replica:?} {target}");
        }
    }

    #[test]
    fn a_thousand_targets_spread_evenly_over_three_replicas() {
        for deployment in 0..50 {
            let names =
                ["x2x4z", "9fj7q", "bqk5d"].map(|pod| format!("manager-{deployment}-{pod}"));
            let routes = routes(&names.each_ref().map(String::as_str));
            for name in &names {
                let share = targets().filter(|mac| &**routes.best(*mac, &[]).unwrap() == name);
                let share = share.count();
                assert!((267..=400).contains(&share), "{name}: {share}");
            }
        }
    }

    #[test]
    fn when_a_replica_goes_only_its_targets_move_and_when_it_is_back_they_return() {
        let all = routes(&["a", "b", "c"]);
        let mut fewer = all.clone();
        assert!(fewer.remove("b") && !fewer.remove("b"));
        for target in targets() {
            let (before, after) = (all.best(target, &[]), fewer.best(target, &[]));
            let moved = before != after;
            assert_eq!(moved, before.is_some_and(|one| **one == *"b"), "{target}");
            // Who gets it next is who is asked when there is no answer.
            let tried = [ReplicaId::from("b")];
            assert_eq!(all.best(target, &tried), after);
        }
        fewer.insert("b".into());
        assert_eq!(fewer, all);
    }

    #[test]
    fn who_was_tried_is_not_tried_again_and_without_a_replica_there_is_no_way() {
        let routes = routes(&["a", "b"]);
        let target = MacAddr::new([2, 0, 0, 0, 0, 1]);
        let first = routes.best(target, &[]).unwrap().clone();
        let second = routes
            .best(target, std::slice::from_ref(&first))
            .unwrap()
            .clone();
        assert_ne!(first, second);
        assert_eq!(routes.best(target, &[first, second]), None);
        assert_eq!(Routes::default().best(target, &[]), None);
    }
}
