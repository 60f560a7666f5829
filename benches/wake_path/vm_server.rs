//! Owns a list and watch of many VMs that cost next to nothing to serve, so that what is measured is
//! the manager: every VM is text already.

use std::{
    collections::HashMap,
    convert::Infallible,
    ops::Range,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Query, State},
    http::header,
    response::{IntoResponse, Response},
    routing::get,
};
use futures::stream;
use serde_json::Value;
use tokio::{sync::watch, time::Instant};

use crate::vm;

/// The version of the first list. Each event has the next one.
const FIRST_VERSION: usize = 1_000_000;

/// Events that are written at once.
const CHUNK: usize = 64;

/// The first of the addresses that changed VMs get; no VM has it before.
const FRESH: u32 = 0x80_0000;

/// What changes about a VM.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Change {
    /// Whether it runs, which no config's status tells of.
    Power(bool),
    /// A label, which a config may select by.
    Label,
    /// The first of its addresses: it gets one that no VM had.
    Address,
}

/// The VMs 0 to n - 1 of [`vm`], and what happened to them.
#[derive(Clone)]
pub(crate) struct VmServer(Arc<Inner>);

struct Inner {
    kept: Mutex<Kept>,
    /// How many events there are.
    events: watch::Sender<usize>,
    /// How often all watches were told that their version is forgotten.
    forgotten: watch::Sender<u64>,
    /// Watches begun.
    watches: AtomicU64,
}

struct Kept {
    vms: Vec<String>,
    events: Vec<String>,
}

impl VmServer {
    pub(crate) fn new(vms: u32) -> Self {
        Self(Arc::new(Inner {
            kept: Mutex::new(Kept {
                vms: (0..vms).map(|n| vm::object(n).to_string()).collect(),
                events: Vec::new(),
            }),
            events: watch::Sender::new(0),
            forgotten: watch::Sender::new(0),
            watches: AtomicU64::new(0),
        }))
    }

    /// Serves `/apis/kubevirt.io/v1/virtualmachines` and nothing else.
    pub(crate) fn router(&self) -> Router {
        let path = "/apis/kubevirt.io/v1/virtualmachines";
        Router::new()
            .route(path, get(answer))
            .with_state(self.clone())
    }

    /// Changes these VMs, and makes one more.
    pub(crate) fn change(&self, numbers: Range<u32>, change: Change) {
        let mut kept = self.kept();
        for number in numbers {
            kept.change(number, change);
        }
        kept.add();
        let events = kept.events.len();
        drop(kept);
        self.0.events.send_replace(events);
    }

    /// Tells all watches that their version is forgotten, so that a new list is due.
    pub(crate) fn forget(&self) {
        self.0.forgotten.send_modify(|times| *times += 1);
    }

    /// Watches begun so far; each follows a complete list or an earlier watch.
    pub(crate) fn watches(&self) -> u64 {
        self.0.watches.load(Ordering::Relaxed)
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn list(&self, query: &HashMap<String, String>) -> String {
        let number = |name: &str| query.get(name).and_then(|text| text.parse().ok());
        let kept = self.kept();
        let start = number("continue").unwrap_or(0);
        let end = (start + number("limit").unwrap_or(usize::MAX)).min(kept.vms.len());
        let more = if end < kept.vms.len() {
            end.to_string()
        } else {
            String::new()
        };
        let version = FIRST_VERSION + kept.events.len();
        format!(
            r#"{{"apiVersion":"kubevirt.io/v1","kind":"VirtualMachineList","metadata":{{"resourceVersion":"{version}","continue":"{more}"}},"items":[{}]}}"#,
            kept.vms[start..end].join(",")
        )
    }

    /// The events from the version asked for on, until the time asked for is over.
    fn watch(&self, query: &HashMap<String, String>) -> Body {
        let number = |name: &str| query.get(name)?.parse::<usize>().ok();
        let version = number("resourceVersion");
        let begin = version.and_then(|version| version.checked_sub(FIRST_VERSION));
        let seconds = number("timeoutSeconds").unwrap_or(300);
        let end = Instant::now() + Duration::from_secs(seconds as u64);
        let (events, forgotten) = (self.0.events.subscribe(), self.0.forgotten.subscribe());
        // An older version is the stand-in's own: of a watch that was begun before this server was
        // there, by the simulated KubeVirt, which has nothing to do here.
        let ours = begin.is_some();
        self.0.watches.fetch_add(ours.into(), Ordering::Relaxed);
        let begin = begin.unwrap_or(usize::MAX);
        let state = Some((self.clone(), begin, events, forgotten));
        let stream = stream::unfold(state, move |state| async move {
            let (server, mut cursor, mut events, mut forgotten) = state?;
            let text = tokio::select! {
                biased;
                changed = forgotten.changed(), if ours => {
                    changed.ok()?;
                    let gone = r#"{"type":"ERROR","object":{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"too old resource version","reason":"Expired","code":410}}"#;
                    return Some((Ok::<_, Infallible>(Bytes::from(format!("{gone}\n"))), None));
                }
                more = events.wait_for(|count| *count > cursor) => {
                    more.ok()?;
                    server.kept().events[cursor..].iter().take(CHUNK).fold(
                        String::new(),
                        |text, event| { cursor += 1; text + event },
                    )
                }
                () = tokio::time::sleep_until(end) => return None,
            };
            Some((Ok(text.into()), Some((server, cursor, events, forgotten))))
        });
        Body::from_stream(stream)
    }
}

impl Kept {
    fn change(&mut self, number: u32, change: Change) {
        let mut object = vm::object(number);
        let event = self.events.len();
        match change {
            Change::Power(true) => object["status"]["printableStatus"] = "Running".into(),
            Change::Power(false) => {}
            Change::Label => object["metadata"]["labels"]["touched"] = event.to_string().into(),
            Change::Address => {
                let mac = vm::mac(FRESH + u32::try_from(event).expect("not so many events"));
                let devices = &mut object["spec"]["template"]["spec"]["domain"]["devices"];
                devices["interfaces"][0]["macAddress"] = mac.to_string().into();
            }
        }
        self.vms[number as usize] = self.tell("MODIFIED", object);
    }

    fn add(&mut self) {
        let number = u32::try_from(self.vms.len()).expect("not so many VMs");
        let text = self.tell("ADDED", vm::object(number));
        self.vms.push(text);
    }

    /// Writes the event of a VM, and returns the VM as text.
    fn tell(&mut self, kind: &str, mut object: Value) -> String {
        let version = FIRST_VERSION + self.events.len() + 1;
        object["metadata"]["resourceVersion"] = version.to_string().into();
        let text = object.to_string();
        let event = format!(r#"{{"type":"{kind}","object":{text}}}"#);
        self.events.push(event + "\n");
        text
    }
}

async fn answer(
    State(server): State<VmServer>,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    let body = if query.contains_key("watch") {
        server.watch(&query)
    } else {
        server.list(&query).into()
    };
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}
