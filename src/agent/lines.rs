//! Owns how much the agent logs: neither packets nor their loss may flood the node's disk, nor wait
//! for whoever reads the log. Pure; the caller brings the clock.

use std::time::{Duration, Instant};

use crate::mac::MacAddr;

/// Reported wakes that are logged per second.
const LINES_PER_SECOND: u32 = 100;

/// Losses are told no more often than this.
const LOSSES_TOLD_AFTER: Duration = Duration::from_secs(10);

/// Addresses that one line names.
const NAMED: usize = 16;

/// What one line says of so many wakes: those for known virtual machines first. None where there are none.
pub(super) fn names(
    targets: impl Iterator<Item = MacAddr>,
    is_known: impl Fn(MacAddr) -> bool,
) -> Option<String> {
    let mut targets: Vec<MacAddr> = targets.collect();
    targets.sort_by_cached_key(|target| (!is_known(*target), *target));
    targets.dedup();
    let named: Vec<String> = targets.iter().take(NAMED).map(MacAddr::to_string).collect();
    let more = targets.len() - named.len();
    match (named.is_empty(), more) {
        (true, _) => None,
        (_, 0) => Some(named.join(", ")),
        _ => Some(format!("{} and {more} more", named.join(", "))),
    }
}

/// How many lines may still be logged in this second.
#[derive(Debug, Default)]
pub(super) struct LineBudget {
    second: Option<Instant>,
    used: u32,
}

impl LineBudget {
    /// Whether one more line may be written.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        self.settle(now);
        self.second.get_or_insert(now);
        self.used = self.used.saturating_add(1);
        self.used <= LINES_PER_SECOND
    }

    /// Closes the second where it is over, and tells how many lines it left unwritten.
    pub(super) fn settle(&mut self, now: Instant) -> u32 {
        let open = |start| now.saturating_duration_since(start) < Duration::from_secs(1);
        if self.second.is_some_and(open) {
            return 0;
        }
        let unwritten = self.used.saturating_sub(LINES_PER_SECOND);
        if unwritten > 0 {
            tracing::warn!(wakes = unwritten, "more wakes were heard than are logged");
        }
        *self = Self::default();
        unwritten
    }
}

/// What was lost since it was last told.
#[derive(Debug, Default)]
pub(super) struct Losses {
    /// Packets that the kernel dropped.
    pub(super) dropped: u64,
    /// Wakes that were not reported because too many came.
    pub(super) refused: u64,
    told: Option<Instant>,
}

impl Losses {
    /// Tells what was lost, if anything, and if it is time to; whether it did.
    pub(super) fn tell(&mut self, now: Instant) -> bool {
        let recent = |told| now.saturating_duration_since(told) < LOSSES_TOLD_AFTER;
        let lost = self.dropped + self.refused;
        if lost == 0 || self.told.is_some_and(recent) {
            return false;
        }
        let Self {
            dropped, refused, ..
        } = *self;
        if dropped > 0 {
            tracing::warn!(
                packets = dropped,
                "the kernel dropped packets because more came than are read; raise \
                 net.core.rmem_max on the node, or find who sends so many"
            );
        }
        if refused > 0 {
            tracing::warn!(
                wakes = refused,
                "more wakes came than are reported; those for known virtual machines go first. \
                 Find who sends so many, or restrict sourceRanges or interfaces"
            );
        }
        *self = Self {
            told: Some(now),
            ..Self::default()
        };
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_wakes_those_for_known_virtual_machines_are_named() {
        let target = |low| MacAddr::new([2, 0, 0, 0, 0, low]);
        let named = |lows: &[u8]| {
            let targets = lows.iter().map(|low| target(*low));
            names(targets, |target| target.octets()[5] > 100)
        };
        assert_eq!(named(&[]), None);
        assert_eq!(named(&[7, 7]).as_deref(), Some("02:00:00:00:00:07"));
        let many: Vec<u8> = (0..=101).collect();
        let text = named(&many).unwrap();
        assert!(
            text.starts_with("02:00:00:00:00:65, 02:00:00:00:00:00, "),
            "{text}"
        );
        assert!(text.ends_with("02:00:00:00:00:0e and 86 more"), "{text}");
    }

    #[test]
    fn a_flood_does_not_flood_the_log() {
        let (mut lines, t0) = (LineBudget::default(), Instant::now());
        let written = |lines: &mut LineBudget, now| (0..1000).filter(|_| lines.take(now)).count();
        assert_eq!(written(&mut lines, t0), 100);
        assert_eq!(written(&mut lines, t0 + Duration::from_millis(999)), 0);
        assert_eq!(written(&mut lines, t0 + Duration::from_secs(1)), 100);
    }

    #[test]
    fn losses_are_told_at_once_and_then_together_every_ten_seconds() {
        let (mut losses, t0) = (Losses::default(), Instant::now());
        let told: Vec<u64> = (0..250)
            .filter(|tenth| {
                losses.dropped += u64::from(*tenth < 150);
                losses.tell(t0 + Duration::from_millis(100) * u32::try_from(*tenth).unwrap())
            })
            .collect();
        assert_eq!(told, [0, 100, 200]);
        assert_eq!(losses.dropped, 0);
    }
}
