//! Owns [`Summary`]: how many packets were heard, and what became of them. Pure.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::line::{why, word};
use crate::agent::metrics::{Invalid, Verdict};

/// Counts of packets.
#[derive(Debug, Default)]
pub(super) struct Summary {
    verdicts: BTreeMap<&'static str, u64>,
    /// Those that are no magic packets, by reason.
    invalid: BTreeMap<String, u64>,
    /// Those whose lines were not written, as nobody read them fast enough.
    pub(super) not_shown: u64,
    /// Those that the kernel dropped.
    pub(super) missed: u64,
}

impl Summary {
    pub(super) fn count(&mut self, verdict: Result<Verdict, Invalid>) {
        *self.verdicts.entry(word(verdict)).or_default() += 1;
        if let Err(reason) = verdict {
            *self.invalid.entry(why(reason)).or_default() += 1;
        }
    }

    fn heard(&self) -> u64 {
        self.verdicts.values().sum()
    }

    /// The line for people.
    pub(super) fn text(&self) -> String {
        let mut parts = Vec::new();
        for (word, told) in [
            ("reported", "would be reported"),
            ("repeat", "repeats"),
            (
                "filtered",
                "refused by the filter of interfaces and sources",
            ),
            ("limited", "refused, as too many came"),
            ("stale", "not read before they were too old"),
        ] {
            if let Some(count) = self.verdicts.get(word) {
                parts.push(format!("{count} {told}"));
            }
        }
        for (reason, count) in &self.invalid {
            parts.push(format!("{count} no magic packets ({reason})"));
        }
        let mut line = format!("heard {} packets", self.heard());
        if !parts.is_empty() {
            line = format!("{line}: {}", parts.join(", "));
        }
        for (count, told) in [
            (
                self.not_shown,
                "not shown, as they came faster than they were read",
            ),
            (self.missed, "dropped by the kernel unheard"),
        ] {
            if count > 0 {
                line = format!("{line}; {count} {told}");
            }
        }
        line
    }

    /// The same for programs.
    pub(super) fn json(&self) -> Value {
        json!({"summary": {
            "heard": self.heard(),
            "verdicts": self.verdicts,
            "invalid": self.invalid,
            "notShown": self.not_shown,
            "kernelDropped": self.missed,
        }})
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::Rejection;

    #[test]
    fn a_summary_says_what_there_was_and_nothing_else() {
        let mut summary = Summary::default();
        assert_eq!(summary.text(), "heard 0 packets");
        let short = Err(Invalid::Payload(Rejection::Short));
        for verdict in [
            Ok(Verdict::Repeat),
            Ok(Verdict::Reported),
            Ok(Verdict::Repeat),
            short,
        ] {
            summary.count(verdict);
        }
        summary.missed = 7;
        assert_eq!(
            summary.text(),
            "heard 4 packets: 1 would be reported, 2 repeats, 1 no magic packets (shorter than \
             102 bytes); 7 dropped by the kernel unheard"
        );
        let told = summary.json();
        assert_eq!(told["summary"]["verdicts"]["repeat"], 2);
        assert_eq!(told["summary"]["invalid"]["shorter than 102 bytes"], 1);
    }
}
