//! A node on a LAN with an agent that has what its pod has: uid 0, the capabilities that are named,
//! and nothing to write to. Its manager says what the test says.

use std::net::UdpSocket;

use kubevirt_wol::rpc::pb;
use tokio::runtime::{Builder, Runtime};

use super::{
    OURS,
    fake_manager::{FakeManager, Session},
    kernel::Privileges,
    netns::{Host, Switch},
    process::Process,
    wait_for,
};

/// Makes everything read-only for the program that follows. What cannot be is found by the test.
const READ_ONLY: &str = r#"
    for place in $(cut -d' ' -f5 /proc/self/mountinfo | sort -r); do
        mount -o remount,bind,ro "$place" 2>/dev/null
    done
    exec "$@""#;

/// By name, so that a thread that looks it up is among those that are judged.
const MANAGER: &str = "localhost:9090";

/// Main thread, two workers, and the one that looks up names.
const THREADS: usize = 4;

/// What is declared first ends first.
pub struct Node {
    agent: Option<(Process, Session)>,
    manager: FakeManager,
    /// Its threads are on the node.
    runtime: Runtime,
    generation: u64,
    pub host: Host,
    pub lan: Switch,
    sender: Host,
}

impl Node {
    /// A node that is plugged in by `lan0`, without an agent.
    pub fn new() -> Self {
        let lan = Switch::new("lan");
        let [sender, host] = ["sender", "node"].map(Host::new);
        sender.plug(&lan, "lan0", Some("10.77.0.1/24"));
        host.plug(&lan, "lan0", Some("10.77.0.11/24"));
        let runtime = host.thread(|| {
            let mut builder = Builder::new_multi_thread();
            builder.worker_threads(1).enable_all().build().unwrap()
        });
        let runtime = runtime.join().unwrap();
        let handle = runtime.handle().clone();
        let listening =
            host.thread(move || handle.block_on(FakeManager::start("[::]:9090".parse().unwrap())));
        Self {
            agent: None,
            manager: listening.join().unwrap(),
            runtime,
            generation: 0,
            host,
            lan,
            sender,
        }
    }

    /// Starts the agent with these capabilities, as `setpriv` writes them, and waits for its
    /// session.
    pub fn start_agent(&mut self, capabilities: &str, flags: &[&str]) {
        let mut command = self.host.command("unshare");
        command.args(["--mount", "sh", "-c", READ_ONLY, "sh", "setpriv"]);
        command.args(["--inh-caps=-all", "--ambient-caps=-all"]);
        command.arg(format!("--bounding-set=-all{capabilities}"));
        command.args([OURS, "agent", "--insecure", "--node-name=node-1"]);
        command.args(["--manager", MANAGER]).args(flags);
        let agent = Process::spawn_command("agent", command);
        let (_, session) = self.runtime.block_on(self.manager.accept());
        self.agent = Some((agent, session));
    }

    /// The agent's process.
    pub fn pid(&self) -> u32 {
        self.agent.as_ref().unwrap().0.pid()
    }

    /// What its threads may do, which is the same for all.
    pub fn privileges(&self) -> Privileges {
        let all = wait_for("all threads", || {
            let all = Privileges::of_threads(self.pid());
            (all.len() >= THREADS).then_some(all)
        });
        let first = all[0].clone();
        assert!(all.iter().all(|one| *one == first), "{all:#?}");
        first
    }

    /// Asks the agent to listen on these ports, and gives what it says of each that it cannot open.
    pub fn ask_for(&mut self, ports: &[u16]) -> Vec<String> {
        self.generation += 1;
        let settings = pb::Configuration {
            generation: self.generation,
            udp_ports: ports.iter().copied().map(u32::from).collect(),
            dedup_window_ms: 2_000,
            event_ttl_ms: 30_000,
            filters: vec![pb::SourceFilter::default()],
            ..pb::Configuration::default()
        };
        let (_, session) = self.agent.as_mut().unwrap();
        let status = self.runtime.block_on(session.configure(settings));
        assert!(status.accepted, "{status:?}");
        let listeners = status.listeners.into_iter();
        let failed = listeners.filter(|listener| !listener.error.is_empty());
        failed
            .map(|listener| format!("{}: {}", listener.name, listener.error))
            .collect()
    }

    /// Somebody on the LAN sends a packet, by `kubevirt-wol send` with these words; returns how the
    /// agent heard it.
    pub fn hears(&mut self, last: u8, words: &str) -> pb::Event {
        let mac = format!("52:54:00:00:00:{last:02x}");
        let mut args = vec!["send", &mac];
        args.extend(words.split(' '));
        self.sender.run(OURS, &args);
        let (_, session) = self.agent.as_mut().unwrap();
        self.runtime.block_on(async {
            loop {
                let event = session.event().await;
                if event.mac.last() == Some(&last) {
                    return event;
                }
            }
        })
    }

    /// Plugs the node in once more, without an address of its own but the one that IPv6 makes.
    pub fn plug_later(&self) {
        self.host.plug(&self.lan, "new0", None);
    }

    /// Another process of the node takes a port.
    pub fn take(&self, port: u16) -> UdpSocket {
        let take = move || UdpSocket::bind(("0.0.0.0", port)).unwrap();
        self.host.thread(take).join().unwrap()
    }
}
