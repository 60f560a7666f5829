//! Owns when a packet arrived: it waits in its socket while the agent is frozen or has no time, and is
//! then older than it looks.

use std::{
    os::fd::AsFd,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use nix::sys::{
    socket::{ControlMessageOwned, setsockopt, sockopt::ReceiveTimestampns},
    time::TimeSpec,
};

/// A shorter wait is none: the clock that the kernel stamps by may be set meanwhile.
const NOTABLE: Duration = Duration::from_secs(1);

/// Asks the kernel to say when each packet arrived. Where it does not, packets are as old as they look.
pub(super) fn stamp(socket: &impl AsFd) {
    let _ = setsockopt(socket, ReceiveTimestampns, &true);
}

/// What the kernel says, if this is it.
pub(super) fn stamped(control: &ControlMessageOwned) -> Option<SystemTime> {
    match control {
        ControlMessageOwned::ScmTimestampns(time) => read(*time),
        _ => None,
    }
}

fn read(time: TimeSpec) -> Option<SystemTime> {
    let seconds = u64::try_from(time.tv_sec()).ok()?;
    let nanoseconds = u32::try_from(time.tv_nsec()).ok()?;
    UNIX_EPOCH.checked_add(Duration::new(seconds, nanoseconds))
}

/// When a packet arrived that was read at `now`.
pub(super) fn arrived(stamp: Option<SystemTime>, now: Instant) -> Instant {
    let waited = stamp.and_then(|stamp| SystemTime::now().duration_since(stamp).ok());
    let waited = waited.filter(|waited| *waited >= crate::pace::of(NOTABLE));
    waited
        .and_then(|waited| now.checked_sub(waited))
        .unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waited_in_the_socket_is_as_old_as_that() {
        let now = Instant::now();
        let ago = |seconds| Some(SystemTime::now() - Duration::from_secs(seconds));
        let waited = now - arrived(ago(40), now);
        assert_eq!(waited.as_secs(), 40);
        assert_eq!(arrived(ago(0), now), now);
        assert_eq!(arrived(None, now), now);
        let later = Some(SystemTime::now() + Duration::from_secs(60));
        assert_eq!(arrived(later, now), now, "the clock was set back");
    }
}
