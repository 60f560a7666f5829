//! Owns [`Report`]: what was found, for people and for programs.

use std::io::{self, Write};

use serde::{Serialize, Serializer};

use super::{Cause, Check};
use crate::{cli::Installation, cluster::Unseen, telemetry::Word};

/// How it stands with what was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// As it should be.
    Ok,
    /// It works, but for what is told.
    Warning,
    /// Packets wake nothing, or not what they should.
    Problem,
    /// Nobody could look.
    Unknown,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    check: Check,
    status: Status,
    /// None where nothing is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<Cause>,
    /// What was seen.
    seen: String,
    /// What helps.
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
}

/// All that was found, and how many findings of each kind.
#[derive(Debug, Serialize)]
pub struct Report {
    problems: usize,
    warnings: usize,
    unknown: usize,
    checks: Vec<Finding>,
    #[serde(skip)]
    installation: Installation,
}

impl Report {
    /// Nothing was found yet in this installation.
    #[must_use]
    pub fn new(installation: &Installation) -> Self {
        Self {
            problems: 0,
            warnings: 0,
            unknown: 0,
            checks: Vec::new(),
            installation: installation.clone(),
        }
    }

    /// Nothing is wrong.
    pub fn good(&mut self, check: Check, seen: impl Into<String>) {
        self.checks.push(Finding {
            check,
            status: Status::Ok,
            cause: None,
            seen: seen.into(),
            remedy: None,
        });
    }

    /// Something is wrong.
    pub fn bad(&mut self, check: Check, cause: Cause, seen: impl Into<String>) {
        let status = cause.status();
        match status {
            Status::Ok => {}
            Status::Warning => self.warnings += 1,
            Status::Problem => self.problems += 1,
            Status::Unknown => self.unknown += 1,
        }
        self.checks.push(Finding {
            check,
            status,
            cause: Some(cause),
            seen: seen.into(),
            remedy: Some(self.remedy(cause)),
        });
    }

    /// It could not be looked at.
    pub fn unseen(&mut self, check: Check, what: &str, why: &Unseen) {
        let cause = match why {
            Unseen::Forbidden(_) => Cause::MayNotLook,
            _ => Cause::CannotLook,
        };
        self.bad(check, cause, format!("{what} {why}"));
    }

    /// How many problems were found.
    #[must_use]
    pub fn problems(&self) -> usize {
        self.problems
    }

    fn remedy(&self, cause: Cause) -> String {
        let names = &self.installation;
        [
            ("NAMESPACE", &names.namespace),
            ("DEPLOYMENT", &names.deployment),
            ("SERVICE", &names.service),
            ("BUNDLE", &names.ca_bundle),
        ]
        .iter()
        .fold(cause.remedy().to_owned(), |text, (word, name)| {
            text.replace(word, name)
        })
    }

    /// Prints the findings as lines of text, or as one JSON object.
    ///
    /// # Errors
    ///
    /// `out` cannot be written.
    pub fn write(&self, json: bool, out: &mut impl Write) -> io::Result<()> {
        if json {
            serde_json::to_writer_pretty(&mut *out, self)?;
            writeln!(out)?;
        } else {
            for finding in &self.checks {
                finding.write(out)?;
            }
            let Self {
                problems,
                warnings,
                unknown,
                ..
            } = self;
            writeln!(
                out,
                "{problems} problems, {warnings} warnings, {unknown} could not be looked at"
            )?;
        }
        out.flush()
    }
}

impl Finding {
    fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let mark = match self.status {
            Status::Ok => "ok",
            Status::Warning => "warning",
            Status::Problem => "PROBLEM",
            Status::Unknown => "unknown",
        };
        let check = Word(self.check).to_string();
        writeln!(out, "{mark:<8} {check:<11} {}", self.seen)?;
        match &self.remedy {
            Some(remedy) => writeln!(out, "{:<21} -> {remedy}", ""),
            None => Ok(()),
        }
    }
}

impl Serialize for Check {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&Word(*self))
    }
}

impl Serialize for Cause {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&Word(*self))
    }
}
