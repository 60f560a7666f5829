//! Owns `kubevirt-wol send`: magic packets as real senders make them.

use crate::cli::SendArgs;

/// Sends what `args` ask for and reports each destination to `out`.
///
/// # Errors
///
/// Nothing could be sent, or the options make no sense.
pub fn run(_args: &SendArgs, _out: &mut impl std::io::Write) -> anyhow::Result<()> {
    anyhow::bail!("not built yet")
}
