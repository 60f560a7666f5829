//! Owns how the Lease is given back at the end, so that another replica leads at once. An API server
//! that is away does not hold up the end for long.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use kube::api::PostParams;
use tokio::time::timeout;

use super::{Elector, NAME, holder};
use crate::cluster::chain;

/// The Lease is given back within this time …
const WITHIN: Duration = Duration::from_secs(2);
/// … or within this one where the API server was away, which it is most likely still, or where there
/// is most likely nothing to give back.
const TRIED_WITHIN: Duration = Duration::from_millis(500);
/// A server that has not answered for so long is away.
const SLOW: Duration = Duration::from_secs(1);

impl Elector {
    /// Gives the leadership back, where it is ours, or may be by an attempt that was under way.
    pub(super) async fn hand_over(&mut self) {
        let led = self.held.send_replace(None).is_some();
        let asked = self.asked.take();
        if !led && asked.is_none() {
            return;
        }
        let hangs = asked.is_some_and(|at| at.elapsed() >= crate::pace::of(SLOW));
        let patience = if hangs || !led || self.trouble.is_some() {
            TRIED_WITHIN
        } else {
            WITHIN
        };
        match timeout(crate::pace::of(patience), self.release()).await {
            Ok(Ok(true)) => tracing::info!("gave the leadership back"),
            // Another one leads already.
            Ok(Ok(false)) => {}
            failed if led => {
                let error = failed.ok().and_then(Result::err);
                let error = error.map(|error| chain(&error));
                tracing::warn!(
                    error,
                    "cannot give the leadership back; another manager leads when the Lease expires"
                );
            }
            _ => {}
        }
    }

    /// Says whether it was ours.
    async fn release(&self) -> kube::Result<bool> {
        if self.is_ours()
            && let Some((lease, _)) = &self.seen
        {
            match self.give_back(lease.clone()).await {
                // The end may have come between a renewal and its answer.
                Err(kube::Error::Api(status)) if status.code == 409 => {}
                given => return given.map(|()| true),
            }
        }
        let found = self.api.get_opt(NAME).await?;
        match found.filter(|lease| holder(lease) == Some(&self.identity)) {
            Some(lease) => self.give_back(lease).await.map(|()| true),
            None => Ok(false),
        }
    }

    async fn give_back(&self, mut lease: Lease) -> kube::Result<()> {
        if let Some(spec) = &mut lease.spec {
            spec.holder_identity = Some(String::new());
            spec.lease_duration_seconds = Some(1);
        }
        let replaced = self.api.replace(NAME, &PostParams::default(), &lease).await;
        replaced.map(drop)
    }
}
