//! Owns [`Settings`]: what the managers ask of the agents. Plain data, no I/O.

use std::{collections::BTreeSet, time::Duration};

use crate::filter::SourceFilter;

/// How an agent listens; pushed over its session, never through a new pod.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// UDP ports to listen on.
    pub udp_ports: BTreeSet<u16>,
    /// Repeats of a wake within this time of the first are dropped by the agent.
    pub dedup_window: Duration,
    /// An event older than this is stale, unless it was deferred.
    pub event_ttl: Duration,
    /// Which packets matter: those that pass at least one.
    pub filters: Vec<SourceFilter>,
    /// How many wakes for addresses that are not known to be a VM's are reported.
    pub rates: Rates,
}

/// Wakes per second that an agent reports for addresses that are not known to be a VM's. Those that
/// are have a reserve of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rates {
    /// Of one sender.
    pub source: u32,
    /// Of all senders together.
    pub agent: u32,
}

impl Default for Rates {
    /// More than people send, and together less than a manager takes.
    fn default() -> Self {
        Self {
            source: 1_000,
            agent: 25_000,
        }
    }
}

impl Settings {
    /// The ports where nearly every sender sends: discard and echo.
    pub const DEFAULT_PORTS: [u16; 2] = [9, 7];
}

impl Default for Settings {
    /// What an agent does before a manager has spoken: the default ports, any source, and the
    /// default interfaces.
    fn default() -> Self {
        Self {
            udp_ports: Self::DEFAULT_PORTS.into(),
            dedup_window: crate::pace::of(Duration::from_secs(2)),
            event_ttl: crate::pace::of(Duration::from_secs(30)),
            filters: vec![SourceFilter::default()],
            rates: Rates::default(),
        }
    }
}
