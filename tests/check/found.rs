//! What a check found, and what a test may ask of it.

use serde_json::Value;

use crate::common::{
    cluster::{Cluster, Manager},
    installation::{command, json_of},
};

/// What a check found.
pub(crate) struct Found {
    pub(crate) report: Value,
    pub(crate) code: Option<i32>,
}

impl Found {
    /// Runs the check with the kubeconfig of an administrator. Without a manager to connect to it is
    /// a port where nobody is, as the Service's endpoints would lead into somebody's network.
    pub(crate) fn by(c: &Cluster, args: &[&str]) -> Self {
        let mut command = command(c, "check", args);
        if !args.contains(&"--manager") {
            command.args(["--manager", "127.0.0.1:1"]);
        }
        let (report, code) = json_of(command);
        Self { report, code }
    }

    /// Runs it against this manager.
    pub(crate) fn with(c: &Cluster, manager: &Manager) -> Self {
        Self::by(c, &["--manager", &manager.grpc.to_string()])
    }

    /// What was found of one check.
    pub(crate) fn about(&self, check: &str) -> Vec<&Value> {
        let all = self.report["checks"].as_array().unwrap().iter();
        all.filter(|one| one["check"] == check).collect()
    }

    /// The finding of this cause.
    pub(crate) fn of(&self, cause: &str) -> &Value {
        let mut all = self.report["checks"].as_array().unwrap().iter();
        let found = all.find(|one| one["cause"] == cause);
        found.unwrap_or_else(|| panic!("{cause} was not found: {:#}", self.report))
    }

    /// Whether there is a finding of this cause.
    pub(crate) fn has(&self, cause: &str) -> bool {
        let mut all = self.report["checks"].as_array().unwrap().iter();
        all.any(|one| one["cause"] == cause)
    }

    /// Expects a problem of this cause, with these words in it, and that the program says so by its
    /// exit code.
    pub(crate) fn is_problem(&self, cause: &str, words: &[&str]) {
        let finding = self.of(cause);
        assert_eq!(finding["status"], "problem", "{finding:#}");
        for word in words {
            assert!(finding.to_string().contains(word), "{word}: {finding:#}");
        }
        assert!(!finding["remedy"].as_str().unwrap().is_empty());
        assert_eq!(self.code, Some(1), "{:#}", self.report);
    }
}
