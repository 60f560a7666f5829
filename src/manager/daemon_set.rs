//! Owns the watch of the agents' DaemonSet, whose numbers every status shows. It is one object, by
//! name: a node that gets no agent, or loses it, changes nothing else that a manager could see.

use std::pin::pin;

use futures::StreamExt as _;
use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetStatus};
use kube::{
    Api, Client,
    core::{ApiResource, NotUsed, Object},
    runtime::{WatchStreamExt as _, watcher::watch_object},
};
use tokio::sync::watch::Sender;
use tokio_util::sync::CancellationToken;

use crate::{admin::Heartbeat, cluster::chain, manager::status::DaemonSetSeen};

/// Names the agents' DaemonSet.
#[derive(Debug, Clone)]
pub struct DaemonSetName {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// A DaemonSet without its template, which alone would take a megabyte of program to read.
type Numbers = Object<NotUsed, DaemonSetStatus>;

/// Tells `seen` of the DaemonSet, and of its absence, until `token` is cancelled.
///
/// # Errors
///
/// None: what fails is tried again, for ever.
pub async fn watch(
    client: Client,
    DaemonSetName { namespace, name }: DaemonSetName,
    seen: Sender<Option<DaemonSetSeen>>,
    token: CancellationToken,
    heart: Heartbeat,
) -> anyhow::Result<()> {
    let kind = ApiResource::erase::<DaemonSet>(&());
    let api = Api::<Numbers>::namespaced_with(client, &namespace, &kind);
    let mut objects = pin!(watch_object(api, &name).default_backoff());
    let mut trouble = None;
    while let Some(Some(result)) = token
        .run_until_cancelled(heart.waiting(objects.next()))
        .await
    {
        let error = result.as_ref().err().map(|error| chain(error));
        if let Ok(found) = result {
            let found = found.map(|set| numbers(&name, &set));
            seen.send_if_modified(|known| {
                let differs = *known != found;
                *known = found;
                differs
            });
        }
        if error.is_some() && error != trouble {
            tracing::warn!(
                namespace,
                name,
                error,
                "cannot watch the agents' DaemonSet, so that no status shows its numbers"
            );
        }
        trouble = error;
    }
    Ok(())
}

fn numbers(name: &str, set: &Numbers) -> DaemonSetSeen {
    let status = set.status.clone().unwrap_or_default();
    DaemonSetSeen {
        name: name.to_owned(),
        desired: status.desired_number_scheduled,
        ready: status.number_ready,
        available: status.number_available.unwrap_or_default(),
    }
}
