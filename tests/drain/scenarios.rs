//! Each told as: given a manager or an agent that is asked to end, when something is under way or in
//! its way, then this becomes of it.

use std::time::{Duration, Instant};

use kubevirt_wol::shutdown::{DRAIN, WITHIN};
use nix::sys::signal::Signal;
use serde_json::json;

use crate::common::{
    cluster::{Agent, Cluster, INSECURE, Manager, SOON, eventually},
    kubevirt::{Fault, vm::vm},
    process::{Process, free_tcp, free_udp},
    sessions::{Session, Way},
};

const NS: &str = "home";
const MAC: &str = "52:54:00:00:00:01";

/// Under a second, with room for a busy machine; whoever waits for something takes longer.
const AT_ONCE: Duration = Duration::from_millis(1_800);

async fn prepared(c: &Cluster) {
    c.install_crd().await;
    c.namespace(NS).await;
    c.config("default", json!({})).await;
}

fn address(n: u8) -> String {
    format!("52:54:00:00:00:{n:02x}")
}

/// VMs `desktop-1` and so on.
async fn desktops(c: &Cluster, count: u8) {
    for n in 1..=count {
        let desktop = vm(NS, &format!("desktop-{n}")).mac(&address(n));
        c.kubevirt.add(&desktop).await;
    }
}

/// Waits until a manager knows so many VMs.
async fn knows(manager: &Manager, vms: u8) {
    eventually("the manager knows all VMs", async || {
        manager.metric("kubevirt_wol_directory_virtual_machines") + 0.5 > f64::from(vms)
    })
    .await;
}

/// Waits until calls of a manager are under way.
async fn calls(manager: &Manager) {
    eventually("a call is under way", async || {
        manager.metric("kubevirt_wol_api_calls_under_way") > 0.5
    })
    .await;
}

/// Asks a process to end and waits for that; tells how long it took, and its exit code.
fn ended(process: &mut Process) -> (Duration, Option<i32>) {
    let asked = Instant::now();
    process.signal(Signal::SIGTERM);
    let code = process.ended(WITHIN + Duration::from_secs(1)).code();
    let took = asked.elapsed();
    eprintln!("ended after {took:?}");
    (took, code)
}

fn ends_at_once(process: &mut Process) {
    let (took, code) = ended(process);
    assert_eq!(code, Some(0));
    assert!(took < AT_ONCE, "{took:?}");
}

/// Two managers, and an agent with a session with each.
async fn pair(c: &Cluster, vms: u8) -> (Vec<Manager>, Agent) {
    prepared(c).await;
    desktops(c, vms).await;
    let start = |replica| c.manager_at(free_tcp(), &["--replica-id", replica]);
    let managers: Vec<Manager> = ["manager-a", "manager-b"].map(start).into();
    let agent = c.agent_of("node-1", &managers, free_udp());
    for manager in &managers {
        manager.ready().await;
        knows(manager, vms).await;
        eventually("the agent has a session with it", async || {
            manager.metric("kubevirt_wol_configured_agents") > 0.5
        })
        .await;
    }
    (managers, agent)
}

pub(crate) async fn who_is_idle_ends_at_once(c: &Cluster) {
    prepared(c).await;
    let mut manager = c.manager(&[]).await;
    let mut agent = c.agent("node-1", &manager, free_udp());
    let mut other = c.agent("node-2", &manager, free_udp());
    ends_at_once(&mut agent.process);
    ends_at_once(&mut manager.process);
    ends_at_once(&mut other.process);
}

pub(crate) async fn an_idle_manager_ends_at_once_although_the_api_hangs(c: &Cluster) {
    prepared(c).await;
    let mut manager = c.manager(&[]).await;
    let _agent = c.agent("node-1", &manager, free_udp());
    eventually("it leads", async || {
        manager.metric("kubevirt_wol_leader") > 0.5
    })
    .await;
    c.silence(true);
    // The next renewal hangs by then.
    tokio::time::sleep(Duration::from_secs(4)).await;
    ends_at_once(&mut manager.process);
    c.silence(false);
}

