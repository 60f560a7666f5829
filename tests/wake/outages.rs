//! What becomes of wakes while the manager cannot reach the API server.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{A_WHILE, MAC, NS, OTHER, ready, starts, wakes_soon};
use crate::common::{
    apiserver::{Failure, Fault, Request, WatchEnd, When},
    cluster::{Cluster, Manager, SOON, eventually},
    kubevirt::vm::{RunStrategy, vm},
    process::Line,
};

const NOT_FOUND: &str = r#"kubevirt_wol_wakes_total{outcome="not-found"}"#;
const ALREADY_ON: &str = r#"kubevirt_wol_wakes_total{outcome="already-on"}"#;
const PUT_OFF: &str = r#"kubevirt_wol_events_total{verdict="stale"}"#;
const FAILED: &str = r#"kubevirt_wol_start_calls_total{answer="unavailable"}"#;
const STALE: &str = "kubevirt_wol_stale_configs";
const THIRD: &str = "52:54:00:00:00:03";

async fn reaches(manager: &Manager, series: &str, value: f64) {
    eventually(&format!("{series} is {value}"), async || {
        (manager.metric(series) - value).abs() < 0.5
    })
    .await;
}

pub(crate) async fn an_outage_within_the_cache_ttl_changes_no_answer(c: &Cluster) {
    let (manager, agent) = ready(c).await;
    c.kubevirt.add(&vm(NS, "desktop").mac(MAC)).await;
    c.kubevirt.add(&vm(NS, "probe").mac(OTHER)).await;
    wakes_soon(c, &agent, OTHER, "probe").await;
    c.cut_off(true);
    let broken = r#"kubevirt_wol_watch_connected{resource="virtual-machines"}"#;
    reaches(&manager, broken, 0.0).await;
    let refused = manager.metric(NOT_FOUND);
    agent.hears(THIRD);
    reaches(&manager, NOT_FOUND, refused + 1.0).await;
    agent.hears(MAC);
    tokio::time::sleep(A_WHILE).await;
    c.cut_off(false);
    c.kubevirt.wait_for_status(NS, "desktop", "Running").await;
    assert_eq!(c.kubevirt.boots(NS, "desktop"), 1);
    assert!(manager.metric(PUT_OFF) < 0.5);
    reaches(&manager, broken, 1.0).await;
}

pub(crate) async fn nobody_is_told_that_a_vm_is_on_by_a_manager_that_cannot_know_it(c: &Cluster) {
    let (manager, agent) = ready(c).await;
    for (name, mac) in [("desktop", MAC), ("server", THIRD)] {
        let on = vm(NS, name).mac(mac).run_strategy(RunStrategy::Always);
        c.kubevirt.add(&on).await;
        c.kubevirt.wait_for_status(NS, name, "Running").await;
    }
    // Who sees the last one has seen the others.
    c.kubevirt.add(&vm(NS, "probe").mac(OTHER)).await;
    wakes_soon(c, &agent, OTHER, "probe").await;
    c.cut_off(true);
    let broken = r#"kubevirt_wol_watch_connected{resource="virtual-machines"}"#;
    reaches(&manager, broken, 0.0).await;
    c.kubevirt.stop(NS, "desktop").await;
    c.kubevirt.wait_for_status(NS, "desktop", "Stopped").await;
    agent.hears(MAC);
    agent.hears(THIRD);
    reaches(&manager, "kubevirt_wol_intents_open", 2.0).await;
    assert!(manager.metric(ALREADY_ON) < 0.5);
    c.cut_off(false);
    c.kubevirt.wait_for_status(NS, "desktop", "Running").await;
    reaches(&manager, ALREADY_ON, 1.0).await;
    assert_eq!((starts(c, "desktop"), starts(c, "server")), (1, 0));
    assert_eq!(c.kubevirt.boots(NS, "desktop"), 2);
}

pub(crate) async fn the_end_of_an_outage_is_told_although_nothing_has_changed(c: &Cluster) {
    let (manager, _agent) = ready(c).await;
    c.cut_off(true);
    let told = |line: &str| {
        let what = format!("told of the VMs: {line}");
        manager.process.wait_for(&what, SOON, |found| {
            found.message().contains(line) && found.field("resource") == "VirtualMachines"
        });
    };
    told("no answer from the API server");
    c.cut_off(false);
    told("watching again");
}

