//! Owns watches: a stream that reads the store's history from a version on.

use std::{collections::VecDeque, io, sync::Arc, time::Duration};

use axum::body::{Body, Bytes};
use serde_json::{Value, json};
use tokio::{sync::watch, time::Instant};

use super::{
    State,
    failure::Failure,
    faults::WatchEnd,
    form::Form,
    kinds::{self, Resource},
    list::{Scope, check_options},
    route::Call,
    store::{Change, set_version},
};

/// The annotation of the bookmark after which a streamed list is complete.
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";
/// How long a watch lasts unless the client says so; the real one takes 30 to 60 min.
const LONGEST: Duration = Duration::from_secs(45 * 60);
/// How long before its end a watch gets its last bookmark.
const LAST_BOOKMARK: Duration = Duration::from_secs(2);

/// One running watch.
struct Watch {
    state: Arc<State>,
    resource: Arc<Resource>,
    scope: Scope,
    form: Form,
    bookmarks: bool,
    /// All changes up to this version have been looked at.
    cursor: u64,
    deadline: Instant,
    next_bookmark: Instant,
    pending: VecDeque<Bytes>,
    ended: bool,
    revision: watch::Receiver<u64>,
    ends: watch::Receiver<WatchEnd>,
}

/// Starts a watch.
///
/// # Errors
///
/// A parameter is wrong, or the version is forgotten and settings say that this is to be told by
/// the code and not in the stream.
pub fn start(state: &Arc<State>, call: &Call, form: Form) -> Result<Body, Failure> {
    check_options(call)?;
    let mut ends = state.faults.watch_ends();
    ends.mark_unchanged();
    let timeout = call
        .param("timeoutSeconds")
        .and_then(|seconds| seconds.parse().ok());
    let mut watch = Watch {
        state: state.clone(),
        resource: call.resource.clone(),
        scope: Scope::of(call)?,
        form,
        bookmarks: call.flag("allowWatchBookmarks"),
        cursor: 0,
        deadline: Instant::now() + timeout.map_or(LONGEST, Duration::from_secs),
        next_bookmark: Instant::now(),
        pending: VecDeque::new(),
        ended: false,
        revision: state.revision.subscribe(),
        ends,
    };
    watch.plan_bookmark();
    watch.begin(call)?;
    let stream = futures::stream::unfold(watch, |mut watch| async move {
        let next = watch.next().await?;
        Some((next, watch))
    });
    Ok(Body::from_stream(stream))
}

impl Watch {
    /// Sets the version to start from, and queues what comes before it.
    fn begin(&mut self, call: &Call) -> Result<(), Failure> {
        let asked = call.revision("resourceVersion").map_err(|failure| {
            let status = failure.status();
            let text = status["message"].as_str().unwrap_or_default();
            Failure::unexplained(500, text.trim_start_matches("invalid resource version: "))
        })?;
        let asked = asked.unwrap_or(0);
        let initial = call.flag("sendInitialEvents");
        let state = self.state.clone();
        let store = state.store();
        if asked != 0 && !initial {
            self.cursor = asked;
            if let Err(gone) = store.remembers(asked) {
                let failure = Failure::expired(asked, gone.oldest);
                if state.settings().expired_by_code {
                    return Err(failure);
                }
                self.fail(&failure);
            }
            return Ok(());
        }
        self.cursor = store.revision();
        for (key, object) in &store.table(&self.resource.table()) {
            if self.scope.holds(key, object) {
                self.push("ADDED", object);
            }
        }
        if initial && self.bookmarks {
            let mut bookmark = self.bookmark();
            bookmark["metadata"]["annotations"] = json!({INITIAL_EVENTS_END: "true"});
            self.push_as_is("BOOKMARK", &bookmark.to_string());
        }
        Ok(())
    }

    /// The next bytes; none at the end.
    async fn next(&mut self) -> Option<io::Result<Bytes>> {
        loop {
            if let Some(bytes) = self.pending.pop_front() {
                return Some(Ok(bytes));
            }
            if self.ended {
                return None;
            }
            self.revision.borrow_and_update();
            self.read();
            if !self.pending.is_empty() || self.ended {
                continue;
            }
            tokio::select! {
                changed = self.revision.changed() => self.ended |= changed.is_err(),
                () = tokio::time::sleep_until(self.deadline) => self.ended = true,
                () = tokio::time::sleep_until(self.next_bookmark) => {
                    self.plan_bookmark();
                    self.push_bookmark();
                }
                changed = self.ends.changed() => {
                    let end = self.ends.borrow_and_update().clone();
                    match end {
                        WatchEnd::Reset => return Some(Err(io::ErrorKind::ConnectionReset.into())),
                        WatchEnd::Error(failure) => self.fail(&failure),
                        WatchEnd::Clean => self.ended = true,
                    }
                    self.ended |= changed.is_err();
                }
            }
        }
    }

    /// Sets when the next bookmark is due: at the interval, and shortly before the end.
    fn plan_bookmark(&mut self) {
        let now = Instant::now();
        let last = self.deadline - LAST_BOOKMARK;
        let next = now + self.state.settings().bookmark_interval;
        self.next_bookmark = if last > now { next.min(last) } else { next };
    }

    /// Queues what has happened since the cursor.
    fn read(&mut self) {
        let state = self.state.clone();
        let store = state.store();
        let resource = &self.resource;
        let served = kinds::find(&store, &resource.group, &resource.version, &resource.plural);
        match store.since(&self.resource.table(), self.cursor) {
            Ok(changes) => {
                self.cursor = self.cursor.max(store.revision());
                for change in &changes {
                    self.deliver(change);
                }
            }
            Err(gone) => self.fail(&Failure::expired(self.cursor, gone.oldest)),
        }
        self.ended |= served.is_none();
    }

    fn deliver(&mut self, change: &Change) {
        let holds = |object: &Arc<Value>| self.scope.holds(&change.key, object);
        let before = change.before.as_ref().filter(|object| holds(object));
        let after = change.after.as_ref().filter(|object| holds(object));
        match (before, after) {
            (None, None) => {}
            (None, Some(object)) => self.push("ADDED", object),
            (Some(_), Some(object)) => self.push("MODIFIED", object),
            // The last state that the client knew, with the version of what took it away.
            (Some(object), None) => {
                let mut object = Value::clone(object);
                set_version(&mut object, change.revision);
                self.push("DELETED", &object);
            }
        }
    }

    fn push(&mut self, kind: &str, object: &Value) {
        let object = self.form.one(&self.resource, object);
        self.push_as_is(kind, &object);
    }

    /// Queues an event whose object is JSON already.
    fn push_as_is(&mut self, kind: &str, object: &str) {
        let line = format!("{{\"type\":\"{kind}\",\"object\":{object}}}\n");
        self.pending.push_back(line.into());
    }

    fn bookmark(&self) -> Value {
        json!({
            "kind": self.resource.kind, "apiVersion": self.resource.api_version(),
            "metadata": {"resourceVersion": self.cursor.to_string()},
        })
    }

    fn push_bookmark(&mut self) {
        if self.bookmarks {
            let bookmark = self.bookmark();
            self.push_as_is("BOOKMARK", &bookmark.to_string());
        }
    }

    /// Queues an error, after which the stream ends.
    fn fail(&mut self, failure: &Failure) {
        self.push_as_is("ERROR", &failure.status().to_string());
        self.ended = true;
    }
}
