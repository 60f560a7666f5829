//! Owns the sockets of `send`: one for each way out, opened when first needed.

use std::{
    collections::{HashMap, hash_map::Entry},
    io,
    net::SocketAddr,
    os::fd::AsRawFd as _,
    thread,
    time::Duration,
};

use nix::{errno::Errno, sys::socket::bind};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::{
    interfaces,
    plan::{Carrier, Transmission},
};

/// What became of a transmission.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    /// Copies that the kernel took.
    pub(super) copies: u32,
    /// Why it did not take the others, and what to do.
    pub(super) failure: Option<String>,
}

/// Sends every transmission `count` times, `interval` apart; the outcomes are in the same order.
pub(super) fn transmit(
    transmissions: &[Transmission],
    count: u32,
    interval: Duration,
) -> Vec<Outcome> {
    let mut sockets = Sockets::default();
    let mut outcomes = vec![Outcome::default(); transmissions.len()];
    for round in 0..count {
        if round > 0 {
            thread::sleep(interval);
        }
        for (transmission, outcome) in transmissions.iter().zip(&mut outcomes) {
            match sockets.send(transmission) {
                Ok(()) => outcome.copies += 1,
                Err(error) => outcome.failure = Some(describe(&error, transmission)),
            }
        }
        // The next copies would fail the same way.
        if outcomes.iter().all(|outcome| outcome.copies == 0) {
            break;
        }
    }
    outcomes
}

/// What a socket is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Ipv4,
    Ipv6,
    Packet,
}

#[derive(Default)]
struct Sockets {
    open: HashMap<(Kind, Option<String>), Socket>,
}

impl Sockets {
    fn send(&mut self, transmission: &Transmission) -> io::Result<()> {
        let kind = match transmission.carrier {
            Carrier::Udp(SocketAddr::V4(_)) => Kind::Ipv4,
            Carrier::Udp(SocketAddr::V6(_)) => Kind::Ipv6,
            Carrier::Ethernet { .. } => Kind::Packet,
        };
        let socket = match self.open.entry((kind, transmission.interface.clone())) {
            Entry::Occupied(open) => open.into_mut(),
            Entry::Vacant(place) => place.insert(open(kind, transmission.interface.as_deref())?),
        };
        match transmission.carrier {
            Carrier::Udp(to) => socket.send_to(&transmission.bytes, &SockAddr::from(to))?,
            Carrier::Ethernet { .. } => socket.send(&transmission.bytes)?,
        };
        Ok(())
    }
}

fn open(kind: Kind, interface: Option<&str>) -> io::Result<Socket> {
    let domain = match kind {
        Kind::Ipv4 => Domain::IPV4,
        Kind::Ipv6 => Domain::IPV6,
        Kind::Packet => return open_packet(interface.unwrap_or_default()),
    };
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    if kind == Kind::Ipv4 {
        socket.set_broadcast(true)?;
    }
    if let Some(name) = interface {
        socket.bind_device(Some(name.as_bytes()))?;
    }
    Ok(socket)
}

/// A packet socket that sends by one interface; protocol 0 keeps it from hearing anything.
fn open_packet(interface: &str) -> io::Result<Socket> {
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0)))?;
    let address = interfaces::link_address(interface)?.ok_or(Errno::ENODEV)?;
    bind(socket.as_raw_fd(), &address)?;
    Ok(socket)
}

