//! Owns `kubevirt-wol agent --monitor`: an agent for a person to watch, without a manager.
//!
//! Packets go the way that they go in every agent: the same sockets, parser, filters and window.
//! Only the end is another one: what would be reported is settled at once, and a
//! [`Witness`](super::intake::Witness) sees what became of each packet.

mod line;
mod screen;
mod summary;

use std::{sync::Arc, time::Instant};

use anyhow::{anyhow, bail};
use tokio_util::sync::CancellationToken;

use self::screen::{Printer, Screen};
use super::{
    Ears, STUCK_AFTER,
    intake::{Intake, Outlet},
    listeners::Listeners,
    managers,
    metrics::Metrics,
};
use crate::{
    UsageError,
    admin::{Liveness, Readiness},
    cli::AgentArgs,
    filter::SourceFilter,
    settings::Settings,
    shutdown::Tasks,
    telemetry::LogFormat,
    wake::{Answer, Outcome},
};

/// What holds, as no manager says it.
///
/// # Errors
///
/// An interface pattern or a range cannot be read.
pub(super) fn settings(args: &AgentArgs) -> Result<Settings, UsageError> {
    let monitor = &args.monitor;
    let filter = SourceFilter::new(&monitor.interfaces, &monitor.source_ranges);
    let filter = filter.map_err(|error| UsageError::new(error.to_string()))?;
    Ok(Settings {
        filters: vec![filter],
        ..Settings::default()
    })
}

/// Prints what is heard until `token` is cancelled, and then a summary.
///
/// # Errors
///
/// No socket could be opened, or what is heard cannot be printed.
pub async fn run(
    args: AgentArgs,
    ears: Ears,
    format: LogFormat,
    token: CancellationToken,
) -> anyhow::Result<()> {
    let settings = settings(&args)?;
    let (screen, lines) = Screen::new();
    let screen = Arc::new(screen);
    let printer = Printer::new(
        lines,
        Arc::clone(&screen),
        format == LogFormat::Json,
        settings.dedup_window,
    );
    let intake = Intake::watched(args.node_name, Metrics::default(), Some(screen));
    intake.apply(&settings);
    let intake = Arc::new(intake);
    let listeners = listen(ears, &intake)?;

    let mut tasks = Tasks::new(token.clone());
    tasks.spawn("settlement", settle(Arc::clone(&intake), token.clone()));
    let (stop, clock) = (token.clone(), Liveness::default());
    tasks.spawn("clock", async move {
        tokio::select! {
            () = stop.cancelled() => Ok(()),
            never = managers::keep_time(&intake, clock.task("clock", STUCK_AFTER)) => match never {},
        }
    });
    tasks.spawn("lines", printed(printer, listeners, token));
    tasks.join().await
}

/// Opens what can be opened; a person has no use for a monitor that hears nothing.
fn listen(ears: Ears, intake: &Arc<Intake>) -> anyhow::Result<Listeners> {
    let gate = Readiness::default().gate("a socket that listens");
    let listeners = Listeners::start(ears, Arc::clone(intake), gate.clone(), Liveness::default());
    if gate.is_open() {
        return Ok(listeners);
    }
    let (_, told) = listeners.report();
    let told: Vec<_> = told
        .iter()
        .map(|one| format!("{}: {}", one.name, one.error))
        .collect();
    bail!("nothing can be heard: {}", told.join("; "))
}

/// Settles what would be reported, so that nothing waits for a manager.
async fn settle(intake: Arc<Intake>, token: CancellationToken) -> anyhow::Result<()> {
    let outlet = Outlet::open(&intake, "monitor".into())
        .ok_or_else(|| anyhow!("somebody else takes the events"))?;
    // Of the answers that leave repeats repeats, the one that does not claim to know a VM.
    let answer = Answer::Final(Outcome::Unsupported, String::new());
    while token.run_until_cancelled(outlet.due()).await.is_some() {
        let now = Instant::now();
        while let Some(event) = outlet.next_event(now) {
            outlet.answer(event.seq, &answer, now);
        }
    }
    Ok(())
}

/// Prints until the end, then what the sockets still have, and the summary.
async fn printed(
    mut printer: Printer,
    listeners: Listeners,
    token: CancellationToken,
) -> anyhow::Result<()> {
    let open = printer.follow(&token).await?;
    // Where nobody reads the lines any more, that is the end, too.
    token.cancel();
    listeners.close().await;
    if open { printer.finish() } else { Ok(()) }
}
