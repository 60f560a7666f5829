//! Owns [`SourceFilter`]: which packets count, by the interface that heard them and the network
//! they came from. Pure; the agent drops by it early, the manager decides by it.

use glob::Pattern;
use ipnet::IpNet;

use crate::wake::Origin;

/// By default no pod can wake a VM over its own link. Left out are the node's ends of pod links, the
/// bridges that network plugins put their other ends into, and the tunnels by which they come from
/// other nodes: names that no network of machines has, so that a VXLAN of one's own still counts.
pub const DEFAULT_INTERFACES: [&str; 14] = [
    "!veth*",
    "!cali*",
    "!lxc*",
    "!cilium_*",
    "!ovn-k8s-*",
    "!antrea-*",
    "!cni*",
    "!docker*",
    "!cbr*",
    "!kube-bridge",
    "!flannel*",
    "!tunl0",
    "!vxlan*.calico",
    "!genev_sys_*",
];

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
            if body.is_empty() {
                // It would match only packets whose interface is not known.
                return Err(FilterError::Interface(text.into(), "it is empty".into()));
            }
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

    /// The interface patterns, never empty: those that include, then those that exclude.
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

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::wake::Carrier;

    fn filter(interfaces: &[&str], ranges: &[&str]) -> SourceFilter {
        SourceFilter::new(interfaces, ranges).unwrap()
    }

    fn origin(interface: &str, source: Option<&str>) -> Origin {
        Origin {
            carrier: Carrier::Udp,
            interface: interface.into(),
            vlan: None,
            source_mac: None,
            source: source.map(|text| text.parse::<IpAddr>().unwrap()),
            source_port: 9,
            length: 102,
        }
    }

    fn hears(filter: &SourceFilter, interface: &str) -> bool {
        filter.passes(&origin(interface, Some("10.0.0.7")))
    }

    fn accepts(filter: &SourceFilter, source: &str) -> bool {
        filter.passes(&origin("eth0", Some(source)))
    }

    #[test]
    fn by_default_only_what_carries_the_packets_of_pods_is_left_out() {
        let filter = filter(&[], &[]);
        for interface in [
            "eth0", "enp3s0f1", "bond0", "br0", "br-ex", "br-lan", "vmbr0", "virbr0", "eth0.5",
            "p1p1", "vxlan100", "tun0", "tap0", "wg0", "ovs-lan", "",
        ] {
            assert!(hears(&filter, interface), "{interface}");
        }
        for interface in [
            "veth1a2b3c",
            "cali0123",
            "lxc_health",
            "cilium_host",
            "ovn-k8s-mp0",
            "antrea-gw0",
            "cni0",
            "docker0",
            "docker_gwbridge",
            "cbr0",
            "kube-bridge",
            "flannel.1",
            "tunl0",
            "vxlan.calico",
            "vxlan-v6.calico",
            "genev_sys_6081",
        ] {
            assert!(!hears(&filter, interface), "{interface}");
        }
        assert_eq!(filter, SourceFilter::default());
        assert_eq!(filter.interfaces(), DEFAULT_INTERFACES);
    }

    #[test]
    fn included_interfaces_are_the_only_ones() {
        let filter = filter(&["eth*", "br[01]"], &[]);
        assert!(hears(&filter, "eth0"));
        assert!(hears(&filter, "eth0.5"));
        assert!(hears(&filter, "br1"));
        assert!(!hears(&filter, "br2"));
        assert!(!hears(&filter, "xeth0"));
        assert!(!hears(&filter, "ETH0"));
        assert!(!hears(&filter, ""), "asked for particular interfaces");
    }

    #[test]
    fn an_exclusion_wins_over_an_inclusion_in_any_order() {
        for patterns in [["eth*", "!eth1"], ["!eth1", "eth*"]] {
            let filter = filter(&patterns, &[]);
            assert!(hears(&filter, "eth0"));
            assert!(!hears(&filter, "eth1"));
            assert!(!hears(&filter, "br0"));
        }
    }

    #[test]
    fn exclusions_alone_replace_the_default_ones() {
        let filter = filter(&["!eth1"], &[]);
        assert!(!hears(&filter, "eth1"));
        assert!(hears(&filter, "veth1a2b3c"));
    }

    #[test]
    fn a_range_holds_its_addresses_and_no_others() {
        let filter = filter(&[], &["10.0.0.0/24", "192.168.1.7/32", "fd00::/8"]);
        for source in ["10.0.0.0", "10.0.0.255", "192.168.1.7", "fd12::1"] {
            assert!(accepts(&filter, source), "{source}");
        }
        for source in ["10.0.1.0", "192.168.1.8", "0.0.0.0", "fe80::1"] {
            assert!(!accepts(&filter, source), "{source}");
        }
    }

    #[test]
    fn address_families_do_not_match_each_other() {
        let four = filter(&[], &["10.0.0.0/8"]);
        assert!(!accepts(&four, "::ffff:10.0.0.1"));
        let any_four = filter(&[], &["0.0.0.0/0"]);
        assert!(accepts(&any_four, "0.0.0.0"));
        assert!(!accepts(&any_four, "::1"));
        let any_six = filter(&[], &["::/0"]);
        assert!(!accepts(&any_six, "10.0.0.1"));
    }

    #[test]
    fn a_frame_without_ip_passes_only_where_no_range_is_asked_for() {
        let frame = origin("eth0", None);
        assert!(filter(&[], &[]).passes(&frame));
        assert!(!filter(&[], &["0.0.0.0/0", "::/0"]).passes(&frame));
    }

    #[test]
    fn interface_and_source_must_both_pass() {
        let filter = filter(&["eth0"], &["10.0.0.0/24"]);
        assert!(filter.passes(&origin("eth0", Some("10.0.0.7"))));
        assert!(!filter.passes(&origin("eth1", Some("10.0.0.7"))));
        assert!(!filter.passes(&origin("eth0", Some("10.0.1.7"))));
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let error = |interfaces: &[&str], ranges: &[&str]| {
            SourceFilter::new(interfaces, ranges)
                .unwrap_err()
                .to_string()
        };
        assert!(error(&["eth[0"], &[]).starts_with(r#"interface pattern "eth[0" is not"#));
        assert!(error(&["eth0", "!"], &[]).starts_with(r#"interface pattern "!" is not"#));
        assert!(error(&[""], &[]).ends_with("it is empty"));
        for range in ["10.0.0.0/64", "10.0.0.7", "fd00::/129", "eth0", ""] {
            let expected = format!("source range {range:?} is not a network");
            assert!(error(&[], &[range]).starts_with(&expected), "{range}");
        }
    }

    #[test]
    fn a_filter_survives_the_way_over_the_wire() {
        let first = filter(&["!veth*", "eth*"], &["10.0.0.0/24", "fd00::/8"]);
        let second = SourceFilter::new(&first.interfaces(), &first.ranges()).unwrap();
        assert_eq!(first, second);
    }
}
