//! The demo of the README, run as a visitor runs it.

#![allow(clippy::unwrap_used, reason = "a test that breaks has to fail")]

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// Cargo builds examples with the tests, beside their folder.
fn command(flags: &[&str]) -> Command {
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
    command.args(flags);
    command
}

fn demo(flags: &[&str]) -> (Option<i32>, String) {
    let output = command(flags).output().unwrap();
    (
        output.status.code(),
        String::from_utf8(output.stdout).unwrap(),
    )
}

#[test]
fn every_expectation_holds() {
    let (code, story) = demo(&[]);
    assert_eq!(code, Some(0), "{story}");
    for told in [
        "demo/desktop is Running",
        "ok     both agents have proven which node they are on",
        "ok     without TLS nobody is heard",
        "ok     a token of somebody else is refused",
        "ok     spare: no start",
    ] {
        assert!(story.contains(told), "{told}:\n{story}");
    }
}

#[test]
fn a_broken_expectation_shows_in_the_exit_code() {
    let (code, story) = demo(&["--without-config"]);
    assert_eq!(code, Some(1), "{story}");
    assert!(story.contains("WRONG"), "{story}");
}

/// Killed when dropped.
struct Demo(Child);

impl Demo {
    /// Its exit code when it gets this signal.
    fn ended_by(&mut self, signal: Signal) -> Option<i32> {
        let pid = i32::try_from(self.0.id()).unwrap();
        kill(Pid::from_raw(pid), signal).unwrap();
        self.0.wait().unwrap().code()
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // Both fail only where it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn what_it_prints_to_play_with_works_as_pasted() {
    let child = command(&["--serve"]).stdout(Stdio::piped()).spawn();
    let mut demo = Demo(child.unwrap());
    let mut lines = BufReader::new(demo.0.stdout.take().unwrap()).lines();
    let mut line_with = |words: &str| {
        let mut told = lines.by_ref().map(Result::unwrap);
        let line = told.find(|line| line.contains(words));
        line.unwrap_or_else(|| panic!("it ends without a line with {words:?}"))
    };
    let line = line_with("send --broadcast");
    let kubeconfig = line_with("export KUBECONFIG=");
    line_with("Agents hear");

    let (_, kubeconfig) = kubeconfig.split_once('=').unwrap();
    assert!(fs::read_to_string(kubeconfig).unwrap().contains("server:"));
    let shell = Command::new("sh").args(["-c", line.trim()]).output();
    let sent = shell.unwrap();
    assert!(sent.status.success(), "{line}: {sent:?}");
    line_with("demo/spare: started");

    assert_eq!(demo.ended_by(Signal::SIGINT), Some(0));
    assert!(!Path::new(kubeconfig).exists(), "{kubeconfig} is left");
}

#[test]
fn terminated_it_leaves_no_kubeconfig_behind() {
    let child = command(&["--serve"]).stdout(Stdio::piped()).spawn();
    let mut demo = Demo(child.unwrap());
    let lines = BufReader::new(demo.0.stdout.take().unwrap()).lines();
    let mut lines = lines.map(Result::unwrap);
    let kubeconfig = lines.find(|line| line.contains("export KUBECONFIG="));
    lines.find(|line| line.contains("Agents hear")).unwrap();
    assert_eq!(demo.ended_by(Signal::SIGTERM), Some(0));
    let kubeconfig = kubeconfig.unwrap();
    let (_, kubeconfig) = kubeconfig.split_once('=').unwrap();
    assert!(!Path::new(kubeconfig).exists(), "{kubeconfig} is left");
}
