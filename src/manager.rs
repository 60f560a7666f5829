//! Owns the manager: maps MAC addresses to virtual machines and starts them.

pub mod config;
pub mod directory;
pub mod grant;
pub mod report;
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
