//! Owns [`Callers`]: from where tokens come, so that nobody who sends garbage has the API server asked
//! about all of it. Pure; the caller brings the clock.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use super::cache::Cache;
use crate::{shares::Shares, throttle::Throttle};

/// Reviews per second for one address that is not known for a good token, and at once.
const RATE: (u32, u32) = (5, 20);
/// Addresses whose share is remembered, and as many that are known for a good token: twice the nodes
/// of the largest cluster.
const REMEMBERED: usize = 16_384;

/// The address of somebody who calls, where the transport told one.
pub(super) type Caller = Option<IpAddr>;

/// Who may have a token reviewed.
#[derive(Debug)]
pub(super) struct Callers {
    shares: Shares<Caller>,
    life: Duration,
    /// Since when.
    trusted: Cache<Caller, Instant>,
}

impl Callers {
    /// An address is trusted for so long after a good token.
    pub(super) fn new(life: Duration) -> Self {
        Self {
            shares: Shares::new(Throttle::new(RATE.0, RATE.1), REMEMBERED),
            life,
            trusted: Cache::new(life, REMEMBERED),
        }
    }

    /// Takes one review from the share of an address, if there is one left. Where an agent is known
    /// to be, nothing is taken: what others send from its node does not shut it out.
    pub(super) fn admit(&mut self, from: Caller, now: Instant) -> bool {
        self.trusted.get(&from, now).is_some() || self.shares.admit(&from, now)
    }

    /// A good token came from there. Who says so again and again takes no room from others.
    pub(super) fn trust(&mut self, from: Caller, now: Instant) {
        let since = self.trusted.get(&from, now);
        if since.is_none_or(|since| now.saturating_duration_since(since) >= self.life / 2) {
            self.trusted.put(from, now, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const LIFE: Duration = Duration::from_secs(600);

    fn address(number: u32) -> IpAddr {
        IpAddr::V4(number.into())
    }

    fn admitted(callers: &mut Callers, from: Caller, now: Instant) -> usize {
        (0..1_000).filter(|_| callers.admit(from, now)).count()
    }

    #[test]
    fn an_address_that_sends_garbage_takes_nothing_from_others() {
        let (mut callers, start) = (Callers::new(LIFE), Instant::now());
        assert_eq!(admitted(&mut callers, Some(address(1)), start), 20);
        assert_eq!(admitted(&mut callers, Some(address(1)), start + SECOND), 5);
        assert_eq!(admitted(&mut callers, Some(address(2)), start), 20);
        assert_eq!(admitted(&mut callers, None, start), 20);
    }

    #[test]
    fn where_a_good_token_came_from_nobody_is_held_up_for_a_while() {
        let (mut callers, start) = (Callers::new(LIFE), Instant::now());
        admitted(&mut callers, Some(address(1)), start);
        callers.trust(Some(address(1)), start);
        assert_eq!(admitted(&mut callers, Some(address(1)), start), 1_000);
        assert_eq!(admitted(&mut callers, Some(address(2)), start), 20);
        assert_eq!(admitted(&mut callers, Some(address(1)), start + LIFE), 20);
    }

    #[test]
    fn an_agent_that_calls_often_stays_trusted_and_pushes_no_other_out() {
        let (mut callers, start) = (Callers::new(LIFE), Instant::now());
        callers.trust(Some(address(2)), start);
        for call in 0..100_000 {
            callers.trust(Some(address(1)), start + LIFE / 1_000_000 * call);
        }
        callers.trust(Some(address(1)), start + LIFE / 2);
        assert_eq!(
            admitted(&mut callers, Some(address(2)), start + LIFE / 2),
            1_000
        );
        let later = start + LIFE + LIFE / 4;
        assert_eq!(admitted(&mut callers, Some(address(1)), later), 1_000);
        assert_eq!(admitted(&mut callers, Some(address(2)), later), 20);
    }
}
