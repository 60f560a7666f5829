//! Owns the options of `kubevirt-wol send`: types only.

#![allow(
    clippy::doc_markdown,
    reason = "these comments are the help text, where backticks would show"
)]

use std::{fmt, net::IpAddr, path::PathBuf, str::FromStr};

use clap::{Args, value_parser};
use ipnet::IpNet;
use k8s_openapi::jiff::SignedDuration;

use super::{Target, target};
use crate::kubevirt::VmKey;

/// Options of `kubevirt-wol send`.
#[derive(Debug, Clone, Args)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "each is a switch on the command line"
)]
pub struct SendArgs {
    /// What to wake. MAC addresses, in any notation: 52:54:00:12:34:56, 52-54-00-12-34-56,
    /// 5254.0012.3456, 525400-123456, 525400123456, 2:4:6:8:a:c; or virtual machines, whose
    /// addresses are read from their spec in the cluster of the current kubeconfig.
    #[arg(required_unless_present = "file", value_name = "MAC|vm/NAMESPACE/NAME")]
    pub targets: Vec<Target>,
    /// Read more targets from a file, one per line; # begins a comment; - is standard input.
    #[arg(long, env = "WOL_SEND_FILE", value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// UDP ports to send to.
    #[arg(long = "port", env = "WOL_SEND_PORT", value_name = "PORT", value_delimiter = ',', default_value = "9,7", conflicts_with = "raw", value_parser = value_parser!(u16).range(1..))]
    pub ports: Vec<u16>,
    /// Send to this address, or to the broadcast address of this network (10.0.0.0/24), instead of
    /// the broadcast addresses of every interface.
    #[arg(
        long,
        env = "WOL_SEND_BROADCAST",
        value_name = "ADDRESS|CIDR",
        value_delimiter = ',',
        conflicts_with_all = ["ipv6", "raw"]
    )]
    pub broadcast: Vec<Destination>,
    /// Send from these interfaces. Without it: from every one that is up and can broadcast, or,
    /// with --broadcast, from where the routing table says.
    #[arg(
        long = "interface",
        short,
        env = "WOL_SEND_INTERFACE",
        value_name = "NAME",
        value_delimiter = ','
    )]
    pub interfaces: Vec<String>,
    /// Send from every interface that is up and can broadcast, also with --broadcast.
    #[arg(long, env = "WOL_SEND_ALL_INTERFACES", conflicts_with = "interfaces")]
    pub all_interfaces: bool,
    /// Send by IPv6, to all nodes of each interface's link (ff02::1), instead of by IPv4.
    #[arg(long, env = "WOL_SEND_IPV6", conflicts_with = "raw")]
    pub ipv6: bool,
    /// Send Ethernet frames (EtherType 0x0842) instead of UDP. Needs CAP_NET_RAW.
    #[arg(long, env = "WOL_SEND_RAW")]
    pub raw: bool,
    /// With --raw: address the frame to the target instead of to everyone.
    #[arg(long, env = "WOL_SEND_UNICAST_L2", requires = "raw")]
    pub unicast_l2: bool,
    /// With --raw: tag the frame with this VLAN (IEEE 802.1Q); 0 is a priority tag.
    #[arg(long, env = "WOL_SEND_VLAN", value_name = "ID", requires = "raw", value_parser = value_parser!(u16).range(0..=4094))]
    pub vlan: Option<u16>,
    /// SecureOn password: four bytes like 192.168.1.1 or six like 01:23:45:67:89:ab. Other users
    /// of this machine can read the command line: prefer the variable or --password-file.
    #[arg(
        long,
        env = "WOL_PASSWORD",
        hide_env_values = true,
        value_name = "PASSWORD"
    )]
    pub password: Option<PasswordText>,
    /// Read the SecureOn password from the first line of a file.
    #[arg(
        long,
        env = "WOL_SEND_PASSWORD_FILE",
        value_name = "FILE",
        conflicts_with = "password"
    )]
    pub password_file: Option<PathBuf>,
    /// How often each packet is sent.
    #[arg(long, env = "WOL_SEND_COUNT", default_value_t = 3, value_name = "N", value_parser = value_parser!(u32).range(1..=1000))]
    pub count: u32,
    /// Milliseconds between the copies of a packet.
    #[arg(long, env = "WOL_SEND_INTERVAL", default_value_t = 100, value_name = "MS", value_parser = value_parser!(u32).range(..=60_000))]
    pub interval: u32,
    /// For tests of listeners: put this many zero bytes before the pattern.
    #[arg(long, env = "WOL_SEND_OFFSET", default_value_t = 0, value_name = "N", value_parser = value_parser!(u16).range(..=65_399))]
    pub offset: u16,
    /// Send also to addresses that no machine has: groups (bit 0 of the first byte) and zero.
    #[arg(long, env = "WOL_SEND_FORCE")]
    pub force: bool,
    /// Print what would be sent, with the bytes (and so the password); send nothing.
    #[arg(long, env = "WOL_SEND_DRY_RUN", visible_alias = "hex")]
    pub dry_run: bool,
    /// Wait, once everything is sent, until the virtual machines that are targets run, and this one;
    /// tell what the managers say of them meanwhile, and exit with 1 where one does not run, with the
    /// reason. Needs the rights to get virtualmachines and to list events in their namespaces.
    #[arg(
        long,
        env = "WOL_SEND_WAIT",
        value_name = "NAMESPACE/NAME",
        num_args = 0..=1,
        require_equals = true,
        conflicts_with = "dry_run",
        value_parser = target::vm
    )]
    #[allow(
        clippy::option_option,
        reason = "how clap has an option with or without a value"
    )]
    pub wait: Option<Option<VmKey>>,
    /// With --wait: how long.
    #[arg(
        long,
        env = "WOL_SEND_WAIT_TIMEOUT",
        default_value = "60s",
        value_name = "TIME"
    )]
    pub wait_timeout: SignedDuration,
    /// Print the results as JSON.
    #[arg(long, env = "WOL_SEND_JSON")]
    pub json: bool,
}

