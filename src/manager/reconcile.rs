//! Owns the status of the `WolConfig`s: one pass over all of them whenever something changed.
//!
//! The watch has fetched the configs, made the plan and put it into force before it comes here
//! (`manager::watch`, `manager::config`), on every replica and without waiting. Here the leader
//! looks at what has come of it ([`Census`], agents, DaemonSet), says it ([`status`]), and writes
//! what differs.

mod writer;

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::{api::apps::v1::DaemonSet, jiff::Timestamp};
use kube::{Api, Client, ResourceExt as _};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    admin::Heartbeat,
    cluster::chain,
    crd::{WolConfig, WolConfigStatus},
    manager::{
        census::Census,
        directory::Directory,
        dirty::Dirty,
        grant::Grant,
        leader::Leadership,
        sessions::Sessions,
        status::{DaemonSetSeen, Facts, SHOWN, status},
        watch::InForce,
    },
};

pub use writer::Writer;
use writer::Written;

/// Changes that come together are looked at together.
const GATHERED: Duration = Duration::from_millis(100);
/// VMs that are counted without giving others a turn.
const AT_ONCE: usize = 256;
/// The pause between two passes.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest pause after passes that failed.
const MAX_PAUSE: Duration = Duration::from_secs(30);
/// A call may take so long.
const CALL: Duration = Duration::from_secs(10);
/// After so long as the leader, an agent that has not connected will not soon.
const SETTLED: Duration = Duration::from_secs(15);

/// Where the facts come from.
pub struct Sources {
    /// Which VM is meant.
    pub directory: Arc<Directory>,
    /// What of it changed.
    pub dirty: Arc<Dirty>,
    /// The configs that are in force.
    pub in_force: watch::Receiver<Arc<InForce>>,
    /// Whether the cluster has KubeVirt.
    pub kubevirt: watch::Receiver<bool>,
    /// The configs that are out of date.
    pub stale: watch::Receiver<BTreeSet<Arc<str>>>,
    /// The agents.
    pub sessions: Arc<Sessions>,
    /// Whether this replica is to write.
    pub leadership: Leadership,
}

/// Names the agents' DaemonSet.
#[derive(Debug, Clone)]
pub struct DaemonSetName {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// Writes the status of the configs while this replica is the leader.
pub struct Reconciler {
    client: Client,
    sources: Sources,
    writer: Writer,
    daemon_set: DaemonSetName,
    agents: watch::Receiver<()>,
    /// None where it has to be taken anew.
    census: Option<Census>,
    /// The status that was written last, by name: the watch may not have brought it back yet.
    written: BTreeMap<String, (Option<String>, WolConfigStatus)>,
    seen: Option<DaemonSetSeen>,
    /// Whether it may look otherwise by now.
    look: bool,
    leading_since: Option<Instant>,
    failures: u32,
}

impl Reconciler {
    /// Makes it, doing nothing yet.
    #[must_use]
    pub fn new(
        client: Client,
        sources: Sources,
        daemon_set: DaemonSetName,
        writer: Writer,
    ) -> Self {
        Self {
            agents: sources.sessions.subscribe(),
            client,
            sources,
            writer,
            daemon_set,
            census: None,
            written: BTreeMap::new(),
            seen: None,
            look: true,
            leading_since: None,
            failures: 0,
        }
    }

    /// Keeps the status of all configs up to date until `token` is cancelled.
    ///
    /// # Errors
    ///
    /// None: what cannot be written is tried again.
    pub async fn run(mut self, token: CancellationToken, heart: Heartbeat) -> anyhow::Result<()> {
        token.run_until_cancelled(self.follow(&heart)).await;
        Ok(())
    }

