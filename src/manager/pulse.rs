//! Owns [`Pulse`]: whether this process was frozen or suspended, in which case what waits in its
//! sockets may be older than it says.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::admin::Heartbeat;

/// How often the pulse beats.
const BEAT: Duration = Duration::from_secs(1);
/// A beat that comes later than this says that the process stood still.
const LATE: Duration = Duration::from_secs(5);

/// For so long after it stood still, the news of the meantime may still be on their way here.
const CATCHING_UP: Duration = Duration::from_secs(3);

/// Notices when the process stood still.
///
/// Both clocks are looked at: the monotonic one does not count the sleep of a suspended machine,
/// and the other one may be set. A clock that is set forward costs the agents a reconnect.
#[derive(Debug)]
pub struct Pulse {
    beats: Mutex<Beats>,
    /// How often the process stood still.
    gaps: AtomicU64,
    announced: watch::Sender<u64>,
}

#[derive(Debug)]
struct Beats {
    last: (Instant, SystemTime),
    /// From when to when the process stood still the last time.
    gap: Option<(Instant, Instant)>,
}

impl Pulse {
    /// Begins now.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            beats: Mutex::new(Beats {
                last: (Instant::now(), SystemTime::now()),
                gap: None,
            }),
            gaps: AtomicU64::new(0),
            announced: watch::channel(0).0,
        })
    }

    /// Beats until `token` is cancelled.
    ///
    /// # Errors
    ///
    /// None.
    pub async fn run(
        self: Arc<Self>,
        token: CancellationToken,
        heart: Heartbeat,
    ) -> anyhow::Result<()> {
        while token
            .run_until_cancelled(tokio::time::sleep(crate::pace::of(BEAT)))
            .await
            .is_some()
        {
            self.gaps();
            heart.beat();
        }
        Ok(())
    }

    /// How often the process has stood still so far. Whoever took something in before this number
    /// rose must not believe its age.
    pub fn gaps(&self) -> u64 {
        drop(self.beat());
        self.gaps.load(Ordering::Relaxed)
    }

    /// Looks at the clocks, and says when that was. Each event comes by here, so it is one lock.
    fn beat(&self) -> (Instant, MutexGuard<'_, Beats>) {
        let mut beats = self.beats();
        let now = (Instant::now(), SystemTime::now());
        let last = std::mem::replace(&mut beats.last, now);
        let monotonic = now.0.saturating_duration_since(last.0);
        let wall = now.1.duration_since(last.1).unwrap_or_default();
        if monotonic.max(wall) > crate::pace::of(BEAT + LATE) {
            beats.gap = Some((last.0, now.0));
            let gaps = self.gaps.fetch_add(1, Ordering::Relaxed) + 1;
            self.announced.send_replace(gaps);
        }
        (now.0, beats)
    }

    /// Since when the news that come now may have waited: since before the process stood still, if that
    /// was moments ago, and else since now.
    pub fn awake_since(&self) -> Instant {
        let (now, beats) = self.beat();
        let recent = beats
            .gap
            .filter(|(_, end)| now.saturating_duration_since(*end) < crate::pace::of(CATCHING_UP));
        recent.map_or(now, |(begin, _)| begin)
    }

    /// When what this process knows of VMs is no longer of before it stood still the last time.
    pub fn caught_up_at(&self) -> Instant {
        let gap = self.beats().gap;
        gap.map_or_else(Instant::now, |(_, end)| end + crate::pace::of(CATCHING_UP))
    }

    /// Whether the process stood still moments ago, so that what it knows of VMs may be of before.
    pub fn is_catching_up(&self) -> bool {
        let before = Instant::now();
        self.awake_since() < before
    }

    fn beats(&self) -> MutexGuard<'_, Beats> {
        self.beats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells of each rise of [`gaps`](Self::gaps).
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.announced.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_beating_pulse_has_no_gap_and_a_late_one_has() {
        let pulse = Pulse::new();
        let mut news = pulse.subscribe();
        for _ in 0..60 {
            tokio::time::advance(BEAT).await;
            assert_eq!(pulse.gaps(), 0);
        }
        tokio::time::advance(BEAT + LATE + Duration::from_millis(1)).await;
        assert_eq!(pulse.gaps(), 1);
        assert!(news.has_changed().unwrap());
        assert_eq!(*news.borrow_and_update(), 1);
        tokio::time::advance(BEAT).await;
        assert_eq!(pulse.gaps(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_just_after_a_gap_may_be_as_old_as_the_gap() {
        let pulse = Pulse::new();
        tokio::time::advance(BEAT).await;
        assert_eq!(pulse.gaps(), 0);
        let before = Instant::now();
        assert!(!pulse.is_catching_up());
        tokio::time::advance(20 * LATE).await;
        assert_eq!(pulse.awake_since(), before, "noticed by whoever asks first");
        assert!(pulse.is_catching_up());
        tokio::time::advance(CATCHING_UP).await;
        assert_eq!(pulse.awake_since(), Instant::now());
        assert!(!pulse.is_catching_up());
    }
}
