//! What becomes of wakes while the API server and its store are dead, and after they have come back
//! with their data. Only a real one can tell: its caches are cold, and for a while it knows neither
//! roles nor tokens nor the APIs that others serve.

use std::{path::Path, time::Duration};

use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use kubevirt_wol::crd::WolConfig;
use nix::sys::signal::Signal;
use serde_json::json;

use crate::common::{
    cluster::{Agent, Cluster, Manager, eventually},
    envtest::{Envtest, Tokens},
    kubevirt::vm::{RunStrategy, vm},
    process::{free_tcp, free_udp},
    trust::NAMESPACE,
};

const NS: &str = "home";
const VMS: usize = 5;
const OPENED: &str = r#"kubevirt_wol_events_total{verdict="opened"}"#;

/// What a manager is told, so that a slow machine, on which the API server takes a minute to come
/// back, is no excuse.
const PATIENT: [&str; 2] = ["--event-ttl", "2m"];

/// Longer than any wake takes once everything is up: what is not repeated by then is not repeated.
const A_WHILE: Duration = Duration::from_secs(2);

fn mac(n: usize) -> String {
    format!("52:54:00:00:02:{n:02x}")
}

fn name(n: usize) -> String {
    format!("desktop-{n}")
}

struct World {
    cluster: Cluster,
    api: &'static Envtest,
}

impl World {
    /// VMs that are off, a manager that leads, and an agent that has its settings.
    async fn ready(&self) -> (Manager, Agent) {
        let c = &self.cluster;
        c.fresh().await;
        c.install_crd().await;
        c.namespace(NS).await;
        c.config("default", json!({"discoveryMode": "All"})).await;
        for n in 0..VMS {
            c.kubevirt.add(&vm(NS, &name(n)).mac(&mac(n))).await;
        }
        let manager = self.manager(&free_tcp().to_string());
        manager.ready().await;
        let agent = c.agent("node-1", &manager, free_udp());
        eventually("the manager knows every VM, and leads", async || {
            let known = manager.metric("kubevirt_wol_directory_virtual_machines");
            known > 4.5 && manager.metric("kubevirt_wol_leader") > 0.5
        })
        .await;
        (manager, agent)
    }

    fn manager(&self, grpc: &str) -> Manager {
        let grpc = grpc.parse().unwrap();
        self.cluster.manager_at(grpc, &PATIENT)
    }

    /// Restarts the API server, and waits until it says that it serves.
    fn back(&self) {
        self.api.restart(Tokens::Own);
        self.api.wait_until_ready();
    }

    /// Waits until these VMs run. Each was started by one call that took effect, and booted once.
    async fn started_once(&self, vms: impl Iterator<Item = usize> + Clone) {
        for n in vms.clone() {
            self.cluster
                .kubevirt
                .wait_for_status(NS, &name(n), "Running")
                .await;
        }
        tokio::time::sleep(A_WHILE).await;
        for n in vms {
            let codes = self.cluster.kubevirt.codes(NS, &name(n));
            let effective = codes.iter().filter(|code| **code == 202).count();
            assert_eq!(effective, 1, "{}: {codes:?}", name(n));
            assert_eq!(self.cluster.kubevirt.boots(NS, &name(n)), 1, "{}", name(n));
        }
    }
}

async fn opened(manager: &Manager, wakes: f64) {
    eventually("the wakes are with the manager", async || {
        manager.metric(OPENED) > wakes - 0.5
    })
    .await;
}

/// All on one API server, since it takes long to come.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_server_that_dies_and_comes_back_costs_no_wake() {
    let program = Path::new(env!("CARGO_BIN_EXE_kubevirt-wol"));
    let Some((cluster, api)) = Cluster::own(program).await else {
        return;
    };
    let world = World { cluster, api };
    packets_heard_meanwhile_start_their_vms_once(&world).await;
    calls_that_it_dies_on_are_made_once_in_the_end(&world).await;
    a_manager_restarted_meanwhile_is_told_by_the_agent(&world).await;
    changes_right_after_are_seen(&world).await;
    a_manager_whose_token_is_refused_goes_on(&world).await;
    api.kill();
}

async fn packets_heard_meanwhile_start_their_vms_once(w: &World) {
    let (manager, agent) = w.ready().await;
    w.api.kill();
    for n in 0..VMS {
        agent.hears(&mac(n));
    }
    opened(&manager, 5.0).await;
    // Longer than the agent's window: copies that are reported, and join.
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    for n in 0..VMS {
        agent.hears(&mac(n));
    }
    w.back();
    w.started_once(0..VMS).await;
    leads_and_tells_again(w, &manager).await;
}

