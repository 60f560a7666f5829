//! Two managers, agents, and what goes wrong between them.

mod faults;
mod raw;

use kubevirt_wol::{agent::route::Routes, mac::MacAddr};
use serde_json::json;

use crate::common::{
    cluster::{Agent, Cluster, Manager, eventually},
    kubevirt::vm::vm,
    process::{free_tcp, free_udp},
};

pub(crate) use faults::*;
pub(crate) use raw::*;

const NS: &str = "home";
const NAME: &str = "desktop";
const MAC: &str = "52:54:00:00:00:01";
const REPLICAS: [&str; 2] = ["manager-a", "manager-b"];

/// A namespace, a config that makes everything wakeable, and a VM that is off.
async fn cluster(c: &Cluster) {
    c.install_crd().await;
    c.namespace(NS).await;
    c.config("default", json!({})).await;
    c.kubevirt.add(&vm(NS, NAME).mac(MAC)).await;
}

/// The manager that wakes for an address go to, another one, and an agent of both.
struct World {
    home: Manager,
    other: Manager,
    agent: Agent,
}

/// The name of the replica that is the home of the VM's address, and that of the other.
fn names() -> (&'static str, &'static str) {
    let mut routes = Routes::default();
    for name in REPLICAS {
        routes.insert(name.into());
    }
    let target: MacAddr = MAC.parse().unwrap();
    match routes.best(target, &[]).unwrap() {
        home if **home == *REPLICAS[0] => (REPLICAS[0], REPLICAS[1]),
        _ => (REPLICAS[1], REPLICAS[0]),
    }
}

/// Two managers that know the VM.
async fn managers(c: &Cluster, flags: &[&str]) -> [Manager; 2] {
    let (home, other) = names();
    let both = [home, other].map(|name| {
        let flags = [&["--replica-id", name], flags].concat();
        c.manager_at(free_tcp(), &flags)
    });
    for manager in &both {
        manager.ready().await;
        knows_all(manager).await;
    }
    both
}

async fn knows_all(manager: &Manager) {
    eventually("it knows the VM", async || {
        manager.metric("kubevirt_wol_directory_virtual_machines") > 0.5
    })
    .await;
}

async fn world(c: &Cluster) -> World {
    cluster(c).await;
    let managers = managers(c, &[]).await;
    let agent = c.agent_of("node-1", &managers, free_udp());
    for manager in &managers {
        connected(manager).await;
    }
    let [home, other] = managers;
    World { home, other, agent }
}

/// Waits until an agent has a session and the settings.
async fn connected(manager: &Manager) {
    eventually("the agent has its settings", async || {
        manager.metric("kubevirt_wol_configured_agents") > 0.5
    })
    .await;
}

fn wakes(manager: &Manager, outcome: &str) -> f64 {
    manager.metric(&format!(
        r#"kubevirt_wol_wakes_total{{outcome="{outcome}"}}"#
    ))
}

/// Calls to start that a manager made.
fn calls(manager: &Manager) -> f64 {
    let answers = ["accepted", "recheck", "refused", "unavailable", "gone"];
    let calls = answers.map(|answer| {
        manager.metric(&format!(
            r#"kubevirt_wol_start_calls_total{{answer="{answer}"}}"#
        ))
    });
    calls.iter().sum()
}

async fn waits(manager: &Manager) {
    eventually("the wake waits", async || {
        manager.metric("kubevirt_wol_intents_open") > 0.5
    })
    .await;
}

/// The VM is stopping, for as long as the test wants.
async fn keep_stopping(c: &Cluster) {
    c.kubevirt.show(NS, NAME, "Stopping");
    c.kubevirt.stop(NS, NAME).await;
    c.kubevirt.wait_for_status(NS, NAME, "Stopping").await;
}
