//! Many packets at the agent's port: does a real wake come through, and what does it cost?

use std::{
    net::UdpSocket,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::{
    bed::{Bed, mac, packet, quantile, unknown},
    process,
    table::Table,
};

/// Packets per second that nothing may be lost of.
const FLOOD: u32 = 20_000;

/// VMs whose addresses an attacker knows.
const KNOWN: u32 = 100;

const SPENT: Duration = Duration::from_secs(15);

/// Packets between two looks at how much the agent has still to read.
const STRIDE: u32 = 256;

/// Bytes queued for the agent at which the sender waits: a quarter of what its socket may hold.
const ENOUGH: u64 = 1 << 20;

/// Makes the packet with a number.
type Make = fn(u32) -> Vec<u8>;

/// Sends packets at a steady rate until it is stopped.
struct Flood {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<u32>,
}

impl Flood {
    /// `make` makes the packet with a number; the senders take turns.
    fn start(senders: Vec<UdpSocket>, rate: u32, make: Make) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            let start = Instant::now();
            let mut sent = 0;
            while !stopped.load(Ordering::Relaxed) {
                let due = start.elapsed().as_micros() * u128::from(rate) / 1_000_000;
                while u128::from(sent) < due && !stopped.load(Ordering::Relaxed) {
                    let socket = &senders[sent as usize % senders.len()];
                    socket.send(&make(sent)).expect("loopback can be sent to");
                    sent += 1;
                }
                thread::sleep(Duration::from_micros(500));
            }
            sent
        });
        Self { stop, thread }
    }

    /// How many packets were sent.
    fn stop(self) -> u32 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the flood goes on")
    }
}

/// Bytes as long as a magic packet that are none.
fn junk(number: u32) -> Vec<u8> {
    number.to_be_bytes().repeat(26)[..102].to_vec()
}

/// The packet for an address that no VM has.
fn stranger(number: u32) -> Vec<u8> {
    packet(unknown(number))
}

/// A packet for one of the first VMs, different from all others by what follows the pattern.
fn known(number: u32) -> Vec<u8> {
    let mut packet = packet(mac(number % KNOWN));
    packet.extend(number.to_be_bytes());
    packet
}

/// Single packets for 60 VMs while others come in masses; under heavier floods, each three times.
pub(crate) async fn floods(table: &mut Table) {
    during(table, "junk", FLOOD, junk).await;
    during(table, "unknown addresses", FLOOD, stranger).await;
    for rate in [50_000, 90_000] {
        during(table, "unknown addresses", rate, stranger).await;
        during(table, "100 VMs' addresses", rate, known).await;
    }
}

async fn during(table: &mut Table, what: &str, rate: u32, make: Make) {
    let flags = ["--start-rate=1000", "--wakeable-macs-interval=1s"];
    let mut bed = Bed::new(&flags).await;
    let numbers = bed.vms(KNOWN + 60).await.split_off(KNOWN as usize);
    bed.knows_what_is_wakeable().await;
    let flood = Flood::start(bed.senders(), rate, make);
    let start = Instant::now();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let copies = if rate > FLOOD { 3 } else { 1 };
    let mut sent = Vec::new();
    for number in numbers {
        sent.push((number, bed.wake(number)));
        for _ in 1..copies {
            tokio::time::sleep(Duration::from_millis(100)).await;
            bed.wake(number);
        }
        tokio::time::sleep(Duration::from_millis(80)).await;
    }
    let times = bed.times(&sent, Duration::from_secs(5)).await;
    let took = start.elapsed();
    let packets = flood.stop();
    let rate = u128::from(packets) * 1_000_000 / took.as_micros();
    table.all(
        format!("wakes of {copies} packets during {rate}/s of {what}"),
        times.len() as u64,
        60,
    );
    table.time("  packet to start call: p99", quantile(&times, 0.99), None);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let lost = bed.lost();
    let heard = u64::from(packets) - lost.min(packets.into());
    if copies == 1 {
        table.all("  packets of the flood not lost", heard, packets.into());
    } else {
        table.count("  packets of the flood not lost", heard, None);
    }
    let resident = process::own(bed.agent.process.pid());
    table.memory("  the agent's own memory", resident, Some(10 << 10));
}

/// As fast as the agent reads: what it takes, and what it holds afterwards.
pub(crate) async fn addresses(table: &mut Table) {
    let bed = Bed::new(&[]).await;
    let pid = bed.agent.process.pid();
    let same = packet(unknown(0));
    let (sent, took, used) = paced(&bed, 300_000, |_| same.clone());
    let what = "agent: repeats read per second, as fast as they are sent";
    table.rate(what, per_second(sent, took), None);
    let what = "  per second of processor time";
    table.rate(what, per_second(sent, used), Some(90_000));
    let limit = Duration::from_micros(4);
    table.time("  processor time for each", used / sent, Some(limit));
    table.count("  lost by the agent", bed.lost(), Some(0));

    let (sent, took, used) = paced(&bed, 1_000_000, |n| packet(unknown(n)));
    let what = "agent: distinct addresses read per second, as fast as they are sent";
    table.rate(what, per_second(sent, took), None);
    table.time(
        "  processor time for each, reporting it included",
        used / sent,
        None,
    );
    let socket = r#"kubevirt_wol_agent_kernel_dropped_packets_total{socket="udp"}"#;
    table.count("  dropped by the kernel", bed.agent_metric(socket), Some(0));
    table.count("  lost by the agent in any way", bed.lost(), None);
    let resident = process::resident(pid);
    table.memory(
        format!("agent after {sent} addresses: resident"),
        resident,
        Some(10 << 10),
    );
    table.memory("  of that not the program's file", process::own(pid), None);
}

/// Sends so many packets, as fast as the agent reads them and no longer than [`SPENT`]: how many
/// there were, how long that took, and the agent's processor time.
fn paced(bed: &Bed, count: u32, make: impl Fn(u32) -> Vec<u8>) -> (u32, Duration, Duration) {
    let (pid, start) = (bed.agent.process.pid(), Instant::now());
    let before = process::cpu(pid);
    let mut sent = 0;
    while sent < count && start.elapsed() < SPENT {
        for number in sent..sent + STRIDE {
            bed.send(&make(number));
        }
        sent += STRIDE;
        while process::queued(bed.agent.port) > ENOUGH {
            thread::yield_now();
        }
    }
    while process::queued(bed.agent.port) > 0 {
        thread::yield_now();
    }
    (
        sent,
        start.elapsed(),
        process::cpu(pid).saturating_sub(before),
    )
}

fn per_second(count: u32, time: Duration) -> u64 {
    let rate = u128::from(count) * 1_000_000 / time.as_micros().max(1);
    u64::try_from(rate).unwrap_or(u64::MAX)
}
