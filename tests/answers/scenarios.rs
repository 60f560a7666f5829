//! The scenarios, and what they share: one manager and one agent, which many VMs of a scenario use.

mod limits;
mod paused;
mod refusals;
mod states;
mod waits;

use std::collections::BTreeMap;

use kube::{Api, api::ListParams};
use kubevirt_wol::kubevirt::VirtualMachine;
use serde_json::json;

use crate::common::{
    cluster::{Agent, Cluster, Manager, SOON, eventually, get},
    kubevirt::vm::{RunStrategy, vm},
    process::free_udp,
};

pub(crate) use {limits::*, paused::*, refusals::*, states::*, waits::*};

const NS: &str = "home";

/// The VM number `n` has this address.
fn mac(n: usize) -> String {
    format!("52:54:00:00:01:{n:02x}")
}

struct Bed<'a> {
    c: &'a Cluster,
    manager: Manager,
    agent: Agent,
}

impl<'a> Bed<'a> {
    /// A config that wakes everything, a manager with these flags, and an agent.
    async fn new(c: &'a Cluster, flags: &[&str]) -> Self {
        c.install_crd().await;
        c.namespace(NS).await;
        c.config("default", json!({"discoveryMode": "All"})).await;
        let manager = c.manager(flags).await;
        let agent = c.agent("node-1", &manager, free_udp());
        Self { c, manager, agent }
    }

    /// Adds a VM that is off.
    async fn add(&self, n: usize, name: &str, strategy: RunStrategy) {
        let vm = vm(NS, name).mac(&mac(n)).run_strategy(strategy);
        self.c.kubevirt.add(&vm).await;
    }

    /// Waits until the manager has taken in what was done to VMs so far: the watch keeps the order.
    async fn up_to_date(&self) {
        let marker = format!("marker-{}", fastrand::u64(..));
        self.c.kubevirt.create(&vm(NS, &marker)).await;
        let all = Api::<VirtualMachine>::all(self.c.client.clone());
        eventually("the manager knows all VMs", async || {
            let listed = all.list(&ListParams::default()).await.unwrap();
            let known = self
                .manager
                .metric("kubevirt_wol_directory_virtual_machines");
            usize_of(known) == listed.items.len()
        })
        .await;
    }

    /// One packet for VM number `n`.
    fn hears(&self, n: usize) {
        self.agent.hears(&mac(n));
    }

    /// How the wake of VM number `n` ended, and why.
    fn ended(&self, n: usize) -> (String, String) {
        let mac = mac(n);
        let line =
            self.manager
                .process
                .wait_for(&format!("how the wake of {mac} ended"), SOON, |line| {
                    line.message() == "wake" && line.field("mac") == mac
                });
        (line.field("outcome").into(), line.field("reason").into())
    }

    fn has_ended(&self, n: usize) -> bool {
        let mac = mac(n);
        let lines = self.manager.process.lines();
        lines
            .iter()
            .any(|line| line.message() == "wake" && line.field("mac") == mac)
    }

    /// Waits for an Event of this reason on a VM that says this.
    async fn told(&self, name: &str, reason: &str, words: &str) {
        eventually(&format!("{name} is told {reason}: {words}"), async || {
            let events = self.c.events(NS, name).await;
            events
                .iter()
                .any(|event| event.starts_with(reason) && event.contains(words))
        })
        .await;
    }

    /// Waits until virt-api has handled these starts of a VM, and answered with these codes. The
    /// manager may know by the watch what came of a call that virt-api is still at.
    async fn called(&self, name: &str, codes: &[u16]) {
        let mut seen = Vec::new();
        eventually(&format!("{name} is answered {codes:?}"), async || {
            seen = self.c.kubevirt.codes(NS, name);
            assert!(seen.len() <= codes.len(), "{name}: {seen:?}");
            seen == codes
        })
        .await;
    }

    /// The calls of `start` so far, by what the manager made of their answers.
    fn calls(&self) -> BTreeMap<String, usize> {
        self.series("kubevirt_wol_start_calls_total{answer=\"")
    }

    /// The calls of `unpause` so far, likewise.
    fn unpausings(&self) -> BTreeMap<String, usize> {
        self.series("kubevirt_wol_unpause_calls_total{answer=\"")
    }

    fn series(&self, prefix: &str) -> BTreeMap<String, usize> {
        let (_, text) = get(self.manager.admin, "/metrics").expect("metrics are served");
        let one = |line: &str| {
            let (label, value) = line.strip_prefix(prefix)?.split_once("\"} ")?;
            Some((label.to_owned(), value.parse().ok()?))
        };
        let all = text.lines().filter_map(one);
        all.filter(|(_, count)| *count > 0).collect()
    }

    fn outcomes(&self, outcome: &str) -> usize {
        let series = format!("kubevirt_wol_wakes_total{{outcome=\"{outcome}\"}}");
        usize_of(self.manager.metric(&series))
    }

    fn open(&self) -> usize {
        usize_of(self.manager.metric("kubevirt_wol_intents_open"))
    }
}

/// A metric that counts.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counts are small, whole and not negative"
)]
fn usize_of(value: f64) -> usize {
    value as usize
}
