//! Owns the runs of seeds: which, how many at once, and what is said of them.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{sync::Semaphore, task::JoinSet};

use super::{
    bed::Bed,
    judge::{Judgement, judge},
    plan::Plan,
    strike::Course,
    tally::Tally,
};
use crate::common::netns;

/// After the last step, what should not come has so long to come nevertheless.
const DWELL: Duration = Duration::from_millis(1_500);
/// The managers' CA is renewed after 12 s; then the plan is under way.
const RENEWED_AFTER: Duration = Duration::from_secs(9);
/// Who has not come to an end by then never will.
const END: Duration = Duration::from_secs(40);

/// What came of one seed.
pub(crate) struct Ran {
    pub(crate) seed: u64,
    pub(crate) tally: Tally,
    pub(crate) broken: Vec<String>,
}

/// Runs one seed.
pub(crate) async fn run(seed: u64, sabotage: Option<&'static str>) -> Ran {
    let mut plan = Plan::new(seed);
    plan.namespaces &= netns::unavailable().is_none();
    let mut course = Course::new(Bed::new(plan, sabotage).await);
    if let Err(why) = course.warm_up().await {
        let logs = keep_logs(seed, &course.bed);
        return Ran {
            seed,
            tally: course.tally,
            broken: vec![format!("{why}; logs in {}", logs.display())],
        };
    }
    if course.bed.plan.rotation {
        course.rest_until(RENEWED_AFTER).await;
    }
    course.run().await;
    course.heal().await;
    let judgement = settle(&mut course).await;
    let mut tally = std::mem::take(&mut course.tally);
    tally.judged(&judgement);
    let mut broken = judgement.broken;
    broken.extend(judgement.pending);
    broken.append(&mut course.wrong);
    if !broken.is_empty() && sabotage.is_none() {
        let logs = keep_logs(seed, &course.bed);
        broken.insert(0, format!("logs in {}", logs.display()));
    }
    Ran {
        seed,
        tally,
        broken,
    }
}

/// The same on threads of its own, so that no run keeps another one waiting.
fn alone(seed: u64, sabotage: Option<&'static str>) -> Ran {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(3).enable_all().build();
    let runtime = runtime.expect("threads can be made");
    runtime.block_on(run(seed, sabotage))
}

/// Waits until every wake has come to something.
async fn settle(course: &mut Course) -> Judgement {
    let healed = Instant::now();
    loop {
        course.look().await;
        let time = healed.elapsed();
        if time >= DWELL {
            let judgement = judge(&course.bed);
            if judgement.pending.is_empty() || time >= END.min(DWELL + course.bed.plan.patience * 2)
            {
                return judgement;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Writes what everybody logged, and returns where.
fn keep_logs(seed: u64, bed: &Bed) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("faults-{seed}"));
    // What an earlier run left; where nothing can be written, the message has to do.
    let _ = fs::remove_dir_all(&directory);
    let _ = fs::create_dir_all(&directory);
    let mut record = String::new();
    let record_of = bed.record();
    let began = record_of.0.first().map(|(at, _)| *at);
    for (at, what) in &record_of.0 {
        let at = began.map_or(0.0, |began| (*at - began).as_secs_f64());
        let _ = writeln!(record, "{at:.3} {what:?}");
    }
    let _ = fs::write(directory.join("record"), record);
    for who in bed.everybody() {
        let seat = bed.seat(who);
        for (number, process) in seat.old.iter().chain(&seat.process).enumerate() {
            let lines = process.lines().into_iter().map(|line| {
                let at = began.map_or(0.0, |began| {
                    line.at.saturating_duration_since(began).as_secs_f64()
                });
                format!("{at:.3} {}\n", line.text)
            });
            let file = directory.join(format!("{who:?}-{number}"));
            let _ = fs::write(file, lines.collect::<String>());
        }
    }
    directory
}

/// Which seeds to run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    pub(crate) first: u64,
    /// So many, and then for as long as the time lasts.
    pub(crate) at_least: u64,
    pub(crate) time: Duration,
    pub(crate) sabotage: Option<&'static str>,
}

/// Runs seeds until one fails; tells of each.
pub(crate) async fn run_all(wanted: Wanted) -> (Tally, Vec<Ran>) {
    let began = Instant::now();
    let room = Arc::new(Semaphore::new(setting("WOL_FAULT_AT_ONCE").unwrap_or(4)));
    let (mut tasks, mut next) = (JoinSet::new(), wanted.first);
    let (mut tally, mut failed) = (Tally::default(), Vec::new());
    loop {
        let more = next - wanted.first < wanted.at_least || began.elapsed() < wanted.time;
        let stop = !more || !failed.is_empty();
        if stop && tasks.is_empty() {
            return (tally, failed);
        }
        let ended = tokio::select! {
            biased;
            Some(ended) = tasks.join_next() => ended,
            Ok(place) = room.clone().acquire_owned(), if !stop => {
                let seed = next;
                next += 1;
                eprintln!("seed {seed}");
                tasks.spawn_blocking(move || {
                    let ran = alone(seed, wanted.sabotage);
                    drop(place);
                    ran
                });
                continue;
            }
        };
        let ran: Ran = ended.expect("a run does not panic");
        tally.add(&ran.tally);
        if !ran.broken.is_empty() {
            failed.push(ran);
        }
    }
}

/// A number from the environment.
pub(crate) fn setting<T: FromStr>(name: &str) -> Option<T> {
    let text = std::env::var(name).ok()?;
    let number = text.parse().ok();
    assert!(number.is_some(), "{name}={text} is no number");
    number
}
