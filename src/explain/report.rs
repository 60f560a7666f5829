//! Owns the explanation as people and programs read it.

use std::io::{self, Write};

use serde::Serialize;

/// What would happen to a packet, and why.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report {
    /// Whether the VM would be on after the packet.
    pub(super) wakes: bool,
    /// What would become of it; none where that cannot be known.
    pub(super) outcome: Option<&'static str>,
    /// Why.
    pub(super) why: String,
    /// The packet that was assumed.
    pub(super) packet: String,
    /// One for each address.
    pub(super) addresses: Vec<Answer>,
    /// The VMs that have one of the addresses.
    pub(super) vms: Vec<Machine>,
    /// Where agents listen.
    pub(super) ports: Vec<u16>,
    /// Whether a manager is there; none where that cannot be known.
    pub(super) manager: Option<bool>,
    /// Nodes whose agent has a session; none where that cannot be known.
    pub(super) connected: Option<i32>,
    /// What else is worth knowing.
    pub(super) notes: Vec<String>,
}

/// What the manager would say to a packet for one address.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Answer {
    pub(super) mac_address: String,
    pub(super) vm: Option<String>,
    pub(super) outcome: Option<&'static str>,
    pub(super) why: String,
}

/// A VM that has one of the addresses.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Machine {
    pub(super) vm: String,
    pub(super) run_strategy: String,
    pub(super) state: String,
    pub(super) mac_addresses: Vec<String>,
    pub(super) configs: Vec<Config>,
}

/// What a config makes of a packet for a VM.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Config {
    #[serde(rename = "config")]
    pub(super) name: String,
    pub(super) selects: bool,
    pub(super) lets_in: Option<bool>,
    pub(super) why: String,
}

impl Report {
    /// Prints it as lines of text, the verdict first, or as one JSON object.
    pub(super) fn write(&self, json: bool, out: &mut impl Write) -> io::Result<()> {
        if json {
            serde_json::to_writer_pretty(&mut *out, self)?;
            writeln!(out)?;
        } else {
            self.write_text(out)?;
        }
        out.flush()
    }

    fn write_text(&self, out: &mut impl Write) -> io::Result<()> {
        let verdict = if self.wakes { "yes" } else { "no" };
        writeln!(out, "{verdict}: {}", self.why)?;
        writeln!(out, "  packet    {}", self.packet)?;
        for address in &self.addresses {
            writeln!(out, "  address   {}: {}", address.mac_address, address.why)?;
        }
        for machine in &self.vms {
            let macs = match &*machine.mac_addresses {
                [] => "no MAC address in its spec".to_owned(),
                macs => macs.join(", "),
            };
            let Machine {
                vm,
                run_strategy,
                state,
                ..
            } = machine;
            writeln!(
                out,
                "  vm        {vm}: {state}; runStrategy {run_strategy}; {macs}"
            )?;
            for config in &machine.configs {
                writeln!(out, "  config    {} {}", config.name, config.why)?;
            }
        }
        let manager = match self.manager {
            Some(true) => "one is there to take the wake",
            Some(false) => "none is there to take the wake",
            None => "not known: see kubevirt-wol check",
        };
        writeln!(out, "  managers  {manager}")?;
        let ports: Vec<String> = self.ports.iter().map(u16::to_string).collect();
        let agents = match self.connected {
            Some(nodes) => format!("those of {nodes} nodes have a session"),
            None => "not known how many have a session".into(),
        };
        writeln!(
            out,
            "  agents    {agents}; they listen on UDP {}",
            ports.join(", ")
        )?;
        for note in &self.notes {
            writeln!(out, "  note      {note}")?;
        }
        Ok(())
    }
}
