//! Owns the bed of a run: an API server with KubeVirt, managers and agents of the real program, and the
//! lines between them, each of which can be cut.

use std::{
    io::Write as _,
    net::{SocketAddr, UdpSocket},
    path::Path,
    process::Command,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use kubevirt_wol::packet::MagicPacket;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{
    plan::{BYSTANDERS, Plan, Who, mac, on_the_real, pace, replica},
    pulse::Pids,
    record::{Life, Record, What},
    wires::{Lan, Wire},
};
use crate::common::{
    apiserver::ApiServer,
    cluster::Cluster,
    kubevirt::vm::{RunStrategy, vm},
    netns::Host,
    process::{Process, free_tcp, free_udp},
    trust::{NAMESPACE, Pod, Security, Trust},
};

/// Where the VMs are.
pub(crate) const HOME: &str = "home";
const PROGRAM: &str = env!("CARGO_BIN_EXE_kubevirt-wol");

/// The name of a VM.
pub(crate) fn name(vm: usize) -> String {
    format!("vm-{vm}")
}

async fn cluster(vms: usize) -> Cluster {
    let program = Path::new(PROGRAM);
    let cluster = if on_the_real() {
        let own = Cluster::own(program).await;
        own.expect("there are programs for a real one").0
    } else {
        Cluster::stand_in(program).await
    };
    cluster.install_crd().await;
    cluster.namespace(HOME).await;
    cluster
        .config("default", json!({"discoveryMode": "All"}))
        .await;
    for one in 0..vms {
        let vm = vm(HOME, &name(one)).mac(&mac(one).to_string());
        cluster.kubevirt.add(&vm.run_strategy(strategy(one))).await;
    }
    cluster
}

/// What a VM's owner asked for; a third of them each.
pub(crate) fn strategy(vm: usize) -> RunStrategy {
    match vm % 3 {
        0 => RunStrategy::Manual,
        1 => RunStrategy::RerunOnFailure,
        _ => RunStrategy::Halted,
    }
}

/// A place for a process that is started again and again.
#[derive(Default)]
pub(crate) struct Seat {
    pub(crate) process: Option<Process>,
    /// Those that ended, for their logs.
    pub(crate) old: Vec<Process>,
    /// It has been started and has not said yet that it is ready.
    pub(crate) awaited: bool,
    /// Ends when a manager is.
    pub(crate) ready: JoinSet<()>,
    /// It was asked to end, then.
    pub(crate) asked: Option<Instant>,
    /// It is to be started again once it has ended.
    pub(crate) again: bool,
}

pub(crate) struct Manager {
    pub(crate) seat: Seat,
    pub(crate) grpc: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) api: Wire,
    kubeconfig: tempfile::NamedTempFile,
}

pub(crate) struct Agent {
    pub(crate) seat: Seat,
    pub(crate) node: String,
    pub(crate) pod: Pod,
    flags: Vec<String>,
    port: u16,
    /// To each manager.
    pub(crate) wires: Vec<Wire>,
    /// The node's own network, where it has one.
    pub(crate) host: Option<Host>,
}

/// The bed. What is declared first ends first.
pub(crate) struct Bed {
    pub(crate) agents: Vec<Agent>,
    pub(crate) managers: Vec<Manager>,
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) lan: Option<Lan>,
    pub(crate) plan: Plan,
    pub(crate) pids: Pids,
    record: Arc<Mutex<Record>>,
    sabotage: Option<&'static str>,
}

