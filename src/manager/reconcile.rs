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

use k8s_openapi::jiff::Timestamp;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use crate::{
    admin::Heartbeat,
    crd::{WolConfig, WolConfigStatus},
    manager::{
        census::Census,
        directory::Directory,
        dirty::Dirty,
        grant::Grant,
        leader::Leadership,
        sessions::{Agent, AgentId, Sessions},
        status::{DaemonSetSeen, Facts, SHOWN, status, unreadable},
        waker::Forbidden,
        watch::{InForce, Unreadable},
    },
};

pub use writer::Writer;
use writer::{Target, Written};

/// Changes that come together are looked at together.
const GATHERED: Duration = Duration::from_millis(100);
/// VMs that are counted without giving others a turn.
const AT_ONCE: usize = 256;
/// The pause between two passes.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest pause after passes that failed.
const MAX_PAUSE: Duration = Duration::from_secs(30);
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
    /// Is told when the directory has other passwords.
    pub passwords: watch::Receiver<()>,
    /// The agents' DaemonSet.
    pub daemon_set: watch::Receiver<Option<DaemonSetSeen>>,
    /// Why VMs may not be started, where KubeVirt said so.
    pub forbidden: Forbidden,
    /// The agents.
    pub sessions: Arc<Sessions>,
    /// Whether this replica is to write.
    pub leadership: Leadership,
}

/// Writes the status of the configs while this replica is the leader.
pub struct Reconciler {
    sources: Sources,
    writer: Writer,
    agents: watch::Receiver<()>,
    /// None where it has to be taken anew.
    census: Option<Census>,
    /// The resource version and the status that were written last, by name: the watch may not have
    /// brought them back yet.
    written: BTreeMap<String, (Option<String>, WolConfigStatus)>,
    /// The uid and generation of each config that was told to be unreadable, by name. What its status
    /// says is as unreadable, so that it cannot be compared.
    told: BTreeMap<String, (Option<String>, Option<i64>)>,
    /// Since when this replica leads, as far as it has acted on it.
    leading_since: Option<Instant>,
    failures: u32,
}

/// A status that differs from what it should be.
struct Wanted {
    target: Target,
    present: WolConfigStatus,
    status: WolConfigStatus,
}

/// What all configs have in common in one pass.
struct Common {
    agents: Vec<(AgentId, Agent)>,
    newest: u64,
    settled: bool,
    now: Timestamp,
}

impl Reconciler {
    /// Makes it, doing nothing yet.
    #[must_use]
    pub fn new(sources: Sources, writer: Writer) -> Self {
        Self {
            agents: sources.sessions.subscribe(),
            sources,
            writer,
            census: None,
            written: BTreeMap::new(),
            told: BTreeMap::new(),
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
            heart.waiting(self.changed()).await;
            tokio::time::sleep(crate::pace::of(GATHERED)).await;
            if !self.sources.leadership.holds() {
                self.rest();
                continue;
            }
            self.leading_since.get_or_insert_with(Instant::now);
            let done = self.pass(heart).await;
            self.failures = if done { 0 } else { self.failures + 1 };
            let pause = PAUSE * 2_u32.pow(self.failures.min(5));
            heart
                .waiting(tokio::time::sleep(crate::pace::of(pause.min(MAX_PAUSE))))
                .await;
        }
    }

    /// Forgets what another leader may change.
    fn rest(&mut self) {
        drop(self.sources.dirty.take());
        self.census = None;
        self.written.clear();
        self.told.clear();
        self.leading_since = None;
        self.failures = 0;
        self.writer.rest();
    }

    /// Waits until a pass may have something to say.
    async fn changed(&mut self) {
        if self.failures > 0 {
            return;
        }
        let leads = self.leading_since.is_some();
        // Then an agent that is missing is told.
        let settled = self
            .leading_since
            .map(|since| since + crate::pace::of(SETTLED));
        let settled = settled.filter(|at| Instant::now() < *at);
        let due = settled.unwrap_or_else(|| Instant::now() + Duration::from_secs(86_400));
        let sources = &mut self.sources;
        tokio::select! {
            () = sources.dirty.some() => {}
            _ = sources.in_force.changed() => {}
            _ = sources.kubevirt.changed() => {}
            _ = sources.stale.changed() => {}
            _ = sources.passwords.changed() => {}
            _ = sources.daemon_set.changed() => {}
            _ = sources.forbidden.changed() => {}
            _ = self.agents.changed() => {}
            () = sources.leadership.changed_from(leads) => {}
            () = sleep_until(due) => {}
        }
    }

