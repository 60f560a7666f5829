//! What a manager takes from all nodes of a large cluster: 5,000 sessions with TLS and with tokens
//! that the API server reviews, all opened at once; a broadcast that each of them reports; and as
//! many events as they get answers for. The figures stand beside the budgets of
//! `docs/performance.md`.
//!
//! The manager is the real program, a process of its own, so that its memory is its alone. The
//! agents are in this process, as is the API server with KubeVirt: they take most of the time of the
//! processors that all share.
//!
//! `cargo bench --bench crowd -- 1000` measures with another number of agents.

#![allow(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a test bed that breaks has to stop the bench, and the table is what it is for"
)]

#[path = "../tests/common/mod.rs"]
mod common;

#[path = "crowd/agent.rs"]
mod agent;
#[path = "crowd/fleet.rs"]
mod fleet;
#[path = "crowd/measure.rs"]
mod measure;
#[path = "crowd/wire.rs"]
mod wire;

#[path = "fixtures/fleet.rs"]
#[allow(dead_code, reason = "each bench uses its own part")]
mod cluster;
#[path = "wake_path/process.rs"]
#[allow(dead_code, reason = "each bench uses its own part")]
mod process;
#[path = "wake_path/table.rs"]
#[allow(dead_code, reason = "each bench uses its own part")]
mod table;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// As many as the largest cluster that Kubernetes supports has nodes.
const AGENTS: u32 = 5_000;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    // `cargo test --all-targets` runs benches, too, and must not wait for this one.
    if !args.iter().any(|arg| arg == "--bench") {
        println!("measures only when asked to by `cargo bench`");
        return;
    }
    let agents = args.iter().find_map(|arg| arg.parse().ok());
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).expect("the limit can be read");
    setrlimit(Resource::RLIMIT_NOFILE, most, most).expect("the limit can be raised");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let mut table = table::Table::default();
    runtime.block_on(measure::all(&mut table, agents.unwrap_or(AGENTS)));
    println!("{table}");
}
