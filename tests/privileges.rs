//! Which privileges a running agent has, read from the kernel, and that it does its work with them.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "the test bed is shared, and one that breaks has to fail the test"
)]

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::unix::{fs::MetadataExt as _, process::CommandExt as _},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

#[path = "common/fake_manager.rs"]
mod fake_manager;
#[path = "privileges/kernel.rs"]
mod kernel;
#[path = "common/netns.rs"]
mod netns;
#[path = "privileges/node.rs"]
mod node;
#[path = "common/process.rs"]
mod process;
#[path = "common/skip.rs"]
mod skip;

use kernel::{NET_BIND_SERVICE, NET_RAW, Privileges, SETPCAP, writable};
use kubevirt_wol::rpc::pb::Carrier;
use node::Node;

const OURS: &str = env!("CARGO_BIN_EXE_kubevirt-wol");

/// What the agent's pod has.
const OF_THE_POD: &str = ",+net_raw,+net_bind_service";

/// Killed when dropped.
struct Agent(Child);

impl Drop for Agent {
    fn drop(&mut self) {
        // Both fail only where it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn metrics(address: SocketAddr) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream
        .write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        .ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    Some(text)
}

fn wait_for<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}: not within 20 s");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Whether the tests on nodes cannot run here; says so.
fn cannot_run() -> bool {
    let reason = netns::unavailable().or_else(|| {
        let there = ["setpriv", "unshare"].map(|name| netns::runs(name, &["--version"]));
        there
            .contains(&false)
            .then_some("setpriv or unshare is missing: apt-get install util-linux")
    });
    reason.inspect(|reason| skip::skipped(reason)).is_some()
}

/// What is left of all that a process can have: this, and nothing that it can get.
fn nothing_but(kept: u64, bounding: u64) -> Privileges {
    Privileges {
        permitted: kept,
        effective: kept,
        inheritable: 0,
        ambient: 0,
        bounding,
        no_new: true,
    }
}

#[test]
fn whatever_it_was_started_with_no_thread_keeps_it_and_the_packet_socket_goes_on_hearing() {
    let own = Privileges::own();
    if own.effective & NET_RAW == 0 {
        return skip::skipped("opening a packet socket needs CAP_NET_RAW");
    }
    let admin = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let child = Command::new(OURS)
        .args(["agent", "--node-name=node-1", "--insecure"])
        // A name is looked up on a thread of its own: that one counts too.
        .args(["--manager=localhost:1", &format!("--admin-bind={admin}")])
        .arg("--wol-port=47011")
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let agent = Agent(child);
    wait_for("the admin server", || metrics(admin));
    let threads = wait_for("all threads", || {
        let threads = Privileges::of_threads(agent.0.id());
        (threads.len() >= 4).then_some(threads)
    });
    let may_change_bounding = own.effective & SETPCAP != 0;
    let bounding = if may_change_bounding { 0 } else { own.bounding };
    for thread in threads {
        assert_eq!(thread, nothing_but(0, bounding));
    }

    // To a port that no UDP socket of the agent has: only the packet socket hears it, and drops it
    // because nobody on a network has the address 127.0.0.1.
    let magic = [&[0xff; 6], &*[0x52, 0x54, 0, 0, 0, 1].repeat(16)].concat();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    wait_for("a packet that the packet socket heard", || {
        socket.send_to(&magic, "127.0.0.1:47012").ok()?;
        let heard = r#"agent_invalid_packets_total{reason="martian"}"#;
        metrics(admin)?.contains(heard).then_some(())
    });
}

#[test]
fn no_other_process_of_its_user_can_read_the_memory_of_an_agent() {
    const NOBODY: u32 = 65_534;
    if !nix::unistd::geteuid().is_root() {
        return skip::skipped("running programs as another user needs root");
    }
    let start = |program: &str, args: &[&str]| {
        let mut command = Command::new(program);
        command.args(args).uid(NOBODY).gid(NOBODY);
        command.stderr(Stdio::null());
        Agent(command.spawn().unwrap())
    };
    // The kernel gives these files to root where it would write no core dump either.
    let owner = |process: &Agent| {
        let memory = format!("/proc/{}/mem", process.0.id());
        Some(fs::metadata(memory).ok()?.uid())
    };
    let other = start("sleep", &["60"]);
    wait_for("a program that does nothing of the kind", || {
        (owner(&other)? == NOBODY).then_some(())
    });
    let agent =
        "agent --node-name=node-1 --insecure --manager=localhost:1 --no-raw --wol-port=47013";
    let agent = start(OURS, &agent.split(' ').collect::<Vec<_>>());
    wait_for("the agent", || (owner(&agent)? == 0).then_some(()));
}

