//! Owns the names of network interfaces. The kernel tells numbers with each packet; names are asked
//! for when needed, so that interfaces may come, go and be renamed.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use nix::net::if_::if_indextoname;

/// A name may be this old.
const FRESH: Duration = Duration::from_secs(1);

/// Names kept at most; a node with more interfaces in use asks the kernel more often.
const CAPACITY: usize = 256;

/// Remembers names for a short time, because asking costs as much as reading a packet.
#[derive(Debug, Default)]
pub(super) struct Interfaces {
    names: HashMap<u32, (Arc<str>, Instant)>,
}

impl Interfaces {
    /// The name of interface `index`; empty where there is none, or not any more.
    pub(super) fn name(&mut self, index: u32, now: Instant) -> Arc<str> {
        if let Some((name, since)) = self.names.get(&index)
            && now.saturating_duration_since(*since) < crate::pace::of(FRESH)
        {
            return Arc::clone(name);
        }
        let name = if_indextoname(index).ok();
        let name: Arc<str> = name.map_or_else(|| "".into(), |n| n.to_string_lossy().into());
        if self.names.len() >= CAPACITY {
            self.names.clear();
        }
        self.names.insert(index, (Arc::clone(&name), now));
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_and_unknown_numbers_have_a_name_or_none() {
        let mut interfaces = Interfaces::default();
        let now = Instant::now();
        let lo = nix::net::if_::if_nametoindex("lo").unwrap();
        assert_eq!(&*interfaces.name(lo, now), "lo");
        assert_eq!(&*interfaces.name(lo, now), "lo", "from memory");
        assert_eq!(&*interfaces.name(0x7fff_fff0, now), "");
    }

    #[test]
    fn memory_stays_bounded() {
        let mut interfaces = Interfaces::default();
        for index in 0x7000_0000..0x7000_0400 {
            interfaces.name(index, Instant::now());
        }
        assert!(interfaces.names.len() <= CAPACITY);
    }
}
