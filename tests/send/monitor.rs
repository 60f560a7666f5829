//! `agent --monitor`, as a person watches: the real program, loopback only.

use std::{
    io::{BufRead as _, BufReader},
    net::{SocketAddr, UdpSocket},
    process::{ChildStdout, Command, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use super::{PROGRAM, VM, magic, send, stderr};
use crate::common::process::free_udp;

const MAC: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];

/// A monitor of one port, by UDP sockets alone.
struct Monitor {
    child: std::process::Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
    port: u16,
}

impl Monitor {
    fn start(flags: &[&str]) -> Self {
        let port = free_udp();
        let mut command = monitor(port, flags);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = child.spawn().unwrap();
        // It says on which sockets it listens.
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        while !line.contains("listening") {
            line.clear();
            assert_ne!(log.read_line(&mut line).unwrap(), 0, "it ended");
        }
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines, port }
    }

    fn hears(&self, bytes: &[u8]) -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.send_to(bytes, ("127.0.0.1", self.port)).unwrap();
        socket.local_addr().unwrap()
    }

    fn line(&mut self) -> String {
        self.lines.next().unwrap().unwrap()
    }

    /// Ends it as Ctrl-C does; the rest of its lines.
    fn end(mut self) -> Vec<String> {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        kill(pid, Signal::SIGINT).unwrap();
        let rest = self.lines.by_ref().map(Result::unwrap).collect();
        assert!(self.child.wait().unwrap().success());
        rest
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn monitor(port: u16, flags: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    for (key, _) in std::env::vars_os() {
        let ours = |key: &str| key.starts_with("WOL_") || key == "NODE_NAME";
        if key.to_str().is_some_and(ours) {
            command.env_remove(key);
        }
    }
    let port = port.to_string();
    let args = ["agent", "--monitor", "--no-raw", "--wol-port", &port];
    command.args(args).args(flags);
    command
}

#[test]
fn each_packet_is_a_line_with_its_verdict_and_the_end_sums_them_up() {
    let mut monitor = Monitor::start(&[]);
    let from = monitor.hears(&magic(MAC));
    let line = monitor.line();
    let told = format!(" lo {from} udp {VM}: would be reported");
    assert!(line.ends_with(&told), "{line}");
    assert!(
        line.as_bytes()[12] == b'Z',
        "it begins with the time: {line}"
    );

    monitor.hears(&magic(MAC));
    let line = monitor.line();
    assert!(line.ends_with(": a repeat within 2s"), "{line}");

    monitor.hears(b"hello");
    let line = monitor.line();
    let told = "udp: not a magic packet: shorter than 102 bytes";
    assert!(line.ends_with(told), "{line}");

    let summary = "heard 3 packets: 1 would be reported, 1 repeats, 1 no magic packets (shorter \
                   than 102 bytes)";
    assert_eq!(monitor.end(), [summary]);
}

#[test]
fn what_no_filter_wants_is_said_to_be_refused_and_a_password_is_never_shown() {
    let flags = ["--source-range=192.0.2.0/24", "--log-format=json"];
    let mut monitor = Monitor::start(&flags);
    monitor.hears(&[magic(MAC), b"secret".to_vec()].concat());
    let line = monitor.line();
    assert!(
        !line.contains("secret") && !line.contains("736563726574"),
        "{line}"
    );
    let told: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(told["verdict"], "filtered", "{line}");
    assert_eq!(told["targets"][0], VM);
    assert_eq!(told["trailingBytes"], 6);
    assert_eq!(
        (&told["interface"], &told["source"]),
        (&"lo".into(), &"127.0.0.1".into())
    );
    let summary: Value = serde_json::from_str(&monitor.end()[0]).unwrap();
    assert_eq!(summary["summary"]["verdicts"]["filtered"], 1);
}

#[test]
fn a_monitor_takes_no_port_from_an_agent_and_says_so_where_it_then_hears_nothing() {
    let port = free_udp();
    let agent = socket2::Socket::new(socket2::Domain::IPV6, socket2::Type::DGRAM, None).unwrap();
    // As an agent opens it, which shares it with the next agent.
    agent.set_reuse_port(true).unwrap();
    let address: SocketAddr = format!("[::]:{port}").parse().unwrap();
    agent.bind(&address.into()).unwrap();
    let output = monitor(port, &[]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let told = stderr(&output);
    let words = format!("nothing can be heard: udp/{port}: another process has port {port}");
    assert!(told.contains(&words), "{told}");
}

#[test]
fn a_pattern_that_cannot_be_read_and_options_of_a_monitor_without_one_are_wrong_usage() {
    let output = monitor(free_udp(), &["--source-range=10.0.0.0/64"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("10.0.0.0/64"),
        "{}",
        stderr(&output)
    );

    let mut agent = Command::new(PROGRAM);
    agent
        .env_remove("NODE_NAME")
        .args(["agent", "--node-name=a", "--interface=eth0"]);
    let output = agent.output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("--monitor"), "{}", stderr(&output));
}

#[test]
fn to_wait_for_a_vm_one_has_to_be_named() {
    for (args, told) in [
        (&[VM, "--wait"][..], "vm/NAMESPACE/NAME"),
        (
            &["vm/shop/web", "--wait", "--wait-timeout=0s"],
            "--wait-timeout",
        ),
        (&[VM, "--wait=shop"], "vm/NAMESPACE/NAME"),
        (&["vm/shop/web", "--wait", "--dry-run"], "--dry-run"),
    ] {
        let output = send(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(stderr(&output).contains(told), "{}", stderr(&output));
    }
    let output = send(&[VM, "--wait=shop/web", "--broadcast=127.0.0.1"]);
    assert_eq!(output.status.code(), Some(1));
    let told = stderr(&output);
    let words = "cannot wait: cannot use kubeconfig /nonexistent/kubeconfig";
    assert!(told.contains(words), "{told}");
}
