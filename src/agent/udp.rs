//! Owns one UDP socket of the agent.

use std::{
    io::{self, IoSliceMut},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::{AsRawFd, RawFd},
    sync::Arc,
    time::{Instant, SystemTime},
};

use nix::{
    getsockopt_impl, libc, sockopt_impl,
    sys::socket::{
        ControlMessageOwned, MsgFlags, SockaddrStorage, getsockopt, recvmsg, setsockopt,
        sockopt::{Ipv4PacketInfo, Ipv6RecvPacketInfo},
    },
};
use socket2::{Domain, Protocol, Socket, Type};

use super::{
    arrival,
    intake::Intake,
    interfaces::Interfaces,
    listen::{BUFFER, Listen, RECEIVE_QUEUE},
    metrics,
};
use crate::wake::{Carrier, Origin};

sockopt_impl!(
    /// How full the socket is, and what was dropped on it (`linux/sock_diag.h`).
    MemInfo,
    GetOnly,
    libc::SOL_SOCKET,
    libc::SO_MEMINFO,
    [u32; MEMINFO_VARS]
);

/// The numbers in `SO_MEMINFO`, and the place of the packets dropped (`linux/sock_diag.h`).
const MEMINFO_VARS: usize = 9;
const MEMINFO_DROPS: usize = 8;

/// A port that nothing sends from.
const NO_SENDER: u16 = 1;

/// A socket on one port and all addresses, IPv4 and IPv6.
#[derive(Debug)]
pub(super) struct UdpListener {
    socket: Socket,
    buffer: Vec<u8>,
    control: Vec<u8>,
    interfaces: Interfaces,
    /// What the kernel said last about the packets it dropped on this socket.
    dropped: u32,
}

impl UdpListener {
    /// Opens the port, which the next agent can open, too.
    pub(super) fn open(port: u16) -> io::Result<Self> {
        Self::open_as(port, true)
    }

    /// Opens the port unless somebody has it, and shares it with nobody.
    pub(super) fn open_alone(port: u16) -> io::Result<Self> {
        Self::open_as(port, false)
    }

    fn open_as(port: u16, shared: bool) -> io::Result<Self> {
        // A node without IPv6 has no such sockets, or no such address.
        let socket = match bind(port, Domain::IPV6, shared) {
            Err(error) if lacks_ipv6(&error) => bind(port, Domain::IPV4, shared)?,
            result => result?,
        };
        Ok(Self {
            socket,
            buffer: vec![0; BUFFER],
            control: nix::cmsg_space!(libc::in6_pktinfo, libc::in_pktinfo, libc::timespec),
            interfaces: Interfaces::default(),
            dropped: 0,
        })
    }

    /// Reads what the kernel tells besides the payload.
    fn receive(&mut self) -> nix::Result<Received> {
        let mut slices = [IoSliceMut::new(&mut self.buffer)];
        let message = recvmsg::<SockaddrStorage>(
            self.socket.as_raw_fd(),
            &mut slices,
            Some(&mut self.control),
            MsgFlags::MSG_DONTWAIT,
        )?;
        let mut received = Received {
            length: message.bytes,
            sender: message.address.as_ref().and_then(socket_address),
            interface: None,
            stamp: None,
        };
        for control in message.cmsgs().into_iter().flatten() {
            match control {
                ControlMessageOwned::Ipv6PacketInfo(info) => {
                    received.interface = Some(info.ipi6_ifindex);
                }
                ControlMessageOwned::Ipv4PacketInfo(info) => {
                    received.interface = u32::try_from(info.ipi_ifindex).ok();
                }
                other => received.stamp = arrival::stamped(&other).or(received.stamp),
            }
        }
        Ok(received)
    }
}

struct Received {
    length: usize,
    sender: Option<SocketAddr>,
    interface: Option<u32>,
    /// When it arrived.
    stamp: Option<SystemTime>,
}

impl AsRawFd for UdpListener {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

impl Listen for UdpListener {
    fn hear_one(&mut self, intake: &Intake) -> nix::Result<()> {
        let received = self.receive()?;
        let now = Instant::now();
        let origin = Origin {
            carrier: Carrier::Udp,
            interface: match received.interface {
                Some(index) => self.interfaces.name(index, now),
                None => Arc::from(""),
            },
            vlan: None,
            source_mac: None,
            source: received.sender.map(|sender| sender.ip().to_canonical()),
            source_port: received.sender.map_or(0, |sender| sender.port()),
            length: u32::try_from(received.length).unwrap_or(u32::MAX),
        };
        let heard_at = arrival::arrived(received.stamp, now);
        intake.take(&self.buffer[..received.length], &origin, heard_at, now);
        Ok(())
    }

