//! Owns how the program speaks to machines and people: log lines and the metrics registry.

use std::{fmt, io::IsTerminal as _};

use clap::ValueEnum;
use prometheus_client::{
    encoding::{EncodeLabelValue, LabelValueEncoder},
    metrics::info::Info,
    registry::Registry,
};
use tracing_subscriber::EnvFilter;

use crate::UsageError;

/// The prefix of every metric.
pub const PREFIX: &str = "kubevirt_wol";

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    Auto,
    /// One line of text each.
    Text,
    /// One JSON object each.
    Json,
}

/// Installs the log writer; lines go to standard error, so that standard output stays data.
///
/// # Errors
///
/// A [`UsageError`] where the filter cannot be read; else a log writer is installed already.
pub fn init(format: LogFormat, filter: &str) -> anyhow::Result<()> {
    // The client logs every answer of 500 and above as an error of ours, and each watch that breaks
    // off; we say ourselves what these mean, and most of them mean little.
    let quiet = if filter.contains("kube_client") {
        ""
    } else {
        ",kube_client::client=off"
    };
    let filter = EnvFilter::try_new(format!("{filter}{quiet}")).map_err(|error| {
        UsageError::new(format!(
            "--log {filter:?} is not of the form info or info,kubevirt_wol=debug: {error}"
        ))
    })?;
    let terminal = std::io::stderr().is_terminal();
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let result = match format {
        LogFormat::Auto if terminal => builder.try_init(),
        LogFormat::Text => builder.with_ansi(terminal).try_init(),
        LogFormat::Auto | LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    result.map_err(|error| anyhow::anyhow!("cannot install the log writer: {error}"))
}

/// The value of a label, and the same word in a log line: the name of an enum's variant, written
/// `like-this`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Word<T>(pub T);

impl<T: fmt::Debug> fmt::Display for Word<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(variant) = self;
        for (position, letter) in format!("{variant:?}").chars().enumerate() {
            if letter.is_ascii_uppercase() && position > 0 {
                f.write_str("-")?;
            }
            write!(f, "{}", letter.to_ascii_lowercase())?;
        }
        Ok(())
    }
}

impl<T: fmt::Debug> EncodeLabelValue for Word<T> {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        fmt::Write::write_fmt(encoder, format_args!("{self}"))
    }
}

/// A registry with the prefix and `kubevirt_wol_build_info`.
#[must_use]
pub fn registry() -> Registry {
    let mut registry = Registry::with_prefix(PREFIX);
    let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
    registry.register("build", "The version of this program", build);
    registry
}
