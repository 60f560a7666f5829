//! What is in the cluster in the end, on an API server that knows how to keep Events.

use std::collections::BTreeMap;

use http::{Method, Request, Response};
use kube::client::Body;
use prometheus_client::{encoding::text::encode, registry::Registry};
use serde_json::{Value, json};

use super::*;
use crate::manager::vm::{Power, VmKey};

type Stored = Arc<Mutex<BTreeMap<String, Value>>>;

pub(super) fn machine(name: &str, resource_version: &str, strategy: RunStrategy) -> Arc<Vm> {
    Arc::new(Vm {
        key: VmKey::new("shop", name),
        uid: "0a1b".into(),
        resource_version: resource_version.into(),
        labels: [].into(),
        macs: Vec::new(),
        bad_macs: Vec::new(),
        strategy,
        power: Power::Off,
        running: false,
        on_since: None,
        off_since: None,
    })
}

pub(super) fn config() -> ConfigRef {
    ConfigRef {
        name: "default".into(),
        uid: "2c3d".into(),
        resource_version: "5".into(),
    }
}

/// One replica, and the API server that it may share with others.
struct Bed {
    events: Events,
    scribe: Scribe,
    stored: Stored,
    registry: Registry,
    start: Instant,
}

/// Creates and merges, as an API server does.
fn answer(stored: &Stored, method: &Method, path: &str, body: Value) -> (u16, Value) {
    let status = |code: u16| {
        let reason = if code == 404 {
            "NotFound"
        } else {
            "AlreadyExists"
        };
        let object = json!({"kind": "Status", "status": "Failure", "message": reason,
            "reason": reason, "code": code});
        (code, object)
    };
    let mut stored = stored.lock().unwrap();
    if *method == Method::POST {
        let name = body["metadata"]["name"].as_str().unwrap();
        let path = format!("{path}/{name}");
        if stored.contains_key(&path) {
            return status(409);
        }
        stored.insert(path, body.clone());
        return (201, body);
    }
    let Some(event) = stored.get_mut(path) else {
        return status(404);
    };
    for (field, value) in body.as_object().unwrap() {
        event[field] = value.clone();
    }
    (200, event.clone())
}

impl Bed {
    fn new() -> Self {
        Self::on(Stored::default())
    }

    fn on(stored: Stored) -> Self {
        let api = stored.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let api = api.clone();
            async move {
                let (parts, body) = request.into_parts();
                let body = body.collect_bytes().await.unwrap();
                let body = serde_json::from_slice(&body).unwrap();
                let (code, body) = answer(&api, &parts.method, parts.uri.path(), body);
                let body = Body::from(body.to_string().into_bytes());
                Ok::<_, kube::Error>(Response::builder().status(code).body(body).unwrap())
            }
        });
        let mut registry = Registry::default();
        let client = Client::new(service, "default");
        let metrics = Metrics::new(&mut registry);
        let (events, scribe) = Events::new(client, "a".into(), metrics);
        Self {
            events,
            scribe,
            stored,
            registry,
            start: Instant::now(),
        }
    }

    fn at(&self, seconds: u64) -> Instant {
        self.start + Duration::from_secs(seconds)
    }

    fn conflict(&self, version: &str, second: u64) {
        let vm = machine("db", version, RunStrategy::Manual);
        self.events
            .conflict(&vm, format!("told at {second}"), self.at(second));
    }

    /// What is stored: reason, count and message of each Event.
    fn stored(&self) -> Vec<(String, u64, String)> {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let events = self.stored.lock().unwrap();
        let line = |event: &Value| {
            let count = event["count"].as_u64().unwrap();
            (text(&event["reason"]), count, text(&event["message"]))
        };
        events.values().map(line).collect()
    }

    fn told(&self, result: &str) -> u64 {
        let mut text = String::new();
        encode(&mut text, &self.registry).unwrap();
        let series = format!("kubernetes_events_total{{result=\"{result}\"}} ");
        let value = text.lines().find_map(|line| line.strip_prefix(&series));
        value.expect("the series exists").parse().unwrap()
    }
}

fn conflict(count: u64, second: u64) -> Vec<(String, u64, String)> {
    let reason = "WakeOnLanAmbiguous".to_owned();
    vec![(reason, count, format!("told at {second}"))]
}

#[tokio::test]
async fn repeats_of_a_trouble_are_counted_in_the_event_that_told_it() {
    let mut bed = Bed::new();
    for second in 0..6 {
        bed.conflict("7", second);
    }
    bed.scribe.catch_up().await;
    assert_eq!(bed.stored(), conflict(1, 0));
    assert_eq!(bed.told("suppressed"), 5);
    // The VM has changed meanwhile; the trouble is the same.
    bed.conflict("8", 61);
    bed.scribe.catch_up().await;
    assert_eq!(bed.stored(), conflict(7, 61));
    // The API server keeps Events for an hour.
    bed.stored.lock().unwrap().clear();
    bed.conflict("8", 130);
    bed.scribe.catch_up().await;
    assert_eq!(bed.stored(), conflict(8, 130));
    assert_eq!((bed.told("written"), bed.told("updated")), (2, 1));
}

