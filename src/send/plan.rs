//! Owns the decision what goes where: pure, from the options and a list of interfaces.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use super::{
    SendArgs,
    interfaces::Interface,
    lookup::{Recipients, Unresolved},
};
use crate::{
    UsageError,
    frame::{ETHERTYPE_VLAN, ETHERTYPE_WOL},
    kubevirt::VmKey,
    mac::MacAddr,
    packet::{MagicPacket, Trailing},
};

/// All nodes of a link (RFC 4291 §2.7.1).
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// All that shall be sent, and why some of it cannot be.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) transmissions: Vec<Transmission>,
    pub(super) unusable: Vec<Unusable>,
    pub(super) unresolved: Vec<Unresolved>,
}

/// One packet to one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Transmission {
    pub(super) target: MacAddr,
    /// The virtual machine that the target's address was read from.
    pub(super) vm: Option<VmKey>,
    /// The interface that it leaves by; without one, the routing table decides.
    pub(super) interface: Option<String>,
    pub(super) carrier: Carrier,
    /// The datagram's payload, or the whole frame.
    pub(super) bytes: Vec<u8>,
}

/// How a packet travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Carrier {
    Udp(SocketAddr),
    Ethernet {
        source: MacAddr,
        destination: MacAddr,
        vlan: Option<u16>,
    },
}

/// An interface that was asked for by name and cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unusable {
    pub(super) interface: String,
    pub(super) reason: String,
}

/// Decides what to send for each of `recipients`.
pub(super) fn plan(
    args: &SendArgs,
    recipients: Recipients,
    password: Option<Trailing>,
    interfaces: &[Interface],
) -> Result<Plan, UsageError> {
    let (chosen, unusable) = choose(args, interfaces);
    let mut transmissions = Vec::new();
    for recipient in recipients.found {
        let target = recipient.mac;
        let payload = payload(target, password, args.offset);
        for interface in &chosen {
            for carrier in carriers(args, target, *interface)? {
                transmissions.push(Transmission {
                    target,
                    vm: recipient.vm.clone(),
                    interface: interface.map(|from| from.name.clone()),
                    carrier,
                    bytes: carrier.wrap(&payload),
                });
            }
        }
    }
    Ok(Plan {
        transmissions,
        unusable,
        unresolved: recipients.unresolved,
    })
}

/// The interfaces to send from; `None` stands for where the routing table says.
fn choose<'a>(
    args: &SendArgs,
    interfaces: &'a [Interface],
) -> (Vec<Option<&'a Interface>>, Vec<Unusable>) {
    if !args.interfaces.is_empty() {
        let mut chosen = Vec::new();
        let mut unusable = Vec::new();
        for name in &args.interfaces {
            match named(args, name, interfaces) {
                Ok(interface) => chosen.push(Some(interface)),
                Err(reason) => unusable.push(Unusable {
                    interface: name.clone(),
                    reason,
                }),
            }
        }
        (chosen, unusable)
    } else if args.broadcast.is_empty() || args.all_interfaces {
        let suits = |interface: &&Interface| {
            interface.up
                && interface.can_broadcast
                && (!args.raw || interface.mac.is_some())
                && (!args.ipv6 || interface.has_ipv6)
        };
        (interfaces.iter().filter(suits).map(Some).collect(), vec![])
    } else {
        (vec![None], vec![])
    }
}

/// The interface of this name, or why it cannot be used.
fn named<'a>(
    args: &SendArgs,
    name: &str,
    interfaces: &'a [Interface],
) -> Result<&'a Interface, String> {
    let Some(interface) = interfaces.iter().find(|interface| interface.name == name) else {
        let known: Vec<_> = interfaces.iter().map(|one| one.name.as_str()).collect();
        let known = known.join(", ");
        return Err(format!("no such interface; this host has {known}"));
    };
    if !interface.up {
        return Err(format!(
            "the interface is down; bring it up with: ip link set {name} up"
        ));
    }
    if args.raw && interface.mac.is_none() {
        return Err("not an Ethernet interface; leave out --raw".to_owned());
    }
    Ok(interface)
}

/// Where a packet for `target` goes from one interface.
fn carriers(
    args: &SendArgs,
    target: MacAddr,
    interface: Option<&Interface>,
) -> Result<Vec<Carrier>, UsageError> {
    if args.raw {
        let frame = |source| Carrier::Ethernet {
            source,
            destination: if args.unicast_l2 {
                target
            } else {
                MacAddr::BROADCAST
            },
            vlan: args.vlan,
        };
        return Ok(interface
            .and_then(|from| from.mac)
            .map(frame)
            .into_iter()
            .collect());
    }
    let mut carriers = Vec::new();
    for address in addresses(args, interface) {
        for &port in &args.ports {
            let carrier = Carrier::Udp(socket_address(address, port, interface)?);
            if !carriers.contains(&carrier) {
                carriers.push(carrier);
            }
        }
    }
    Ok(carriers)
}

/// The IP addresses to send to from one interface.
fn addresses(args: &SendArgs, interface: Option<&Interface>) -> Vec<IpAddr> {
    if !args.broadcast.is_empty() {
        return args.broadcast.iter().map(|given| given.0).collect();
    }
    if args.ipv6 {
        return vec![ALL_NODES.into()];
    }
    // Smaller networks have no broadcast address (RFC 3021).
    let subnets = interface
        .into_iter()
        .flat_map(|from| &from.ipv4)
        .filter(|network| network.prefix_len() <= 30)
        .map(|network| network.broadcast().into());
    subnets.chain([Ipv4Addr::BROADCAST.into()]).collect()
}

/// Names the link where an IPv6 address means nothing without one.
fn socket_address(
    address: IpAddr,
    port: u16,
    interface: Option<&Interface>,
) -> Result<SocketAddr, UsageError> {
    let IpAddr::V6(ipv6) = address else {
        return Ok((address, port).into());
    };
    let link_local = ipv6.is_unicast_link_local() || ipv6.is_multicast();
    match interface {
        None if link_local => Err(UsageError::new(format!(
            "{address} is an address on each link; say which with --interface, or add \
             --all-interfaces"
        ))),
        Some(from) if link_local => Ok(SocketAddrV6::new(ipv6, port, 0, from.index).into()),
        _ => Ok((address, port).into()),
    }
}

impl Carrier {
    /// What goes to the socket so that `payload` travels this way.
    fn wrap(self, payload: &[u8]) -> Vec<u8> {
        match self {
            Self::Udp(_) => payload.to_vec(),
            Self::Ethernet {
                source,
                destination,
                vlan,
            } => {
                let mut frame = [destination.octets(), source.octets()].concat();
                if let Some(id) = vlan {
                    frame.extend(ETHERTYPE_VLAN.to_be_bytes());
                    frame.extend(id.to_be_bytes());
                }
                frame.extend(ETHERTYPE_WOL.to_be_bytes());
                frame.extend(payload);
                frame
            }
        }
    }
}

/// The magic packet for `target`, after `offset` bytes that say nothing.
fn payload(target: MacAddr, password: Option<Trailing>, offset: u16) -> Vec<u8> {
    // Not `MagicPacket::new`: with --force, groups have packets too.
    let packet = MagicPacket {
        target,
        trailing: password.unwrap_or_default(),
    };
    let mut payload = vec![0; usize::from(offset)];
    payload.extend(packet.to_bytes());
    payload
}

#[cfg(test)]
mod tests;
