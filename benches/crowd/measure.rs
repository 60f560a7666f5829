//! The figures: the storm, the memory, the broadcasts, the flood.

use std::{
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant, SystemTime},
};

use crate::{
    agent::Order,
    cluster::{UNTHROTTLED, cluster, delays, knows, mac, quantile, starts},
    common::cluster::Manager,
    fleet::{Fleet, tokens, way},
    process,
    table::Table,
};

const BROADCASTS: u32 = 20;

/// What is given back after a storm is given back by then, and all agents have the filter.
const SETTLED: Duration = Duration::from_secs(3);

/// How long the manager is watched with nothing to do, twice as long as a connection may be silent.
const IDLE: Duration = Duration::from_secs(20);

/// How long a flood is measured, and how long it runs before.
const SPAN: Duration = Duration::from_secs(5);
const LEAD: Duration = Duration::from_secs(1);

/// After this time it is given up, and the table shows what is missing.
const PATIENCE: Duration = Duration::from_secs(120);

const STORM: Duration = Duration::from_secs(10);
const ACK: Duration = Duration::from_millis(250);

pub(crate) async fn all(table: &mut Table, agents: u32) {
    let cluster = cluster(0..BROADCASTS).await;
    let tokens = tokens(&cluster, agents).await;
    let manager = cluster.manager(&UNTHROTTLED).await;
    knows(&manager, BROADCASTS).await;
    let pid = manager.process.pid();
    let way = way(&cluster, &manager).await;
    tokio::time::sleep(SETTLED).await;

    let (before, cpu) = (process::resident(pid), process::cpu(pid));
    let (fleet, time) = Fleet::come(&way, &tokens, PATIENCE).await;
    let connected = fleet.tally.connected.load(Relaxed);
    table.all("agents connected and configured", connected, agents.into());
    table.time("  all at once: the last one after", time, Some(STORM));
    let spent = process::cpu(pid).saturating_sub(cpu);
    table.time(
        "  the manager's processor time for each",
        spent / agents,
        None,
    );
    let failures = fleet.tally.failures.load(Relaxed);
    table.count("  attempts that failed", failures, None);
    displaced(table, &manager);
    let memory = |table: &mut Table, when: &str, budget| {
        let grown = process::resident(pid).saturating_sub(before);
        let what = format!("manager: resident for each agent{when}");
        table.memory(what, grown / u64::from(agents), budget);
    };
    tokio::time::sleep(SETTLED).await;
    memory(table, "", Some(64));
    idle(table, pid).await;

    let heard = broadcasts(table, &fleet, agents).await;
    let times = delays(&cluster, &heard, PATIENCE / 10).await;
    table.time(
        "broadcast heard to start call: p50",
        quantile(&times, 0.5),
        None,
    );
    table.time("  longest", quantile(&times, 1.0), Some(ACK));
    let starts = starts(&cluster);
    table.all("VMs started", starts.len() as u64, BROADCASTS.into());
    let calls: usize = starts.values().map(Vec::len).sum();
    table.count("  start calls", calls as u64, Some(BROADCASTS.into()));
    memory(table, ", after the broadcasts", Some(64));

    for (window, budget) in [(1, None), (16, Some(30_000))] {
        flood(table, &fleet, &manager, (window, budget)).await;
    }
    tokio::time::sleep(SETTLED).await;
    memory(table, ", after the floods", Some(64));
    let lost = fleet.tally.lost.load(Relaxed);
    table.count("sessions lost meanwhile", lost, Some(0));
    fleet.complain();
}

/// Handshakes that gave up their places to others: honest agents are quick, unless processors are not.
fn displaced(table: &mut Table, manager: &Manager) {
    let series = r#"kubevirt_wol_handshakes_total{outcome="displaced"}"#;
    let displaced = manager.metric(series);
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a number of handshakes"
    )]
    let displaced = displaced as u64;
    table.count("  of those displaced by others", displaced, None);
}

/// What it costs that the agents are there and do nothing.
async fn idle(table: &mut Table, pid: u32) {
    let before = process::cpu(pid);
    tokio::time::sleep(IDLE).await;
    let spent = process::cpu(pid).saturating_sub(before);
    let what = format!("manager: processor time in {IDLE:?}, all agents idle");
    table.time(what, spent, None);
}

/// Every agent hears the same packet, for one VM after the other: with the moments of that.
async fn broadcasts(table: &mut Table, fleet: &Fleet, agents: u32) -> Vec<(u32, SystemTime)> {
    let (mut first, mut last, mut heard) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..BROADCASTS {
        let before = fleet.tally.settled.load(Relaxed);
        heard.push((number, SystemTime::now()));
        fleet.order(Order::Report(mac(number), Instant::now()));
        fleet
            .settled(before + u64::from(agents), PATIENCE / 10)
            .await;
        let [mut firsts, mut lasts] = fleet.tally.take_acks();
        first.append(&mut firsts);
        last.append(&mut lasts);
        tokio::time::sleep(LEAD / 4).await;
    }
    let all = u64::from(agents) * u64::from(BROADCASTS);
    table.all("broadcasts: reports settled", last.len() as u64, all);
    for (what, times, limit) in [
        ("first answer", first, None),
        ("final answer", last, Some(ACK)),
    ] {
        let what = format!("broadcast heard to {what}");
        table.time(format!("{what}: p50"), quantile(&times, 0.5), None);
        table.time("  p99", quantile(&times, 0.99), limit);
        table.time("  longest", quantile(&times, 1.0), None);
    }
    heard
}

/// Every agent keeps so many events unanswered.
async fn flood(
    table: &mut Table,
    fleet: &Fleet,
    manager: &Manager,
    (window, budget): (u32, Option<u64>),
) {
    let pid = manager.process.pid();
    fleet.order(Order::Flood(window));
    tokio::time::sleep(LEAD).await;
    let settled = || fleet.tally.settled.load(Relaxed);
    let (count, cpu, begin) = (settled(), process::cpu(pid), Instant::now());
    tokio::time::sleep(SPAN).await;
    let (count, spent) = (settled() - count, process::cpu(pid).saturating_sub(cpu));
    let rate = u128::from(count) * 1_000 / begin.elapsed().as_millis().max(1);
    fleet.order(Order::Nothing);
    let what = format!("events acknowledged, {window} at once from every agent");
    table.rate(what, u64::try_from(rate).unwrap_or(u64::MAX), budget);
    let each = spent / u32::try_from(count).unwrap_or(u32::MAX).max(1);
    table.time("  processor time of the manager for each", each, None);
    tokio::time::sleep(LEAD).await;
}
