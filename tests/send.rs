//! `kubevirt-wol send` as a person runs it: the real program, loopback only.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test bed that breaks has to fail the test"
)]

mod common;
#[path = "send/monitor.rs"]
mod monitor;
#[path = "send/virtual_machines.rs"]
mod virtual_machines;

use std::{
    fs,
    io::Write as _,
    net::{Ipv4Addr, UdpSocket},
    process::{Command, Output, Stdio},
    time::Duration,
};

use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_kubevirt-wol");
const VM: &str = "52:54:00:12:34:56";

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    for (key, _) in std::env::vars_os() {
        if key.to_str().is_some_and(|key| key.starts_with("WOL_")) {
            command.env_remove(key);
        }
    }
    // Where a test would reach a cluster by mistake, there is none.
    command.env("KUBECONFIG", "/nonexistent/kubeconfig");
    command.arg("send").args(args);
    command
}

fn send(args: &[&str]) -> Output {
    command(args).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn listener(address: Ipv4Addr) -> (UdpSocket, String) {
    let socket = UdpSocket::bind((address, 0)).unwrap();
    let time = Some(Duration::from_secs(5));
    socket.set_read_timeout(time).unwrap();
    let port = socket.local_addr().unwrap().port().to_string();
    (socket, port)
}

fn heard(socket: &UdpSocket) -> Vec<u8> {
    let mut buffer = [0; 4096];
    let (len, _) = socket.recv_from(&mut buffer).unwrap();
    buffer[..len].to_vec()
}

fn magic(target: [u8; 6]) -> Vec<u8> {
    [vec![0xff; 6], target.repeat(16)].concat()
}

#[test]
fn packets_for_every_notation_reach_a_listener_on_loopback() {
    let (socket, port) = listener(Ipv4Addr::LOCALHOST);
    let output = send(&[
        "--broadcast=127.0.0.1",
        "--count=1",
        "--port",
        &port,
        VM,
        "5254.0012.3457",
        "2:4:6:8:A:C",
        "525400-123458",
        VM,
    ]);
    assert!(output.status.success(), "{}", stderr(&output));
    for last in [
        [0x52, 0x54, 0, 0x12, 0x34, 0x56],
        [0x52, 0x54, 0, 0x12, 0x34, 0x57],
        [2, 4, 6, 8, 10, 12],
        [0x52, 0x54, 0, 0x12, 0x34, 0x58],
    ] {
        assert_eq!(heard(&socket), magic(last));
    }
    assert_eq!(stdout(&output).lines().count(), 4, "{}", stdout(&output));
}

#[test]
fn the_broadcast_address_of_a_network_reaches_a_listener() {
    let (socket, port) = listener(Ipv4Addr::UNSPECIFIED);
    let options = ["--broadcast=127.0.0.0/8", "--interval=0", "--port"];
    let output = send(&[&options[..], &[&port, VM]].concat());
    let expected = format!("sent    {VM} to 127.255.255.255:{port}, 3 x 102 bytes\n");
    assert_eq!(stdout(&output), expected, "{}", stderr(&output));
    for _ in 0..3 {
        assert_eq!(heard(&socket).len(), 102);
    }
}

#[test]
fn the_password_comes_from_the_option_a_file_or_the_environment() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    fs::write(&file, "192.168.1.1\n").unwrap();
    let (socket, port) = listener(Ipv4Addr::LOCALHOST);
    let base = ["--broadcast=127.0.0.1", "--count=1", "--port", &port, VM];
    let mut runs = [command(&base), command(&base), command(&base)];
    runs[0].arg("--password=01:23:45:67:89:ab");
    runs[1].arg("--password-file").arg(&file);
    runs[2].env("WOL_PASSWORD", "10.0.0.1");
    let expected: [&[u8]; 3] = [
        &[0x01, 0x23, 0x45, 0x67, 0x89, 0xab],
        &[192, 168, 1, 1],
        &[10, 0, 0, 1],
    ];
    for (run, password) in runs.iter_mut().zip(expected) {
        assert!(run.output().unwrap().status.success());
        assert_eq!(&heard(&socket)[102..], password);
    }
}

#[test]
fn a_mistyped_password_is_wrong_usage_and_not_repeated() {
    let output = send(&["--broadcast=127.0.0.1", "--password=hunter2", VM]);
    assert_eq!(output.status.code(), Some(2));
    let error = stderr(&output);
    assert!(error.contains("six like"), "{error}");
    assert!(!error.contains("hunter2"), "{error}");
}

