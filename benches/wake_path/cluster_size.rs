//! What the manager costs in clusters with many VMs, as a process, with nothing between it and an
//! API server that answers at once.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crate::{
    bed,
    common::{
        cluster::{Cluster, Manager, get},
        process::free_tcp,
    },
    process,
    table::Table,
    vm_server::VmServer,
};

/// VMs that change one after the other.
const CHANGES: u32 = 10_000;

/// After a list, until memory is looked at: what is given back is given back by then.
const SETTLED: Duration = Duration::from_secs(3);

/// How long the idle manager is watched.
const IDLE: Duration = Duration::from_secs(60);

/// A cluster with many VMs, and a manager that knows them.
struct Bed {
    manager: Manager,
    server: VmServer,
    cluster: Cluster,
    vms: u32,
    ready: Duration,
}

impl Bed {
    async fn new(vms: u32) -> Self {
        let cluster = bed::cluster().await;
        let server = VmServer::new(vms);
        let api = cluster.server().expect("the bench is on the stand-in");
        api.aggregate("kubevirt.io", "v1", server.router());
        let start = Instant::now();
        let manager = cluster.manager_at(free_tcp(), &[]);
        until("the manager is ready", async || {
            get(manager.admin, "/readyz").is_some_and(|(code, _)| code == 200)
        })
        .await;
        let bed = Self {
            ready: start.elapsed(),
            manager,
            server,
            cluster,
            vms,
        };
        assert_eq!(bed.known(), vms, "it is not ready with all VMs");
        bed
    }

    fn known(&self) -> u32 {
        let known = self
            .manager
            .metric("kubevirt_wol_directory_virtual_machines");
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a number of VMs"
        )]
        let known = known as u32;
        known
    }

    /// Has the manager list everything anew.
    async fn relist(&self) {
        let watches = self.server.watches();
        self.server.forget();
        until("a new list", async || self.server.watches() > watches).await;
    }

    /// The manager's processor time for a thousand changes of VMs.
    async fn changes(&mut self) -> Duration {
        let count = CHANGES.min(self.vms);
        let rounds = CHANGES / count;
        let pid = self.manager.process.pid();
        let before = process::cpu(pid);
        for _ in 0..rounds {
            self.server.change(count);
            self.vms += 1;
            until("all changes", async || self.known() == self.vms).await;
        }
        process::cpu(pid).saturating_sub(before) / (rounds * count / 1_000)
    }
}

/// Waits, for minutes if need be.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(300);
    while !holds().await {
        assert!(Instant::now() < deadline, "not within minutes: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Managers that start where there are many VMs already.
pub(crate) async fn vms(table: &mut Table) {
    let second = Duration::from_secs(1);
    // A change costs what it costs with few VMs, whatever their number; memory is further away
    // from the processor where there is more of it.
    let few = measure(table, 1_000, (None, None), None).await;
    let budget = Some(2 * few);
    measure(table, 10_000, (Some(3 * second), Some(64 << 10)), budget).await;
    measure(table, 100_000, (None, Some(256 << 10)), budget).await;
}

/// Returns the processor time for a thousand changes.
async fn measure(
    table: &mut Table,
    vms: u32,
    (ready, memory): (Option<Duration>, Option<u64>),
    change: Option<Duration>,
) -> Duration {
    let mut bed = Bed::new(vms).await;
    let pid = bed.manager.process.pid();
    let what = format!("manager with {vms} VMs");
    table.time(format!("{what}: ready after"), bed.ready, ready);
    table.time("  its processor time until then", process::cpu(pid), None);
    tokio::time::sleep(SETTLED).await;
    table.memory("  resident", process::resident(pid), memory);
    table.memory("  of that not the program's file", process::own(pid), None);
    table.memory("  resident at most, so far", process::peak(pid), None);
    let before = process::cpu(pid);
    bed.relist().await;
    let relist = process::cpu(pid).saturating_sub(before);
    tokio::time::sleep(SETTLED).await;
    table.memory(
        "  resident after a new list",
        process::resident(pid),
        memory,
    );
    table.memory("  resident at most, so far", process::peak(pid), None);
    table.time("  processor time of the new list", relist, None);
    let time = bed.changes().await;
    table.time("  processor time of 1,000 changes", time, change);
    time
}

/// What an idle manager asks of the API server.
pub(crate) async fn traffic(table: &mut Table) {
    let bed = Bed::new(10_000).await;
    let api = bed.cluster.server().expect("the bench is on the stand-in");
    tokio::time::sleep(SETTLED).await;
    api.clear_requests();
    tokio::time::sleep(IDLE).await;
    let mut kinds = BTreeMap::<String, u64>::new();
    for request in api.requests() {
        if request.user_agent.starts_with("kubevirt-wol/") {
            let verb = if request.is_watch() {
                "WATCH"
            } else {
                request.method.as_str()
            };
            *kinds.entry(format!("{verb} {}", request.path)).or_default() += 1;
        }
    }
    table.count(
        format!("idle manager with {} VMs: requests in {IDLE:?}", bed.vms),
        kinds.values().sum(),
        None,
    );
    for (kind, count) in kinds {
        table.count(format!("  {kind}"), count, None);
    }
}
