//! Owns what `send` prints: a line, or a JSON object, for every destination.

use std::{
    fmt,
    io::{self, Write},
};

use serde::Serialize;

use super::{
    lookup::Unresolved,
    plan::{Carrier, Plan, Transmission, Unusable},
    target::VM,
    transmit::Outcome,
};
use crate::mac::MacAddr;

/// Everything that came of one call.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report {
    dry_run: bool,
    results: Vec<Line>,
    unusable_interfaces: Vec<UnusableLine>,
    unresolved_vms: Vec<UnresolvedLine>,
}

/// What came of one destination.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    status: Status,
    target: MacAddr,
    /// `NAMESPACE/NAME`
    #[serde(skip_serializing_if = "Option::is_none")]
    vm: Option<String>,
    #[serde(flatten)]
    place: Place,
    #[serde(skip_serializing_if = "Option::is_none")]
    interface: Option<String>,
    /// Length of the UDP payload, or of the frame.
    bytes: usize,
    copies: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hex: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
enum Status {
    Planned,
    Sent,
    Failed,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase", tag = "carrier")]
enum Place {
    Udp {
        address: std::net::IpAddr,
        port: u16,
    },
    Ethernet {
        destination: MacAddr,
        #[serde(skip_serializing_if = "Option::is_none")]
        vlan: Option<u16>,
    },
}

#[derive(Debug, Serialize)]
struct UnusableLine {
    interface: String,
    reason: String,
}

#[derive(Debug, Serialize)]
struct UnresolvedLine {
    /// `NAMESPACE/NAME`
    vm: String,
    reason: String,
}

impl Report {
    /// Tells what a dry run would send.
    pub(super) fn planned(plan: Plan, count: u32) -> Self {
        let line = |transmission: Transmission| {
            let hex = transmission.bytes.iter().map(|b| format!("{b:02x}"));
            let hex = Some(hex.collect());
            let outcome = Outcome {
                copies: count,
                failure: None,
            };
            Line {
                hex,
                ..Line::new(Status::Planned, transmission, outcome)
            }
        };
        Self {
            dry_run: true,
            results: plan.transmissions.into_iter().map(line).collect(),
            unusable_interfaces: unusable(plan.unusable),
            unresolved_vms: unresolved(plan.unresolved),
        }
    }

    /// Tells what was sent.
    pub(super) fn done(plan: Plan, outcomes: Vec<Outcome>) -> Self {
        let line = |(transmission, outcome): (Transmission, Outcome)| {
            let status = if outcome.copies > 0 {
                Status::Sent
            } else {
                Status::Failed
            };
            Line::new(status, transmission, outcome)
        };
        Self {
            dry_run: false,
            results: plan
                .transmissions
                .into_iter()
                .zip(outcomes)
                .map(line)
                .collect(),
            unusable_interfaces: unusable(plan.unusable),
            unresolved_vms: unresolved(plan.unresolved),
        }
    }

    /// Whether nothing went out, or would.
    pub(super) fn is_failure(&self) -> bool {
        self.results
            .iter()
            .all(|line| line.status == Status::Failed)
    }

    /// Prints the report as lines of text or as one JSON object.
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
        for line in &self.results {
            writeln!(out, "{line}")?;
            if let Some(hex) = &line.hex {
                writeln!(out, "    {hex}")?;
            }
        }
        for line in &self.unusable_interfaces {
            writeln!(out, "failed  {}: {}", line.interface, line.reason)?;
        }
        for line in &self.unresolved_vms {
            writeln!(out, "failed  {VM}{}: {}", line.vm, line.reason)?;
        }
        Ok(())
    }
}

fn unusable(interfaces: Vec<Unusable>) -> Vec<UnusableLine> {
    let line = |one: Unusable| UnusableLine {
        interface: one.interface,
        reason: one.reason,
    };
    interfaces.into_iter().map(line).collect()
}

fn unresolved(vms: Vec<Unresolved>) -> Vec<UnresolvedLine> {
    let line = |one: Unresolved| UnresolvedLine {
        vm: one.vm.to_string(),
        reason: one.reason,
    };
    vms.into_iter().map(line).collect()
}

impl Line {
    fn new(status: Status, transmission: Transmission, outcome: Outcome) -> Self {
        let place = match transmission.carrier {
            Carrier::Udp(to) => Place::Udp {
                address: to.ip(),
                port: to.port(),
            },
            Carrier::Ethernet {
                destination, vlan, ..
            } => Place::Ethernet { destination, vlan },
        };
        Self {
            status,
            target: transmission.target,
            vm: transmission.vm.map(|vm| vm.to_string()),
            place,
            interface: transmission.interface,
            bytes: transmission.bytes.len(),
            copies: outcome.copies,
            failure: outcome.failure,
            hex: None,
        }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = match self.status {
            Status::Planned => "planned",
            Status::Sent => "sent   ",
            Status::Failed => "failed ",
        };
        write!(f, "{status} {}", self.target)?;
        if let Some(vm) = &self.vm {
            write!(f, " ({VM}{vm})")?;
        }
        write!(f, " to {}", self.place)?;
        if let Some(interface) = &self.interface {
            write!(f, " on {interface}")?;
        }
        if self.status != Status::Failed {
            write!(f, ", {} x {} bytes", self.copies, self.bytes)?;
        }
        if let Some(failure) = &self.failure {
            let also = if self.status == Status::Failed {
                ":"
            } else {
                "; not every copy:"
            };
            write!(f, "{also} {failure}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Udp { address, port } => {
                write!(f, "{}", std::net::SocketAddr::new(*address, *port))
            }
            Self::Ethernet { destination, vlan } => {
                write!(f, "{destination} by Ethernet")?;
                vlan.map_or(Ok(()), |id| write!(f, " in VLAN {id}"))
            }
        }
    }
}

#[cfg(test)]
mod tests;