#[test]
fn addresses_come_from_standard_input_and_options_from_the_environment() {
    let (socket, port) = listener(Ipv4Addr::LOCALHOST);
    let mut child = command(&["--file", "-"])
        .env("WOL_SEND_PORT", &port)
        .env("WOL_SEND_BROADCAST", "127.0.0.1")
        .env("WOL_SEND_COUNT", "1")
        .env("WOL_SEND_JSON", "true")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let list = format!("# rack 4\n{VM} # web\n");
    child
        .stdin
        .take()
        .unwrap()
        .write_all(list.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    assert_eq!(heard(&socket).len(), 102);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["results"][0]["status"], "sent");
    assert_eq!(report["results"][0]["target"], VM);
    assert_eq!(report["results"][0]["port"].to_string(), port);
}

#[test]
fn a_dry_run_prints_the_bytes_and_sends_nothing() {
    let (socket, port) = listener(Ipv4Addr::LOCALHOST);
    socket.set_nonblocking(true).unwrap();
    let options = ["--broadcast=127.0.0.1", "--port", &port, VM];
    for dry in ["--dry-run", "--hex"] {
        let output = send(&[&options[..], &[dry]].concat());
        assert!(output.status.success());
        let hex = format!("    ffffffffffff{}\n", "525400123456".repeat(16));
        assert!(stdout(&output).ends_with(&hex), "{}", stdout(&output));
    }
    let error = socket.recv(&mut [0; 2048]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
}

#[test]
fn wrong_usage_ends_with_two_and_says_what_to_write() {
    for (args, remedy) in [
        (&[][..], "vm/NAMESPACE/NAME"),
        (&["52:54:00:12:34"], "52:54:00:12:34:56"),
        (&["52:54:00:12:34"], "vm/NAMESPACE/NAME"),
        (&["shop/web"], "vm/NAMESPACE/NAME"),
        (&["vm/shop/web/start"], "vm/NAMESPACE/NAME"),
        (&["ff:ff:ff:ff:ff:ff"], "--force"),
        (&["01:00:5e:00:00:01"], "--force"),
        (&["00:00:00:00:00:00"], "--force"),
        (&[VM, "--port=0"], "1..=65535"),
        (&[VM, "--port=70000"], "1..=65535"),
        (&[VM, "--broadcast=fe80::/64"], "ff02::1"),
        (&[VM, "--broadcast=ff02::1"], "--interface"),
        (&[VM, "--vlan=5"], "--raw"),
        (&[VM, "--raw", "--vlan=4095"], "4094"),
        (&[VM, "--unicast-l2"], "--raw"),
        (&[VM, "--raw", "--ipv6"], "--raw"),
        (&[VM, "--raw", "--port=9"], "--raw"),
        (&[VM, "--ipv6", "--broadcast=10.0.0.1"], "--ipv6"),
        (&[VM, "--interface=lo", "--all-interfaces"], "--interface"),
        (
            &[VM, "--password=1.1.1.1", "--password-file=x"],
            "--password",
        ),
        (&[VM, "--count=0"], "1..=1000"),
        (&["--file=/dev/null"], "no MAC address"),
    ] {
        let output = send(args);
        let error = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {error}");
        assert!(error.contains(remedy), "{args:?}: {error}");
        assert_eq!(stdout(&output), "", "{args:?}");
    }
}

#[test]
fn groups_are_sent_to_when_forced() {
    let (socket, port) = listener(Ipv4Addr::LOCALHOST);
    let options = ["--broadcast=127.0.0.1", "--count=1", "--force", "--port"];
    let output = send(&[&options[..], &[&port, "ff:ff:ff:ff:ff:ff"]].concat());
    assert!(output.status.success());
    assert_eq!(heard(&socket), vec![0xff; 102]);
}

#[test]
fn it_fails_only_when_nothing_could_be_sent() {
    let output = send(&[VM, "--interface=no-such-if", "--broadcast=127.0.0.1"]);
    assert_eq!(output.status.code(), Some(1));
    let told = stdout(&output);
    assert!(
        told.contains("no-such-if: no such interface; this host has"),
        "{told}"
    );
    assert!(stderr(&output).contains("nothing could be sent"));

    let options = ["--interface=lo,no-such-if", "--broadcast=127.0.0.1"];
    let output = send(&[&options[..], &[VM, "--count=1", "--port=40009"]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let told = stdout(&output);
    assert!(
        told.starts_with(&format!("sent    {VM} to 127.0.0.1:40009 on lo")),
        "{told}"
    );
    assert!(told.contains("failed  no-such-if: "), "{told}");

    let output = send(&["--file=/no/such/file"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("cannot read /no/such/file: No such file"));
}
