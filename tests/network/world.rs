//! A cluster on real networks: nodes with real agents, and a real manager, on a management network;
//! a LAN by which packets come to the nodes.

use std::{
    path::Path,
    process::Command,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use kubevirt_wol::mac::MacAddr;
use serde_json::json;
use tokio::runtime::{Builder, Runtime};

use super::senders::OURS;
use crate::common::{
    cluster::{Cluster, Manager, SOON, eventually, get},
    kubevirt::vm::vm,
    netns::{Host, Switch},
    process::Process,
    trust::Security,
};

/// Where agents reach the manager.
pub(crate) const MANAGER: &str = "10.99.0.1:9090";
/// A second start would come within this time: senders and nodes repeat a wake within less than a
/// second, and an agent sends what was not answered again after two.
const SECOND_START: Duration = Duration::from_secs(3);
/// Where each agent tells its metrics, on its own host.
const ADMIN: &str = "127.0.0.1:8081";
/// Where the VMs are.
const NAMESPACE: &str = "default";

/// The cluster. What is declared first ends first.
pub(crate) struct World {
    manager: Manager,
    cluster: Arc<Cluster>,
    /// Its threads are on the control plane's host.
    runtime: Runtime,
    /// Where people send from: 10.77.0.1 on the LAN.
    pub(crate) sender: Host,
    pub(crate) lan: Switch,
    management: Switch,
    control_plane: Host,
}

/// A node and its agent.
pub(crate) struct Node {
    agent: Option<Process>,
    pub(crate) host: Host,
    pub(crate) name: String,
}

/// The address of VM `number`.
pub(crate) fn mac(number: u16) -> MacAddr {
    let [high, low] = number.to_be_bytes();
    MacAddr::new([0x52, 0x54, 0, 0, high, low])
}

fn name(number: u16) -> String {
    format!("vm-{number}")
}

impl World {
    /// Starts the control plane, with VMs 1 to `vms`, which are off.
    pub(crate) fn new(vms: u16) -> Self {
        Self::with(vms, &[])
    }

    /// The same, with options for the manager.
    pub(crate) fn with(vms: u16, options: &'static [&'static str]) -> Self {
        let lan = Switch::new("lan");
        let sender = Host::new("sender");
        sender.plug(&lan, "lan0", Some("10.77.0.1/24"));
        sender.ip("route add default dev lan0");
        let management = Switch::new("mgmt");
        let control_plane = Host::new("cp");
        control_plane.plug(&management, "mgmt0", Some("10.99.0.1/24"));
        let runtime = control_plane.thread(|| {
            let mut builder = Builder::new_multi_thread();
            builder.worker_threads(2).enable_all().build().unwrap()
        });
        let runtime = runtime.join().unwrap();
        let (cluster, manager) = on(&control_plane, &runtime, move || {
            control_plane_with(vms, options)
        });
        Self {
            manager,
            cluster: Arc::new(cluster),
            runtime,
            sender,
            lan,
            management,
            control_plane,
        }
    }

    /// Adds a node without an agent; `number` is the last byte of its address.
    pub(crate) fn node(&self, number: u8) -> Node {
        let name = format!("node{number}");
        let host = Host::new(&name);
        let address = format!("10.99.0.{number}/24");
        host.plug(&self.management, "mgmt0", Some(&address));
        Node {
            agent: None,
            host,
            name,
        }
    }

    /// Waits until VM `number` is running.
    pub(crate) fn expect_running(&self, number: u16) {
        let cluster = Arc::clone(&self.cluster);
        on(&self.control_plane, &self.runtime, move || async move {
            let name = name(number);
            let kubevirt = &cluster.kubevirt;
            kubevirt.wait_for_status(NAMESPACE, &name, "Running").await;
        });
    }

    /// Waits until each of the first `vms` has been started.
    pub(crate) fn expect_all_started(&self, vms: u16) {
        let deadline = Instant::now() + SOON;
        let is_off = |number: &u16| self.cluster.kubevirt.boots(NAMESPACE, &name(*number)) == 0;
        loop {
            let off: Vec<_> = (1..=vms).filter(is_off).collect();
            if off.is_empty() {
                return;
            }
            let log = || self.manager.process.text();
            assert!(Instant::now() < deadline, "{off:?} stay off: {}", log());
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// Waits for an Event on VM `number` that says `words`.
    pub(crate) fn expect_event(&self, number: u16, words: &str) {
        let cluster = Arc::clone(&self.cluster);
        let words = words.to_owned();
        on(&self.control_plane, &self.runtime, move || async move {
            let told = async || cluster.events(NAMESPACE, &name(number)).await;
            eventually(&format!("an Event says {words:?}"), async || {
                told().await.iter().any(|event| event.contains(&words))
            })
            .await;
        });
    }

    /// Waits for long enough to see a second start of any VM; then each of the first `vms` must
    /// have been started by one request.
    pub(crate) fn expect_no_second_start(&self, vms: u16) {
        thread::sleep(SECOND_START);
        let server = self.cluster.server().unwrap();
        let requests = server.requests();
        for number in 1..=vms {
            let path = format!(
                "/namespaces/{NAMESPACE}/virtualmachines/{}/start",
                name(number)
            );
            let starts = requests
                .iter()
                .filter(|request| request.path.ends_with(&path));
            let boots = self.cluster.kubevirt.boots(NAMESPACE, &name(number));
            let log = self.manager.process.text();
            assert_eq!((starts.count(), boots), (1, 1), "VM {number}: {log}");
        }
    }
}

/// Runs `work` on a host, where the runtime's threads are too.
fn on<T: Send + 'static, F: Future<Output = T>>(
    host: &Host,
    runtime: &Runtime,
    work: impl FnOnce() -> F + Send + 'static,
) -> T {
    let runtime = runtime.handle().clone();
    host.thread(move || runtime.block_on(work()))
        .join()
        .unwrap()
}

async fn control_plane_with(vms: u16, options: &[&str]) -> (Cluster, Manager) {
    let mut cluster = Cluster::stand_in(Path::new(OURS)).await;
    // What is of interest here is on the other side of the agents.
    cluster.security = Security::Insecure;
    cluster.install_crd().await;
    let ports = json!({"discoveryMode": "All", "wolPorts": [9, 7]});
    cluster.config("default", ports).await;
    for number in 1..=vms {
        let vm = vm(NAMESPACE, &name(number)).mac(&mac(number).to_string());
        cluster.kubevirt.add(&vm).await;
    }
    let manager = cluster.manager_at(MANAGER.parse().unwrap(), options);
    manager.ready().await;
    (cluster, manager)
}

impl Node {
    /// Adds a bridge as network plugins make it, and a pod that hangs on it.
    pub(crate) fn pod(&self, bridge: &str, gateway: &str, address: &str) -> Host {
        let pod = Host::new("pod");
        self.host
            .ip(&format!("link add {bridge} type bridge stp_state 0"));
        self.host.ip(&format!("address add {gateway} dev {bridge}"));
        self.host.ip(&format!("link set {bridge} up"));
        pod.ip(&format!(
            "link add eth0 type veth peer name veth0 netns {}",
            self.host.name()
        ));
        self.host.ip(&format!("link set veth0 master {bridge} up"));
        pod.ip("link set eth0 up");
        pod.ip(&format!("address add {address} dev eth0"));
        pod.ip("route add default dev eth0");
        pod
    }

    /// Starts the agent and waits until it hears and has the manager's settings.
    pub(crate) fn start_agent(&mut self) {
        self.start_agent_by(self.host.command(OURS));
    }

    /// The same, without a capability such as `net_raw`.
    pub(crate) fn start_agent_without(&mut self, capability: &str) {
        let mut command = self.host.command("setpriv");
        command.args([&format!("--bounding-set=-{capability}"), OURS]);
        self.start_agent_by(command);
    }

    fn start_agent_by(&mut self, mut command: Command) {
        command.args(["agent", "--insecure", "--node-name", &self.name]);
        command.args(["--manager", MANAGER, "--admin-bind", ADMIN]);
        let agent = Process::spawn_command(&self.name, command);
        agent.wait_for("configured", SOON, |line| line.message() == "configured");
        self.agent = Some(agent);
    }

    /// Waits until its agent has said that it cannot listen there, and how to mend that.
    pub(crate) fn expect_trouble(&self, listener: &str, remedy: &str) {
        let agent = self.agent.as_ref().unwrap();
        let what = format!("trouble with {listener}");
        let line = agent.wait_for(&what, SOON, |line| {
            line.field("listener") == listener && !line.field("reason").is_empty()
        });
        assert!(line.message().contains(remedy), "{}", line.message());
    }

    /// How many packets its agent has reported to the manager; repeats are not.
    pub(crate) fn reported(&self) -> u64 {
        self.sum(|series| {
            series.starts_with("kubevirt_wol_agent_packets_total{")
                && series.ends_with("verdict=\"reported\"}")
        })
    }

    /// What its agent's metrics say, summed over the series whose name and labels begin so.
    pub(crate) fn metric(&self, start: &str) -> u64 {
        self.sum(|series| series.starts_with(start))
    }

    /// Waits until a metric of its agent is above zero.
    pub(crate) fn wait_for(&self, start: &str) {
        let deadline = Instant::now() + SOON;
        while self.metric(start) == 0 {
            assert!(Instant::now() < deadline, "{start} stays 0");
            thread::sleep(Duration::from_millis(100));
        }
    }

    fn sum(&self, wanted: impl Fn(&str) -> bool) -> u64 {
        let metrics = self.host.thread(|| get(ADMIN.parse().unwrap(), "/metrics"));
        let (_, text) = metrics.join().unwrap().unwrap();
        let series = text.lines().filter_map(|line| line.rsplit_once(' '));
        let wanted = series.filter(|(series, _)| !series.starts_with('#') && wanted(series));
        wanted.map(|(_, value)| value.parse::<u64>().unwrap()).sum()
    }

    /// Its agent.
    pub(crate) fn agent(&self) -> &Process {
        self.agent.as_ref().unwrap()
    }
}