    /// Takes the facts of one moment, plans every status, and applies those that differ; false
    /// where one could not be written.
    async fn pass(&mut self, heart: &Heartbeat) -> bool {
        let in_force = self.sources.in_force.borrow_and_update().clone();
        self.count(&in_force).await;
        let mut done = true;
        for wanted in self.plan(&in_force) {
            heart.beat();
            done &= self.apply(wanted).await;
        }
        for (name, config) in &in_force.unreadable {
            heart.beat();
            done &= self.tell(name, config).await;
        }
        done
    }

    /// Tells once of each generation of a config that it cannot be read.
    async fn tell(&mut self, name: &str, config: &Unreadable) -> bool {
        let version = (config.uid.clone(), config.generation);
        if self.told.get(name) == Some(&version) {
            return true;
        }
        let wanted = Wanted {
            target: Target::of_unreadable(name, config),
            present: WolConfigStatus::default(),
            status: unreadable(config, Timestamp::now()),
        };
        let done = self.apply(wanted).await;
        if done {
            self.told.insert(name.to_owned(), version);
        }
        done
    }

    /// Brings the census up to date.
    async fn count(&mut self, in_force: &InForce) {
        let directory = &self.sources.directory;
        let changed = self.sources.dirty.take();
        let known = self.census.take();
        let known = known.filter(|census| census.is_of(&in_force.grants) && !changed.all);
        self.census = Some(if let Some(mut census) = known {
            census.update(directory, &changed.macs, &changed.vms);
            census
        } else {
            count_all(directory, in_force.grants.clone()).await
        });
    }

    fn plan(&mut self, in_force: &InForce) -> Vec<Wanted> {
        let configs = &in_force.configs;
        self.written.retain(|name, _| configs.contains_key(name));
        self.told
            .retain(|name, _| in_force.unreadable.contains_key(name));
        let settled = |since: Instant| since.elapsed() >= crate::pace::of(SETTLED);
        let common = Common {
            agents: self.sources.sessions.agents(),
            newest: self.sources.sessions.newest(),
            settled: self.leading_since.is_some_and(settled),
            now: Timestamp::now(),
        };
        let mut conflicts = 0;
        let mut wanted = Vec::new();
        for (name, config) in configs {
            let (resource_version, present) = self.present(name, config);
            let facts = self.facts(name, in_force, &common);
            conflicts += facts
                .findings
                .as_ref()
                .map_or(0, |found| found.conflicts_total);
            let status = status(config, &present, &facts, common.now);
            if present != status {
                wanted.push(Wanted {
                    target: Target::of(config, resource_version),
                    present,
                    status,
                });
            }
        }
        self.writer.conflicts(conflicts);
        wanted
    }

    fn facts<'a>(&self, name: &str, in_force: &'a InForce, common: &'a Common) -> Facts<'a> {
        let sources = &self.sources;
        let census = self.census.as_ref();
        let problems = in_force.findings.iter().filter(|f| *f.config == *name);
        Facts {
            findings: census.and_then(|census| census.findings(name, &sources.directory, SHOWN)),
            problems: problems.map(|finding| &finding.problem).collect(),
            agents: &common.agents,
            newest: common.newest,
            settled: common.settled,
            daemon_set: sources.daemon_set.borrow().clone(),
            kubevirt: *sources.kubevirt.borrow(),
            stale: sources.stale.borrow().contains(name),
            forbidden: sources.forbidden.borrow().clone(),
            passwords: sources.directory.passwords(),
        }
    }

    /// The resource version and the status of a config: what was written last, where the watch has
    /// not brought it yet.
    fn present(&mut self, name: &str, config: &WolConfig) -> (Option<String>, WolConfigStatus) {
        let number = |version: Option<&String>| version.and_then(|v| v.parse::<u64>().ok());
        let known = config.metadata.resource_version.as_ref();
        if let Some((version, status)) = self.written.get(name) {
            if number(known) < number(version.as_ref()) {
                return (version.clone(), status.clone());
            }
            self.written.remove(name);
        }
        (known.cloned(), config.status.clone().unwrap_or_default())
    }

    async fn apply(&mut self, wanted: Wanted) -> bool {
        if !self.sources.leadership.holds() {
            return false;
        }
        let Wanted {
            target,
            present,
            status,
        } = wanted;
        match self.writer.write(&target, &present, &status).await {
            Written::Done(version) => {
                self.written.insert(target.name, (version, status));
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
