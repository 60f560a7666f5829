//! Owns the loop that reads a socket, the same for every kind of it.

use std::{io, os::fd::AsRawFd, time::Duration};

use nix::errno::Errno;
use tokio::io::{Interest, unix::AsyncFd};
use tokio_util::sync::CancellationToken;

use super::{intake::Intake, metrics::ListenerState};
use crate::admin::Heartbeat;

/// No datagram, and no frame that a sender makes, is longer.
pub(super) const BUFFER: usize = 65_536;

/// Bytes that the kernel may queue per socket: some 10,000 magic packets, if it allows that.
pub(super) const RECEIVE_QUEUE: usize = 4 << 20;

/// Packets read before other sockets and the session get their turn.
const SHARE: usize = 64;

/// Packets read at most once the socket is to be closed: more than its queue can hold, so that only
/// a flood, which would never end, is cut off.
const LAST_SHARE: usize = 16_384;

/// How long the kernel may still be busy with a packet that it has chosen a socket for, before the
/// socket withdrew: microseconds, or as long as a processor of a virtual machine may be stopped.
/// At whatever pace: it is the kernel's time.
const IN_FLIGHT: Duration = Duration::from_millis(100);

/// A broken socket is asked again after this time.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(100);

/// Why a socket is not open.
#[derive(Debug, thiserror::Error)]
pub(super) enum ListenError {
    /// Somebody else has the port.
    #[error(
        "another process has port {0} of this node; stop it, or choose other ports in the WolConfig or by --wol-port"
    )]
    PortTaken(u16),
    /// The port is a privileged one.
    #[error(
        "not allowed to open port {0}; grant the capability NET_BIND_SERVICE, or choose ports above 1023"
    )]
    PortDenied(u16),
    /// The packet socket is a privileged one.
    #[error(
        "not allowed to open a packet socket; grant the capability NET_RAW, or give --no-raw to do without"
    )]
    RawDenied,
    /// Anything else.
    #[error("{0}")]
    Other(io::Error),
}

impl ListenError {
    pub(super) fn udp(port: u16, error: io::Error) -> Self {
        match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::EADDRINUSE) => Self::PortTaken(port),
            Some(Errno::EACCES | Errno::EPERM) => Self::PortDenied(port),
            _ => Self::Other(error),
        }
    }

    pub(super) fn raw(error: io::Error) -> Self {
        match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::EACCES | Errno::EPERM) => Self::RawDenied,
            _ => Self::Other(error),
        }
    }

    /// Its kind, for metrics and logs.
    pub(super) const fn state(&self) -> ListenerState {
        match self {
            Self::PortTaken(_) => ListenerState::PortTaken,
            Self::PortDenied(_) => ListenerState::PortDenied,
            Self::RawDenied => ListenerState::RawDenied,
            Self::Other(_) => ListenerState::Failed,
        }
    }
}

/// A socket that hears packets.
pub(super) trait Listen: AsRawFd + Send + 'static {
    /// Reads one packet without waiting and gives it to the intake.
    fn hear_one(&mut self, intake: &Intake) -> nix::Result<()>;

    /// Counts what the kernel dropped. Called after each share of packets, so that a flood, in which
    /// the queue never is empty, is seen while it lasts.
    fn count_drops(&mut self, _intake: &Intake) {}

    /// Lets the kernel choose others for the packets to come, where it gives each to one socket only;
    /// what is queued can still be read.
    fn withdraw(&self) -> io::Result<()>;
}

/// Asks the kernel to tell when something is queued. To be called within the runtime.
///
/// # Errors
///
/// The kernel refuses: it watches no more descriptors for this user.
pub(super) fn watch<S: Listen>(socket: S) -> Result<AsyncFd<S>, ListenError> {
    #[allow(
        deprecated,
        reason = "its successor is unsafe; what that asks for holds here: a listener keeps one descriptor open for as long as it lives"
    )]
    let watched = AsyncFd::with_interest(socket, Interest::READABLE);
    watched.map_err(ListenError::Other)
}

/// Reads `socket` until `token` is cancelled, and then what is queued. Nothing can come to the socket
/// between the last read and its end, as it has withdrawn before.
pub(super) async fn read<S: Listen>(
    mut socket: AsyncFd<S>,
    intake: &Intake,
    token: CancellationToken,
    heart: Heartbeat,
) -> io::Result<()> {
    loop {
        let mut ready = tokio::select! {
            () = token.cancelled() => break,
            ready = heart.waiting(socket.readable_mut()) => ready?,
        };
        match read_queued(ready.get_inner_mut(), intake, SHARE) {
            Ok(Queue::Empty) => ready.clear_ready(),
            Ok(Queue::More) => tokio::task::yield_now().await,
            Err(error) => {
                tracing::warn!(%error, "a socket failed; it is asked again");
                tokio::time::sleep(PAUSE_AFTER_ERROR).await;
            }
        }
    }
    match socket.get_ref().withdraw() {
        Ok(()) => tokio::time::sleep(IN_FLIGHT).await,
        Err(error) => tracing::warn!(%error, "packets may be lost as a socket is closed"),
    }
    if let Err(error) = read_queued(socket.get_mut(), intake, LAST_SHARE) {
        tracing::warn!(%error, "a socket failed at its end");
    }
    Ok(())
}

enum Queue {
    Empty,
    More,
}

fn read_queued<S: Listen>(socket: &mut S, intake: &Intake, limit: usize) -> nix::Result<Queue> {
    for _ in 0..limit {
        match socket.hear_one(intake) {
            Ok(()) | Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => {
                socket.count_drops(intake);
                return Ok(Queue::Empty);
            }
            Err(error) => return Err(error),
        }
    }
    socket.count_drops(intake);
    Ok(Queue::More)
}