/// A SecureOn password as it was typed; never shown.
#[derive(Clone)]
pub struct PasswordText(String);

impl PasswordText {
    /// What was typed.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<String> for PasswordText {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for PasswordText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordText(..)")
    }
}

/// An IP address to send to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Destination(pub IpAddr);

/// Why a text is not a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ParseDestinationError {
    /// Neither an address nor a network.
    #[error("write an IP address (10.0.0.255) or an IPv4 network (10.0.0.0/24)")]
    Syntax,
    /// A network of IPv6, which knows no broadcast.
    #[error("an IPv6 network has no broadcast address; use --ipv6 or an address such as ff02::1")]
    Ipv6Network,
    /// A network too small to have a broadcast address.
    #[error("a network of one or two addresses has no broadcast address; give the address itself")]
    TooSmall,
}

impl FromStr for Destination {
    type Err = ParseDestinationError;

    /// Reads an address, or a network, which stands for its directed broadcast address.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(address) = text.parse() {
            return Ok(Self(address));
        }
        match text.parse().map_err(|_| ParseDestinationError::Syntax)? {
            IpNet::V6(_) => Err(ParseDestinationError::Ipv6Network),
            IpNet::V4(network) if network.prefix_len() > 30 => Err(ParseDestinationError::TooSmall),
            IpNet::V4(network) => Ok(Self(network.broadcast().into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Destination, ParseDestinationError};

    #[test]
    fn a_destination_is_an_address_or_the_broadcast_address_of_a_network() {
        for (text, address) in [
            ("10.0.0.255", "10.0.0.255"),
            ("127.0.0.1", "127.0.0.1"),
            ("ff02::1", "ff02::1"),
            ("10.0.0.0/24", "10.0.0.255"),
            ("10.0.0.77/24", "10.0.0.255"),
            ("192.168.1.32/28", "192.168.1.47"),
            ("10.0.0.0/30", "10.0.0.3"),
            ("127.0.0.0/8", "127.255.255.255"),
        ] {
            let expected = Destination(address.parse().unwrap());
            assert_eq!(text.parse(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_has_no_broadcast_address_is_refused_with_the_reason() {
        for (text, error) in [
            ("", ParseDestinationError::Syntax),
            ("10.0.0", ParseDestinationError::Syntax),
            ("10.0.0.0/33", ParseDestinationError::Syntax),
            ("host.example", ParseDestinationError::Syntax),
            ("fe80::/64", ParseDestinationError::Ipv6Network),
            ("10.0.0.0/31", ParseDestinationError::TooSmall),
            ("10.0.0.1/32", ParseDestinationError::TooSmall),
        ] {
            assert_eq!(text.parse::<Destination>(), Err(error), "{text}");
        }
    }
}
