//! Owns [`Leading`]: the parts that only the leader makes use of, put together.

use std::sync::Arc;

use kube::Client;
use prometheus_client::registry::Registry;
use tokio::sync::watch as channel;
use tokio_util::sync::CancellationToken;

use super::{
    daemon_set::{self, DaemonSetName},
    dirty::Dirty,
    events::Events,
    leader::{Elector, Leadership},
    options::Options,
    reconcile::{Reconciler, Sources, Writer},
    sessions::Sessions,
    status::DaemonSetSeen,
    waker::Forbidden,
    watch::Watch,
};
use crate::{
    admin::{Gate, Heartbeat},
    shutdown::Tasks,
};

/// What writes the status of the configs, on the leader.
pub(super) struct Leading {
    pub(super) dirty: Arc<Dirty>,
    daemon_set: channel::Sender<Option<DaemonSetSeen>>,
    elector: Elector,
    reconciler: Reconciler,
    pub(super) leadership: Leadership,
}

/// What the leader needs of the other parts.
pub(super) struct Others {
    pub(super) sessions: Arc<Sessions>,
    pub(super) events: Events,
    pub(super) listed: Vec<Gate>,
    pub(super) forbidden: Forbidden,
}

impl Leading {
    pub(super) fn new(
        options: &Options,
        watch: &Watch,
        Others {
            sessions,
            events,
            listed,
            forbidden,
        }: Others,
        registry: &mut Registry,
    ) -> Self {
        let (client, directory) = (&watch.client, &watch.directory);
        let dirty = Arc::new(Dirty::default());
        let (daemon_set, seen) = channel::channel(None);
        let (held, leadership) = Leadership::channel();
        leadership.register(registry);
        let writer = Writer::new(client.clone(), events, directory.clone());
        writer.register(registry);
        let sources = Sources {
            directory: directory.clone(),
            dirty: dirty.clone(),
            in_force: watch.in_force.subscribe(),
            kubevirt: watch.kubevirt.subscribe(),
            stale: watch.stale.subscribe(),
            passwords: watch.passwords.subscribe(),
            daemon_set: seen,
            forbidden,
            sessions,
            leadership: leadership.clone(),
        };
        let names = (&*options.daemon_set.namespace, &*options.replica);
        Self {
            dirty,
            daemon_set,
            elector: Elector::new(client.clone(), names, options.timing, listed, held),
            reconciler: Reconciler::new(sources, writer),
            leadership,
        }
    }

    /// Starts them. The election ends with the second token, all else with the first.
    pub(super) fn spawn(
        self,
        tasks: &mut Tasks,
        (client, daemon_set): (Client, DaemonSetName),
        (token, last): (CancellationToken, CancellationToken),
        heart: impl Fn(&'static str) -> Heartbeat,
    ) {
        tasks.spawn("leader", self.elector.run(last, heart("leader")));
        let status = self.reconciler.run(token.clone(), heart("status"));
        tasks.spawn("status", status);
        let seen = daemon_set::watch(
            client,
            daemon_set,
            self.daemon_set,
            token,
            heart("daemon set"),
        );
        tasks.spawn("daemon set", seen);
    }
}
