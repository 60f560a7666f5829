//! Owns how the program speaks to machines and people: log lines and the metrics registry.

use std::{fmt, io::IsTerminal as _};

use clap::ValueEnum;
use prometheus_client::{
    encoding::{EncodeLabelValue, LabelValueEncoder},
    metrics::info::Info,
    registry::Registry,
};
use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::{
    EnvFilter, Layer as _,
    filter::{FilterExt as _, filter_fn},
    layer::{Filter, SubscriberExt as _},
    util::SubscriberInitExt as _,
};

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
    let filter = told(filter)?;
    let terminal = std::io::stderr().is_terminal();
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let registry = tracing_subscriber::registry();
    let result = match format {
        LogFormat::Auto if terminal => registry.with(lines.with_filter(filter)).try_init(),
        LogFormat::Text => {
            let lines = lines.with_ansi(terminal);
            registry.with(lines.with_filter(filter)).try_init()
        }
        LogFormat::Auto | LogFormat::Json => {
            let lines = lines.json().flatten_event(true);
            registry.with(lines.with_filter(filter)).try_init()
        }
    };
    result.map_err(|error| anyhow::anyhow!("cannot install the log writer: {error}"))
}

/// The lines that `filter` names. Never, whatever it says, those of the API client about answers: it
/// puts the whole of one that it cannot read into its line, and that may be a Secret or a token. What
/// they mean, and what a watch that breaks off means, we say ourselves. Nor its errors about requests:
/// each attempt makes one, and they name neither what was asked for nor of whom.
fn told<S: Subscriber>(filter: &str) -> Result<impl Filter<S> + use<S>, UsageError> {
    let filter = EnvFilter::try_new(filter).map_err(|error| {
        UsageError::new(format!(
            "--log {filter:?} is not of the form info or info,kubevirt_wol=debug: {error}"
        ))
    })?;
    let harmless = |line: &Metadata<'_>| match line.target() {
        "kube_client::client" => false,
        "kube_client::client::builder" => *line.level() != Level::ERROR,
        _ => true,
    };
    Ok(filter.and(filter_fn(harmless)))
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

#[cfg(test)]
pub(crate) mod tests {
    use std::{
        io::{self, Write},
        sync::{Arc, Mutex, PoisonError},
    };

    use super::*;

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl Write for Log {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            let mut log = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            log.write(line)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What is logged meanwhile.
    pub(crate) fn logged(filter: &str, work: impl FnOnce()) -> String {
        let log = Log::default();
        let writer = log.clone();
        let lines = tracing_subscriber::fmt::layer()
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .with_filter(told(filter).unwrap());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(lines), work);
        let log = log.0.lock().unwrap();
        String::from_utf8_lossy(&log).into_owned()
    }

    #[test]
    fn whatever_is_asked_for_no_answer_of_the_api_server_is_logged() {
        for filter in [
            "trace",
            "kube_client=debug",
            "kube_client::client=debug",
            "off,kube_client::client=trace,kube_client::client::x=trace",
            "kube_client::client[{message}]=trace",
        ] {
            let log = logged(&format!("{filter},ours=info"), || {
                tracing::warn!(target: "kube_client::client", "a whole Secret");
                tracing::info!(target: "ours", "a start");
            });
            assert!(!log.contains("Secret"), "{filter}: {log}");
            assert!(log.contains("a start"), "{filter}: {log}");
        }
    }

    #[test]
    fn an_outage_does_not_fill_the_log_with_errors_that_say_nothing() {
        let log = logged("debug", || {
            tracing::error!(target: "kube_client::client::builder", "failed with error");
            tracing::debug!(target: "kube_client::client::builder", "requesting");
        });
        assert!(
            !log.contains("failed") && log.contains("requesting"),
            "{log}"
        );
    }
}
