//! Owns the agent: hears magic packets on a node and reports them to the managers.

use tokio_util::sync::CancellationToken;

use crate::cli::AgentArgs;

/// The sockets that the agent opened before its runtime existed.
#[derive(Debug)]
pub struct Ears {}

/// Opens the sockets and drops every privilege that is not needed any more. Call it before any
/// other thread exists.
///
/// # Errors
///
/// Nothing can listen, or the options make no sense.
pub fn open(_args: &AgentArgs) -> anyhow::Result<Ears> {
    anyhow::bail!("not built yet")
}

/// Hears and reports until `token` is cancelled.
///
/// # Errors
///
/// A part of the agent failed.
pub async fn run(_args: AgentArgs, _ears: Ears, _token: CancellationToken) -> anyhow::Result<()> {
    anyhow::bail!("not built yet")
}
