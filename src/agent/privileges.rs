//! Owns which privileges the agent keeps. Whoever takes it over by a packet can then open no packet
//! socket, and gains nothing by a program that he runs. The one that is open stays: its filter is
//! locked, so that he hears no more by it than the agent does; frames of his own can be sent by it.
//!
//! All that may be needed later is `CAP_NET_BIND_SERVICE`, for a port below the first one that is
//! free to all (`net.ipv4.ip_unprivileged_port_start` of the node's network, usually 1024):
//!
//! - Where managers say which ports are listened on, they may ask for any port at any time. It is
//!   kept, unless the node's first free port is 1 or less, so that none needs it.
//! - Where `--wol-port` says so, nobody can ask for others, and what is open stays open to the end.
//!   It is kept only while one of the given ports needs it and is not open: another process has it,
//!   and the agent tries again.
//!
//! A node that raises its first free port under a running agent gets an agent that cannot open the
//! ports in between; it says so, as where the capability was never granted. `CAP_NET_RAW` always
//! goes: the one packet socket hears interfaces that come later, too.

use std::{collections::BTreeSet, fs};

use anyhow::{Context as _, anyhow};
use caps::{CapSet, Capability, CapsHashSet};
use nix::sys::prctl;

/// The node's own word on which ports need a privilege.
const FIRST_FREE_PORT: &str = "/proc/sys/net/ipv4/ip_unprivileged_port_start";

/// What the kernel starts with.
const USUAL_FIRST_FREE_PORT: u32 = 1_024;

/// The ports that may have to be opened from here on.
#[derive(Debug)]
pub(super) enum Later {
    /// Whatever a manager asks for.
    Any,
    /// No others than these.
    Only(BTreeSet<u16>),
}

impl Later {
    /// Whether one of them needs the privilege.
    fn is_privileged(&self, first_free: u32) -> bool {
        let lowest = match self {
            Self::Any => Some(1),
            Self::Only(ports) => ports.first().copied(),
        };
        lowest.is_some_and(|port| u32::from(port) < first_free)
    }
}

/// Drops, for this thread and so for all threads that it starts, every privilege but the one that
/// `later` needs, and the way to any other.
///
/// # Errors
///
/// The kernel refuses.
pub(super) fn drop_unneeded(later: &Later) -> anyhow::Result<()> {
    let keep = later
        .is_privileged(first_free_port())
        .then_some(Capability::CAP_NET_BIND_SERVICE);
    drop_all_but(keep)
        .map_err(|error| anyhow!("{error}"))
        .and_then(|()| prctl::set_no_new_privs().map_err(Into::into))
        .context(
            "cannot drop privileges; allow the system calls capset and prctl in the seccomp profile",
        )
}

fn first_free_port() -> u32 {
    let told = fs::read_to_string(FIRST_FREE_PORT).ok();
    let told = told.and_then(|text| text.trim().parse().ok());
    told.unwrap_or(USUAL_FIRST_FREE_PORT)
}

fn drop_all_but(keep: Option<Capability>) -> Result<(), caps::errors::CapsError> {
    // Only who may change the bounding set can. For others it is worth nothing: no program that is
    // executed from here on gets more than the permitted set has.
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP)? {
        for capability in caps::read(None, CapSet::Bounding)? {
            caps::drop(None, CapSet::Bounding, capability)?;
        }
    }
    // The ambient set goes with the inheritable one.
    caps::set(None, CapSet::Inheritable, &CapsHashSet::new())?;
    // What is effective must be permitted, so it goes first.
    for set in [CapSet::Effective, CapSet::Permitted] {
        let mut kept = caps::read(None, set)?;
        kept.retain(|held| Some(*held) == keep);
        caps::set(None, set, &kept)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::Later;

    #[test]
    fn a_port_that_is_free_to_all_needs_no_privilege() {
        let only = |ports: &[u16]| Later::Only(ports.iter().copied().collect());
        for (later, first_free, privileged) in [
            (Later::Any, 1_024, true),
            (Later::Any, 2, true),
            (Later::Any, 1, false),
            (Later::Any, 0, false),
            (only(&[]), 1_024, false),
            (only(&[40_009, 1_024]), 1_024, false),
            (only(&[40_009, 1_023]), 1_024, true),
            (only(&[9]), 9, false),
            (only(&[9]), 10, true),
        ] {
            let answer = later.is_privileged(first_free);
            assert_eq!(answer, privileged, "{later:?} from {first_free}");
        }
    }
}
