//! The figures, each beside its budget.

use std::{fmt, time::Duration};

/// Rows in the order of measuring.
#[derive(Default)]
pub(crate) struct Table(Vec<Row>);

struct Row {
    what: String,
    measured: String,
    budget: String,
    within: Option<bool>,
}

impl Table {
    /// A time that should not be longer.
    pub(crate) fn time(
        &mut self,
        what: impl Into<String>,
        measured: Duration,
        at_most: Option<Duration>,
    ) {
        let budget = at_most.map(|at_most| format!("≤ {at_most:?}"));
        let within = at_most.map(|at_most| measured <= at_most);
        self.add(what, format!("{measured:.2?}"), budget, within);
    }

    /// Memory, in KiB, that should not be more.
    pub(crate) fn memory(&mut self, what: impl Into<String>, kib: u64, at_most: Option<u64>) {
        let budget = at_most.map(|at_most| format!("≤ {}", size(at_most)));
        let within = at_most.map(|at_most| kib <= at_most);
        self.add(what, size(kib), budget, within);
    }

    /// A number per second that should not be less.
    pub(crate) fn rate(&mut self, what: impl Into<String>, per_second: u64, at_least: Option<u64>) {
        let budget = at_least.map(|at_least| format!("≥ {at_least}/s"));
        let within = at_least.map(|at_least| per_second >= at_least);
        self.add(what, format!("{per_second}/s"), budget, within);
    }

    /// How many of all.
    pub(crate) fn all(&mut self, what: impl Into<String>, measured: u64, all: u64) {
        let budget = Some(format!("{all} of {all}"));
        self.add(
            what,
            format!("{measured} of {all}"),
            budget,
            Some(measured == all),
        );
    }

    /// A number that should be exactly this.
    pub(crate) fn count(&mut self, what: impl Into<String>, measured: u64, budget: Option<u64>) {
        let within = budget.map(|budget| measured == budget);
        let budget = budget.map(|budget| budget.to_string());
        self.add(what, measured.to_string(), budget, within);
    }

    fn add(
        &mut self,
        what: impl Into<String>,
        measured: String,
        budget: Option<String>,
        within: Option<bool>,
    ) {
        let row = Row {
            what: what.into(),
            measured,
            budget: budget.unwrap_or_default(),
            within,
        };
        eprintln!("  {}: {}", row.what, row.measured);
        self.0.push(row);
    }
}

fn size(kib: u64) -> String {
    match kib {
        0..1024 => format!("{kib} KiB"),
        _ => format!("{}.{} MiB", kib / 1024, kib % 1024 * 10 / 1024),
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |of: fn(&Row) -> &str| {
            let widths = self.0.iter().map(|row| of(row).chars().count());
            widths.max().unwrap_or(0).max(8)
        };
        let (what, measured) = (width(|row| &row.what), width(|row| &row.measured));
        let budget = width(|row| &row.budget);
        writeln!(
            f,
            "\n| {:what$} | {:measured$} | {:budget$} |        |",
            "what", "measured", "budget"
        )?;
        writeln!(
            f,
            "|-{:-<what$}-|-{:->measured$}-|-{:->budget$}-|--------|",
            "", "", ""
        )?;
        for row in &self.0 {
            let verdict = match row.within {
                Some(true) => "within",
                Some(false) => "MISSED",
                None => "",
            };
            writeln!(
                f,
                "| {:what$} | {:>measured$} | {:>budget$} | {verdict:6} |",
                row.what, row.measured, row.budget
            )?;
        }
        Ok(())
    }
}
