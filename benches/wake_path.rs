//! What a user waits for and what the program costs, measured on the real program beside the
//! budgets of `docs/performance.md`: manager and agent as processes on loopback, the API server and
//! KubeVirt simulated in this one.
//!
//! `cargo bench --bench wake_path -- idle floods` runs two of the [`PARTS`]; without names, all.

#![allow(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a test bed that breaks has to stop the bench, and the table is what it is for"
)]

#[path = "../tests/common/mod.rs"]
mod common;

#[path = "wake_path/bed.rs"]
mod bed;
#[path = "wake_path/cluster_size.rs"]
mod cluster_size;
#[path = "wake_path/flood.rs"]
mod flood;
#[path = "wake_path/process.rs"]
mod process;
#[path = "wake_path/table.rs"]
mod table;
#[path = "wake_path/vm_server.rs"]
mod vm_server;
#[path = "wake_path/wakes.rs"]
mod wakes;

#[path = "fixtures/vm.rs"]
mod vm;

use futures::future::LocalBoxFuture;
use table::Table;

type Part = for<'a> fn(&'a mut Table) -> LocalBoxFuture<'a, ()>;

/// What can be measured, by name; each takes some seconds and has its own cluster.
const PARTS: [(&str, Part); 6] = [
    ("idle", |table| Box::pin(wakes::idle(table))),
    ("bursts", |table| Box::pin(wakes::bursts(table))),
    ("floods", |table| Box::pin(flood::floods(table))),
    ("addresses", |table| Box::pin(flood::addresses(table))),
    ("vms", |table| Box::pin(cluster_size::vms(table))),
    ("traffic", |table| Box::pin(cluster_size::traffic(table))),
];

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    // `cargo test --all-targets` runs benches, too, and must not wait for this one.
    if !args.iter().any(|arg| arg == "--bench") {
        println!("measures only when asked to by `cargo bench`");
        return;
    }
    let named = |name: &str| args.iter().any(|arg| arg == name);
    let all = args.iter().all(|arg| arg.starts_with('-'));
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let mut table = Table::default();
    for (name, part) in PARTS {
        if all || named(name) {
            eprintln!("measuring: {name}");
            runtime.block_on(part(&mut table));
        }
    }
    println!("{table}");
}