impl Bed {
    /// Makes everything. The API server and KubeVirt run on `runtime`, so that what they have to do
    /// keeps no packet waiting.
    pub(crate) async fn new(
        plan: Plan,
        sabotage: Option<&'static str>,
        runtime: &tokio::runtime::Handle,
    ) -> Self {
        let cluster = runtime.spawn(cluster(plan.vms + BYSTANDERS)).await;
        let mut bed = Self {
            agents: Vec::new(),
            managers: Vec::new(),
            lan: plan.namespaces.then(Lan::new),
            cluster: Arc::new(cluster.expect("the cluster is made")),
            plan,
            pids: Pids::default(),
            record: Arc::default(),
            sabotage,
        };
        for one in 0..bed.plan.managers {
            let manager = bed.seat_for_manager().await;
            bed.managers.push(manager);
            bed.start(Who::Manager(one));
        }
        for one in 0..bed.plan.agents {
            let agent = bed.seat_for_agent(one).await;
            bed.agents.push(agent);
            bed.start(Who::Agent(one));
        }
        bed
    }

    async fn seat_for_manager(&self) -> Manager {
        let (address, text) = self.cluster.way_of_managers();
        let api = Wire::to(address).await;
        let (from, to) = (address.to_string(), api.address().to_string());
        let mut kubeconfig = tempfile::NamedTempFile::new().expect("a file can be made");
        let text = text.replace(&from, &to);
        let written = kubeconfig.write_all(text.as_bytes());
        written.expect("the kubeconfig can be written");
        Manager {
            seat: Seat::default(),
            grpc: free_tcp(),
            admin: free_tcp(),
            api,
            kubeconfig,
        }
    }

    async fn seat_for_agent(&self, one: usize) -> Agent {
        let node = format!("node-{one}");
        let (pod, flags) = self.cluster.security.of_agent(&node);
        let host = self.lan.as_ref().map(|lan| lan.node(one));
        let mut wires = Vec::new();
        for manager in &self.managers {
            wires.push(Wire::from(host.as_ref(), manager.grpc).await);
        }
        Agent {
            seat: Seat::default(),
            port: if host.is_some() { 9 } else { free_udp() },
            node,
            pod: pod.expect("it has a pod"),
            flags,
            wires,
            host,
        }
    }

    /// Starts a process where none runs.
    pub(crate) fn start(&mut self, who: Who) {
        if self.seat(who).process.is_some() {
            return;
        }
        let (name, command) = match who {
            Who::Manager(one) => (replica(one), self.manager_command(one)),
            Who::Agent(one) => (self.agents[one].node.clone(), self.agent_command(one)),
        };
        let process = Process::spawn_command(&name, command);
        lock(&self.pids).push(process.pid());
        let mut ready = JoinSet::new();
        if let Who::Manager(one) = who {
            ready.spawn(is_ready(self.managers[one].admin));
        }
        let seat = self.seat_mut(who);
        (seat.process, seat.ready) = (Some(process), ready);
        (seat.awaited, seat.asked, seat.again) = (true, None, false);
        self.record().add(What::Life(who, Life::Spawned));
    }

    fn manager_command(&self, one: usize) -> Command {
        let manager = &self.managers[one];
        let mut command = Command::new(PROGRAM);
        command.env("KUBECONFIG", manager.kubeconfig.path());
        command.args(["manager", "--namespace", NAMESPACE]);
        command.args(["--replica-id", &replica(one)]);
        command.args(["--grpc-bind", &manager.grpc.to_string()]);
        command.args(["--admin-bind", &manager.admin.to_string()]);
        let patience = self.plan.patience.as_secs_f64() * f64::from(pace());
        command.args(["--wake-deadline", &format!("{patience:.0}s")]);
        if self.plan.rotation {
            command.args(["--ca-lifetime", "180s", "--ca-publish-wait", "10s"]);
            command.args(["--leaf-lifetime", "40s"]);
        }
        self.hooks(&mut command);
        command
    }

    fn agent_command(&self, one: usize) -> Command {
        let agent = &self.agents[one];
        let mut command = match &agent.host {
            Some(host) => host.command(PROGRAM),
            None => Command::new(PROGRAM),
        };
        command.args(["agent", "--node-name", &agent.node]);
        if agent.host.is_none() {
            command.arg("--no-raw");
        }
        let managers = agent.wires.iter().map(|wire| wire.address().to_string());
        let managers: Vec<_> = managers.collect();
        command.args(["--manager", &managers.join(",")]);
        command.args(["--wol-port", &agent.port.to_string()]);
        command.args(&agent.flags);
        self.hooks(&mut command);
        command
    }

