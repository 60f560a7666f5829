//! Owns `kubevirt-wol check`: is the installation set up right, and what helps where it is not.
//!
//! It reads and asks, and changes nothing. What the caller may not read is told as such, with the
//! right that it takes; everything else is looked at all the same.

mod args;
mod cause;
mod configs;
mod connection;
mod finding;
mod installed;
mod prerequisites;
mod subject;
mod words;

use std::io::Write;

use anyhow::{Context as _, bail};
use tokio::runtime;

pub use args::CheckArgs;
pub use cause::{Cause, Check};
pub(crate) use configs::CONFIGS;
pub use finding::{Finding, Report, Status};
pub(crate) use installed::{endpoints, holder};

/// Where managers listen for agents, unless their pods say otherwise.
const PORT: u16 = 9090;

/// Looks at the installation and tells `out` what was found.
///
/// # Errors
///
/// There is a problem, or the report cannot be written.
pub fn run(args: &CheckArgs, out: &mut impl Write) -> anyhow::Result<()> {
    let report = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the async runtime")?
        .block_on(examine(args));
    report
        .write(args.json, out)
        .context("cannot write the report")?;
    match report.problems() {
        0 => Ok(()),
        1 => bail!("there is a problem; what helps is told with it"),
        more => bail!("there are {more} problems; what helps is told with each"),
    }
}

async fn examine(args: &CheckArgs) -> Report {
    let names = &args.installation;
    let mut report = Report::new(names);
    let Some((look, me)) = prerequisites::api(&mut report).await else {
        return report;
    };
    prerequisites::crd(&mut report, &look).await;
    prerequisites::kubevirt(&mut report, &look).await;
    prerequisites::rights(&mut report, &look, names, me.as_deref()).await;
    installed::managers(&mut report, &look, names).await;
    installed::service(&mut report, &look, names).await;
    // Where the certificates are somebody else's, the managers keep none.
    let bundle = if args.ca_file.is_none() {
        let bundle = installed::bundle(&mut report, &look, names).await;
        installed::secret(&mut report, &look, names).await;
        bundle
    } else {
        None
    };
    let endpoints = endpoints(&look, names).await.unwrap_or_default();
    connection::connection(&mut report, args, bundle, endpoints).await;
    installed::agents(&mut report, &look, names).await;
    configs::configs(&mut report, &look).await;
    installed::leader(&mut report, &look, names).await;
    report
}
