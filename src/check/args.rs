//! Owns the options of `kubevirt-wol check`: types only.

#![allow(
    clippy::doc_markdown,
    reason = "these comments are the help text, where backticks would show"
)]

use std::path::PathBuf;

use clap::Args;

use crate::cli::Installation;

/// Options of `kubevirt-wol check`.
#[derive(Debug, Clone, Args)]
pub struct CheckArgs {
    /// Try the connection to managers here, a name or an address, instead of where the Service
    /// leads; for example localhost:9090, after kubectl port-forward.
    #[arg(long, env = "WOL_MANAGER", value_name = "HOST:PORT")]
    pub manager: Option<String>,
    /// The certificates of the authorities that the managers' certificates are checked by, where
    /// not the managers keep them.
    #[arg(long, env = "WOL_CA_FILE", value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// Print the findings as JSON.
    #[arg(long, env = "WOL_CHECK_JSON")]
    pub json: bool,
    /// Which installation is looked at.
    #[command(flatten)]
    pub installation: Installation,
}
