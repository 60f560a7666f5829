//! Which privileges a running agent has, read from the kernel.

#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    reason = "the test bed is shared, and one that breaks has to fail the test"
)]

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

#[path = "common/skip.rs"]
mod skip;

/// The bit of `CAP_NET_BIND_SERVICE` (linux/capability.h).
const NET_BIND_SERVICE: u64 = 1 << 10;

/// The bit of `CAP_NET_RAW`.
const NET_RAW: u64 = 1 << 13;

/// Killed when dropped.
struct Agent(Child);

impl Drop for Agent {
    fn drop(&mut self) {
        // Both fail only where it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The capability sets with these names in a `/proc/…/status`.
fn capabilities(status: &str, names: &[&str]) -> Vec<u64> {
    let set = |name: &&str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        u64::from_str_radix(line.unwrap().trim_start_matches(':').trim(), 16).unwrap()
    };
    names.iter().map(set).collect()
}

/// `/proc/…/status` of every thread.
fn threads(pid: u32) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let status = |task: std::io::Result<fs::DirEntry>| {
        fs::read_to_string(task.ok()?.path().join("status")).ok()
    };
    tasks.filter_map(status).collect()
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

#[test]
fn no_thread_keeps_more_than_the_right_to_open_low_ports_and_the_packet_socket_goes_on_hearing() {
    let own = fs::read_to_string("/proc/self/status").unwrap();
    if capabilities(&own, &["CapEff"])[0] & NET_RAW == 0 {
        return skip::skipped("opening a packet socket needs CAP_NET_RAW");
    }
    let admin = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let child = Command::new(env!("CARGO_BIN_EXE_kubevirt-wol"))
        .args([
            "agent",
            "--node-name=node-1",
            "--insecure",
            "--wol-port=47011",
        ])
        // A name is looked up on a thread of its own: that one counts too.
        .args(["--manager=localhost:1", &format!("--admin-bind={admin}")])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let agent = Agent(child);
    wait_for("the admin server", || metrics(admin));
    let threads = wait_for("all threads", || {
        let threads = threads(agent.0.id());
        (threads.len() >= 4).then_some(threads)
    });
    let sets = ["CapInh", "CapPrm", "CapEff", "CapAmb"];
    for status in threads {
        for held in capabilities(&status, &sets) {
            assert_eq!(held & !NET_BIND_SERVICE, 0, "{status}");
        }
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
