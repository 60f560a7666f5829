//! Owns the programs of a cluster that run: managers and agents, and what is asked of them.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream, UdpSocket},
    time::Duration,
};

use kubevirt_wol::packet::MagicPacket;

use super::{
    super::process::{Process, free_tcp},
    super::trust::NAMESPACE,
    super::trust::Pod,
    Cluster, SOON, eventually,
};

/// Among its flags, a program has nothing to do with the cluster's security.
pub const INSECURE: &str = "--insecure";

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
    /// Who it is to the managers, where they ask for that.
    pub pod: Option<Pod>,
}

impl Cluster {
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
        let security = if flags.contains(&INSECURE) {
            Vec::new()
        } else {
            self.security.of_manager()
        };
        let mut args = vec!["manager", "--grpc-bind", &grpc_text];
        args.extend(security.iter().map(String::as_str));
        args.extend(["--admin-bind", &admin_text]);
        if !flags.contains(&"--namespace") {
            args.extend(["--namespace", NAMESPACE]);
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

    /// Starts an agent of several managers and does not wait.
    pub fn agent_of(&self, node: &str, managers: &[Manager], port: u16) -> Agent {
        let addresses: Vec<_> = managers.iter().map(|one| one.grpc.to_string()).collect();
        let port_text = port.to_string();
        self.spawn_agent(
            node,
            &addresses.join(","),
            port,
            &["--wol-port", &port_text],
        )
    }

    /// Starts an agent that listens where its manager says, and waits until it has been told.
    pub fn free_agent(&self, node: &str, manager: &Manager) -> Agent {
        let agent = self.spawn_agent(node, &manager.grpc.to_string(), 9, &[]);
        agent.configured();
        agent
    }

    /// Starts an agent and does not wait.
    pub fn agent_at(&self, node: &str, manager: SocketAddr, port: u16, flags: &[&str]) -> Agent {
        let port_text = port.to_string();
        let flags = [&["--wol-port", port_text.as_str()], flags].concat();
        self.spawn_agent(node, &manager.to_string(), port, &flags)
    }

    fn spawn_agent(&self, node: &str, manager: &str, port: u16, flags: &[&str]) -> Agent {
        let (pod, security) = if flags.contains(&INSECURE) {
            (None, Vec::new())
        } else {
            self.security.of_agent(node)
        };
        let mut args = vec!["agent", "--no-raw", "--node-name", node];
        args.extend(["--manager", manager]);
        args.extend(security.iter().map(String::as_str));
        args.extend(flags);
        Agent {
            process: Process::spawn(node, &self.program, &args),
            node: node.to_owned(),
            port,
            pod,
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
