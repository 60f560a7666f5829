//! Owns the packet socket: it hears frames on every interface, those that come later too, and those
//! that no UDP socket gets (other `EtherTypes`, other hosts' addresses, interfaces without one).

use std::{
    io::{self, IoSliceMut},
    os::fd::{AsRawFd, RawFd},
    time::{Instant, SystemTime},
};

use nix::{
    getsockopt_impl, libc, setsockopt_impl, sockopt_impl,
    sys::socket::{ControlMessageOwned, LinkAddr, MsgFlags, getsockopt, recvmsg, setsockopt},
};
use socket2::{Domain, Protocol, SockFilter, Socket, Type};

use super::{
    arrival, bpf,
    intake::Intake,
    interfaces::Interfaces,
    listen::{BUFFER, Listen, RECEIVE_QUEUE},
    metrics::{self, Invalid},
};
use crate::{frame, wake::Origin};

/// Every protocol (`linux/if_ether.h`). A socket for one `EtherType` would be asked only after bridges
/// and bonds have taken their frames.
const ETH_P_ALL: u16 = 0x0003;

/// A frame that this node sends itself (`linux/if_packet.h`).
const PACKET_OUTGOING: u8 = 4;

/// Bits of the status in auxiliary data: it holds a VLAN tag (`linux/if_packet.h`).
const TP_STATUS_VLAN_VALID: u32 = 1 << 4;

/// The twelve bits of a VLAN id; the others of a tag are priority.
const VLAN_ID: u16 = 0x0fff;

sockopt_impl!(
    /// Do not deliver frames that this node sends; since Linux 4.20.
    IgnoreOutgoing,
    SetOnly,
    libc::SOL_PACKET,
    libc::PACKET_IGNORE_OUTGOING,
    i32
);
sockopt_impl!(
    /// Deliver the VLAN tag, which the kernel takes off the frame.
    Auxdata,
    SetOnly,
    libc::SOL_PACKET,
    libc::PACKET_AUXDATA,
    i32
);
sockopt_impl!(
    /// Nobody, not even root, can take the filter off any more, or put another one on.
    LockFilter,
    SetOnly,
    libc::SOL_SOCKET,
    libc::SO_LOCK_FILTER,
    i32
);
sockopt_impl!(
    /// Packets seen and dropped since last asked.
    Statistics,
    GetOnly,
    libc::SOL_PACKET,
    libc::PACKET_STATISTICS,
    libc::tpacket_stats
);

/// A socket that is never bound, because that hears all interfaces.
#[derive(Debug)]
pub(super) struct RawListener {
    socket: Socket,
    buffer: Vec<u8>,
    control: Vec<u8>,
    interfaces: Interfaces,
}

impl RawListener {
    /// Opens it; needs `CAP_NET_RAW`, which can be dropped then.
    pub(super) fn open() -> io::Result<Self> {
        let socket = Socket::new(
            Domain::PACKET,
            Type::RAW.nonblocking().cloexec(),
            Some(Protocol::from(i32::from(ETH_P_ALL.to_be()))),
        )?;
        // Frames that came before the filter do no harm: it only saves work.
        let program: Vec<_> = bpf::program()
            .iter()
            .map(|i| SockFilter::new(i.code, i.jump_true, i.jump_false, i.k))
            .collect();
        socket.attach_filter(&program)?;
        // Whoever takes over the agent shall hear no more by this socket than the agent does.
        setsockopt(&socket, LockFilter, &1)?;
        setsockopt(&socket, Auxdata, &1)?;
        arrival::stamp(&socket);
        // Where the kernel is too old for it, such frames are told by their type.
        let _ = setsockopt(&socket, IgnoreOutgoing, &1);
        let _ = socket.set_recv_buffer_size(RECEIVE_QUEUE);
        Ok(Self {
            socket,
            buffer: vec![0; BUFFER],
            control: nix::cmsg_space!([u8; AUXDATA_LEN], libc::timespec),
            interfaces: Interfaces::default(),
        })
    }

