//! Three managers, three agents, and a broadcast that every agent hears.

use kube::Api;
use kubevirt_wol::crd::WolConfig;
use nix::sys::signal::Signal;
use serde_json::json;

use crate::common::{
    cluster::{Agent, Cluster, Manager, eventually, send},
    kubevirt::vm::vm,
    process::{free_tcp, free_udp},
};

const NS: &str = "home";
const VMS: usize = 60;
const REPLICAS: [&str; 3] = ["manager-a", "manager-b", "manager-c"];

fn mac(n: usize) -> String {
    format!("52:54:00:00:01:{n:02x}")
}

fn name(n: usize) -> String {
    format!("desktop-{n}")
}

/// Managers that know all VMs, and agents that have a session with each of them.
struct World {
    managers: Vec<Manager>,
    agents: Vec<Agent>,
    port: u16,
}

async fn world(c: &Cluster) -> World {
    c.install_crd().await;
    c.namespace(NS).await;
    let port = free_udp();
    c.config("default", json!({"wolPorts": [port]})).await;
    for n in 0..VMS {
        c.kubevirt.add(&vm(NS, &name(n)).mac(&mac(n))).await;
    }
    let start = |replica: &&str| c.manager_at(free_tcp(), &["--replica-id", replica]);
    let managers: Vec<_> = REPLICAS.iter().map(start).collect();
    let mut agents = Vec::new();
    for node in ["node-1", "node-2", "node-3"] {
        agents.push(c.agent_of(node, &managers, port));
    }
    for manager in &managers {
        manager.ready().await;
        eventually("every agent has a session with every manager", async || {
            manager.metric("kubevirt_wol_configured_agents") > 2.5
        })
        .await;
        eventually("it knows every VM", async || {
            let known = manager.metric("kubevirt_wol_directory_virtual_machines");
            known > 59.5
        })
        .await;
    }
    World {
        managers,
        agents,
        port,
    }
}

impl World {
    fn wake(&self, vms: std::ops::Range<usize>) {
        for n in vms {
            send("127.255.255.255", self.port, &mac(n));
        }
    }
}

/// Waits until every VM runs; each was booted once.
async fn all_started_once(c: &Cluster) {
    for n in 0..VMS {
        c.kubevirt.wait_for_status(NS, &name(n), "Running").await;
        assert_eq!(c.kubevirt.boots(NS, &name(n)), 1, "{}", name(n));
    }
}

fn events(manager: &Manager, verdict: &str) -> f64 {
    manager.metric(&format!(
        r#"kubevirt_wol_events_total{{verdict="{verdict}"}}"#
    ))
}

pub(crate) async fn the_copies_of_a_wake_meet_in_one_of_three_managers(c: &Cluster) {
    let world = world(c).await;
    world.wake(0..VMS);
    all_started_once(c).await;
    for n in 0..VMS {
        let calls = c.kubevirt.codes(NS, &name(n));
        assert_eq!(calls, [202], "one manager alone called {}", name(n));
    }
    for agent in &world.agents {
        assert!(
            (0..VMS).all(|n| agent.heard(&mac(n)) == 1),
            "{}",
            agent.node
        );
    }
    let shares = world.managers.iter().map(|one| events(one, "opened"));
    let shares: Vec<f64> = shares.collect();
    assert!(
        (shares.iter().sum::<f64>() - 60.0).abs() < 0.5,
        "{shares:?}"
    );
    assert!(shares.iter().all(|share| *share > 7.5), "{shares:?}");
    eventually("every copy came to the manager of the first", async || {
        let copies = |manager| events(manager, "joined") + events(manager, "answered");
        let copies: f64 = world.managers.iter().map(copies).sum();
        (copies - 120.0).abs() < 0.5
    })
    .await;
}

pub(crate) async fn a_manager_that_is_killed_costs_no_wake(c: &Cluster) {
    let world = world(c).await;
    world.wake(0..VMS / 2);
    world.managers[1].process.signal(Signal::SIGKILL);
    world.wake(VMS / 2..VMS);
    all_started_once(c).await;
}

pub(crate) async fn the_status_counts_the_agents_of_all_managers_once(c: &Cluster) {
    let _world = world(c).await;
    let configs = Api::<WolConfig>::all(c.client.clone());
    eventually("the status counts three agents", async || {
        let config = configs.get("default").await.unwrap();
        let status = serde_json::to_value(config.status).unwrap();
        let agents = &status["agentStatus"];
        agents["connected"] == 3 && agents["configured"] == 3
    })
    .await;
}