pub(crate) async fn an_idle_agent_ends_at_once_although_its_manager_hangs(c: &Cluster) {
    prepared(c).await;
    let manager = c.manager(&[]).await;
    let mut agent = c.agent("node-1", &manager, free_udp());
    manager.process.signal(Signal::SIGSTOP);
    ends_at_once(&mut agent.process);
    manager.process.signal(Signal::SIGCONT);
}

pub(crate) async fn a_start_under_way_is_finished_and_told_before_the_manager_ends(c: &Cluster) {
    prepared(c).await;
    desktops(c, 1).await;
    let mut manager = c.manager(&[INSECURE]).await;
    knows(&manager, 1).await;
    let way = Way {
        manager: manager.grpc,
        tls: None,
    };
    let session = Session::open(&way, "node-1", None).await.unwrap();
    c.kubevirt.delay(Duration::from_millis(400));
    session.event([0x52, 0x54, 0, 0, 0, 1]).await;
    calls(&manager).await;
    let (took, code) = ended(&mut manager.process);
    c.kubevirt.delay(Duration::ZERO);
    assert_eq!(code, Some(0));
    assert!(took < Duration::from_secs(5), "{took:?}");
    eventually("the agent is told", async || {
        session.record().ended.is_some()
    })
    .await;
    let record = session.record();
    let told = (record.settled.len(), record.deferred.len());
    assert_eq!(told, (1, 0), "{record:?}");
    assert!(record.ended.unwrap().contains("sent away"));
    assert_eq!(c.kubevirt.codes(NS, "desktop-1"), [202]);
    manager.process.wait_for("started", SOON, |line| {
        line.field("mac") == MAC && line.field("outcome") == "started"
    });
}

pub(crate) async fn a_start_that_takes_longer_is_seen_to_its_end_by_the_manager_that_made_it(
    c: &Cluster,
) {
    prepared(c).await;
    desktops(c, 1).await;
    let mut manager = c.manager(&[]).await;
    let agent = c.agent("node-1", &manager, free_udp());
    knows(&manager, 1).await;
    c.kubevirt.delay(Duration::from_secs(3));
    agent.hears(MAC);
    calls(&manager).await;
    let (took, code) = ended(&mut manager.process);
    c.kubevirt.delay(Duration::ZERO);
    assert_eq!(code, Some(0));
    assert!(took > Duration::from_secs(2) && took < DRAIN, "{took:?}");
    manager.process.wait_for("started", SOON, |line| {
        line.field("mac") == MAC && line.field("outcome") == "started"
    });
    c.kubevirt.wait_for_status(NS, "desktop-1", "Running").await;
    // The agent, which was only told to keep it, brings it to the next one, where it starts nothing.
    let next = c.manager_at(manager.grpc, &[]);
    next.ready().await;
    eventually("it is brought to the next one", async || {
        let outcome =
            |word| next.metric(&format!("kubevirt_wol_wakes_total{{outcome=\"{word}\"}}"));
        outcome("already-on") + outcome("duplicate") > 0.5
    })
    .await;
    assert_eq!(c.kubevirt.codes(NS, "desktop-1"), [202]);
}

pub(crate) async fn a_wake_that_a_manager_cannot_finish_is_finished_by_another(c: &Cluster) {
    let (mut managers, agent) = pair(c, 1).await;
    c.kubevirt.fault(Some(Fault::Hang));
    agent.hears(MAC);
    let mut asked = None;
    eventually("one of them calls", async || {
        let calling = |manager: &Manager| manager.metric("kubevirt_wol_api_calls_under_way") > 0.5;
        asked = managers.iter().position(calling);
        asked.is_some()
    })
    .await;
    let mut first = managers.remove(asked.unwrap());
    let (took, code) = ended(&mut first.process);
    assert_eq!(code, Some(0));
    assert!(took < WITHIN, "{took:?}");
    c.kubevirt.fault(None);
    c.kubevirt.wait_for_status(NS, "desktop-1", "Running").await;
    assert_eq!(c.kubevirt.boots(NS, "desktop-1"), 1);
}