async fn calls_that_it_dies_on_are_made_once_in_the_end(w: &World) {
    let (manager, agent) = w.ready().await;
    let calls = |number: f64| {
        let under_way = "kubevirt_wol_api_calls_under_way";
        (manager.metric(under_way) - number).abs() < 0.5
    };
    // Killed before virt-api has acted on them, or after, as it comes.
    w.cluster.kubevirt.delay(Duration::from_millis(300));
    for n in 0..VMS {
        agent.hears(&mac(n));
    }
    eventually("every call is under way", async || calls(5.0)).await;
    tokio::time::sleep(Duration::from_millis(fastrand::u64(0..600))).await;
    w.api.kill();
    eventually("no call is under way", async || calls(0.0)).await;
    w.cluster.kubevirt.delay(Duration::ZERO);
    w.back();
    w.started_once(0..VMS).await;
}

/// The Lease is held and renewed, and what changes comes to the status.
async fn leads_and_tells_again(w: &World, manager: &Manager) {
    eventually("it leads again", async || {
        manager.metric("kubevirt_wol_leader") > 0.5
    })
    .await;
    let leases = Api::<Lease>::namespaced(w.cluster.client.clone(), NAMESPACE);
    let renewed = async || {
        let lease = leases.get("kubevirt-wol-manager").await.unwrap();
        lease.spec.unwrap().renew_time.unwrap().0
    };
    let before = renewed().await;
    eventually("the Lease is renewed", async || renewed().await > before).await;
    let late = vm(NS, "late").mac("52:54:00:00:02:ff");
    w.cluster.kubevirt.add(&late).await;
    let configs = Api::<WolConfig>::all(w.cluster.client.clone());
    eventually("the status counts the VM that is new", async || {
        let config = configs.get("default").await.unwrap();
        let status = serde_json::to_value(config.status).unwrap();
        status["managedVMs"] == 6
    })
    .await;
}

async fn a_manager_restarted_meanwhile_is_told_by_the_agent(w: &World) {
    let (mut manager, agent) = w.ready().await;
    w.api.kill();
    // With the manager, which defers them, ...
    agent.hears(&mac(0));
    opened(&manager, 1.0).await;
    manager.process.signal(Signal::SIGKILL);
    manager.process.ended(Duration::from_secs(5));
    // ... and with nobody but the agent.
    agent.hears(&mac(1));
    let manager = w.manager(&manager.grpc.to_string());
    w.back();
    manager.ready().await;
    w.started_once(0..2).await;
}

async fn changes_right_after_are_seen(w: &World) {
    let (manager, agent) = w.ready().await;
    w.api.kill();
    w.back();
    // Before the manager can have noticed that the server is back.
    let on = json!({"spec": {"runStrategy": "Always"}});
    w.cluster.kubevirt.edit(NS, &name(0), on).await;
    w.cluster.kubevirt.delete(NS, &name(1)).await;
    let young = vm(NS, "young").mac("52:54:00:00:02:aa");
    let young = young.run_strategy(RunStrategy::Manual);
    w.cluster.kubevirt.add(&young).await;
    eventually("a VM that was made right after wakes", async || {
        agent.hears("52:54:00:00:02:aa");
        tokio::time::sleep(Duration::from_millis(50)).await;
        w.cluster.kubevirt.boots(NS, "young") > 0
    })
    .await;
    w.cluster
        .kubevirt
        .wait_for_status(NS, &name(0), "Running")
        .await;
    let outcome = |outcome| {
        let series = format!(r#"kubevirt_wol_wakes_total{{outcome="{outcome}"}}"#);
        manager.metric(&series)
    };
    let before = (outcome("already-on"), outcome("not-found"));
    agent.hears(&mac(0));
    agent.hears(&mac(1));
    eventually("one is on, the other gone", async || {
        (outcome("already-on"), outcome("not-found")) == (before.0 + 1.0, before.1 + 1.0)
    })
    .await;
    assert_eq!(w.cluster.kubevirt.codes(NS, &name(0)), [0_u16; 0]);
}

async fn a_manager_whose_token_is_refused_goes_on(w: &World) {
    let (manager, agent) = w.ready().await;
    w.api.kill();
    w.api.restart(Tokens::Foreign);
    w.api.wait_until_ready();
    manager
        .process
        .wait_for("it is refused", Duration::from_secs(20), |line| {
            line.text.contains("401") || line.text.contains("Unauthorized")
        });
    agent.hears(&mac(0));
    tokio::time::sleep(A_WHILE).await;
    assert_eq!(w.cluster.kubevirt.boots(NS, &name(0)), 0);
    w.api.kill();
    w.back();
    leads_and_tells_again(w, &manager).await;
    agent.hears(&mac(1));
    w.started_once(0..2).await;
}