    async fn follow(&mut self, heart: &Heartbeat) {
        loop {
            heart.beat();
            heart.waiting(self.changed()).await;
            tokio::time::sleep(GATHERED).await;
            if !self.sources.leadership.holds() {
                self.rest();
                continue;
            }
            self.leading_since.get_or_insert_with(Instant::now);
            self.failures = if self.pass().await {
                0
            } else {
                self.failures + 1
            };
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Forgets what another leader may change.
    fn rest(&mut self) {
        self.census = None;
        self.written.clear();
        self.seen = None;
        self.look = true;
        self.leading_since = None;
        self.failures = 0;
    }

    /// Waits until a pass may have something to say.
    async fn changed(&mut self) {
        let (due, incomplete) = (self.due(), self.is_incomplete());
        let sources = &mut self.sources;
        tokio::select! {
            () = sources.dirty.some() => {}
            _ = sources.in_force.changed() => {}
            _ = sources.kubevirt.changed() => {}
            _ = sources.stale.changed() => {}
            _ = self.agents.changed() => self.look = true,
            () = sources.leadership.changed() => {}
            () = sleep_until(due) => self.look |= incomplete,
        }
    }

    /// When to look again although nothing changed.
    fn due(&self) -> Instant {
        let now = Instant::now();
        let never = now + Duration::from_secs(86_400);
        let Some(since) = self.leading_since else {
            return never;
        };
        if self.failures > 0 {
            return now + (PAUSE * 2_u32.pow(self.failures.min(5))).min(MAX_PAUSE);
        }
        let settled = since + SETTLED;
        if self.is_incomplete() {
            now + SETTLED
        } else if now < settled {
            settled
        } else {
            never
        }
    }

    /// Whether the numbers of the DaemonSet are about to change, which nobody tells.
    fn is_incomplete(&self) -> bool {
        self.seen
            .as_ref()
            .is_some_and(|seen| seen.ready != seen.desired)
    }

    /// Fetches the facts, plans every status, and applies those that differ; false where something
    /// could not be done.
    async fn pass(&mut self) -> bool {
        self.count().await;
        let fetched = self.fetch().await;
        let planned = self.plan();
        let mut done = fetched;
        for (config, wanted) in planned {
            done &= self.apply(&config, wanted).await;
        }
        done
    }

    /// Brings the census up to date.
    async fn count(&mut self) {
        let directory = &self.sources.directory;
        let changed = self.sources.dirty.take();
        let grants = directory.grants();
        let known = self.census.take();
        let known = known.filter(|census| census.is_of(&grants) && !changed.all);
        self.census = Some(if let Some(mut census) = known {
            census.update(directory, &changed.macs, &changed.vms);
            census
        } else {
            count_all(directory, grants).await
        });
    }

    /// Asks the API server for what no watch brings.
    async fn fetch(&mut self) -> bool {
        if !self.look {
            return true;
        }
        let DaemonSetName { namespace, name } = &self.daemon_set;
        let api = Api::<DaemonSet>::namespaced(self.client.clone(), namespace);
        match timeout(CALL, api.get_opt(name)).await {
            Ok(Ok(found)) => {
                self.seen = found.map(|set| seen(name, &set));
                self.look = false;
                true
            }
            Ok(Err(error)) => {
                tracing::warn!(
                    namespace,
                    name,
                    error = chain(&error),
                    "cannot read the DaemonSet"
                );
                false
            }
            Err(_) => false,
        }
    }

    /// The statuses that differ from what they should be.
    fn plan(&mut self) -> Vec<(WolConfig, WolConfigStatus)> {
        let in_force = self.sources.in_force.borrow_and_update().clone();
        self.written
            .retain(|name, _| in_force.configs.contains_key(name));
        let agents = self.sources.sessions.agents();
        let now = Timestamp::now();
        let mut wanted = Vec::new();
        for (name, config) in &in_force.configs {
            let config = self.newest(name, config);
            let problems = in_force.findings.iter().filter(|f| *f.config == **name);
            let census = self.census.as_ref();
            let facts = Facts {
                findings: census.and_then(|c| c.findings(name, &self.sources.directory, SHOWN)),
                problems: problems.map(|finding| &finding.problem).collect(),
                agents: &agents,
                newest: self.sources.sessions.newest(),
                settled: self
                    .leading_since
                    .is_some_and(|since| since.elapsed() >= SETTLED),
                daemon_set: self.seen.clone(),
                kubevirt: *self.sources.kubevirt.borrow(),
                stale: self.sources.stale.borrow().contains(&**name),
            };
            let status = status(&config, &facts, now);
            if config.status.as_ref() != Some(&status) {
                wanted.push((config, status));
            }
        }
        wanted
    }

    /// The config with the status that was written last, where the watch has not brought it yet.
    fn newest(&mut self, name: &str, config: &WolConfig) -> WolConfig {
        let number = |version: Option<&String>| version.and_then(|v| v.parse::<u64>().ok());
        let known = number(config.metadata.resource_version.as_ref());
        let mut config = config.clone();
        if let Some((version, status)) = self.written.get(name) {
            if known < number(version.as_ref()) {
                config.status = Some(status.clone());
                config.metadata.resource_version.clone_from(version);
            } else {
                self.written.remove(name);
            }
        }
        config
    }

    async fn apply(&mut self, config: &WolConfig, status: WolConfigStatus) -> bool {
        if !self.sources.leadership.holds() {
            return false;
        }
        match self.writer.write(config, &status).await {
            Written::Done(written) => {
                let name = written.name_any();
                let version = written.metadata.resource_version;
                self.written.insert(name, (version, status));
                true
            }
            Written::Outdated => true,
            Written::Failed => false,
        }
    }
}

/// A census of all VMs. What changes meanwhile is looked at in the next pass.
async fn count_all(directory: &Directory, grants: Arc<[Grant]>) -> Census {
    let mut census = Census::new(grants);
    for vms in census.everyone(directory).chunks(AT_ONCE) {
        census.update(directory, &HashSet::new(), &vms.iter().cloned().collect());
        // Wakes must not wait for a large cluster to be counted.
        tokio::task::yield_now().await;
    }
    census
}

fn seen(name: &str, set: &DaemonSet) -> DaemonSetSeen {
    let status = set.status.clone().unwrap_or_default();
    DaemonSetSeen {
        name: name.to_owned(),
        desired: status.desired_number_scheduled,
        ready: status.number_ready,
        available: status.number_available.unwrap_or_default(),
    }
}
