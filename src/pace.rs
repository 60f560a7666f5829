//! Owns the pace: how many times as fast as promised every time of the delivery contract passes.
//!
//! It is 1 but in tests of faults, which set it by a hidden option of debug builds so as not to wait for minutes. A
//! constant keeps the promised time, and goes through [`of`] where it is waited for; the manager's
//! options go through it where they are read. What follows from such a time is not scaled again.
//!
//! Not scaled are: what is measured rather than waited for, the kernel's and the API server's own times
//! where they have whole seconds (those are never less than 1 s, see [`whole_seconds`]), the heartbeats of
//! `admin`, and the bounds and rates that protect a machine from a flood. The rates of what one VM or one
//! manager does are, by [`rate`]: starts, Events, and the wakes of one target.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// The fastest pace that can be set: beyond it, times are shorter than the steps of a scheduler.
pub const FASTEST: f64 = 100.0;

/// The bits of the pace; 0 as long as nobody has set one.
static PACE: AtomicU64 = AtomicU64::new(0);

/// Sets the pace of this process, before anything waits. Anything but a number from 1 to [`FASTEST`]
/// is taken as the nearest of them.
pub fn set(pace: f64) {
    let pace = pace.clamp(1.0, FASTEST);
    PACE.store(pace.to_bits(), Ordering::Relaxed);
}

fn pace() -> Option<f64> {
    let pace = f64::from_bits(PACE.load(Ordering::Relaxed));
    (pace > 1.0).then_some(pace)
}

/// How long a time of the contract is at the pace of this process.
#[must_use]
pub fn of(time: Duration) -> Duration {
    pace().map_or(time, |pace| time.div_f64(pace))
}

/// The same for a time that somebody else counts in whole seconds; never less than one.
#[must_use]
pub fn whole_seconds(seconds: u32) -> u32 {
    let time = of(Duration::from_secs(seconds.into()));
    u32::try_from(time.as_millis().div_ceil(1_000)).map_or(u32::MAX, |seconds| seconds.max(1))
}

/// How many per second there may be at the pace of this process.
#[must_use]
pub fn rate(per_second: u32) -> u32 {
    // A rate is a time between two: so long that no precision is lost.
    let all = of(Duration::from_secs(per_second.into()));
    let all = u128::from(per_second) * 1_000_000 * u128::from(per_second) / all.as_micros().max(1);
    u32::try_from(all).unwrap_or(u32::MAX).max(per_second)
}

/// Reads the pace that somebody asks for.
///
/// # Errors
///
/// It is no number, or one that is not from 1 to [`FASTEST`].
pub fn parse(text: &str) -> Result<f64, String> {
    let pace = text.parse().ok();
    let pace = pace.filter(|pace| (1.0..=FASTEST).contains(pace));
    pace.ok_or_else(|| {
        format!("write how many times as fast as usual, from 1 to {FASTEST}; 10 makes 3s of 30s")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_pace_every_time_is_as_promised() {
        for time in [Duration::ZERO, Duration::from_nanos(7), Duration::MAX] {
            assert_eq!(of(time), time);
        }
        assert_eq!((whole_seconds(30), rate(20), rate(0)), (30, 20, 0));
        set(1.0);
        assert_eq!(of(Duration::MAX), Duration::MAX);
        set(f64::NAN);
        assert_eq!(of(Duration::from_secs(30)).as_secs(), 30);
    }

    #[test]
    fn a_pace_that_makes_no_sense_is_refused_with_what_to_write() {
        assert_eq!(parse("10"), Ok(10.0));
        assert_eq!(parse("2.5"), Ok(2.5));
        for wrong in ["", "0.5", "0", "-10", "101", "NaN", "inf", "fast"] {
            assert!(
                parse(wrong).unwrap_err().contains("from 1 to 100"),
                "{wrong}"
            );
        }
    }
}
