//! Owns [`Scribe`]: writes Events, and keeps count in those that it wrote before.

use std::{sync::Arc, time::Duration};

use k8s_openapi::{api::core::v1::Event, jiff::Timestamp};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::json;
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    MAX_TROUBLES,
    note::{Key, Note},
    recent::Recent,
};
use crate::{
    admin::Heartbeat,
    cluster::chain,
    manager::metrics::{Metrics, Told},
};

/// Writing one may take so long.
const WRITTEN_WITHIN: Duration = Duration::from_secs(5);
/// What waits at the end is written within this time.
const FLUSHED_WITHIN: Duration = Duration::from_secs(2);

/// Writes what [`Events`](super::Events) took in.
pub struct Scribe {
    client: Client,
    queue: mpsc::Receiver<Note>,
    replica: Arc<str>,
    metrics: Metrics,
    /// What was told of troubles and hints.
    told: Recent<Key, Record>,
}

/// What became of one kind of trouble with one object.
#[derive(Debug, Default)]
struct Record {
    /// The Event of it, which this replica wrote last or found written.
    name: Option<String>,
    /// When it happened first.
    since: Option<Timestamp>,
    /// How often it has happened since.
    count: u32,
    /// What of that no Event says yet.
    unsaid: u32,
    /// Whether it was said, be it by another replica.
    said: bool,
}

impl Scribe {
    pub(super) fn new(
        client: Client,
        queue: mpsc::Receiver<Note>,
        replica: Arc<str>,
        metrics: Metrics,
    ) -> Self {
        Self {
            client,
            queue,
            replica,
            metrics,
            told: Recent::new(MAX_TROUBLES),
        }
    }

    /// Writes Events until `end` is cancelled and what waits then is written.
    ///
    /// # Errors
    ///
    /// None: an Event that cannot be written is counted.
    pub async fn run(mut self, end: CancellationToken, heart: Heartbeat) -> anyhow::Result<()> {
        let late = async {
            end.cancelled().await;
            sleep(crate::pace::of(FLUSHED_WITHIN)).await;
        };
        tokio::select! {
            biased;
            () = self.follow(&end, &heart) => {}
            () = late => tracing::warn!("some Events could not be written before the end"),
        }
        Ok(())
    }

    /// Writes until `end` is cancelled and nothing waits any more.
    async fn follow(&mut self, end: &CancellationToken, heart: &Heartbeat) {
        while let Some(Some(note)) = end
            .run_until_cancelled(heart.waiting(self.queue.recv()))
            .await
        {
            self.write(&note).await;
        }
        self.queue.close();
        self.catch_up().await;
    }

    /// Writes what waits now.
    pub(super) async fn catch_up(&mut self) {
        while let Ok(note) = self.queue.try_recv() {
            self.write(&note).await;
        }
    }

    async fn write(&mut self, note: &Note) {
        let mut own = Record::default();
        let record = if note.about.is_start() {
            &mut own
        } else {
            self.told.of(&note.about.key())
        };
        let result = if note.about.is_hint() && record.said {
            Told::Suppressed
        } else {
            record.count = record.count.saturating_add(note.times);
            record.unsaid = record.unsaid.saturating_add(note.times);
            let api = Api::namespaced(self.client.clone(), note.about.namespace());
            let written = record.write(&api, note, &self.replica);
            match timeout(crate::pace::of(WRITTEN_WITHIN), written).await {
                Ok(Ok(result)) => result,
                Ok(Err(error)) => {
                    let error = chain(&error);
                    tracing::debug!(
                        event = note.about.event_name(),
                        error,
                        "cannot write an Event"
                    );
                    Told::Failed
                }
                Err(_) => Told::Failed,
            }
        };
        self.metrics.told(result);
    }
}

impl Record {
    /// Brings the Event up to date; where there is none, makes one.
    async fn write(&mut self, api: &Api<Event>, note: &Note, replica: &str) -> kube::Result<Told> {
        let since = *self.since.get_or_insert_with(Timestamp::now);
        if let Some(name) = &self.name {
            match update(api, name, note, self.unsaid).await {
                Ok(count) => {
                    self.count = count;
                    self.unsaid = 0;
                    return Ok(Told::Updated);
                }
                // It was forgotten by the API server, which keeps Events for an hour.
                Err(error) if has_code(&error, 404) => self.name = None,
                Err(error) => return Err(error),
            }
        }
        let event = note.event(replica, since, self.count);
        match api.create(&PostParams::default(), &event).await {
            Ok(_) => {
                self.name = event.metadata.name;
                self.unsaid = 0;
                self.said = true;
                Ok(Told::Written)
            }
            // Another replica's, or from before a restart: the next repeat is counted there.
            Err(error) if has_code(&error, 409) => {
                self.name = event.metadata.name;
                self.said = true;
                Ok(Told::Known)
            }
            Err(error) => Err(error),
        }
    }
}

/// Tells in an Event of what has happened `more` times, and brings how often that is in all. Other
/// replicas count there too, so that it goes on from what the Event says: where two do that in the
/// same moment one of them is lost, but the count never falls.
async fn update(api: &Api<Event>, name: &str, note: &Note, more: u32) -> kube::Result<u32> {
    let params = PatchParams::default();
    let news = Patch::Merge(note.news());
    let stored = api.patch(name, &params, &news).await?.count;
    let stored = u32::try_from(stored.unwrap_or_default()).unwrap_or_default();
    let count = stored.saturating_add(more);
    let update = Patch::Merge(json!({"count": i32::try_from(count).unwrap_or(i32::MAX)}));
    api.patch(name, &params, &update).await?;
    Ok(count)
}

fn has_code(error: &kube::Error, code: u16) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == code)
}
