//! Owns [`Throttle`]: at most so many per second, after a burst. Pure; the caller brings the clock.

use std::time::{Duration, Instant};

/// A token bucket, kept as the one moment at which it would be full again.
#[derive(Debug, Clone)]
pub struct Throttle {
    interval: Duration,
    burst: u32,
    full_at: Option<Instant>,
}

impl Throttle {
    /// Lets `burst` through at once, and `rate` per second from then on; neither is less than 1.
    #[must_use]
    pub fn new(rate: u32, burst: u32) -> Self {
        Self {
            interval: Duration::from_secs(1) / rate.max(1),
            burst: burst.max(1),
            full_at: None,
        }
    }

    /// When the next one may pass; `now` where that is at once.
    #[must_use]
    pub fn ready_at(&self, now: Instant) -> Instant {
        let spare = self.interval * (self.burst - 1);
        match self.full_at {
            Some(full_at) if full_at > now + spare => full_at.checked_sub(spare).unwrap_or(now),
            _ => now,
        }
    }

    /// Lets one pass, if it may.
    pub fn admit(&mut self, now: Instant) -> bool {
        let spare = self.interval * (self.burst - 1);
        let ready = self.full_at.is_none_or(|full_at| full_at <= now + spare);
        if ready {
            let from = self.full_at.map_or(now, |full_at| full_at.max(now));
            self.full_at = Some(from + self.interval);
        }
        ready
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn admitted(throttle: &mut Throttle, now: Instant, tries: u32) -> usize {
        (0..tries).filter(|_| throttle.admit(now)).count()
    }

    #[test]
    fn a_burst_passes_at_once_and_the_rest_at_the_rate() {
        let start = Instant::now();
        let mut throttle = Throttle::new(20, 50);
        assert_eq!(admitted(&mut throttle, start, 1_000), 50);
        assert_eq!(throttle.ready_at(start), start + SECOND / 20);
        assert_eq!(admitted(&mut throttle, start + SECOND, 1_000), 20);
        assert_eq!(admitted(&mut throttle, start + SECOND, 1), 0);
    }

    #[test]
    fn a_quiet_time_refills_the_burst_and_no_more() {
        let start = Instant::now();
        let mut throttle = Throttle::new(10, 3);
        assert_eq!(admitted(&mut throttle, start, 9), 3);
        assert_eq!(admitted(&mut throttle, start + 60 * SECOND, 9), 3);
    }

    #[test]
    fn the_promised_moment_is_kept() {
        let start = Instant::now();
        let mut throttle = Throttle::new(3, 1);
        assert!(throttle.admit(start));
        let wait = throttle.ready_at(start) - start;
        assert!(!throttle.admit(start + wait.mul_f64(0.999)));
        assert!(throttle.admit(start + wait));
    }
}