/// The system's reason and the remedy.
fn describe(error: &io::Error, tried: &Transmission) -> String {
    let Some(code) = error.raw_os_error() else {
        return error.to_string();
    };
    let raw = matches!(tried.carrier, Carrier::Ethernet { .. });
    let errno = Errno::from_raw(code);
    let remedy = match errno {
        Errno::EPERM | Errno::EACCES if raw => {
            "; Ethernet frames need CAP_NET_RAW: run as root, or leave out --raw"
        }
        Errno::EPERM | Errno::EACCES => {
            "; a firewall rule or a route of this host forbids it: look at its output rules"
        }
        Errno::ENETUNREACH | Errno::EHOSTUNREACH if tried.interface.is_none() => {
            "; no route leads there: name the interface with --interface"
        }
        Errno::ENETUNREACH | Errno::EHOSTUNREACH => {
            "; no route leads there by this interface: name another one"
        }
        Errno::ENETDOWN => "; the interface is down: bring it up with ip link set NAME up",
        Errno::ENODEV | Errno::ENXIO => "; the interface has gone: list them with ip link",
        Errno::EADDRNOTAVAIL => "; the interface has no address of this family: give it one",
        Errno::EAFNOSUPPORT => "; IPv6 is switched off on this host: leave out --ipv6",
        Errno::EMSGSIZE => "; the packet is longer than the interface takes: lower --offset",
        Errno::ENOBUFS => "; the interface's queue is full: raise --interval",
        _ => "",
    };
    format!("{}{remedy}", errno.desc().to_lowercase())
}

#[cfg(test)]
mod tests {
    use std::{
        net::{Ipv4Addr, UdpSocket},
        time::Duration,
    };

    use nix::errno::Errno;

    use super::{Carrier, Outcome, Transmission, describe, transmit};
    use crate::mac::MacAddr;

    fn to(port: u16) -> Transmission {
        Transmission {
            target: MacAddr::new([2, 0, 0, 0, 0, 1]),
            vm: None,
            interface: None,
            carrier: Carrier::Udp((Ipv4Addr::LOCALHOST, port).into()),
            bytes: vec![7; 102],
        }
    }

    #[test]
    fn every_copy_comes_from_one_ephemeral_port_and_is_exactly_as_planned() {
        let listener = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        let port = listener.local_addr().unwrap().port();
        let outcomes = transmit(&[to(port)], 3, Duration::ZERO);
        let sent = Outcome {
            copies: 3,
            failure: None,
        };
        assert_eq!(outcomes, [sent]);
        let mut sources = Vec::new();
        for _ in 0..3 {
            let mut buffer = [0; 2048];
            let (len, source) = listener.recv_from(&mut buffer).unwrap();
            assert_eq!(buffer[..len], [7; 102]);
            sources.push(source);
        }
        sources.dedup();
        assert_eq!(sources.len(), 1);
        assert_ne!(sources[0].port(), port);
        assert!(sources[0].port() >= 1024);
    }

    #[test]
    fn one_destination_that_fails_does_not_keep_the_others_from_being_sent() {
        let mut nowhere = to(9);
        nowhere.interface = Some("no-such-if".to_owned());
        let outcomes = transmit(&[nowhere, to(40009)], 2, Duration::ZERO);
        assert_eq!(outcomes[0].copies, 0);
        let reason = outcomes[0].failure.as_deref().unwrap();
        assert!(reason.contains("list them with ip link"), "{reason}");
        assert_eq!(outcomes[1].copies, 2);
        assert_eq!(outcomes[1].failure, None);
    }

    #[test]
    fn the_remedy_depends_on_what_was_tried() {
        let udp = to(9);
        let bound = Transmission {
            interface: Some("eth0".to_owned()),
            ..to(9)
        };
        let frame = Transmission {
            carrier: Carrier::Ethernet {
                source: MacAddr::new([2, 0, 0, 0, 0, 2]),
                destination: MacAddr::BROADCAST,
                vlan: None,
            },
            ..to(9)
        };
        for (errno, tried, remedy) in [
            (
                Errno::EPERM,
                &frame,
                "operation not permitted; Ethernet frames need CAP_NET_RAW",
            ),
            (
                Errno::EPERM,
                &udp,
                "operation not permitted; a firewall rule",
            ),
            (
                Errno::ENETUNREACH,
                &udp,
                "name the interface with --interface",
            ),
            (Errno::ENETUNREACH, &bound, "name another one"),
        ] {
            let told = describe(&errno.into(), tried);
            assert!(told.contains(remedy), "{told}");
        }
    }
}
