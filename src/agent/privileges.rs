//! Owns which privileges the agent keeps: at most `CAP_NET_BIND_SERVICE`, for ports that a manager
//! asks for later. Whoever takes over the agent by a packet can then neither sniff nor forge.

use anyhow::{Context as _, anyhow};
use caps::{CapSet, Capability, CapsHashSet};

/// Drops every other capability of this thread, and so of all threads that it starts.
///
/// # Errors
///
/// The kernel refuses.
pub(super) fn drop_all_but_bind() -> anyhow::Result<()> {
    drop_capabilities()
        .map_err(|error| anyhow!("{error}"))
        .context(
            "cannot drop capabilities; allow the system calls capset and prctl in the seccomp profile",
        )
}

fn drop_capabilities() -> Result<(), caps::errors::CapsError> {
    let keep = Capability::CAP_NET_BIND_SERVICE;
    // Only who may change the bounding set can; for others it does not matter, as nothing is
    // executed from here on.
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP)? {
        for capability in caps::read(None, CapSet::Bounding)? {
            if capability != keep {
                caps::drop(None, CapSet::Bounding, capability)?;
            }
        }
    }
    // Ambient capabilities go by themselves with the inheritable ones. What is effective must be
    // permitted, so it goes first.
    for set in [CapSet::Inheritable, CapSet::Effective, CapSet::Permitted] {
        let held = caps::read(None, set)?;
        let kept: CapsHashSet = held.into_iter().filter(|held| *held == keep).collect();
        caps::set(None, set, &kept)?;
    }
    Ok(())
}