pub(crate) async fn a_wake_that_waits_for_the_api_is_started_as_soon_as_it_is_back(c: &Cluster) {
    let (manager, agent) = ready(c).await;
    c.kubevirt.add(&vm(NS, "desktop").mac(MAC)).await;
    c.kubevirt.add(&vm(NS, "probe").mac(OTHER)).await;
    wakes_soon(c, &agent, OTHER, "probe").await;
    c.cut_off(true);
    agent.hears(MAC);
    // By then its own pauses are longer than all that may happen afterwards.
    reaches(&manager, FAILED, 7.0).await;
    let back = Instant::now();
    c.cut_off(false);
    eventually("it is started", async || starts(c, "desktop") > 0).await;
    let took = back.elapsed();
    eprintln!("started {took:?} after the API was back");
    assert!(took < Duration::from_secs(2), "{took:?}");
    c.kubevirt.wait_for_status(NS, "desktop", "Running").await;
    assert_eq!(c.kubevirt.boots(NS, "desktop"), 1);
}

pub(crate) async fn a_wake_outlives_a_token_that_is_refused_for_a_while(c: &Cluster) {
    let (manager, agent) = ready(c).await;
    c.kubevirt.add(&vm(NS, "desktop").mac(MAC)).await;
    c.kubevirt.add(&vm(NS, "probe").mac(OTHER)).await;
    wakes_soon(c, &agent, OTHER, "probe").await;
    // Only the stand-in can be told to forget a token that is good.
    let Some(server) = c.server() else { return };
    let ours = When::matching(|request| {
        let agent = request.headers.get(http::header::USER_AGENT);
        agent.is_some_and(|agent| agent.as_bytes().starts_with(b"kubevirt-wol/"))
    });
    let refusing = server.faults().add(ours, Fault::unauthorized());
    server.faults().end_watches(WatchEnd::Reset);
    agent.hears(MAC);
    reaches(&manager, FAILED, 3.0).await;
    let told = |line: &Line| line.message().contains("the manager's token");
    manager.process.wait_for("what to look at", SOON, told);
    server.faults().remove(refusing);
    c.kubevirt.wait_for_status(NS, "desktop", "Running").await;
    assert_eq!(c.kubevirt.codes(NS, "desktop"), [202]);
    let forbidden = r#"kubevirt_wol_wakes_total{outcome="forbidden"}"#;
    assert!(manager.metric(forbidden) < 0.5);
}

pub(crate) async fn past_its_cache_ttl_the_manager_waits_to_know_what_it_missed(c: &Cluster) {
    let (manager, agent) = ready(c).await;
    c.config("default", json!({"cacheTTL": 1})).await;
    c.kubevirt.add(&vm(NS, "probe").mac(OTHER)).await;
    wakes_soon(c, &agent, OTHER, "probe").await;
    c.cut_off(true);
    reaches(&manager, STALE, 1.0).await;
    manager
        .process
        .wait_for("the outage is told", SOON, |line| {
            line.field("configs").contains("default") && line.message().contains("cacheTTL")
        });
    let refused = manager.metric(NOT_FOUND);
    // The one VM is made meanwhile, the other never.
    c.kubevirt.add(&vm(NS, "desktop").mac(MAC)).await;
    agent.hears(MAC);
    agent.hears(THIRD);
    eventually("both wakes are put off", async || {
        manager.metric(PUT_OFF) >= 2.0
    })
    .await;
    let unknown = manager.metric(NOT_FOUND) < refused + 0.5;
    assert!(unknown, "it cannot be known");
    c.cut_off(false);
    c.kubevirt.wait_for_status(NS, "desktop", "Running").await;
    assert_eq!(c.kubevirt.boots(NS, "desktop"), 1);
    reaches(&manager, NOT_FOUND, refused + 1.0).await;
    reaches(&manager, STALE, 0.0).await;
    manager.process.wait_for("the end is told", SOON, |line| {
        line.message().contains("every WolConfig counts again")
    });
}

