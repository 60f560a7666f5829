//! Owns `kubevirt-wol send`: magic packets as real senders make them.
//!
//! What goes where is planned before anything is sent, so that a dry run tells exactly that. Only
//! the lookup of virtual machines needs a cluster, and an async runtime; the rest is blocking.

use std::{io::Write, time::Duration};

use anyhow::{Context as _, bail};

mod args;
mod input;
mod interfaces;
mod lookup;
mod plan;
mod report;
mod target;
mod transmit;
mod wait;

pub use args::{Destination, ParseDestinationError, PasswordText, SendArgs};
use report::Report;
pub use target::{ParseTargetError, Target};
use wait::Wait;

/// Sends what `args` ask for and reports each destination to `out`. Blocks for as long as the
/// copies take, for the API server where a virtual machine is named, and with `--wait` until it runs.
///
/// # Errors
///
/// A [`UsageError`](crate::UsageError) where the options make no sense; else a file cannot be
/// read, the report cannot be written, nothing could be sent at all, or what was waited for does not
/// run.
pub fn run(args: &SendArgs, out: &mut impl Write) -> anyhow::Result<()> {
    let targets = input::targets(args)?;
    let patience = wait::patience(args, &targets)?;
    let password = input::password(args)?;
    let interfaces = interfaces::list().context("cannot list this host's network interfaces")?;
    let recipients = lookup::recipients(targets)?;
    // What a manager says from here on, it says of these packets.
    let wait = match patience {
        Some(patience) => Some(Wait::begin(wait::keys(args, &recipients), patience)?),
        None => None,
    };
    let (wanted, all_known) = (
        !recipients.found.is_empty(),
        recipients.unresolved.is_empty(),
    );
    let plan = plan::plan(args, recipients, password, &interfaces)?;
    let nowhere = wanted && plan.transmissions.is_empty() && plan.unusable.is_empty();
    let report = if args.dry_run {
        Report::planned(plan, args.count)
    } else {
        let interval = Duration::from_millis(args.interval.into());
        let outcomes = transmit::transmit(&plan.transmissions, args.count, interval);
        Report::done(plan, outcomes)
    };
    report
        .write(args.json, out)
        .context("cannot write the report")?;
    if nowhere {
        bail!(
            "nothing to send from: no interface is up and suits these options; name a destination \
             with --broadcast, or look at ip link"
        );
    }
    if report.is_failure() {
        bail!("nothing could be sent");
    }
    if let Some(wait) = wait
        && !(wait.finish(args.json, out)? && all_known)
    {
        bail!("not all that was to be woken runs");
    }
    Ok(())
}
