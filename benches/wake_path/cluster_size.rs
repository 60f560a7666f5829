//! What the manager costs in clusters with many VMs, as a process, with nothing between it and an
//! API server that answers at once.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use kube::Api;
use kubevirt_wol::crd::WolConfig;

use crate::{
    bed,
    common::{
        cluster::{Cluster, Manager, get},
        process::free_tcp,
    },
    process,
    table::Table,
    vm_server::{Change, VmServer},
};

/// VMs that change between two looks at the status, so few that the manager looks at each of them.
const FEW: u32 = 1_000;

/// How often that many change.
const ROUNDS: u32 = 10;

/// VMs that change at once, so many that the manager looks at all of them instead.
const MANY: u32 = 10_000;

/// After a list, until memory is looked at: what is given back is given back by then.
const SETTLED: Duration = Duration::from_secs(3);

/// After it began to lead, until the leader has told that no agent came.
const ALONE: Duration = Duration::from_secs(20);

/// How long the idle manager is watched.
const IDLE: Duration = Duration::from_secs(60);

/// A cluster with many VMs, and a manager that knows them, is the leader, and has told of them in
/// the status of a config that selects them all.
struct Bed {
    manager: Manager,
    server: VmServer,
    cluster: Cluster,
    vms: u32,
    ready: Duration,
    told: Duration,
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
        let mut bed = Self {
            ready: start.elapsed(),
            told: Duration::ZERO,
            manager,
            server,
            cluster,
            vms,
        };
        assert_eq!(bed.known(), vms, "it is not ready with all VMs");
        bed.told().await;
        bed.told = start.elapsed();
        let leads = bed.manager.metric("kubevirt_wol_leader") > 0.0;
        assert!(leads, "a manager that is no leader writes no status");
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

    /// Waits until the status says that the config manages all VMs. It asks the API server alone, so
    /// that it takes no time of the manager's.
    async fn told(&self) {
        let configs = Api::<WolConfig>::all(self.cluster.client.clone());
        until("the status tells of all VMs", async || {
            let config = configs.get("default").await.expect("the config is there");
            let managed = config.status.map(|status| status.managed_vms);
            managed == Some(self.vms.into())
        })
        .await;
    }

    /// Has the manager list everything anew.
    async fn relist(&self) {
        let watches = self.server.watches();
        self.server.forget();
        until("a new list", async || self.server.watches() > watches).await;
    }

    /// The manager's processor time until the status tells of a VM that was made after so many
    /// others, the first ones from a place on, changed.
    async fn change(&mut self, from: u32, count: u32, change: Change) -> Duration {
        let pid = self.manager.process.pid();
        let before = process::cpu(pid);
        let numbers = from..(from + count).min(self.vms);
        self.server.change(numbers, change);
        self.vms += 1;
        self.told().await;
        process::cpu(pid).saturating_sub(before)
    }

    /// The manager's processor time for a thousand changes.
    async fn changes(&mut self, change: impl Fn(u32) -> Change) -> Duration {
        let mut spent = Duration::ZERO;
        let places = self.vms / FEW;
        for round in 0..ROUNDS {
            let from = round % places * FEW;
            spent += self.change(from, FEW, change(round)).await;
        }
        spent / (ROUNDS * FEW / 1_000)
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
    let budget = Some(few.map(|time| 2 * time));
    measure(table, 10_000, (Some(3 * second), Some(64 << 10)), budget).await;
    measure(table, 100_000, (None, Some(256 << 10)), budget).await;
}

/// Returns the processor times for a thousand changes of each kind.
async fn measure(
    table: &mut Table,
    vms: u32,
    (ready, memory): (Option<Duration>, Option<u64>),
    budget: Option<[Duration; 3]>,
) -> [Duration; 3] {
    let mut bed = Bed::new(vms).await;
    let pid = bed.manager.process.pid();
    let what = format!("leader with {vms} VMs");
    table.time(format!("{what}: ready after"), bed.ready, ready);
    table.time("  status told after", bed.told, None);
    table.time("  its processor time until then", process::cpu(pid), None);
    tokio::time::sleep(SETTLED).await;
    resident(table, pid, "", memory);
    let before = process::cpu(pid);
    bed.relist().await;
    let relist = process::cpu(pid).saturating_sub(before);
    tokio::time::sleep(SETTLED).await;
    resident(table, pid, " after a new list", memory);
    table.time("  processor time of the new list", relist, None);
    let times = [
        bed.changes(|round| Change::Power(round % 2 == 0)).await,
        bed.changes(|_| Change::Label).await,
        bed.changes(|_| Change::Address).await,
    ];
    let kinds = ["goes on or off", "has another label", "has another address"];
    for (index, (kind, time)) in kinds.into_iter().zip(times).enumerate() {
        let what = format!("  processor time per 1,000 times that a VM {kind}");
        table.time(what, time, budget.map(|budget| budget[index]));
    }
    let time = bed.change(0, MANY, Change::Label).await;
    let changed = MANY.min(vms);
    let what = format!("  processor time where {changed} VMs have another label at once");
    table.time(what, time, None);
    tokio::time::sleep(SETTLED).await;
    resident(table, pid, " after all changes", memory);
    times
}

fn resident(table: &mut Table, pid: u32, when: &str, budget: Option<u64>) {
    let now = process::resident(pid);
    table.memory(format!("  resident{when}"), now, budget);
    table.memory("  of that not the program's file", process::own(pid), None);
    table.memory("  resident at most, so far", process::peak(pid), budget);
}

/// What an idle manager asks of the API server.
pub(crate) async fn traffic(table: &mut Table) {
    let bed = Bed::new(10_000).await;
    let api = bed.cluster.server().expect("the bench is on the stand-in");
    tokio::time::sleep(ALONE).await;
    api.clear_requests();
    let pid = bed.manager.process.pid();
    let before = process::cpu(pid);
    tokio::time::sleep(IDLE).await;
    let spent = process::cpu(pid).saturating_sub(before);
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
        format!("idle leader with {} VMs: requests in {IDLE:?}", bed.vms),
        kinds.values().sum(),
        None,
    );
    for (kind, count) in kinds {
        table.count(format!("  {kind}"), count, None);
    }
    table.time("  processor time meanwhile", spent, None);
}