pub(crate) async fn a_server_that_knows_no_rights_yet_refuses_no_wake(c: &Cluster) {
    // The real one is killed for that in tests/wake/restarts.rs.
    let Some(server) = c.server() else { return };
    let (manager, agent) = ready(c).await;
    c.kubevirt.add(&vm(NS, "desktop").mac(MAC)).await;
    c.kubevirt.add(&vm(NS, "probe").mac(OTHER)).await;
    wakes_soon(c, &agent, OTHER, "probe").await;
    c.cut_off(true);
    agent.hears(MAC);
    let opened = r#"kubevirt_wol_events_total{verdict="opened"}"#;
    reaches(&manager, opened, 2.0).await;
    let of_manager = |request: &http::request::Parts| {
        let agent = request.headers.get(http::header::USER_AGENT);
        agent.is_some_and(|name| name.as_bytes().starts_with(b"kubevirt-wol/"))
    };
    let nothing = json!({});
    let forbidden = Failure::new(403, "Forbidden", "no RBAC policy matched", nothing);
    let fault = Fault::Answer(forbidden);
    let fault = server.faults().add(When::matching(of_manager), fault);
    c.cut_off(false);
    let refused = r#"kubevirt_wol_api_requests_total{verb="put",answer="forbidden"}"#;
    eventually("a call is refused", async || {
        manager.metric(refused) > 0.5 && manager.metric(FAILED) > 0.5
    })
    .await;
    server.faults().remove(fault);
    c.kubevirt.wait_for_status(NS, "desktop", "Running").await;
    assert_eq!(c.kubevirt.codes(NS, "desktop"), [202]);
}

pub(crate) async fn each_config_counts_its_own_cache_ttl(c: &Cluster) {
    let (manager, agent) = ready(c).await;
    c.namespace("work").await;
    let patient = json!({"namespaceSelectors": ["work"], "cacheTTL": 300});
    c.config("patient", patient).await;
    let strict = json!({"namespaceSelectors": [NS], "cacheTTL": 0});
    c.config("default", strict).await;
    c.kubevirt.add(&vm(NS, "desktop").mac(MAC)).await;
    c.kubevirt.add(&vm("work", "laptop").mac(OTHER)).await;
    c.kubevirt.add(&vm(NS, "probe").mac(THIRD)).await;
    wakes_soon(c, &agent, THIRD, "probe").await;
    c.kubevirt.wait_for_status(NS, "probe", "Running").await;
    c.cut_off(true);
    reaches(&manager, STALE, 1.0).await;
    let opened = r#"kubevirt_wol_events_total{verdict="opened"}"#;
    let before = manager.metric(opened);
    agent.hears(OTHER);
    reaches(&manager, opened, before + 1.0).await;
    agent.hears(MAC);
    eventually("the other is put off", async || {
        manager.metric(PUT_OFF) >= 1.0
    })
    .await;
    assert_eq!(starts(c, "desktop"), 0);
    c.cut_off(false);
    c.kubevirt
        .wait_for_status("work", "laptop", "Running")
        .await;
    c.kubevirt.wait_for_status(NS, "desktop", "Running").await;
    assert_eq!(c.kubevirt.boots("work", "laptop"), 1);
    assert_eq!(c.kubevirt.boots(NS, "desktop"), 1);
}

pub(crate) async fn an_idle_manager_asks_the_api_for_nothing_but_changes(c: &Cluster) {
    let (manager, _agent) = ready(c).await;
    reaches(&manager, "kubevirt_wol_connected_agents", 1.0).await;
    // Until the status says what has come of it.
    tokio::time::sleep(Duration::from_secs(3)).await;
    // Only the stand-in tells what it was asked.
    let Some(server) = c.server() else { return };
    let own = || {
        let requests = server.requests().into_iter();
        requests.filter(|request| request.user_agent.starts_with("kubevirt-wol/"))
    };
    let watches = own().filter(Request::is_watch).count();
    assert!(watches >= 2, "{watches}");
    let before = own().count();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let others = own().skip(before).filter(|request| {
        !request.is_watch() && !request.path.contains("/leases/kubevirt-wol-manager")
    });
    let others: Vec<_> = others.map(|request| request.path).collect();
    assert!(others.is_empty(), "{others:?}");
}
