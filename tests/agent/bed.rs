//! An agent in this process, packets for it, and a manager that says what it hears.

use std::{
    net::{Ipv6Addr, SocketAddr, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use kubevirt_wol::{agent, cli::AgentArgs, mac::MacAddr, packet::MagicPacket, rpc::pb};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_util::sync::CancellationToken;

use crate::fake_manager::{FakeManager, Session};

/// An agent on a thread of its own, as privileges belong to threads.
pub struct Agent {
    token: CancellationToken,
    thread: Option<thread::JoinHandle<anyhow::Result<()>>>,
}

impl Agent {
    /// Starts one.
    pub fn start(args: AgentArgs) -> Self {
        let token = CancellationToken::new();
        let stop = token.clone();
        let thread = thread::spawn(move || {
            let ears = agent::open(&args)?;
            agent::runtime()?.block_on(agent::run(args, ears, stop))
        });
        Self {
            token,
            thread: Some(thread),
        }
    }

    /// Asks it to end and waits; tells how long that took.
    pub fn stop(mut self) -> Duration {
        let start = Instant::now();
        self.token.cancel();
        self.thread.take().unwrap().join().unwrap().unwrap();
        start.elapsed()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.token.cancel();
    }
}

pub fn args(manager: SocketAddr, ports: &[u16]) -> AgentArgs {
    AgentArgs {
        node_name: "node-1".to_owned(),
        monitor: kubevirt_wol::cli::MonitorArgs::default(),
        managers: vec![manager.to_string()],
        token_file: "/nonexistent/token".into(),
        insecure: true,
        ca_file: "/nonexistent/ca.crt".into(),
        server_name: None,
        client_tls_dir: None,
        wol_ports: ports.to_vec(),
        no_raw: true,
        admin_bind: None,
        health_socket: None,
    }
}

/// An address where nobody listens yet.
pub fn free_address() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

pub fn free_port() -> u16 {
    let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).unwrap();
    socket.local_addr().unwrap().port()
}

pub fn magic(last: u8) -> Vec<u8> {
    let target = MacAddr::new([0x52, 0x54, 0, 0, 0, last]);
    MagicPacket::new(target, &[]).unwrap().to_bytes()
}

pub fn send(port: u16, payload: &[u8]) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.send_to(payload, ("127.0.0.1", port)).unwrap();
}

pub fn settings(generation: u64, ports: &[u16]) -> pb::Configuration {
    pb::Configuration {
        generation,
        udp_ports: ports.iter().copied().map(u32::from).collect(),
        dedup_window_ms: 2000,
        event_ttl_ms: 30_000,
        filters: vec![pb::SourceFilter::default()],
        ..pb::Configuration::default()
    }
}

/// A manager and an agent that listens on one port, as the manager asked.
pub async fn pair() -> (FakeManager, Session, Agent, u16) {
    let (address, port) = (free_address(), free_port());
    let mut manager = FakeManager::start(address).await;
    let agent = Agent::start(args(address, &[port]));
    let (_, mut session) = manager.accept().await;
    let status = session.configure(settings(1, &[port])).await;
    assert!(status.accepted, "{status:?}");
    (manager, session, agent, port)
}

pub fn millis(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

pub async fn wait_until_bound(port: u16) {
    let taken = || UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port)).is_err();
    for _ in 0..1000 {
        if taken() {
            return;
        }
        tokio::time::sleep(millis(10)).await;
    }
    panic!("port {port} is never opened");
}

/// The whole answer to a GET, headers included; tried again until somebody listens.
pub async fn get(address: SocketAddr, path: &str) -> String {
    for _ in 0..500 {
        if let Ok(mut stream) = tokio::net::TcpStream::connect(address).await {
            let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            return answer;
        }
        tokio::time::sleep(millis(10)).await;
    }
    panic!("nobody listens on {address}");
}