pub(crate) async fn wakes_while_one_of_two_managers_drains_start_each_vm_once(c: &Cluster) {
    const VMS: u8 = 30;
    let (mut managers, agent) = pair(c, VMS).await;
    c.kubevirt.delay(Duration::from_millis(300));
    let mut first = managers.remove(0);
    for n in 1..=VMS {
        if n == VMS / 3 {
            first.process.signal(Signal::SIGTERM);
        }
        agent.hears(&address(n));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(first.process.ended(WITHIN).code(), Some(0));
    for n in 1..=VMS {
        let name = format!("desktop-{n}");
        c.kubevirt.wait_for_status(NS, &name, "Running").await;
        assert_eq!(c.kubevirt.boots(NS, &name), 1, "{name}");
    }
    c.kubevirt.delay(Duration::ZERO);
}

pub(crate) async fn the_next_manager_leads_as_soon_as_the_leader_has_ended(c: &Cluster) {
    prepared(c).await;
    let mut managers = vec![c.manager(&[]).await, c.manager(&[]).await];
    let leads = |manager: &Manager| manager.metric("kubevirt_wol_leader") > 0.5;
    let mut leader = None;
    eventually("one leads", async || {
        leader = managers.iter().position(leads);
        leader.is_some()
    })
    .await;
    let mut first = managers.remove(leader.unwrap());
    ends_at_once(&mut first.process);
    let since = Instant::now();
    eventually("the other one leads", async || leads(&managers[0])).await;
    let took = since.elapsed();
    eprintln!("led after {took:?}");
    // Two seconds are between two looks; fifteen is how long the Lease would hold.
    assert!(took < Duration::from_secs(4), "{took:?}");
}

pub(crate) async fn an_agent_ends_when_a_manager_has_what_it_heard(c: &Cluster) {
    prepared(c).await;
    desktops(c, 1).await;
    let grpc = free_tcp();
    let mut agent = c.agent_at("node-1", grpc, free_udp(), &[]);
    agent
        .process
        .wait_for("listening", SOON, |line| line.message() == "listening");
    agent.hears(MAC);
    agent
        .process
        .wait_for("heard", SOON, |line| line.field("mac") == MAC);
    agent.process.signal(Signal::SIGTERM);
    let _manager = c.manager_at(grpc, &[]);
    assert_eq!(agent.process.ended(WITHIN).code(), Some(0));
    c.kubevirt.wait_for_status(NS, "desktop-1", "Running").await;
}

pub(crate) async fn an_agent_that_no_manager_hears_ends_in_the_end(c: &Cluster) {
    let mut agent = c.agent_at("node-1", free_tcp(), free_udp(), &[]);
    agent
        .process
        .wait_for("listening", SOON, |line| line.message() == "listening");
    agent.hears(MAC);
    agent
        .process
        .wait_for("heard", SOON, |line| line.field("mac") == MAC);
    let (took, code) = ended(&mut agent.process);
    assert_eq!(code, Some(0));
    assert!(took > DRAIN / 2 && took < WITHIN, "{took:?}");
    agent.process.wait_for("what is lost", SOON, |line| {
        line.message().contains("no manager took all")
    });
}

pub(crate) async fn a_second_signal_ends_a_manager_and_an_agent_at_once(c: &Cluster) {
    prepared(c).await;
    desktops(c, 1).await;
    let mut manager = c.manager(&[]).await;
    let mut agent = c.agent("node-1", &manager, free_udp());
    knows(&manager, 1).await;
    c.kubevirt.fault(Some(Fault::Hang));
    agent.hears(MAC);
    calls(&manager).await;
    for process in [&mut manager.process, &mut agent.process] {
        process.signal(Signal::SIGTERM);
        process.wait_for("the first", SOON, |line| {
            line.message().contains("a second signal aborts")
        });
        tokio::time::sleep(Duration::from_millis(300)).await;
        let asked = Instant::now();
        process.signal(Signal::SIGTERM);
        assert_eq!(process.ended(SOON).code(), Some(1));
        assert!(asked.elapsed() < AT_ONCE, "{:?}", asked.elapsed());
    }
    c.kubevirt.fault(None);
}
