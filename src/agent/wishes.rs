//! Owns [`Wishes`]: what each manager replica asks of the agent, and what follows from all of them.
//! Pure.

use std::collections::BTreeMap;

use super::route::ReplicaId;
use crate::settings::{Rates, Settings};

/// The settings that the connected replicas ask for. They differ for moments only, while a change
/// has not reached all replicas; until then nothing that one of them wants is missed.
#[derive(Debug, Default)]
pub(super) struct Wishes {
    by: BTreeMap<ReplicaId, Settings>,
}

impl Wishes {
    /// A replica asks for this, instead of what it asked for before; tells what follows.
    pub(super) fn ask(&mut self, replica: ReplicaId, settings: Settings) -> Settings {
        self.by.insert(replica, settings.clone());
        self.together().unwrap_or(settings)
    }

    /// A replica is gone; tells what follows. None where it asked for nothing, or none is left:
    /// then the last settings stay.
    pub(super) fn withdraw(&mut self, replica: &str) -> Option<Settings> {
        self.by.remove(replica)?;
        self.together()
    }

    /// Every port, every packet that passes a filter of any, the shorter window, and the larger of
    /// all else.
    fn together(&self) -> Option<Settings> {
        self.by.values().cloned().reduce(|mut all, one| {
            all.udp_ports.extend(one.udp_ports);
            for filter in one.filters {
                if !all.filters.contains(&filter) {
                    all.filters.push(filter);
                }
            }
            Settings {
                dedup_window: all.dedup_window.min(one.dedup_window),
                event_ttl: all.event_ttl.max(one.event_ttl),
                rates: Rates {
                    source: all.rates.source.max(one.rates.source),
                    agent: all.rates.agent.max(one.rates.agent),
                },
                ..all
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::filter::SourceFilter;

    fn asks(ports: &[u16], range: &str, seconds: u64, rate: u32) -> Settings {
        Settings {
            udp_ports: ports.iter().copied().collect(),
            dedup_window: Duration::from_secs(seconds),
            event_ttl: Duration::from_secs(10 * seconds),
            filters: vec![
                SourceFilter::default(),
                SourceFilter::new(&["eth*"], &[range]).unwrap(),
            ],
            rates: Rates {
                source: rate,
                agent: 10 * rate,
            },
        }
    }

    #[test]
    fn nothing_that_a_replica_wants_is_missed() {
        let mut wishes = Wishes::default();
        let (a, b) = (
            asks(&[9, 7], "10.0.0.0/8", 2, 5),
            asks(&[9, 40_000], "fd00::/8", 3, 4),
        );
        assert_eq!(wishes.ask("a".into(), a.clone()), a);
        let both = wishes.ask("b".into(), b.clone());
        assert_eq!(both.udp_ports, [7, 9, 40_000].into());
        let filters = [&a.filters[0], &a.filters[1], &b.filters[1]];
        assert_eq!(both.filters.iter().collect::<Vec<_>>(), filters);
        assert_eq!(both.dedup_window, Duration::from_secs(2));
        assert_eq!(both.event_ttl, Duration::from_secs(30));
        assert_eq!((both.rates.source, both.rates.agent), (5, 50));
    }

    #[test]
    fn what_no_connected_replica_asks_for_goes_and_the_last_wishes_stay() {
        let mut wishes = Wishes::default();
        let (a, b) = (asks(&[9], "10.0.0.0/8", 2, 5), asks(&[7], "fd00::/8", 3, 4));
        wishes.ask("a".into(), a);
        wishes.ask("b".into(), b.clone());
        assert_eq!(wishes.withdraw("a"), Some(b.clone()));
        assert_eq!(wishes.withdraw("a"), None, "it asks for nothing any more");
        assert_eq!(wishes.withdraw("b"), None, "the last settings stay");
        assert_eq!(wishes.ask("b".into(), b.clone()), b);
    }

    #[test]
    fn equal_wishes_of_several_are_the_wishes_of_one() {
        let mut wishes = Wishes::default();
        let one = asks(&[9], "10.0.0.0/8", 2, 5);
        wishes.ask("b".into(), one.clone());
        assert_eq!(wishes.ask("a".into(), one.clone()), one);
    }
}