/// Where the pattern is late in a datagram, only a UDP socket finds it.
fn expect_udp(node: &mut Node, last: u8, words: &str, interface: &str) {
    let event = node.hears(last, &format!("--offset 7 {words}"));
    let heard = (event.carrier(), &*event.interface);
    assert_eq!(heard, (Carrier::Udp, interface), "{words}");
}

fn expect_raw(node: &mut Node, last: u8, interface: &str) {
    let event = node.hears(last, "--raw");
    let heard = (event.carrier(), &*event.interface);
    assert_eq!(heard, (Carrier::Ethernet, interface));
}

#[test]
fn with_what_its_pod_has_and_nothing_to_write_to_it_does_all_that_is_asked_of_it() {
    if cannot_run() {
        return;
    }
    let mut node = Node::new();
    node.start_agent(OF_THE_POD, &[]);
    // Without the right to change it, the bounding set stays; under `no_new`, it gives nothing.
    let kept = nothing_but(NET_BIND_SERVICE, NET_RAW | NET_BIND_SERVICE);
    assert_eq!(node.privileges(), kept);
    assert_eq!(writable(node.pid()), Vec::<String>::new());

    assert_eq!(node.ask_for(&[9, 7]), Vec::<String>::new());
    expect_raw(&mut node, 1, "lan0");
    expect_udp(&mut node, 2, "--port 9 --broadcast 10.77.0.255", "lan0");

    // A low port that a manager asks for later.
    assert_eq!(node.ask_for(&[9, 8]), Vec::<String>::new());
    expect_udp(&mut node, 3, "--port 8 --broadcast 10.77.0.255", "lan0");

    // An interface that comes later.
    node.host.ip("link delete lan0");
    node.plug_later();
    expect_raw(&mut node, 4, "new0");
    expect_udp(&mut node, 5, "--port 8 --ipv6", "new0");
    assert_eq!(node.privileges(), kept);
}

#[test]
fn where_no_low_port_can_be_asked_for_it_keeps_nothing_and_hears_all_the_same() {
    if cannot_run() {
        return;
    }
    for (ports, port) in [("40009", 40_009), ("9,40009", 9)] {
        let mut node = Node::new();
        node.start_agent(OF_THE_POD, &["--wol-port", ports]);
        let nothing = nothing_but(0, NET_RAW | NET_BIND_SERVICE);
        assert_eq!(node.privileges(), nothing, "{ports}");
        // A manager may ask, and the command line has the last word.
        assert_eq!(node.ask_for(&[7]), Vec::<String>::new());
        let words = format!("--port {port} --broadcast 10.77.0.255");
        expect_udp(&mut node, 1, &words, "lan0");
        node.host.ip("link delete lan0");
        node.plug_later();
        expect_raw(&mut node, 2, "new0");
        expect_udp(&mut node, 3, &format!("--port {port} --ipv6"), "new0");
    }
}

#[test]
fn a_low_port_that_another_process_had_is_opened_once_it_is_free() {
    if cannot_run() {
        return;
    }
    let mut node = Node::new();
    let other = node.take(9);
    node.start_agent(OF_THE_POD, &["--wol-port", "9"]);
    let kept = nothing_but(NET_BIND_SERVICE, NET_RAW | NET_BIND_SERVICE);
    assert_eq!(node.privileges(), kept);
    let [failed] = &*node.ask_for(&[]) else {
        panic!("it says nothing of the port");
    };
    assert!(failed.contains("another process has port 9"), "{failed}");
    drop(other);
    assert_eq!(node.ask_for(&[]), Vec::<String>::new());
    expect_udp(&mut node, 1, "--port 9 --broadcast 10.77.0.255", "lan0");
}

#[test]
fn where_the_right_to_low_ports_was_not_granted_that_is_told_with_its_remedy() {
    if cannot_run() {
        return;
    }
    let mut node = Node::new();
    node.start_agent(",+net_raw", &[]);
    assert_eq!(node.privileges(), nothing_but(0, NET_RAW));
    let [failed] = &*node.ask_for(&[40_009, 9]) else {
        panic!("one port of two fails");
    };
    assert!(
        failed.starts_with("udp/9: not allowed") && failed.contains("NET_BIND_SERVICE"),
        "{failed}"
    );
    expect_raw(&mut node, 1, "lan0");
    expect_udp(&mut node, 2, "--port 40009 --broadcast 10.77.0.255", "lan0");
}

#[test]
fn where_every_port_is_free_to_all_it_keeps_nothing() {
    if cannot_run() {
        return;
    }
    let mut node = Node::new();
    node.host.sysctl("net/ipv4/ip_unprivileged_port_start", "0");
    node.start_agent(OF_THE_POD, &[]);
    let nothing = nothing_but(0, NET_RAW | NET_BIND_SERVICE);
    assert_eq!(node.privileges(), nothing);
    assert_eq!(node.ask_for(&[8]), Vec::<String>::new());
    expect_udp(&mut node, 1, "--port 8 --broadcast 10.77.0.255", "lan0");
}
