//! Owns [`Liveness`]: whether every long-lived task still takes its turns. A task that has ended
//! ends the process; one that hangs can only be noticed from outside.

use std::{
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

/// A task that only waits beats this often meanwhile.
const BEAT: Duration = Duration::from_secs(2);
/// Two looks that are further apart say that the process itself stood still.
const STANDSTILL: Duration = Duration::from_secs(5);
/// How often it is to be looked.
pub(super) const LOOK: Duration = Duration::from_secs(1);

/// The tasks whose turns are watched. Clones watch the same ones.
#[derive(Debug, Clone)]
pub struct Liveness {
    began: Instant,
    watched: Arc<Mutex<Watched>>,
}

#[derive(Debug, Default)]
struct Watched {
    tasks: Vec<Task>,
    /// When it was looked last.
    looked: Duration,
    /// When the process went on after it had stood still: nobody could beat before.
    thawed: Duration,
}

#[derive(Debug)]
struct Task {
    name: &'static str,
    limit: Duration,
    /// Gone when the task has ended.
    last: Weak<AtomicU64>,
}

/// What a task shows that it is alive by. Dropping it ends the watch.
#[derive(Debug)]
pub struct Heartbeat {
    began: Instant,
    /// When it beat last, in milliseconds since the beginning.
    last: Arc<AtomicU64>,
}

impl Default for Liveness {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            watched: Arc::default(),
        }
    }
}

impl Default for Heartbeat {
    /// One that nobody watches.
    fn default() -> Self {
        Self {
            began: Instant::now(),
            last: Arc::default(),
        }
    }
}

impl Liveness {
    /// Watches a task, which counts as stuck once it has not beaten for longer than `limit`.
    #[must_use]
    pub fn task(&self, name: &'static str, limit: Duration) -> Heartbeat {
        let heart = Heartbeat {
            began: self.began,
            last: Arc::default(),
        };
        heart.beat();
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        watched.tasks.retain(|task| task.last.strong_count() > 0);
        watched.tasks.push(Task {
            name,
            limit,
            last: Arc::downgrade(&heart.last),
        });
        heart
    }

    /// How long ago each task beat last.
    #[must_use]
    pub fn ages(&self) -> Vec<(&'static str, Duration)> {
        let now = self.began.elapsed();
        let watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let age = |task: &Task| {
            let last = task.last.upgrade()?.load(Ordering::Relaxed);
            Some((task.name, now.saturating_sub(Duration::from_millis(last))))
        };
        watched.tasks.iter().filter_map(age).collect()
    }

    /// The tasks that are stuck. To be asked every second, as a standstill of the whole process,
    /// after which every task gets its limit anew, is noticed by a look that comes late.
    #[must_use]
    pub fn stuck(&self) -> Vec<&'static str> {
        let now = self.began.elapsed();
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        if now.saturating_sub(watched.looked) > STANDSTILL {
            watched.thawed = now;
        }
        watched.looked = now;
        let thawed = watched.thawed;
        let is_stuck = |task: &&Task| {
            task.last.upgrade().is_some_and(|last| {
                let last = Duration::from_millis(last.load(Ordering::Relaxed)).max(thawed);
                now.saturating_sub(last) > task.limit
            })
        };
        let stuck = watched.tasks.iter().filter(is_stuck);
        stuck.map(|task| task.name).collect()
    }
}

impl Heartbeat {
    /// Shows that the task takes its turns.
    pub fn beat(&self) {
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(now, Ordering::Relaxed);
    }

    /// Waits for `event`, and beats meanwhile: for a task that may have nothing to do for long.
    pub async fn waiting<F: Future>(&self, event: F) -> F::Output {
        let mut event = std::pin::pin!(event);
        loop {
            self.beat();
            if let Ok(result) = tokio::time::timeout(BEAT, &mut event).await {
                self.beat();
                return result;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    /// Lets time pass, looking every second as the server does.
    async fn pass(liveness: &Liveness, time: Duration) {
        for _ in 0..time.as_secs() {
            tokio::time::sleep(LOOK).await;
            let _ = liveness.stuck();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_hangs_is_named_once_its_limit_is_over_and_until_it_goes_on() {
        let liveness = Liveness::default();
        let (hangs, lives) = (liveness.task("hangs", LIMIT), liveness.task("lives", LIMIT));
        pass(&liveness, LIMIT).await;
        lives.beat();
        assert!(liveness.stuck().is_empty(), "not before");
        pass(&liveness, LOOK).await;
        assert_eq!(liveness.stuck(), ["hangs"]);
        hangs.beat();
        assert!(liveness.stuck().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_is_alive_and_who_has_ended_is_not_missed() {
        let liveness = Liveness::default();
        let waits = liveness.task("waits", LIMIT);
        drop(liveness.task("has ended", LIMIT));
        let look = async {
            pass(&liveness, LIMIT * 3).await;
            liveness.stuck()
        };
        tokio::select! {
            () = waits.waiting(std::future::pending()) => {}
            stuck = look => assert!(stuck.is_empty(), "{stuck:?}"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_standstill_of_the_process_every_task_gets_its_limit_anew() {
        let liveness = Liveness::default();
        let _hangs = liveness.task("hangs", LIMIT);
        pass(&liveness, Duration::from_secs(20)).await;
        tokio::time::advance(LIMIT * 10).await;
        assert!(liveness.stuck().is_empty(), "it had no chance to beat");
        pass(&liveness, LIMIT).await;
        assert!(liveness.stuck().is_empty());
        pass(&liveness, LOOK).await;
        assert_eq!(liveness.stuck(), ["hangs"]);
    }
}
