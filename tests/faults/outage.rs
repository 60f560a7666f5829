//! Owns the death of a real API server and its store in a run, and their return.

use std::{sync::Arc, time::Duration};

use serde_json::Value;
use tokio::{sync::RwLock, task::JoinSet, time::sleep};

use super::strike::Course;
use crate::common::{cluster::Cluster, envtest::Tokens};

/// Where virt-api is seen to be served again: the server asks it only some time after its start.
const VIRT_API: &str = "/apis/subresources.kubevirt.io/v1";

/// Whether the API server is dead.
#[derive(Default)]
pub(crate) struct Outage {
    pub(crate) dead: bool,
    /// Ends when it serves again.
    coming: JoinSet<()>,
    /// Held by who needs it alive.
    pub(crate) alive: Arc<RwLock<()>>,
}

impl Course {
    /// Kills it; false where it is dead already.
    pub(crate) async fn kill_api(&mut self) -> bool {
        let Some(server) = self.bed.cluster.envtest().filter(|_| !self.outage.dead) else {
            return false;
        };
        let alive = self.outage.alive.clone();
        let _nobody_needs_it = alive.write().await;
        self.outage.dead = true;
        self.apis(None, |wire| wire.cuts += 1);
        self.settle_starts();
        server.kill();
        true
    }

    /// Starts it again where it is dead; [`Course::look_at_api`] sees when it serves.
    pub(crate) fn restart_api(&mut self) {
        if self.outage.dead && self.outage.coming.is_empty() {
            let cluster = self.bed.cluster.clone();
            self.outage.coming.spawn(serves_again(cluster));
        }
    }

    pub(crate) fn look_at_api(&mut self) {
        if let Some(result) = self.outage.coming.try_join_next() {
            result.expect("it comes back");
            self.outage.dead = false;
            self.apis(None, |wire| wire.cuts = wire.cuts.saturating_sub(1));
            self.settle_starts();
        }
    }
}

async fn serves_again(cluster: Arc<Cluster>) {
    let Some(server) = cluster.envtest() else {
        return;
    };
    let ready = tokio::task::spawn_blocking(|| {
        server.restart(Tokens::Own);
        server.wait_until_ready();
    });
    ready.await.expect("it becomes ready");
    while get(&cluster, VIRT_API).await.is_err() {
        sleep(Duration::from_millis(50)).await;
    }
}

/// Reads something as an administrator.
pub(crate) async fn get(cluster: &Cluster, path: &str) -> Result<Value, kube::Error> {
    let request = http::Request::get(path).body(Vec::new());
    cluster
        .client
        .request(request.expect("the path is one"))
        .await
}
