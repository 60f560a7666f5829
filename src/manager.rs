//! Owns the manager: maps MAC addresses to virtual machines and starts them.

pub mod config;
pub mod directory;
pub mod grant;
pub mod intents;
pub mod legacy;
pub mod marks;
pub mod metrics;
pub mod pulse;
pub mod report;
pub mod sessions;
pub mod service;
pub mod start;
pub mod throttle;
pub mod vm;
pub mod watch;

use tokio_util::sync::CancellationToken;

use crate::cli::ManagerArgs;

/// Serves agents until `token` is cancelled.
///
/// # Errors
///
/// A part of the manager failed.
pub async fn run(_args: ManagerArgs, _token: CancellationToken) -> anyhow::Result<()> {
    anyhow::bail!("not built yet")
}
