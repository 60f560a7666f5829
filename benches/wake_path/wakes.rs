//! Wakes of known VMs: one at a time, and many at once.

use std::time::{Duration, Instant};

use http::Method;
use nix::sys::signal::Signal;

use crate::{
    bed::{Bed, quantile},
    process,
    table::Table,
};

/// Starts that nothing holds back.
const UNTHROTTLED: [&str; 4] = ["--start-rate", "100000", "--start-burst", "100000"];

const MS: Duration = Duration::from_millis(1);

/// From the packet to the call, with nothing else going on; what it costs at the API; the end.
pub(crate) async fn idle(table: &mut Table) {
    let mut bed = Bed::new(&UNTHROTTLED).await;
    tokio::time::sleep(500 * MS).await;
    let (agent, manager) = (bed.agent.process.pid(), bed.manager.process.pid());
    table.memory(
        "agent idle: resident",
        process::resident(agent),
        Some(10 << 10),
    );
    table.memory(
        "  of that not the program's file",
        process::own(agent),
        None,
    );
    table.memory(
        "manager without VMs: resident",
        process::resident(manager),
        Some(25 << 10),
    );
    table.memory(
        "  of that not the program's file",
        process::own(manager),
        None,
    );

    latency(table, &mut bed).await;
    end(table, bed);
}

/// From the packet to the call, one after the other, and what it costs at the API.
async fn latency(table: &mut Table, bed: &mut Bed) {
    let numbers = bed.vms(300).await;
    let mut sent = Vec::new();
    for number in numbers {
        sent.push((number, bed.wake(number)));
        tokio::time::sleep(20 * MS).await;
    }
    let times = bed.times(&sent, Duration::from_secs(5)).await;
    table.all("idle wakes that reached KubeVirt", times.len() as u64, 300);
    table.time(
        "packet to start call, idle: p50",
        quantile(&times, 0.5),
        Some(MS),
    );
    table.time(
        "packet to start call, idle: p99",
        quantile(&times, 0.99),
        Some(5 * MS),
    );
    table.time(
        "packet to start call, idle: longest",
        quantile(&times, 1.0),
        None,
    );

    let count = |method: Method, part: &str| {
        let requests = bed.requests().into_iter().filter(|request| {
            request.user_agent.starts_with("kubevirt-wol/")
                && request.method == method
                && request.path.contains(part)
        });
        requests.count() as u64
    };
    let starts = count(Method::PUT, "/start");
    let reads = count(Method::GET, "/virtualmachines/");
    table.count("start calls for 300 wakes", starts, Some(300));
    table.count("reads of a VM for 300 wakes", reads, Some(0));
}

/// How long an idle program takes to end.
fn end(table: &mut Table, mut bed: Bed) {
    let limit = Duration::from_secs(1);
    for (name, process) in [
        ("agent", &mut bed.agent.process),
        ("manager", &mut bed.manager.process),
    ] {
        let asked = Instant::now();
        process.signal(Signal::SIGTERM);
        process.ended(Duration::from_secs(15));
        table.time(
            format!("idle {name} on SIGTERM: gone after"),
            asked.elapsed(),
            Some(limit),
        );
    }
}

/// Known VMs woken back to back.
pub(crate) async fn bursts(table: &mut Table) {
    let mut bed = Bed::new(&UNTHROTTLED).await;
    burst(table, &mut bed, 100, "").await;
    drop(bed);

    let (rate, burst_of) = (100, 50);
    let flags = ["--start-rate", "100", "--start-burst", "50"];
    let mut bed = Bed::new(&flags).await;
    let span = burst(table, &mut bed, 1_000, ", throttled").await;
    let earliest = Duration::from_secs(1) * (1_000 - burst_of) / rate;
    table.time("  the throttle alone would take", earliest, None);
    assert!(span >= earliest.mul_f64(0.99), "faster than the throttle");
}

async fn burst(table: &mut Table, bed: &mut Bed, count: u32, how: &str) -> Duration {
    let numbers = bed.vms(count).await;
    let sent: Vec<_> = numbers.into_iter().map(|n| (n, bed.wake(n))).collect();
    let times = bed.times(&sent, Duration::from_secs(20)).await;
    let what = format!("{count} known VMs back to back{how}");
    table.all(format!("{what}: started"), times.len() as u64, count.into());
    table.count("  lost by the agent", bed.lost(), Some(0));
    table.count(
        "  start calls",
        bed.starts().len() as u64,
        Some(count.into()),
    );
    let span = quantile(&times, 1.0);
    table.time("  the last one after", span, None);
    span
}
