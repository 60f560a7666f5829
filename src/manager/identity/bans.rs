//! Owns [`Bans`]: the nodes whose agents are refused, as a `ConfigMap` lists them.

use std::{collections::BTreeSet, pin::pin, sync::Arc};

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client,
    runtime::{WatchStreamExt as _, watcher::watch_object},
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::metrics::Metrics;
use crate::{admin::Heartbeat, cluster::chain, manager::sessions::is_node_name};

/// The key of the `ConfigMap` with the names.
const KEY: &str = "nodes";

/// Unreadable names that are told.
const MAX_SHOWN: usize = 3;

pub(super) type Names = Arc<BTreeSet<String>>;

/// Whose agents are refused. Clones are one.
#[derive(Debug, Clone)]
pub struct Bans(watch::Sender<Option<Names>>);

impl Default for Bans {
    /// Not known yet.
    fn default() -> Self {
        Self(watch::Sender::new(None))
    }
}

impl Bans {
    /// Nobody is banned.
    #[must_use]
    pub fn none() -> Self {
        let bans = Self::default();
        bans.set(Names::default());
        bans
    }

    /// Whether a node is banned; none before the list is known.
    #[must_use]
    pub fn contains(&self, node: &str) -> Option<bool> {
        self.0.borrow().as_ref().map(|names| names.contains(node))
    }

    /// Is told of each change.
    pub(super) fn subscribe(&self) -> watch::Receiver<Option<Names>> {
        self.0.subscribe()
    }

    /// Reads the list from the `ConfigMap` `name`, and each change of it, until `token` is cancelled.
    /// No `ConfigMap` bans nobody. While the API server is away what is known stays in force.
    ///
    /// # Errors
    ///
    /// None: what fails is tried again, for ever.
    pub async fn watch(
        self,
        api: (Client, String, String),
        metrics: Metrics,
        token: CancellationToken,
        heart: Heartbeat,
    ) -> anyhow::Result<()> {
        let (client, namespace, name) = api;
        let api = Api::<ConfigMap>::namespaced(client, &namespace);
        let mut objects = pin!(watch_object(api, &name).default_backoff());
        let mut trouble = None;
        while let Some(Some(result)) = token
            .run_until_cancelled(heart.waiting(objects.next()))
            .await
        {
            let error = result.as_ref().err().map(|error| chain(error));
            if let Ok(found) = result {
                let names = Arc::new(read(&name, found));
                metrics
                    .banned
                    .set(i64::try_from(names.len()).unwrap_or(i64::MAX));
                self.set(names);
            }
            if error.is_some() && error != trouble {
                tracing::warn!(
                    namespace,
                    name,
                    error,
                    "cannot read which nodes are banned; what is known stays in force, and while \
                     nothing is, no agent is accepted: check that the manager's Role lets it list \
                     and watch this ConfigMap"
                );
            }
            trouble = error;
        }
        Ok(())
    }

    fn set(&self, names: Names) {
        self.0.send_if_modified(|known| {
            let differs = known.as_ref() != Some(&names);
            if differs && (known.is_some() || !names.is_empty()) {
                tracing::info!(nodes = names.len(), "the list of banned nodes is read");
            }
            *known = Some(names);
            differs
        });
    }
}

/// The nodes that a `ConfigMap` lists.
fn read(name: &str, found: Option<ConfigMap>) -> BTreeSet<String> {
    let text = found.and_then(|map| map.data?.remove(KEY));
    let (names, unreadable) = parse(&text.unwrap_or_default());
    if !unreadable.is_empty() {
        tracing::warn!(
            config_map = name,
            unreadable = unreadable.len(),
            first = ?&unreadable[..unreadable.len().min(MAX_SHOWN)],
            "what the list of banned nodes says here is not the name of a node and bans nobody; \
             write names of nodes under the key {KEY}, separated by spaces, commas or lines"
        );
    }
    names
}

/// The names of a list, and what is none.
fn parse(text: &str) -> (BTreeSet<String>, Vec<String>) {
    let words = text.split(|c: char| c.is_whitespace() || c == ',');
    let words = words.filter(|word| !word.is_empty());
    let (names, others): (Vec<&str>, Vec<&str>) = words.partition(|word| is_node_name(word));
    let shown = |word: &str| word.chars().take(64).collect();
    (
        names.into_iter().map(str::to_owned).collect(),
        others.into_iter().map(shown).collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_separated_as_people_write_lists_and_what_is_none_is_told() {
        let (names, others) = parse("node-1, node-2\n\tn3.example,, Node_4 -\u{e9} node-1\n");
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        assert_eq!(names, ["n3.example", "node-1", "node-2"]);
        assert_eq!(others, ["Node_4", "-\u{e9}"]);
        assert_eq!(parse(" \n"), (BTreeSet::new(), Vec::new()));
    }

    #[test]
    fn before_the_list_is_known_nobody_can_say_who_is_banned() {
        let bans = Bans::default();
        assert_eq!(bans.contains("node-1"), None);
        bans.set(Arc::new(["node-1".to_owned()].into()));
        assert_eq!(bans.contains("node-1"), Some(true));
        assert_eq!(bans.contains("node-2"), Some(false));
    }
}
