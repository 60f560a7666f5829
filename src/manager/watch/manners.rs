//! Owns [`Manners`]: what keeps one watch from asking too often, whatever the server does. Pure.

use std::time::{Duration, Instant};

/// A watch that ends so soon after it was answered is none: it brings nothing.
const SHORT: Duration = Duration::from_secs(1);

/// So many of them in a row may be chance.
const CHANCE: u32 = 3;

/// How the server wants to be asked.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Manners {
    /// When the running watch was answered.
    answered: Option<Instant>,
    /// Watches in a row that ended at once, though in good order, so that nothing failed.
    short: u32,
    /// The server asked not to be asked again before.
    not_before: Option<Instant>,
}

impl Manners {
    /// A watch is about to be asked for; says whether it may be. Where not, that is a failure, after
    /// which one may be tried again.
    pub(super) fn asks(&mut self, now: Instant) -> bool {
        self.short = match self.answered.take() {
            Some(at) if now.saturating_duration_since(at) < crate::pace::of(SHORT) => {
                self.short + 1
            }
            Some(_) => 0,
            None => self.short,
        };
        let may = self.short <= CHANCE;
        self.short = self.short.min(CHANCE);
        may
    }

    /// It was answered.
    pub(super) fn answered(&mut self, now: Instant) {
        self.answered = Some(now);
    }

    /// The server wants to be left alone for so long.
    pub(super) fn asked_for(&mut self, pause: Duration, now: Instant) {
        self.not_before = Some(now + pause);
    }

    /// How much is left of that.
    pub(super) fn pause(&self, now: Instant) -> Duration {
        self.not_before
            .map_or(Duration::ZERO, |at| at.saturating_duration_since(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLISECOND: Duration = Duration::from_millis(1);

    #[test]
    fn watches_that_end_at_once_are_taken_for_failures_once_that_is_no_chance() {
        let (mut manners, mut now) = (Manners::default(), Instant::now());
        let mut ask = |lived: Duration| {
            let may = manners.asks(now);
            if may {
                manners.answered(now);
                now += lived;
            }
            may
        };
        let asked: Vec<bool> = (0..9).map(|_| ask(MILLISECOND)).collect();
        let expected = [true, true, true, true, false, true, false, true, false];
        assert_eq!(asked, expected);
        // One that lasts ends it.
        assert!(ask(SHORT));
        assert!((0..4).all(|_| ask(MILLISECOND)));
        assert!(!ask(MILLISECOND));
    }

    #[test]
    fn watches_that_last_are_followed_by_another_at_once() {
        let (mut manners, mut now) = (Manners::default(), Instant::now());
        for _ in 0..9 {
            assert!(manners.asks(now));
            manners.answered(now);
            now += SHORT;
        }
    }

    #[test]
    fn a_pause_that_the_server_asks_for_passes() {
        let (mut manners, now) = (Manners::default(), Instant::now());
        assert!(manners.pause(now).is_zero());
        manners.asked_for(SHORT, now);
        assert_eq!(manners.pause(now + SHORT / 4), SHORT * 3 / 4);
        assert!(manners.pause(now + SHORT).is_zero());
    }
}
