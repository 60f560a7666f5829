//! Owns the runs of seeds: which, how many at once, and what is said of them.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{runtime::Handle, sync::Semaphore, task::JoinSet};

use super::{
    bed::Bed,
    judge::{Judgement, judge},
    plan::{Plan, paced},
    pulse::Pulse,
    strike::Course,
    tally::Tally,
};
use crate::common::netns;

/// After the last step, what should not come has so long to come nevertheless.
const DWELL: u64 = 1_500;
/// The managers' CA is renewed after 12 s; then the plan is under way.
const RENEWED_AFTER: u64 = 9_000;
/// Who has not come to an end by then never will.
const END: Duration = Duration::from_secs(90);

/// Where a thread waits for a processor for so long within half a second, there is too little machine.
const STARVED: Duration = Duration::from_millis(250);
/// A step of a plan that is done so late is another one.
const LATE: Duration = Duration::from_millis(300);
/// How often a seed is run at most.
const ATTEMPTS: usize = 3;

/// What came of one seed.
pub(crate) struct Ran {
    pub(crate) seed: u64,
    pub(crate) tally: Tally,
    pub(crate) broken: Vec<String>,
    /// The machine had so much else to do that times at a tenth mean nothing.
    pub(crate) starved: bool,
}

/// Runs one seed; once or twice more where it fails for want of a machine to run on.
fn run_in_peace(seed: u64, sabotage: Option<&'static str>) -> Ran {
    let mut ran = alone(seed, sabotage);
    for _ in 1..ATTEMPTS {
        if ran.broken.is_empty() || !ran.starved {
            break;
        }
        if sabotage.is_some() {
            // What the same seed does not show with every mechanism on, is no matter of time.
            ran.starved = !alone(seed, None).broken.is_empty();
        } else {
            ran = alone(seed, sabotage);
        }
    }
    ran
}

/// Runs one seed.
async fn run(seed: u64, sabotage: Option<&'static str>, api: &Handle) -> Ran {
    let mut plan = Plan::new(seed);
    plan.namespaces &= netns::unavailable().is_none();
    let mut course = Course::new(Bed::new(plan, sabotage, api).await);
    if let Err(why) = course.warm_up().await {
        let logs = keep_logs(seed, &course.bed);
        return Ran {
            seed,
            tally: course.tally,
            broken: vec![format!("{why}; logs in {}", logs.display())],
            starved: true,
        };
    }
    if course.bed.plan.rotation {
        course.rest_until(paced(RENEWED_AFTER)).await;
    }
    let pulse = Pulse::begin(course.bed.pids.clone());
    course.run().await;
    course.heal().await;
    let judgement = settle(&mut course).await;
    if let Some(server) = course.bed.cluster.envtest() {
        server.kill();
    }
    let starved = pulse.end() > STARVED || course.tally.was_late() > LATE;
    let mut tally = std::mem::take(&mut course.tally);
    tally.judged(&judgement);
    if setting::<u64>("WOL_FAULT_SEED").is_some() {
        for excused in &judgement.excused {
            eprintln!("excused, {excused}");
        }
    }
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
        starved,
    }
}

/// The same on threads of its own, so that no run keeps another one waiting.
fn alone(seed: u64, sabotage: Option<&'static str>) -> Ran {
    let threads = |number| {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(number).enable_all().build();
        runtime.expect("threads can be made")
    };
    let (api, lines) = (threads(2), threads(2));
    let ran = lines.block_on(run(seed, sabotage, api.handle()));
    api.shutdown_background();
    ran
}

/// Waits until every wake has come to something.
async fn settle(course: &mut Course) -> Judgement {
    let healed = Instant::now();
    loop {
        course.look();
        let (time, dwell) = (healed.elapsed(), paced(DWELL));
        if time >= dwell {
            let judgement = judge(&course.bed);
            if judgement.pending.is_empty() || time >= END.min(dwell + course.bed.plan.patience * 2)
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
    /// The mechanism that is off, and by what that shows.
    pub(crate) sabotage: Option<(&'static str, &'static str)>,
}

impl Wanted {
    /// Whether this is what was looked for.
    fn shows(&self, broken: &[String]) -> bool {
        let is_meant = |one: &String| self.sabotage.is_none_or(|(_, words)| one.contains(words));
        broken.iter().any(is_meant)
    }
}

/// Runs seeds until one fails; tells of each.
pub(crate) async fn run_all(wanted: Wanted) -> (Tally, Vec<Ran>) {
    let began = Instant::now();
    let room = Arc::new(Semaphore::new(setting("WOL_FAULT_AT_ONCE").unwrap_or(4)));
    let sabotage = wanted.sabotage.map(|(mechanism, _)| mechanism);
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
                    let ran = run_in_peace(seed, sabotage);
                    drop(place);
                    ran
                });
                continue;
            }
        };
        let ran: Ran = ended.expect("a run does not panic");
        tally.add(&ran.tally);
        if ran.starved && !ran.broken.is_empty() {
            let (seed, broken) = (ran.seed, ran.broken.join("\n  "));
            let broken: String = broken.chars().take(600).collect();
            eprintln!("seed {seed} is not judged, the machine has too much to do: {broken}");
            tally.void();
        } else if wanted.shows(&ran.broken) {
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
