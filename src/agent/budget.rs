//! Owns [`Budget`]: how many wakes are reported, so that no sender takes the room of the others, and
//! strangers never take the room of VMs. Pure; the caller brings the clock.
//!
//! A wake for an address that is not known to be a VM's takes from its sender's share and from what
//! all such wakes may use together. One that is known to be a VM's takes from its target's share and
//! from a reserve of its own: who knows the addresses is bounded, too. The first few wakes for a target
//! do not need the reserve, so that a flood for many VMs does not hide a packet for another one.
//! Senders can be forged: their shares are for fairness, and what targets have no flood can touch.

use std::{net::IpAddr, time::Instant};

use crate::{
    mac::MacAddr, pace, settings::Rates, shares::Shares, throttle::Throttle, wake::Origin,
};

/// Senders, and targets, whose shares are remembered at most.
const REMEMBERED: usize = 4_096;

/// Wakes per second for one target that is known to be a VM's, and at once after a quiet time: a
/// right password still comes through beside a thousand wrong ones.
const TARGET: (u32, u32) = (1_000, 2_000);

/// Of these, what no flood for other VMs' targets takes: what comes for a target that is otherwise
/// quiet. Nobody wakes one VM more often on purpose.
const QUIET: (u32, u32) = (10, 20);

/// The same for all quiet targets together: more than as many targets as are remembered use.
const ALL_QUIET: (u32, u32) = (50_000, 100_000);

/// What all targets that are not quiet may use together.
const RESERVE: (u32, u32) = (10_000, 10_000);

/// Seconds of its rate that a share holds after a quiet time.
const BURST_SECONDS: u32 = 2;

/// Who used up a share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Limit {
    /// One sender, with addresses that are not known to be a VM's.
    Source,
    /// All senders together, with such addresses.
    Agent,
    /// Packets for one VM.
    Target,
    /// Packets for all VMs together.
    Reserve,
}

impl Limit {
    /// Every one, for metrics that exist before they count.
    pub(super) const ALL: [Self; 4] = [Self::Source, Self::Agent, Self::Target, Self::Reserve];
}

/// Who sent a packet, as far as that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Sender {
    Ip(IpAddr),
    Station(MacAddr),
    Unknown,
}

impl From<&Origin> for Sender {
    fn from(origin: &Origin) -> Self {
        match (origin.source, origin.source_mac) {
            (Some(ip), _) => Self::Ip(ip),
            (None, Some(mac)) => Self::Station(mac),
            (None, None) => Self::Unknown,
        }
    }
}

/// What may still be reported.
#[derive(Debug)]
pub struct Budget {
    rates: Rates,
    sources: Shares<Sender>,
    agent: Throttle,
    quiet: Shares<MacAddr>,
    all_quiet: Throttle,
    targets: Shares<MacAddr>,
    reserve: Throttle,
}

impl Budget {
    /// Full shares.
    #[must_use]
    pub fn new(rates: Rates) -> Self {
        let burst = |rate: u32| rate.saturating_mul(BURST_SECONDS);
        Self {
            sources: Shares::new(Throttle::new(rates.source, burst(rates.source)), REMEMBERED),
            agent: Throttle::new(rates.agent, burst(rates.agent)),
            quiet: Shares::new(Throttle::new(pace::rate(QUIET.0), QUIET.1), REMEMBERED),
            all_quiet: Throttle::new(ALL_QUIET.0, ALL_QUIET.1),
            targets: Shares::new(Throttle::new(pace::rate(TARGET.0), TARGET.1), REMEMBERED),
            reserve: Throttle::new(RESERVE.0, RESERVE.1),
            rates,
        }
    }

    /// Puts other rates into force, where they are others.
    pub fn set_rates(&mut self, rates: Rates) {
        if rates != self.rates {
            *self = Self::new(rates);
        }
    }

    /// Takes one wake from the shares that it belongs to; `wakeable` says whether its target is
    /// known to be a VM's.
    ///
    /// # Errors
    ///
    /// A share is used up.
    pub fn take(
        &mut self,
        target: MacAddr,
        origin: &Origin,
        wakeable: bool,
        now: Instant,
    ) -> Result<(), Limit> {
        if wakeable && self.quiet.admit(&target, now) && self.all_quiet.admit(now) {
            return Ok(());
        }
        // The narrower share first: what it refuses takes nothing from the wider one.
        let (narrow, wide, limits) = if wakeable {
            let narrow = self.targets.admit(&target, now);
            (narrow, &mut self.reserve, (Limit::Target, Limit::Reserve))
        } else {
            let narrow = self.sources.admit(&origin.into(), now);
            (narrow, &mut self.agent, (Limit::Source, Limit::Agent))
        };
        if !narrow {
            Err(limits.0)
        } else if !wide.admit(now) {
            Err(limits.1)
        } else {
            Ok(())
        }
    }

    /// Shares that were forgotten to make room for others.
    #[must_use]
    pub fn forgotten(&self) -> u64 {
        self.sources.forgotten() + self.quiet.forgotten() + self.targets.forgotten()
    }
}

#[cfg(test)]
mod tests;
