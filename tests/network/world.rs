//! A cluster on real networks: nodes with real agents, and a real manager, on a management network;
//! a LAN by which packets come to the nodes.

use std::{net::SocketAddr, time::Duration};

use kubevirt_wol::mac::MacAddr;

use super::{fake::Fake, senders::OURS};
use crate::common::{
    netns::{Host, Switch},
    process::Process,
};

/// Where agents reach the manager.
const MANAGER: &str = "10.99.0.1:9090";
/// How long a part may take to do what it was asked.
const PATIENCE: Duration = Duration::from_secs(20);
/// A second start would come within this time: agents drop repeats for 2 s, and senders repeat
/// within less than one.
const SECOND_START: Duration = Duration::from_secs(3);

/// The cluster.
pub(crate) struct World {
    pub(crate) lan: Switch,
    management: Switch,
    /// Where people send from: 10.77.0.1 on the LAN.
    pub(crate) sender: Host,
    _control_plane: Host,
    manager: Fake,
}

/// A node and its agent.
pub(crate) struct Node {
    // Ends before its host does.
    agent: Option<Process>,
    pub(crate) host: Host,
    name: String,
}

impl World {
    /// Starts the control plane.
    pub(crate) fn new() -> Self {
        let lan = Switch::new("lan");
        let management = Switch::new("mgmt");
        let control_plane = Host::new("cp");
        control_plane.plug(&management, "mgmt0", Some("10.99.0.1/24"));
        let sender = Host::new("sender");
        sender.plug(&lan, "lan0", Some("10.77.0.1/24"));
        sender.ip("route add default dev lan0");
        let manager = Fake::start(&control_plane, MANAGER.parse::<SocketAddr>().unwrap());
        Self {
            lan,
            management,
            sender,
            _control_plane: control_plane,
            manager,
        }
    }

    /// Adds a node that nothing listens on yet; `number` is the last byte of its addresses.
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

    /// Waits until every one of `vms` has been started, and long enough to see a second start.
    pub(crate) fn expect_one_start_each(&self, vms: &[MacAddr], nodes: &[&Node]) {
        let deadline = std::time::Instant::now() + PATIENCE;
        let all = |vm: &MacAddr| self.manager.reports(vm.octets()).len() == nodes.len();
        while !vms.iter().all(all) {
            assert!(
                std::time::Instant::now() < deadline,
                "{:?}",
                vms.iter().filter(|vm| !all(vm)).collect::<Vec<_>>()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        std::thread::sleep(SECOND_START);
        for vm in vms {
            let expected: Vec<_> = nodes.iter().map(|node| (node.name.clone(), 1)).collect();
            assert_eq!(self.manager.reports(vm.octets()), expected, "{vm}");
        }
    }
}

impl Node {
    /// Starts the agent and waits until it hears and reports.
    pub(crate) fn start_agent(&mut self) {
        let mut command = self
            .host
            .command(std::env::var("TMP_AGENT").unwrap_or(OURS.to_owned()));
        command.args([
            "agent",
            "--insecure",
            "--manager",
            MANAGER,
            "--node-name",
            &self.name,
        ]);
        let agent = Process::spawn_command(&self.name, command);
        agent.wait_for("a session with the manager", PATIENCE, |line| {
            line.message() == "welcomed by a manager"
        });
        self.agent = Some(agent);
    }

    /// The process id of its agent.
    pub(crate) fn agent_pid(&self) -> u32 {
        self.agent.as_ref().unwrap().pid()
    }
}
