//! Owns the options of `kubevirt-wol agent --monitor`: types only.

#![allow(
    clippy::doc_markdown,
    reason = "these comments are the help text, where backticks would show"
)]

use clap::Args;

/// Options of `kubevirt-wol agent --monitor`.
#[derive(Debug, Clone, Default, Args)]
pub struct MonitorArgs {
    /// Print every packet that is heard, and what an agent makes of it, instead of reporting it. No
    /// manager and no cluster is asked. Each is a line of text, or where log lines are said to be
    /// JSON an object; Ctrl-C ends it with a summary. Ports that an agent on this node has are left
    /// to it: the packet socket hears what comes there.
    #[arg(long, env = "WOL_MONITOR")]
    pub monitor: bool,
    /// With --monitor: the interfaces that count, as a WolConfig has them. Without it: those that
    /// count where no WolConfig says which.
    #[arg(
        long = "interface",
        env = "WOL_MONITOR_INTERFACE",
        value_name = "GLOB",
        value_delimiter = ',',
        requires = "monitor"
    )]
    pub interfaces: Vec<String>,
    /// With --monitor: the senders that count, as a WolConfig has them. Without it: all.
    #[arg(
        long = "source-range",
        env = "WOL_MONITOR_SOURCE_RANGE",
        value_name = "CIDR",
        value_delimiter = ',',
        requires = "monitor"
    )]
    pub source_ranges: Vec<String>,
}
