//! The command line as people meet it.

#![allow(clippy::unwrap_used, reason = "a test that breaks has to fail")]

#[path = "cli/docs.rs"]
mod docs;
#[path = "common/pages.rs"]
#[allow(unreachable_pub, reason = "a part of what other tests share")]
mod pages;

use std::process::{Command, Output};

use clap::CommandFactory as _;
use kubevirt_wol::cli::Cli;

const PROGRAM: &str = env!("CARGO_BIN_EXE_kubevirt-wol");

fn run(args: &[&str]) -> Output {
    let mut command = Command::new(PROGRAM);
    for (key, _) in std::env::vars_os() {
        let ours = key
            .to_str()
            .is_some_and(|key| key.starts_with("WOL_") || key == "NODE_NAME");
        if ours {
            command.env_remove(key);
        }
    }
    // Where a test would reach a cluster by mistake, there is none.
    command
        .args(args)
        .env("KUBECONFIG", "/nonexistent/kubeconfig")
        .output()
        .unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn every_flag_can_be_given_by_the_environment_and_says_what_it_does() {
    let mut cli = Cli::command();
    cli.build();
    let mut flags = 0;
    for command in cli
        .get_subcommands()
        .filter(|command| command.get_name() != "help")
    {
        assert!(
            command.get_about().is_some(),
            "{} has no help",
            command.get_name()
        );
        for argument in command.get_arguments() {
            let name = argument.get_id().as_str();
            assert!(
                argument.get_help().is_some(),
                "{} {name} has no help",
                command.get_name()
            );
            if argument.is_positional() || ["help", "version"].contains(&name) {
                continue;
            }
            assert!(
                argument.get_env().is_some(),
                "{} --{name} has no environment twin",
                command.get_name()
            );
            flags += 1;
        }
    }
    assert!(flags > 20, "only {flags} flags were looked at");
}

#[test]
fn version_and_help_are_answers_not_errors() {
    let version = run(&["--version"]);
    assert_eq!(version.status.code(), Some(0));
    let text = String::from_utf8(version.stdout).unwrap();
    assert_eq!(
        text.trim(),
        concat!("kubevirt-wol ", env!("CARGO_PKG_VERSION"))
    );
    for args in [
        &["--help"][..],
        &["manager", "--help"],
        &["agent", "--help"],
        &["send", "--help"],
        &["crd", "--help"],
        &["check", "--help"],
        &["explain", "--help"],
    ] {
        assert_eq!(run(args).status.code(), Some(0), "{args:?}");
    }
}

#[test]
fn the_options_of_a_command_are_listed_before_those_that_all_have() {
    let mut cli = Cli::command();
    cli.build();
    for command in cli.get_subcommands_mut() {
        if let Some((own, shared)) = command.render_help().to_string().split_once("\nLogging:") {
            assert!(own.contains("--help"), "{own}");
            assert!(!own.contains("--log") && shared.contains("--log-format"));
            let others = shared.matches("\n      --").count();
            assert_eq!(others, 2, "{shared}");
        } else {
            assert_eq!(command.get_name(), "help");
        }
    }
}

#[test]
fn wrong_usage_exits_with_2_and_names_the_flag() {
    for (args, named) in [
        (&["agent"][..], "--node-name"),
        (
            &["agent", "--node-name", "n", "--wol-port", "70000"],
            "--wol-port",
        ),
        (&["manager", "--grpc-bind", "nowhere"], "--grpc-bind"),
        (&["manager", "--start-rate", "0"], "--start-rate"),
        (&["manager", "--dedup-window", "soon"], "--dedup-window"),
        (
            &["agent", "--node-name", "n", "--insecure", "--manager", "x"],
            "--manager",
        ),
        (
            &["agent", "--node-name", "n", "--manager", "http://m:9090"],
            "--insecure",
        ),
        (
            &["agent", "--node-name", "n", "--server-name", "a b"],
            "--server-name",
        ),
        (&["manager", "--insecure", "--tls-dir", "/tls"], "--tls-dir"),
        (&["manager", "--agent-auth", "certificate"], "--tls-dir"),
        (&["crd", "--log", "kubevirt_wol=loud"], "--log"),
        (&["send", "52:54:00"], "52:54:00"),
        (&["brew"], "brew"),
    ] {
        let output = run(args);
        assert_eq!(
            output.status.code(),
            Some(2),
            "{args:?}: {}",
            stderr(&output)
        );
        assert!(
            stderr(&output).contains(named),
            "{args:?}: {}",
            stderr(&output)
        );
    }
}

#[test]
fn a_manager_without_a_cluster_says_which_kubeconfig_it_tried() {
    let output = run(&[
        "manager",
        "--insecure",
        "--grpc-bind",
        "127.0.0.1:0",
        "--admin-bind",
        "127.0.0.1:0",
    ]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("/nonexistent/kubeconfig"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn a_malformed_kubeconfig_is_named() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "clusters: 7").unwrap();
    let output = Command::new(PROGRAM)
        .args([
            "manager",
            "--insecure",
            "--grpc-bind",
            "127.0.0.1:0",
            "--admin-bind",
            "127.0.0.1:0",
        ])
        .env("KUBECONFIG", file.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains(file.path().to_str().unwrap()),
        "{}",
        stderr(&output)
    );
}

#[test]
fn an_address_that_is_taken_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let kubeconfig = tempfile::NamedTempFile::new().unwrap();
    let text = "{apiVersion: v1, kind: Config, current-context: c, clusters: [{name: c, cluster: {server: 'http://127.0.0.1:9'}}], contexts: [{name: c, context: {cluster: c, user: u}}], users: [{name: u, user: {}}]}";
    std::fs::write(kubeconfig.path(), text).unwrap();
    let output = Command::new(PROGRAM)
        .args([
            "manager",
            "--insecure",
            "--grpc-bind",
            &address,
            "--admin-bind",
            "127.0.0.1:0",
        ])
        .env("KUBECONFIG", kubeconfig.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains(&address), "{}", stderr(&output));
}

#[test]
fn what_only_tests_set_is_shown_to_nobody() {
    let mut cli = Cli::command();
    cli.build();
    for command in cli.get_subcommands_mut() {
        for help in [command.render_help(), command.render_long_help()] {
            let help = help.to_string().to_lowercase();
            for hidden in ["time-scale", "time_scale", "sabotage"] {
                assert!(!help.contains(hidden), "{help}");
            }
        }
    }
}

#[test]
fn what_only_tests_set_is_refused_where_it_makes_no_sense_and_says_what_does() {
    // What a program for people does not have it does not explain, either.
    let told = |word: &'static str| {
        if cfg!(debug_assertions) {
            word
        } else {
            "unexpected argument"
        }
    };
    for (args, told) in [
        (["--time-scale", "0"], told("from 1 to 100")),
        (["--time-scale", "fast"], told("from 1 to 100")),
        (["--sabotage", "all"], told("replay, dedup, ttl, age")),
    ] {
        let output = run(&[&["crd"][..], &args].concat());
        let words = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {words}");
        assert!(words.contains(told), "{args:?}: {words}");
    }
    let well = run(&["crd", "--time-scale", "10"]);
    assert_eq!(well.status.success(), cfg!(debug_assertions));
    let well = run(&["crd"]);
    assert_eq!(well.status.code(), Some(0), "{}", stderr(&well));
    let words = String::from_utf8(well.stdout).unwrap();
    assert!(words.contains("kind: CustomResourceDefinition"), "{words}");
    let broken = run(&["crd", "--sabotage", "ttl,age"]);
    assert_eq!(broken.status.success(), cfg!(debug_assertions));
}

#[test]
#[cfg(debug_assertions)]
fn options_that_are_times_pass_at_the_pace_that_tests_set() {
    let times = "--ca-lifetime 1500s --ca-publish-wait 15s --leaf-lifetime 15s";
    let manager: Vec<&str> = ["manager", "--insecure"]
        .into_iter()
        .chain(times.split_whitespace())
        .collect();
    let usual = run(&manager);
    assert_eq!(usual.status.code(), Some(1), "{}", stderr(&usual));
    let fast = run(&[&manager[..], &["--time-scale", "10"]].concat());
    assert_eq!(fast.status.code(), Some(2), "{}", stderr(&fast));
    assert!(stderr(&fast).contains("--leaf-lifetime must be at least 2s"));
}
