//! Which addresses agents are told to report first, and when.

use std::{sync::Arc, time::Duration};

use kubevirt_wol::{
    admin::{Gate, Heartbeat, Readiness},
    crd::{DiscoveryMode, ExplicitMapping, WolConfigSpec},
    mac::MacAddr,
    manager::{
        directory::Directory,
        dirty::Dirty,
        grant::Grant,
        vm::{Power, Vm},
        wakeable_push::{Collector, Filter, Outlet},
        watch::{InForce, Observer as _},
    },
    rpc::{self, pb::manager_message},
    wakeable::WakeableMacs,
};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    bed::Bed as Served,
    world::{SECOND, vm},
};

const INTERVAL: Duration = Duration::from_secs(30);

/// A collector and what feeds it.
struct Bed {
    directory: Arc<Directory>,
    dirty: Arc<Dirty>,
    in_force: watch::Sender<Arc<InForce>>,
    listed: Gate,
    filter: Filter,
    _tasks: JoinSet<anyhow::Result<()>>,
}

fn mac(number: u8) -> MacAddr {
    MacAddr::new([0x52, 0x54, 0, 0, 0, number])
}

impl Bed {
    fn new() -> Self {
        let (directory, dirty) = (Arc::new(Directory::new()), Arc::<Dirty>::default());
        let (in_force, grants) = watch::channel(Arc::<InForce>::default());
        let (sender, filter) = watch::channel(None);
        let listed = Readiness::default().gate("the lists");
        let collector = Collector {
            directory: directory.clone(),
            dirty: dirty.clone(),
            in_force: grants,
            listed: vec![listed.clone()],
            interval: INTERVAL,
            filter: sender,
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(collector.run(CancellationToken::new(), Heartbeat::default()));
        Self {
            directory,
            dirty,
            in_force,
            listed,
            filter,
            _tasks: tasks,
        }
    }

    fn config(&self, spec: &WolConfigSpec) {
        let (grant, problems) = Grant::new("default", spec);
        assert!(problems.is_empty(), "{problems:?}");
        let grants: Arc<[Grant]> = grant.into_iter().collect();
        self.directory.set_grants(grants.clone());
        self.in_force.send_replace(Arc::new(InForce {
            grants,
            ..InForce::default()
        }));
    }

    fn brings(&self, name: &str, number: u8, power: Power) {
        let vm = Vm {
            macs: vec![mac(number)],
            resource_version: format!("{number}-{power:?}").into(),
            ..(*vm(name, power)).clone()
        };
        let before = self.directory.vm(&vm.key);
        let vm = self.directory.apply(vm, Instant::now().into_std());
        self.dirty.changed(before.as_ref(), &vm.expect("it is new"));
    }

    /// Waits for the next filter; tells which of the first addresses it holds.
    async fn next(&mut self, time: Duration) -> Option<Vec<u8>> {
        timeout(time, self.filter.changed()).await.ok()?.ok()?;
        let filter = self.filter.borrow_and_update().clone()?;
        Some((0..100).filter(|n| filter.contains(mac(*n))).collect())
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_told_before_every_vm_and_config_is_known() {
    let mut bed = Bed::new();
    bed.config(&WolConfigSpec::default());
    bed.brings("a", 1, Power::Off);
    assert_eq!(bed.next(300 * SECOND).await, None);
    bed.listed.open();
    assert_eq!(bed.next(SECOND).await, Some(vec![1]));
}

#[tokio::test(start_paused = true)]
async fn what_changes_within_the_interval_is_told_together_after_it() {
    let mut bed = Bed::new();
    bed.listed.open();
    bed.config(&WolConfigSpec::default());
    bed.brings("a", 1, Power::Off);
    assert_eq!(bed.next(SECOND).await, Some(vec![1]));
    let told = Instant::now();
    bed.brings("b", 2, Power::Off);
    tokio::time::sleep(5 * SECOND).await;
    bed.brings("c", 3, Power::Off);
    assert_eq!(bed.next(60 * SECOND).await, Some(vec![1, 2, 3]));
    assert!(told.elapsed() >= INTERVAL, "{:?}", told.elapsed());
    // A VM that goes on or off changes nothing.
    bed.brings("c", 3, Power::On);
    assert_eq!(bed.next(300 * SECOND).await, None);
    bed.config(&WolConfigSpec {
        discovery_mode: DiscoveryMode::Explicit,
        explicit_mappings: vec![ExplicitMapping {
            mac_address: mac(77).to_string(),
            vm_name: "not-yet-there".into(),
            namespace: "default".into(),
        }],
        ..WolConfigSpec::default()
    });
    assert_eq!(bed.next(2 * SECOND).await, Some(vec![77]));
}

#[tokio::test(start_paused = true)]
async fn a_vm_without_a_grant_is_not_told() {
    let mut bed = Bed::new();
    bed.config(&WolConfigSpec {
        namespace_selectors: vec!["other".into()],
        ..WolConfigSpec::default()
    });
    bed.brings("a", 1, Power::Off);
    bed.listed.open();
    assert_eq!(bed.next(SECOND).await, Some(vec![]));
}

fn filter(number: u8) -> Arc<WakeableMacs> {
    Arc::new(WakeableMacs::of(&[mac(number)]))
}

#[tokio::test(start_paused = true)]
async fn sessions_get_it_at_different_times_and_each_no_more_often_than_it_is_made() {
    let (sender, receiver) = watch::channel(Some(filter(1)));
    let mut delays = Vec::new();
    for _ in 0..20 {
        let (began, mut outlet) = (Instant::now(), Outlet::new(receiver.clone(), INTERVAL));
        assert!(outlet.next().await.contains(mac(1)));
        let delay = began.elapsed();
        assert!(delay <= INTERVAL / 3 + SECOND, "{delay:?}");
        delays.push(delay);
        // The wait for it may be given up whenever something else is to be done.
        sender.send_replace(Some(filter(2)));
        let began = Instant::now();
        while timeout(SECOND, outlet.next()).await.is_err() {}
        assert!(began.elapsed() + 2 * SECOND >= delay, "it keeps its place");
        assert!(timeout(300 * SECOND, outlet.next()).await.is_err(), "once");
        sender.send_replace(Some(filter(1)));
    }
    delays.sort();
    delays.dedup();
    assert!(delays.len() > 10, "{delays:?}");
}

#[tokio::test]
async fn an_agent_gets_what_can_be_woken_and_again_when_it_changes() {
    let bed = Served::new().await;
    let mut agent = bed.agent("node-1").await;
    for number in [1, 2] {
        bed.filter.send_replace(Some(filter(number)));
        let manager_message::Body::WakeableMacs(message) = agent.next().await else {
            panic!("not the filter");
        };
        let told = rpc::wakeable(message).unwrap().unwrap();
        assert_eq!(told, *filter(number));
    }
    let mut late = bed.agent("node-2").await;
    let message = late.next().await;
    assert!(matches!(message, manager_message::Body::WakeableMacs(_)));
}