    // The kernel also tells with each packet what it dropped before that one; who waits for the next
    // packet learns of the end of a flood only then.
    fn count_drops(&mut self, intake: &Intake) {
        if let Ok(memory) = getsockopt(&self.socket, MemInfo) {
            let total = memory[MEMINFO_DROPS];
            let new = total.wrapping_sub(self.dropped);
            self.dropped = total;
            intake.kernel_dropped(metrics::Socket::Udp, new.into());
        }
    }

    /// Of the sockets that share a port, each unicast datagram goes to one. A socket with a partner
    /// gets what the partner sends, and nothing else.
    fn withdraw(&self) -> io::Result<()> {
        let partner = if self.socket.domain()? == Domain::IPV6 {
            IpAddr::from(Ipv4Addr::LOCALHOST.to_ipv6_mapped())
        } else {
            Ipv4Addr::LOCALHOST.into()
        };
        self.socket
            .connect(&SocketAddr::new(partner, NO_SENDER).into())
    }
}

fn bind(port: u16, domain: Domain, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(
        domain,
        Type::DGRAM.nonblocking().cloexec(),
        Some(Protocol::UDP),
    )?;
    let address: IpAddr = if domain == Domain::IPV6 {
        socket.set_only_v6(false)?;
        setsockopt(&socket, Ipv6RecvPacketInfo, &true)?;
        Ipv6Addr::UNSPECIFIED.into()
    } else {
        setsockopt(&socket, Ipv4PacketInfo, &true)?;
        Ipv4Addr::UNSPECIFIED.into()
    };
    arrival::stamp(&socket);
    // For the next agent of this node, which opens the port before this one ends. The other such
    // option would let any process take the unicast packets.
    socket.set_reuse_port(shared)?;
    // The kernel grants what it is configured to, and that has to do.
    let _ = socket.set_recv_buffer_size(RECEIVE_QUEUE);
    socket.bind(&SocketAddr::new(address, port).into())?;
    Ok(socket)
}

fn lacks_ipv6(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL)
    )
}

fn socket_address(address: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = address.as_sockaddr_in();
    let v6 = address.as_sockaddr_in6();
    let v4 = v4.map(|v4| SocketAddr::new(v4.ip().into(), v4.port()));
    v4.or_else(|| v6.map(|v6| SocketAddr::new(v6.ip().into(), v6.port())))
}

#[cfg(test)]
mod tests {
    use std::{net::UdpSocket, thread, time::Duration};

    use super::*;

    /// How many datagrams are queued, once all are that were sent.
    fn queued(listener: &mut UdpListener) -> usize {
        thread::sleep(Duration::from_millis(50));
        std::iter::from_fn(|| listener.receive().ok()).count()
    }

    /// Sends datagrams from so many ports, among which the kernel shares them out.
    fn send(port: u16, host: &str) {
        for _ in 0..SENT {
            let socket = UdpSocket::bind((host, 0)).unwrap();
            socket.send_to(b"wake", (host, port)).unwrap();
        }
    }

    const SENT: usize = 64;

    #[test]
    fn who_withdraws_from_a_shared_port_leaves_the_packets_to_come_to_the_others() {
        let mut old = UdpListener::open(0).unwrap();
        let address = old.socket.local_addr().unwrap();
        let port = address.as_socket().unwrap().port();
        let mut new = UdpListener::open(port).unwrap();
        let hosts = ["127.0.0.1", "::1"];
        // A machine may have no IPv6.
        let hosts = hosts.map(|host| UdpSocket::bind((host, 0)).is_ok().then_some(host));
        for host in hosts.into_iter().flatten() {
            send(port, host);
            let both = (queued(&mut old), queued(&mut new));
            assert!(
                both.0 > 0 && both.1 > 0 && both.0 + both.1 == SENT,
                "{both:?}"
            );
        }

        send(port, "127.0.0.1");
        old.withdraw().unwrap();
        let before = queued(&mut old) + queued(&mut new);
        assert_eq!(before, SENT, "what was queued is still there");
        for host in hosts.into_iter().flatten() {
            send(port, host);
            assert_eq!((queued(&mut old), queued(&mut new)), (0, SENT), "{host}");
        }
    }
}
