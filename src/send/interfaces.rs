//! Owns what `send` knows of this host's network interfaces.

use std::{collections::BTreeMap, io};

use ipnet::Ipv4Net;
use nix::{
    ifaddrs::{InterfaceAddress, getifaddrs},
    net::if_::InterfaceFlags,
    sys::socket::LinkAddr,
};

use crate::mac::MacAddr;

/// Hardware types of `linux/if_arp.h` whose frames have an Ethernet header.
const ARPHRD_ETHER: u16 = 1;
const ARPHRD_LOOPBACK: u16 = 772;

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Interface {
    pub(super) name: String,
    /// The number by which IPv6 scopes name it.
    pub(super) index: u32,
    pub(super) up: bool,
    /// Whether its link can reach every station at once; loopback and tunnels cannot.
    pub(super) can_broadcast: bool,
    /// Its own address, where its frames are Ethernet frames.
    pub(super) mac: Option<MacAddr>,
    pub(super) ipv4: Vec<Ipv4Net>,
    pub(super) has_ipv6: bool,
}

/// Lists the interfaces of this network namespace by index.
pub(super) fn list() -> io::Result<Vec<Interface>> {
    let mut by_name = BTreeMap::<String, Interface>::new();
    for entry in getifaddrs()? {
        let name = device_name(&entry.interface_name);
        let interface = by_name
            .entry(name.to_owned())
            .or_insert_with(|| Interface::without_addresses(name, entry.flags));
        interface.add(&entry);
    }
    let mut interfaces: Vec<_> = by_name.into_values().collect();
    interfaces.sort_by_key(|interface| interface.index);
    Ok(interfaces)
}

/// The link-layer address of an interface, by which a packet socket is bound to it.
pub(super) fn link_address(name: &str) -> io::Result<Option<LinkAddr>> {
    Ok(getifaddrs()?
        .filter(|entry| entry.interface_name == name)
        .find_map(|entry| entry.address?.as_link_addr().copied()))
}

/// The device of an address whose label is `eth0:1` is `eth0`.
fn device_name(label: &str) -> &str {
    label.split_once(':').map_or(label, |(device, _)| device)
}

impl Interface {
    fn without_addresses(name: &str, flags: InterfaceFlags) -> Self {
        Self {
            name: name.to_owned(),
            index: 0,
            up: flags.contains(InterfaceFlags::IFF_UP),
            can_broadcast: flags.contains(InterfaceFlags::IFF_BROADCAST),
            mac: None,
            ipv4: Vec::new(),
            has_ipv6: false,
        }
    }

    /// Takes over what one line of `getifaddrs` tells.
    fn add(&mut self, entry: &InterfaceAddress) {
        let Some(address) = &entry.address else {
            return;
        };
        if let Some(link) = address.as_link_addr() {
            self.index = u32::try_from(link.ifindex()).unwrap_or_default();
            if matches!(link.hatype(), ARPHRD_ETHER | ARPHRD_LOOPBACK) {
                self.mac = link.addr().map(MacAddr::new);
            }
        } else if let Some(ipv4) = address.as_sockaddr_in() {
            let mask = entry
                .netmask
                .as_ref()
                .and_then(|mask| mask.as_sockaddr_in());
            let network = mask.and_then(|mask| Ipv4Net::with_netmask(ipv4.ip(), mask.ip()).ok());
            self.ipv4.extend(network);
        } else {
            self.has_ipv6 |= address.as_sockaddr_in6().is_some();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{device_name, link_address, list};

    #[test]
    fn this_host_has_a_loopback_interface_that_cannot_broadcast() {
        let interfaces = list().unwrap();
        let lo = interfaces.iter().find(|i| i.name == "lo").unwrap();
        assert!(!lo.can_broadcast);
        assert!(lo.index > 0);
        let index = usize::try_from(lo.index).unwrap();
        assert_eq!(link_address("lo").unwrap().unwrap().ifindex(), index);
        assert!(link_address("no-such-if").unwrap().is_none());
    }

    #[test]
    fn a_labelled_address_belongs_to_its_device() {
        assert_eq!(device_name("eth0:1"), "eth0");
        assert_eq!(device_name("eth0"), "eth0");
    }
}
