//! Owns [`SourceFilter`]: which packets count, by the interface that heard them and the network
//! they came from. Pure; the agent drops by it early, the manager decides by it.

use glob::Pattern;
use ipnet::IpNet;

use crate::wake::Origin;

/// The node's ends of pod links. A bridge still shows what pods broadcast, but by default no pod
/// can wake a VM over its own link.
pub const DEFAULT_INTERFACES: [&str; 5] = ["!veth*", "!cali*", "!lxc*", "!cilium_*", "!ovn-k8s-*"];

/// Why a filter cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// An interface pattern that is no shell pattern.
    #[error("interface pattern {0:?} is not a shell pattern such as eth* or !veth*: {1}")]
    Interface(String, String),
    /// A source range that is no network.
    #[error("source range {0:?} is not a network such as 10.0.0.0/24 or fd00::/8")]
    Range(String),
}

/// A packet passes when its interface and its source both do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFilter {
    included: Vec<Pattern>,
    excluded: Vec<Pattern>,
    ranges: Vec<IpNet>,
}

impl SourceFilter {
    /// Makes a filter. No interface pattern means [`DEFAULT_INTERFACES`]; no range means every
    /// source, frames without an IP address included.
    ///
    /// # Errors
    ///
    /// Names the first pattern or range that cannot be read.
    pub fn new<I: AsRef<str>, R: AsRef<str>>(
        interfaces: &[I],
        ranges: &[R],
    ) -> Result<Self, FilterError> {
        let interfaces: Vec<&str> = match interfaces {
            [] => DEFAULT_INTERFACES.to_vec(),
            given => given.iter().map(AsRef::as_ref).collect(),
        };
        let mut filter = Self {
            included: Vec::new(),
            excluded: Vec::new(),
            ranges: Vec::new(),
        };
        for text in interfaces {
            let (patterns, body) = match text.strip_prefix('!') {
                Some(body) => (&mut filter.excluded, body),
                None => (&mut filter.included, text),
            };
            let pattern = Pattern::new(body)
                .map_err(|e| FilterError::Interface(text.into(), e.msg.into()))?;
            patterns.push(pattern);
        }
        for range in ranges {
            let range = range.as_ref();
            filter.ranges.push(
                range
                    .parse()
                    .map_err(|_| FilterError::Range(range.into()))?,
            );
        }
        Ok(filter)
    }

    /// Whether a packet that came this way counts. An interface whose name is not known is not
    /// held against the packet unless the filter asks for particular ones.
    #[must_use]
    pub fn passes(&self, origin: &Origin) -> bool {
        let name = &*origin.interface;
        let interface = (self.included.is_empty() || self.included.iter().any(|p| p.matches(name)))
            && !self.excluded.iter().any(|p| p.matches(name));
        let source = self.ranges.is_empty()
            || origin
                .source
                .is_some_and(|ip| self.ranges.iter().any(|range| range.contains(&ip)));
        interface && source
    }

    /// The interface patterns as they were written, never empty.
    #[must_use]
    pub fn interfaces(&self) -> Vec<String> {
        let included = self.included.iter().map(ToString::to_string);
        included
            .chain(self.excluded.iter().map(|p| format!("!{p}")))
            .collect()
    }

    /// The source ranges as they were read.
    #[must_use]
    pub fn ranges(&self) -> Vec<String> {
        self.ranges.iter().map(ToString::to_string).collect()
    }
}

impl Default for SourceFilter {
    fn default() -> Self {
        let excluded = DEFAULT_INTERFACES
            .iter()
            .filter_map(|p| Pattern::new(p.trim_start_matches('!')).ok());
        Self {
            included: Vec::new(),
            excluded: excluded.collect(),
            ranges: Vec::new(),
        }
    }
}
