//! Keeps docs/troubleshooting.md complete: every check, every cause, and what helps.

use kubevirt_wol::{
    check::{Cause, Check, Status},
    telemetry::Word,
};

const PAGE: &str = include_str!("../../docs/troubleshooting.md");

fn row(cause: Cause) -> String {
    let status = match cause.status() {
        Status::Ok => "ok",
        Status::Warning => "warning",
        Status::Problem => "problem",
        Status::Unknown => "unknown",
    };
    let remedy = cause.remedy().replace('|', "\\|");
    format!("| `{}` | {status} | {remedy} |\n", Word(cause))
}

/// The part of the page about the causes of a check, or about those of any.
fn section(check: Option<Check>) -> String {
    let (title, about) = match check {
        Some(check) => (format!("`{}`", Word(check)), check.about()),
        None => (
            "any of them".to_owned(),
            "whatever could not be looked at is `unknown`",
        ),
    };
    let causes = Cause::ALL.iter().filter(|cause| cause.check() == check);
    let rows: String = causes.map(|cause| row(*cause)).collect();
    format!(
        "### {title}\n\nExpected: {about}.\n\n| cause | status | what helps |\n|---|---|---|\n{rows}"
    )
}

#[test]
fn every_cause_and_what_helps_is_on_the_page() {
    let checks = Check::ALL.into_iter().map(Some).chain([None]);
    let missing = checks
        .map(section)
        .filter(|section| !PAGE.contains(section));
    let missing: Vec<_> = missing.collect();
    assert!(
        missing.is_empty(),
        "docs/troubleshooting.md lacks this, or has it otherwise:\n\n{}",
        missing.join("\n")
    );
}

#[test]
fn each_check_can_fail_and_no_two_causes_have_one_word() {
    for check in Check::ALL {
        let mut causes = Cause::ALL
            .iter()
            .filter(|cause| cause.check() == Some(check));
        assert!(causes.next().is_some(), "{check:?} can find nothing");
    }
    let mut words: Vec<_> = Cause::ALL.iter().map(|it| Word(*it).to_string()).collect();
    let count = words.len();
    words.sort_unstable();
    words.dedup();
    assert_eq!(words.len(), count);
}