    fn receive(&mut self) -> nix::Result<Received> {
        let mut slices = [IoSliceMut::new(&mut self.buffer)];
        let message = recvmsg::<LinkAddr>(
            self.socket.as_raw_fd(),
            &mut slices,
            Some(&mut self.control),
            MsgFlags::MSG_DONTWAIT,
        )?;
        let (mut tag, mut stamp) = (None, None);
        for control in message.cmsgs().into_iter().flatten() {
            tag = tag.or_else(|| vlan(&control));
            stamp = stamp.or_else(|| arrival::stamped(&control));
        }
        Ok(Received {
            length: message.bytes,
            cut: message.flags.contains(MsgFlags::MSG_TRUNC),
            outgoing: message
                .address
                .is_some_and(|from| from.pkttype() == PACKET_OUTGOING),
            interface: message
                .address
                .and_then(|from| u32::try_from(from.ifindex()).ok())
                .unwrap_or(0),
            vlan: tag,
            stamp,
        })
    }
}

struct Received {
    length: usize,
    cut: bool,
    outgoing: bool,
    interface: u32,
    vlan: Option<u16>,
    /// When it arrived.
    stamp: Option<SystemTime>,
}

impl AsRawFd for RawListener {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

impl Listen for RawListener {
    fn hear_one(&mut self, intake: &Intake) -> nix::Result<()> {
        let received = self.receive()?;
        let now = Instant::now();
        if received.outgoing {
            intake.reject(None, Invalid::Outgoing);
            return Ok(());
        }
        if received.cut {
            // No sender makes such frames, and half of one proves nothing.
            intake.reject(None, Invalid::Oversized);
            return Ok(());
        }
        let bytes = &self.buffer[..received.length];
        let payload = match frame::parse(bytes, received.vlan) {
            Ok(payload) => payload,
            Err(rejection) => {
                intake.reject(None, Invalid::Frame(rejection));
                return Ok(());
            }
        };
        let origin = Origin {
            carrier: payload.carrier,
            interface: self.interfaces.name(received.interface, now),
            vlan: payload.vlan,
            source_mac: Some(payload.source_mac),
            source: payload.datagram.map(|datagram| datagram.source),
            source_port: payload.datagram.map_or(0, |datagram| datagram.source_port),
            length: u32::try_from(received.length).unwrap_or(u32::MAX),
        };
        let heard_at = arrival::arrived(received.stamp, now);
        intake.take(payload.bytes, &origin, heard_at, now);
        Ok(())
    }

    fn count_drops(&mut self, intake: &Intake) {
        // Asking resets the kernel's count.
        if let Ok(statistics) = getsockopt(&self.socket, Statistics) {
            let dropped = u64::from(statistics.tp_drops);
            intake.kernel_dropped(metrics::Socket::Raw, dropped);
        }
    }

    /// Every packet socket gets every frame.
    fn withdraw(&self) -> io::Result<()> {
        Ok(())
    }
}

/// Bytes of `struct tpacket_auxdata` (`linux/if_packet.h`): status, length and captured length of 4
/// bytes each; link and network offsets, tag and tag protocol of 2 bytes each.
const AUXDATA_LEN: usize = 20;

/// The id of the VLAN tag that the kernel took off the frame.
fn vlan(control: &ControlMessageOwned) -> Option<u16> {
    let ControlMessageOwned::Unknown(unknown) = control else {
        return None;
    };
    let header = &unknown.cmsg_header;
    if (header.cmsg_level, header.cmsg_type) != (libc::SOL_PACKET, libc::PACKET_AUXDATA) {
        return None;
    }
    let data: &[u8; AUXDATA_LEN] = unknown.data_bytes.first_chunk()?;
    let status = u32::from_ne_bytes([data[0], data[1], data[2], data[3]]);
    let tag = u16::from_ne_bytes([data[16], data[17]]);
    (status & TP_STATUS_VLAN_VALID != 0).then_some(tag & VLAN_ID)
}

#[cfg(test)]
#[path = "../../tests/common/skip.rs"]
#[allow(unreachable_pub, reason = "a part of what other tests share")]
mod skip;

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use super::*;

    #[test]
    fn nobody_can_make_it_hear_more_than_packets_that_may_wake() {
        let listener = match RawListener::open() {
            Ok(listener) => listener,
            Err(error) => {
                return skip::skipped(&format!("opening a packet socket needs NET_RAW: {error}"));
            }
        };
        let everything = [SockFilter::new(0x06, 0, 0, u32::MAX)];
        let replaced = listener.socket.attach_filter(&everything);
        let removed = listener.socket.detach_filter();
        for result in [replaced, removed] {
            let error = result.expect_err("the filter is locked");
            assert_eq!(error.kind(), ErrorKind::PermissionDenied);
        }
    }
}
