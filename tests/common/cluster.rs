//! A cluster to test in: an API server, the stand-in or the real one, with KubeVirt simulated on
//! it, and the real program's manager and agents as processes on loopback.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream, UdpSocket},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use k8s_openapi::{
    api::core::v1::{Event, Namespace},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
    runtime::{conditions, wait::await_condition},
};
use kubevirt_wol::{
    crd::{self, WolConfig},
    packet::MagicPacket,
};
use serde_json::{Value, json};

use super::{
    apiserver::ApiServer,
    envtest::Envtest,
    kubevirt::{KubeVirt, Speed},
    line::Line,
    process::{Process, free_tcp},
};

/// The group of virt-api, and its versions.
const SUBRESOURCES: (&str, [&str; 2]) = ("subresources.kubevirt.io", ["v1", "v1alpha3"]);

/// How long anything may take that is expected to happen: far more than it needs.
pub const SOON: Duration = Duration::from_secs(20);

/// Who answers for the API.
pub enum ApiBackend {
    /// The stand-in, in this process.
    StandIn(ApiServer),
    /// A real kube-apiserver, shared by all tests of this process.
    Real(&'static Envtest),
}

/// An API server with KubeVirt, and where the program is.
pub struct Cluster {
    pub api: ApiBackend,
    pub client: Client,
    pub kubevirt: KubeVirt,
    program: PathBuf,
    kubeconfig: PathBuf,
    _file: Option<tempfile::NamedTempFile>,
    /// What managers reach the API server by, and their kubeconfig.
    line: Line,
    by_line: tempfile::NamedTempFile,
}

/// A running manager.
pub struct Manager {
    pub process: Process,
    pub grpc: SocketAddr,
    pub admin: SocketAddr,
}

/// A running agent.
pub struct Agent {
    pub process: Process,
    pub node: String,
    pub port: u16,
}

impl Cluster {
    /// A new cluster on the stand-in.
    pub async fn stand_in(program: &Path) -> Self {
        let server = ApiServer::start().await;
        let client = server.client();
        let kubevirt = KubeVirt::start(client.clone(), Speed::default()).await;
        for version in SUBRESOURCES.1 {
            server.aggregate(SUBRESOURCES.0, version, kubevirt.router());
        }
        let file = server.kubeconfig_file();
        let (line, by_line) = line_to(server.address(), &server.kubeconfig()).await;
        Self {
            line,
            by_line,
            client,
            kubevirt,
            program: program.to_owned(),
            kubeconfig: file.path().to_owned(),
            _file: Some(file),
            api: ApiBackend::StandIn(server),
        }
    }

    /// The real API server; none, told loudly, where there is no program for it.
    pub async fn real(program: &Path) -> Option<Self> {
        let envtest = Envtest::shared()?;
        let client = envtest.client().await;
        let kubevirt = KubeVirt::start(client.clone(), Speed::default()).await;
        kubevirt.register().await;
        let (line, by_line) = line_to(envtest.address(), &envtest.kubeconfig()).await;
        Some(Self {
            line,
            by_line,
            client,
            kubevirt,
            program: program.to_owned(),
            kubeconfig: envtest.kubeconfig_path().to_owned(),
            _file: None,
            api: ApiBackend::Real(envtest),
        })
    }

    /// The stand-in, where the cluster is on it: for what only a stand-in can be told to do.
    pub fn server(&self) -> Option<&ApiServer> {
        match &self.api {
            ApiBackend::StandIn(server) => Some(server),
            ApiBackend::Real(_) => None,
        }
    }

    /// The kubeconfig file of an administrator.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Removes what an earlier test left.
    pub async fn fresh(&self) {
        if let ApiBackend::Real(envtest) = &self.api {
            envtest.fresh().await;
            self.kubevirt.forget();
        }
    }

    /// Installs the definition of `WolConfig` and waits until it is served.
    pub async fn install_crd(&self) {
        let api = Api::<CustomResourceDefinition>::all(self.client.clone());
        let name = "wolconfigs.wol.pillon.org";
        let params = PatchParams::apply("test").force();
        let result = api
            .patch(name, &params, &Patch::Apply(crd::definition()))
            .await;
        result.expect("the definition is taken");
        let served = await_condition(api, name, conditions::is_crd_established());
        tokio::time::timeout(SOON, served)
            .await
            .expect("in time")
            .expect("it is served");
    }

