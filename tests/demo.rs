//! The demo of the README, run as a visitor runs it.

#![allow(clippy::unwrap_used, reason = "a test that breaks has to fail")]

use std::{path::PathBuf, process::Command};

/// Cargo builds examples with the tests, beside their folder.
fn demo(flags: &[&str]) -> (Option<i32>, String) {
    let test = std::env::current_exe().unwrap();
    let profile: PathBuf = test.ancestors().nth(2).unwrap().into();
    let program = profile.join("examples/demo");
    let mut command = Command::new(&program);
    for (key, _) in std::env::vars_os() {
        if key
            .to_str()
            .is_some_and(|key| key.starts_with("WOL_") || key == "NODE_NAME")
        {
            command.env_remove(key);
        }
    }
    let output = command.args(flags).output();
    let output = output.unwrap_or_else(|error| panic!("cannot run {}: {error}", program.display()));
    (
        output.status.code(),
        String::from_utf8(output.stdout).unwrap(),
    )
}

#[test]
fn every_expectation_holds() {
    let (code, story) = demo(&[]);
    assert_eq!(code, Some(0), "{story}");
    assert!(story.contains("demo/desktop is Running"), "{story}");
}

#[test]
fn a_broken_expectation_shows_in_the_exit_code() {
    let (code, story) = demo(&["--without-config"]);
    assert_eq!(code, Some(1), "{story}");
    assert!(story.contains("WRONG"), "{story}");
}