#[tokio::test]
async fn replicas_that_see_the_same_trouble_make_one_event() {
    let mut one = Bed::new();
    let mut other = Bed::on(one.stored.clone());
    for bed in [&mut one, &mut other] {
        bed.conflict("7", 0);
        bed.scribe.catch_up().await;
    }
    assert_eq!(one.stored().len(), 1);
    assert_eq!((one.told("written"), other.told("known")), (1, 1));
}

#[tokio::test]
async fn after_a_restart_the_event_goes_on_to_count() {
    let mut before = Bed::new();
    for second in [0, 1, 61] {
        before.conflict("7", second);
    }
    before.scribe.catch_up().await;
    assert_eq!(before.stored(), conflict(3, 61));
    let mut after = Bed::on(before.stored.clone());
    after.conflict("7", 0);
    after.conflict("7", 1);
    after.scribe.catch_up().await;
    after.conflict("7", 60);
    after.scribe.catch_up().await;
    assert_eq!(after.stored(), conflict(6, 60));
    // A replica that knows of fewer takes none away.
    before.conflict("7", 122);
    before.scribe.catch_up().await;
    assert_eq!(before.stored(), conflict(7, 122));
}

#[tokio::test]
async fn a_config_is_told_of_each_kind_of_trouble() {
    let mut bed = Bed::new();
    for reason in [ConfigReason::MacConflict, ConfigReason::Rejected] {
        for second in 0..3 {
            let message = "it makes no sense".to_owned();
            bed.events
                .config(&config(), reason, message, bed.at(second));
        }
    }
    bed.scribe.catch_up().await;
    let reasons: Vec<_> = bed.stored().into_iter().map(|event| event.0).collect();
    assert_eq!(reasons.len(), 2, "{reasons:?}");
    assert!(reasons.contains(&"MACConflict".to_owned()), "{reasons:?}");
    assert!(
        reasons.contains(&"ConfigRejected".to_owned()),
        "{reasons:?}"
    );
}

/// A start of the version `version` of a halted VM.
fn start(bed: &Bed, version: &str, second: u64) {
    let vm = machine("db", version, RunStrategy::Halted);
    for (reason, message) in [(Reason::Started, "woken"), (Reason::Hint, HALTED)] {
        bed.events
            .vm(&vm, reason, message.to_owned(), bed.at(second));
    }
}

#[tokio::test]
async fn each_start_is_told_and_the_hint_once_for_all_replicas() {
    let mut one = Bed::new();
    start(&one, "7", 0);
    start(&one, "9", 1);
    one.scribe.catch_up().await;
    let mut other = Bed::on(one.stored.clone());
    start(&other, "11", 0);
    start(&other, "13", 90);
    other.scribe.catch_up().await;
    let events = one.stored();
    let count = |word: &str| events.iter().filter(|event| event.0 == word).count();
    assert_eq!(count("WakeOnLanStarted"), 4, "{events:?}");
    assert_eq!(count("WakeOnLanHint"), 1, "{events:?}");
    assert_eq!(other.told("known"), 1, "asked once");
}

#[tokio::test]
async fn a_flood_of_troubles_is_told_in_part_and_takes_nothing_from_starts() {
    let mut bed = Bed::new();
    let mut told = 0;
    // Packets for 1,500 VMs are refused, every second.
    for second in 0..70 {
        for number in 0..1_500 {
            let vm = Vm {
                uid: number.to_string().into(),
                ..(*machine("db", "7", RunStrategy::Manual)).clone()
            };
            bed.events
                .conflict(&vm.into(), String::new(), bed.at(second));
        }
        for number in 0..START_RATE {
            let version = format!("{second}.{number}");
            let vm = machine("db", &version, RunStrategy::Manual);
            bed.events
                .vm(&vm, Reason::Started, String::new(), bed.at(second));
        }
        bed.scribe.catch_up().await;
        let events = bed.stored();
        let starts = |event: &&(String, u64, String)| event.0 == "WakeOnLanStarted";
        let started = events.iter().filter(starts).count() as u64;
        assert_eq!(started, (second + 1) * u64::from(START_RATE));
        told = bed.told("written") + bed.told("updated") + bed.told("known") - started;
    }
    let most = u64::from(TROUBLE_BURST) + 70 * u64::from(TROUBLE_RATE);
    assert!((most - 5..=most).contains(&told), "{told} of {most}");
}

#[tokio::test]
async fn while_nothing_is_written_troubles_are_dropped_before_starts() {
    let bed = Bed::new();
    // As slow as the rate allows, so that only the queue is in the way.
    for second in 0..300 {
        let vm = Vm {
            uid: second.to_string().into(),
            ..(*machine("db", "7", RunStrategy::Manual)).clone()
        };
        bed.events
            .conflict(&vm.into(), String::new(), bed.at(second));
    }
    let room = (MAX_WAITING - FOR_STARTS) as u64;
    assert_eq!(bed.told("queue-full"), 300 - room);
    for second in 300..300 + FOR_STARTS as u64 {
        let vm = machine("db", &second.to_string(), RunStrategy::Manual);
        bed.events
            .vm(&vm, Reason::Started, String::new(), bed.at(second));
    }
    assert_eq!(bed.told("queue-full"), 300 - room, "no start was dropped");
    assert_eq!(bed.told("rate-limited"), 0);
}