    /// Removes the definition of `WolConfig` and waits until it is gone.
    pub async fn remove_crd(&self) {
        let api = Api::<CustomResourceDefinition>::all(self.client.clone());
        let name = "wolconfigs.wol.pillon.org";
        // Absent is as good.
        let _ = api.delete(name, &DeleteParams::default()).await;
        eventually("the definition is gone", async || {
            api.get_opt(name).await.expect("the API answers").is_none()
        })
        .await;
    }

    /// Makes a namespace, where it is not there yet.
    pub async fn namespace(&self, name: &str) {
        let namespace: Namespace =
            serde_json::from_value(json!({"metadata": {"name": name}})).expect("a namespace");
        let api = Api::<Namespace>::all(self.client.clone());
        match api.create(&PostParams::default(), &namespace).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.is_already_exists() => {}
            Err(error) => panic!("cannot make namespace {name}: {error}"),
        }
    }

    /// Creates or replaces a `WolConfig`.
    pub async fn config(&self, name: &str, spec: Value) {
        let object = json!({
            "apiVersion": "wol.pillon.org/v1beta1", "kind": "WolConfig",
            "metadata": {"name": name}, "spec": spec,
        });
        let params = PatchParams::apply("test").force();
        let api = Api::<WolConfig>::all(self.client.clone());
        let result = api.patch(name, &params, &Patch::Apply(&object)).await;
        result.expect("the WolConfig is taken");
    }

    /// Creates a `WolConfig` of thousands of entries. The stand-in takes it unseen: its rules, in a
    /// test's build, would take a minute for it.
    pub async fn large_config(&self, name: &str, spec: Value) {
        let object = json!({
            "apiVersion": "wol.pillon.org/v1beta1", "kind": "WolConfig",
            "metadata": {"name": name}, "spec": spec,
        });
        if let ApiBackend::StandIn(server) = &self.api {
            return server.seed([object]);
        }
        let object = serde_json::from_value(object).expect("a WolConfig");
        let api = Api::<WolConfig>::all(self.client.clone());
        let result = api.create(&PostParams::default(), &object).await;
        result.expect("the WolConfig is taken");
    }

    /// Deletes a `WolConfig`.
    pub async fn delete_config(&self, name: &str) {
        let api = Api::<WolConfig>::all(self.client.clone());
        let result = api.delete(name, &DeleteParams::default()).await;
        result.expect("the WolConfig can be deleted");
    }

    /// The Events of a VM, as "reason: message".
    pub async fn events(&self, namespace: &str, vm: &str) -> Vec<String> {
        let api = Api::<Event>::namespaced(self.client.clone(), namespace);
        let params = ListParams::default().fields(&format!("involvedObject.name={vm}"));
        let events = api.list(&params).await.expect("Events can be listed");
        let line = |event: Event| {
            let (reason, message) = (event.reason, event.message);
            format!(
                "{}: {}",
                reason.unwrap_or_default(),
                message.unwrap_or_default()
            )
        };
        events.into_iter().map(line).collect()
    }

    /// Starts a manager and waits until it is ready.
    pub async fn manager(&self, flags: &[&str]) -> Manager {
        let manager = self.manager_at(free_tcp(), flags);
        manager.ready().await;
        manager
    }

    /// Starts a manager on an address and does not wait.
    pub fn manager_at(&self, grpc: SocketAddr, flags: &[&str]) -> Manager {
        let admin = free_tcp();
        let (grpc_text, admin_text) = (grpc.to_string(), admin.to_string());
        let mut args = vec!["manager", "--insecure", "--grpc-bind", &grpc_text];
        args.extend(["--admin-bind", &admin_text]);
        if !flags.contains(&"--namespace") {
            args.extend(["--namespace", "default"]);
        }
        args.extend(flags);
        let mut command = std::process::Command::new(&self.program);
        command.args(args).env("KUBECONFIG", self.by_line.path());
        let process = Process::spawn_command("manager", command);
        Manager {
            process,
            grpc,
            admin,
        }
    }

    /// Starts an agent of a node and waits until it has the manager's settings.
    pub fn agent(&self, node: &str, manager: &Manager, port: u16) -> Agent {
        let agent = self.agent_at(node, manager.grpc, port, &[]);
        agent.configured();
        agent
    }

    /// Starts an agent that listens where its manager says, and waits until it has been told.
    pub fn free_agent(&self, node: &str, manager: &Manager) -> Agent {
        let manager = manager.grpc.to_string();
        let mut args = vec!["agent", "--insecure", "--no-raw", "--node-name", node];
        args.extend(["--manager", &manager]);
        let agent = Agent {
            process: Process::spawn(node, &self.program, &args),
            node: node.to_owned(),
            port: 9,
        };
        agent.configured();
        agent
    }