    fn hooks(&self, command: &mut Command) {
        command.args(["--time-scale", &pace().to_string()]);
        if let Some(mechanism) = self.sabotage {
            command.args(["--sabotage", mechanism]);
        }
    }

    /// Sends a packet for a VM.
    pub(crate) fn wake(&self, vm: usize, only: Option<usize>) {
        // The kernel would keep it until the interface is there again.
        let plugged = |agent| self.record().plugged(agent).contains(Instant::now());
        if only.is_some_and(|agent| !plugged(agent)) {
            return;
        }
        let packet = MagicPacket::new(mac(vm), &[]).expect("a station's address");
        let to: Vec<_> = match only {
            Some(agent) => vec![agent],
            None => (0..self.agents.len()).collect(),
        };
        self.record().add(What::Sent { vm, to: to.clone() });
        self.send(&packet.to_bytes(), only, &to);
    }

    fn send(&self, bytes: &[u8], only: Option<usize>, to: &[usize]) {
        if let Some(lan) = &self.lan {
            return lan.send(bytes, only);
        }
        let socket = UdpSocket::bind("127.0.0.1:0").expect("loopback can be bound");
        for agent in to {
            // Where nobody listens, nobody hears.
            let _ = socket.send_to(bytes, ("127.0.0.1", self.agents[*agent].port));
        }
    }

    /// A socket for a flood, and where it goes to.
    pub(crate) fn flooding(&self) -> (Arc<UdpSocket>, Vec<SocketAddr>) {
        if let Some(lan) = &self.lan {
            return lan.flooding();
        }
        let socket = UdpSocket::bind("127.0.0.2:0").expect("loopback can be bound");
        let ports = self.agents.iter().map(|agent| agent.port);
        let to = ports.map(|port| ([127, 0, 0, 1], port).into()).collect();
        (Arc::new(socket), to)
    }

    pub(crate) fn seat(&self, who: Who) -> &Seat {
        match who {
            Who::Agent(one) => &self.agents[one].seat,
            Who::Manager(one) => &self.managers[one].seat,
        }
    }

    pub(crate) fn seat_mut(&mut self, who: Who) -> &mut Seat {
        match who {
            Who::Agent(one) => &mut self.agents[one].seat,
            Who::Manager(one) => &mut self.managers[one].seat,
        }
    }

    /// All places for processes.
    pub(crate) fn everybody(&self) -> Vec<Who> {
        let agents = (0..self.plan.agents).map(Who::Agent);
        agents
            .chain((0..self.plan.managers).map(Who::Manager))
            .collect()
    }

    /// For what only the stand-in can be told to do.
    pub(crate) fn server(&self) -> &ApiServer {
        self.cluster.server().expect("it is the stand-in")
    }

    pub(crate) fn trust(&self) -> &Trust {
        match &self.cluster.security {
            Security::Own(trust) => trust,
            Security::Insecure => panic!("nobody is insecure here"),
        }
    }

    /// For what keeps its own record.
    pub(crate) fn shared_record(&self) -> Arc<Mutex<Record>> {
        self.record.clone()
    }

    pub(crate) fn record(&self) -> MutexGuard<'_, Record> {
        lock(&self.record)
    }
}

/// What several tasks change, none of which leaves it half changed.
pub(crate) fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Asks a manager until it is ready.
async fn is_ready(admin: SocketAddr) {
    loop {
        let asked = timeout(Duration::from_millis(500), ask(admin)).await;
        if asked.is_ok_and(|answer| answer.is_ok_and(|text| text.starts_with("HTTP/1.0 200"))) {
            return;
        }
        sleep(Duration::from_millis(20)).await;
    }
}

async fn ask(admin: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(admin).await?;
    stream.write_all(b"GET /readyz HTTP/1.0\r\n\r\n").await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    Ok(text)
}
