//! The last chapter, where it is asked for: as many packets for random addresses as a network may
//! bring, and the VMs that are woken nevertheless. The program has to be optimised for it.

use std::{
    fs,
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;

use crate::{
    Bed, NAMESPACE,
    common::{
        cluster::{Agent, Cluster, get},
        kubevirt::vm::{RunStrategy, vm},
        process::free_tcp,
    },
    story::Story,
};

/// Packets per second that there have to be …
const LEAST: u32 = 50_000;
/// … and that are sent.
const RATE: u32 = 51_000;

/// VMs that are woken.
const VMS: u8 = 10;

/// Memory that the agent may have, without the program's file.
const MEMORY_KIB: u64 = 10 * 1024;

fn name(number: u8) -> String {
    format!("flooded-{number}")
}

fn mac(number: u8) -> String {
    format!("52:54:00:00:01:{number:02x}")
}

/// Makes the VMs; before the manager starts, so that its first agent knows their addresses.
pub(crate) async fn virtual_machines(cluster: &Cluster) {
    for number in 1..=VMS {
        let vm = vm(NAMESPACE, &name(number)).mac(&mac(number));
        let vm = vm.run_strategy(RunStrategy::Manual);
        cluster.kubevirt.add(&vm).await;
    }
}

/// Sends packets for random addresses until it is stopped.
struct Flood {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<(u32, Duration)>,
}

impl Flood {
    fn start(port: u16) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("loopback can be bound");
        socket
            .connect(("127.0.0.1", port))
            .expect("loopback is there");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            let (start, mut sent, mut packet) = (Instant::now(), 0, [0xff; 102]);
            while !stopped.load(Ordering::Relaxed) {
                let due = start.elapsed().as_micros() * u128::from(RATE) / 1_000_000;
                while u128::from(sent) < due && !stopped.load(Ordering::Relaxed) {
                    let [a, b, c, d] = fastrand::u32(..).to_be_bytes();
                    for place in packet[6..].chunks_exact_mut(6) {
                        place.copy_from_slice(&[0x02, 0x99, a, b, c, d]);
                    }
                    sent += u32::from(socket.send(&packet).is_ok());
                }
                thread::sleep(Duration::from_micros(200));
            }
            (sent, start.elapsed())
        });
        Self { stop, thread }
    }

    /// Packets per second that were sent.
    fn stop(self) -> u128 {
        self.stop.store(true, Ordering::Relaxed);
        let (sent, took) = self.thread.join().expect("the flood goes on");
        u128::from(sent) * 1_000_000 / took.as_micros().max(1)
    }
}

/// One agent alone hears the flood; the other two end.
pub(crate) async fn chapter(story: &mut Story, bed: Bed) {
    Story::chapter(
        "50,000 packets for random addresses per second, and the VMs start nevertheless",
    );
    drop(bed.agents);
    let admin = free_tcp();
    let flags = ["--admin-bind", &admin.to_string()];
    let grpc = bed.manager.grpc;
    let agent = bed.cluster.agent_at("node-3", grpc, bed.port, &flags);
    agent.configured();
    while metric(admin, "kubevirt_wol_agent_wakeable_filter_bytes") == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let flood = Flood::start(bed.port);
    tokio::time::sleep(Duration::from_secs(2)).await;
    for number in 1..=VMS {
        story.send(&bed.program, &mac(number), bed.port, 3);
    }
    for number in 1..=VMS {
        let name = name(number);
        let on = story.running(&bed.cluster, NAMESPACE, &name).await;
        story.expect(&format!("{NAMESPACE}/{name} is Running"), on);
    }
    let dropped = "kubevirt_wol_agent_kernel_dropped_packets_total";
    story.tell("node-3", &format!("{dropped}: {}", metric(admin, dropped)));
    stand_still(&agent).await;
    let sent = flood.stop();
    let memory = anonymous(agent.process.pid());
    story.tell("node-3", &format!("{memory} KiB of its own memory"));
    story.expect(
        &format!("{sent} packets per second were sent, {LEAST} or more"),
        sent >= LEAST.into(),
    );
    let counted = metric(admin, dropped);
    story.expect(
        &format!("what the kernel dropped while it stood still is counted: {counted}"),
        counted > 0,
    );
    story.expect(
        &format!("it needs no more than {MEMORY_KIB} KiB"),
        memory <= MEMORY_KIB,
    );
}

/// For as long as the agent stands still it reads nothing.
async fn stand_still(agent: &Agent) {
    agent.process.signal(Signal::SIGSTOP);
    tokio::time::sleep(Duration::from_secs(1)).await;
    agent.process.signal(Signal::SIGCONT);
    // It asks the kernel at its next packets.
    tokio::time::sleep(Duration::from_secs(2)).await;
}

/// What an agent's `/metrics` say of one name, over all its series.
fn metric(admin: SocketAddr, name: &str) -> u64 {
    let (_, text) = get(admin, "/metrics").unwrap_or_default();
    let series = text.lines().filter_map(|line| line.strip_prefix(name));
    let values = series.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok());
    values.sum()
}

/// Memory of a process that is not a file's, in KiB.
fn anonymous(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let mut lines = status.lines();
    let line = lines.find_map(|line| line.strip_prefix("RssAnon:"));
    let number = line.and_then(|line| line.trim().strip_suffix(" kB"));
    number
        .and_then(|kib| kib.parse().ok())
        .expect("a number of kB")
}