    /// Starts an agent and does not wait.
    pub fn agent_at(&self, node: &str, manager: SocketAddr, port: u16, flags: &[&str]) -> Agent {
        let (manager, port_text) = (manager.to_string(), port.to_string());
        let mut args = vec!["agent", "--insecure", "--no-raw", "--node-name", node];
        args.extend(["--manager", &manager, "--wol-port", &port_text]);
        args.extend(flags);
        let process = Process::spawn(node, &self.program, &args);
        Agent {
            process,
            node: node.to_owned(),
            port,
        }
    }

    /// Cuts the managers off from the API server, or lets them reach it again. For everybody else
    /// it goes on.
    pub fn cut_off(&self, cut: bool) {
        self.line.cut(cut);
    }

    /// The API away and back again: nobody answers meanwhile.
    pub fn api_away(&self, away: bool) {
        match (&self.api, away) {
            (ApiBackend::StandIn(server), away) => server.faults().away(away),
            (ApiBackend::Real(envtest), true) => envtest.freeze(),
            (ApiBackend::Real(envtest), false) => envtest.thaw(),
        }
    }
}

/// A line to a server, and the kubeconfig that leads over it.
async fn line_to(server: SocketAddr, kubeconfig: &str) -> (Line, tempfile::NamedTempFile) {
    let line = Line::to(server).await;
    let file = tempfile::NamedTempFile::new().expect("a file can be made");
    let text = kubeconfig.replace(&server.to_string(), &line.address().to_string());
    std::fs::write(file.path(), text).expect("the kubeconfig can be written");
    (line, file)
}

impl Cluster {
    /// virt-api's group known to nobody, as where KubeVirt is being removed, and there again.
    pub async fn virt_api_absent(&self, absent: bool) {
        match (&self.api, absent) {
            (ApiBackend::Real(_), true) => self.kubevirt.unregister().await,
            (ApiBackend::Real(_), false) => self.kubevirt.register().await,
            (ApiBackend::StandIn(server), absent) => {
                let (group, versions) = SUBRESOURCES;
                for version in versions {
                    if absent {
                        server.remove_aggregate(group, version);
                    } else {
                        server.aggregate(group, version, self.kubevirt.router());
                    }
                }
            }
        }
    }
}

impl Manager {
    /// Waits until it says that it is ready.
    pub async fn ready(&self) {
        let admin = self.admin;
        eventually("the manager is ready", async || {
            get(admin, "/readyz").is_some_and(|(code, _)| code == 200)
        })
        .await;
    }

    /// What `/metrics` says of one series, or 0.
    pub fn metric(&self, series: &str) -> f64 {
        let (_, text) = get(self.admin, "/metrics").expect("metrics are served");
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.map_or(0.0, |value| value.trim().parse().expect("a number"))
    }
}

impl Agent {
    /// Waits until it has taken over a manager's settings.
    pub fn configured(&self) {
        self.process
            .wait_for("configured", SOON, |line| line.message() == "configured");
    }

    /// How many wakes for this address it reported.
    pub fn heard(&self, mac: &str) -> usize {
        let lines = self.process.lines();
        lines.iter().filter(|line| line.field("mac") == mac).count()
    }

    /// Sends a magic packet to it, once.
    pub fn hears(&self, mac: &str) {
        send("127.0.0.1", self.port, mac);
    }
}

/// Sends one magic packet to an address of loopback; 127.255.255.255 reaches every agent there.
pub fn send(address: &str, port: u16, mac: &str) {
    let packet = MagicPacket::new(mac.parse().expect("a MAC address"), &[]);
    let socket = UdpSocket::bind("127.0.0.1:0").expect("loopback can be bound");
    socket
        .set_broadcast(true)
        .expect("broadcast can be allowed");
    let bytes = packet.expect("a station's address").to_bytes();
    socket
        .send_to(&bytes, (address, port))
        .expect("loopback can be sent to");
}

/// Waits until `holds`.
pub async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !holds().await {
        assert!(Instant::now() < deadline, "not within {SOON:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A GET over plain HTTP/1.0; none where nobody answers.
pub fn get(address: SocketAddr, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let code = head.split(' ').nth(1)?.parse().ok()?;
    Some((code, body.to_owned()))
}
