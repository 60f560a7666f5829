//! Owns the question whether the machine had time for a run: times at a tenth mean nothing where
//! processes wait for a processor for as long.

use std::{
    collections::HashMap,
    fs,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// How often it is looked.
const BEAT: Duration = Duration::from_millis(500);

/// The processes of a run, to which each that is started is added.
pub(crate) type Pids = Arc<Mutex<Vec<u32>>>;

/// Notices threads that do not get their turns.
pub(crate) struct Pulse {
    stop: Arc<AtomicBool>,
    beats: JoinHandle<Duration>,
}

impl Pulse {
    /// Watches over these processes, and this one.
    pub(crate) fn begin(pids: Pids) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let ended = stop.clone();
        let beats = thread::spawn(move || {
            let (mut longest, mut before) = (Duration::ZERO, HashMap::new());
            while !ended.load(Ordering::Relaxed) {
                let asleep = Instant::now();
                thread::sleep(BEAT);
                longest = longest.max(asleep.elapsed().saturating_sub(BEAT));
                let pids = pids.lock().unwrap_or_else(PoisonError::into_inner).clone();
                for task in pids.into_iter().flat_map(tasks) {
                    let Some(waited) = waited(&task) else {
                        continue;
                    };
                    let known = before.insert(task, waited).unwrap_or(waited);
                    longest = longest.max(waited.saturating_sub(known));
                }
            }
            longest
        });
        Self { stop, beats }
    }

    /// For how long a thread was kept waiting, of what one beat lasts.
    pub(crate) fn end(self) -> Duration {
        self.stop.store(true, Ordering::Relaxed);
        self.beats.join().expect("it sleeps and ends")
    }
}

/// The threads of a process; none where it has ended.
fn tasks(pid: u32) -> Vec<PathBuf> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"));
    let tasks = tasks.into_iter().flatten().flatten();
    tasks.map(|task| task.path()).collect()
}

/// For how long a thread has been ready to run, and did not, since it began.
fn waited(task: &std::path::Path) -> Option<Duration> {
    let text = fs::read_to_string(task.join("schedstat")).ok()?;
    let nanoseconds = text.split(' ').nth(1)?.parse().ok()?;
    Some(Duration::from_nanos(nanoseconds))
}
