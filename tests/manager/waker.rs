//! Between the sessions and KubeVirt: which wakes become a call, and which do not.

mod stillness;

use std::{
    convert::Infallible,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU16, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use http::{Request, Response};
use kube::{Client, client::Body};
use kubevirt_wol::{
    admin::{Gate, Heartbeat, Readiness},
    crd::WolConfigSpec,
    manager::{
        directory::Directory,
        events::Events,
        grant::Grant,
        metrics::Metrics,
        pulse::Pulse,
        report::{Reply, Report, Reports as _, Wakeable},
        start::Starter,
        vm::{Power, Vm},
        waker::{Changes, Forbidden, Freshness, Front, Tools, Waker},
        watch::{Contact, Observer as _, Watched},
    },
    telemetry,
    wake::{Answer, Outcome},
};
use prometheus_client::{encoding::text::encode, registry::Registry};
use tokio::{sync::mpsc, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::world::{MINUTE, SECOND, limits, vm, wake};

/// A waker and what is before and behind it; every VM is selected.
struct Bed {
    directory: Arc<Directory>,
    contact: Contact,
    front: Front,
    queue: mpsc::Sender<Wakeable>,
    changes: Arc<Changes>,
    listed: Gate,
    forbidden: Forbidden,
    /// What the API server answers to each call.
    code: Arc<AtomicU16>,
    calls: Arc<Mutex<Vec<String>>>,
    registry: Registry,
    replies: mpsc::Sender<(u64, Answer)>,
    answers: mpsc::Receiver<(u64, Answer)>,
    _tasks: JoinSet<anyhow::Result<()>>,
}

/// Has the address that the packet names.
fn machine(power: Power, version: &str) -> Vm {
    Vm {
        macs: vec![wake().target],
        resource_version: version.into(),
        ..(*vm("a", power)).clone()
    }
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

fn select_all() -> Arc<[Grant]> {
    let (grant, problems) = Grant::new("default", &WolConfigSpec::default());
    assert!(problems.is_empty());
    grant.into_iter().collect()
}

impl Bed {
    fn new() -> Self {
        let calls = Arc::<Mutex<Vec<String>>>::default();
        let log = calls.clone();
        let code = Arc::new(AtomicU16::new(202));
        let status = code.clone();
        let api = tower::service_fn(move |request: Request<Body>| {
            let call = format!("{} {}", request.method(), request.uri().path());
            log.lock().unwrap().push(call);
            let answer = Response::builder()
                .status(status.load(Relaxed))
                .body(Body::empty());
            std::future::ready(Ok::<_, Infallible>(answer.unwrap()))
        });
        let client = Client::new(api, "default");
        let mut registry = telemetry::registry();
        let metrics = Metrics::new(&mut registry);
        let (events, scribe) = Events::new(client.clone(), "replica-a".into(), metrics.clone());
        let directory = Arc::new(Directory::new());
        directory.set_grants(select_all());
        let contact = Contact::new(now());
        let pulse = Pulse::new();
        let tools = Tools {
            directory: directory.clone(),
            contact: contact.clone(),
            pulse: pulse.clone(),
            starter: Starter::new(client, 10 * SECOND),
            events,
            journal: Arc::default(),
            last_wakes: Arc::default(),
            metrics,
        };
        let (waker, queue) = Waker::new(limits(), tools.clone());
        let listed = Readiness::default().gate("the lists");
        let freshness = Freshness {
            event_ttl: 30 * SECOND,
            wake_deadline: 5 * MINUTE,
        };
        let front = Front::new(tools, queue.clone(), freshness, vec![listed.clone()]);
        let (replies, answers) = mpsc::channel(64);
        let (changes, forbidden) = (waker.changes(), waker.forbidden());
        let mut tasks = JoinSet::new();
        tasks.spawn(waker.run(CancellationToken::new(), Heartbeat::default()));
        tasks.spawn(pulse.run(CancellationToken::new(), Heartbeat::default()));
        tasks.spawn(scribe.run(CancellationToken::new(), Heartbeat::default()));
        Self {
            directory,
            contact,
            front,
            queue,
            changes,
            listed,
            forbidden,
            code,
            calls,
            registry,
            replies,
            answers,
            _tasks: tasks,
        }
    }

    fn report(&self) -> Report {
        Report {
            node: "node-3".into(),
            wake: wake(),
            heard_at: now(),
            deferred: false,
            reply: Reply::new(1, self.replies.clone()),
        }
    }

    /// The watch brings a VM.
    fn brings(&self, vm: Vm) {
        let vm = self.directory.apply(vm, Instant::now()).expect("it is new");
        self.changes.changed(None, &vm);
    }

    /// The API server says that all that is known is true.
    fn in_contact(&self) {
        for what in [Watched::VirtualMachines, Watched::WolConfigs] {
            self.contact.made(what, now());
        }
    }

    async fn answer(&mut self) -> Answer {
        let answer = tokio::time::timeout(MINUTE, self.answers.recv()).await;
        answer.expect("it is answered").expect("it is answered").1
    }

    async fn outcome(&mut self) -> Outcome {
        loop {
            if let Answer::Final(outcome, _) = self.answer().await {
                return outcome;
            }
        }
    }

    /// The value of a metric, by its name without the prefix and its labels.
    fn metric(&self, series: &str) -> f64 {
        let mut text = String::new();
        encode(&mut text, &self.registry).unwrap();
        let series = format!("kubevirt_wol_{series} ");
        let value = text.lines().find_map(|line| line.strip_prefix(&series));
        value.expect("the series exists").parse().unwrap()
    }

    fn starts(&self) -> Vec<String> {
        let calls = self.calls.lock().unwrap();
        let starts = calls.iter().filter(|call| call.starts_with("PUT"));
        starts.cloned().collect()
    }
}

const START: &str =
    "PUT /apis/subresources.kubevirt.io/v1/namespaces/default/virtualmachines/a/start";

#[tokio::test(start_paused = true)]
async fn nothing_is_started_before_every_vm_and_config_is_known() {
    let mut bed = Bed::new();
    bed.brings(machine(Power::Off, "1"));
    bed.front.report(bed.report());
    // The next page may have a second VM with this address.
    assert!(matches!(bed.answer().await, Answer::Deferred(..)));
    assert!(bed.starts().is_empty());
    bed.listed.open();
    bed.front.report(bed.report());
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(bed.starts(), [START]);
    bed.brings(machine(Power::On, "2"));
    assert_eq!(bed.outcome().await, Outcome::Started);
}

#[tokio::test(start_paused = true)]
async fn a_vm_that_has_taken_the_name_of_the_one_meant_is_left_alone() {
    let mut bed = Bed::new();
    let meant = Arc::new(machine(Power::Off, "1"));
    bed.brings(Vm {
        uid: "another".into(),
        ..machine(Power::Off, "2")
    });
    let wake = Wakeable {
        report: bed.report(),
        vm: meant,
        unpause: false,
        unsure: false,
    };
    bed.queue.send(wake).await.unwrap();
    assert_eq!(bed.outcome().await, Outcome::Gone);
    tokio::time::sleep(SECOND).await;
    assert!(bed.starts().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_wake_that_has_waited_is_checked_again_before_its_start() {
    for deselected in [false, true] {
        let mut bed = Bed::new();
        bed.listed.open();
        bed.brings(machine(Power::Stopping, "1"));
        bed.front.report(bed.report());
        assert!(matches!(bed.answer().await, Answer::Deferred(..)));
        if deselected {
            bed.directory.set_grants([].into());
        }
        bed.brings(machine(Power::Off, "2"));
        tokio::time::sleep(Duration::from_millis(100)).await;
        if deselected {
            assert_eq!(bed.outcome().await, Outcome::NotSelected);
            assert!(bed.starts().is_empty());
        } else {
            assert_eq!(bed.starts(), [START]);
        }
    }
}

/// Longer than a config serves without contact where it does not say.
const TOO_LONG: Duration = Duration::from_secs(301);

#[tokio::test(start_paused = true)]
async fn out_of_contact_for_too_long_nothing_is_known_not_to_exist() {
    let mut bed = Bed::new();
    bed.listed.open();
    bed.front.report(bed.report());
    assert_eq!(bed.outcome().await, Outcome::NotFound);
    tokio::time::sleep(TOO_LONG).await;
    bed.front.report(bed.report());
    let answer = bed.answer().await;
    assert!(matches!(&answer, Answer::Deferred(_, why) if why.contains("cacheTTL")));
    bed.in_contact();
    bed.front.report(bed.report());
    assert_eq!(bed.outcome().await, Outcome::NotFound);
}

#[tokio::test(start_paused = true)]
async fn a_waiting_wake_is_not_started_on_the_word_of_an_expired_directory() {
    let mut bed = Bed::new();
    bed.listed.open();
    bed.brings(machine(Power::Stopping, "1"));
    tokio::time::sleep(TOO_LONG - MINUTE).await;
    bed.front.report(bed.report());
    assert!(matches!(bed.answer().await, Answer::Deferred(..)));
    tokio::time::sleep(MINUTE).await;
    // As a watch that brings something at last, while the configs' is still broken.
    bed.brings(machine(Power::Off, "2"));
    tokio::time::sleep(MINUTE).await;
    assert!(bed.starts().is_empty());
    bed.in_contact();
    tokio::time::sleep(SECOND / 4).await;
    assert_eq!(bed.starts(), [START]);
}

#[tokio::test(start_paused = true)]
async fn that_starts_are_forbidden_shows_until_one_is_accepted() {
    for code in [401, 403] {
        let mut bed = Bed::new();
        bed.listed.open();
        bed.brings(machine(Power::Off, "1"));
        assert_eq!(*bed.forbidden.borrow(), None);
        bed.code.store(code, Relaxed);
        bed.front.report(bed.report());
        assert_eq!(bed.outcome().await, Outcome::Forbidden);
        let reason = bed.forbidden.borrow_and_update().clone();
        let reason = reason.expect("it is known");
        assert!(reason.contains(&code.to_string()), "{reason}");
        // That KubeVirt is away says nothing of rights.
        bed.code.store(503, Relaxed);
        bed.front.report(bed.report());
        assert!(matches!(bed.answer().await, Answer::Deferred(..)));
        assert!(!bed.forbidden.has_changed().unwrap());
        bed.code.store(202, Relaxed);
        tokio::time::sleep(15 * SECOND).await;
        assert_eq!(*bed.forbidden.borrow(), None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_vm_that_never_runs_is_counted_although_no_other_is_woken() {
    let mut bed = Bed::new();
    bed.listed.open();
    bed.brings(machine(Power::Off, "1"));
    bed.front.report(bed.report());
    tokio::time::sleep(SECOND).await;
    bed.brings(Vm {
        running: false,
        ..machine(Power::On, "2")
    });
    assert_eq!(bed.outcome().await, Outcome::Started);
    let late = "boots_unseen_total{reason=\"late\"}";
    tokio::time::sleep(9 * MINUTE).await;
    assert!(bed.metric(late) < 1.0);
    tokio::time::sleep(MINUTE + 5 * SECOND).await;
    assert!(bed.metric(late) > 0.0);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_floods_is_put_off_while_another_nodes_wake_goes_through() {
    let mut bed = Bed::new();
    bed.listed.open();
    bed.in_contact();
    bed.brings(machine(Power::Off, "1"));
    let (sink, _answers) = mpsc::channel(20_000);
    for seq in 0..10_000 {
        bed.front.report(Report {
            node: "compromised".into(),
            reply: Reply::new(seq, sink.clone()),
            ..bed.report()
        });
    }
    bed.front.report(bed.report());
    let limited = bed.metric("events_total{verdict=\"rate-limited\"}");
    assert!((5_000.0..6_000.0).contains(&limited), "{limited}");
    let first = bed.answer().await;
    let Answer::Deferred(_, why) = first else {
        panic!("{first:?}");
    };
    assert!(!why.contains("more wakes"), "{why}");
    assert_eq!(bed.starts(), [START]);
}

#[tokio::test(start_paused = true)]
async fn what_was_put_off_is_taken_in_when_it_comes_again() {
    let bed = Bed::new();
    bed.listed.open();
    bed.in_contact();
    bed.brings(machine(Power::On, "1"));
    let (sink, mut answers) = mpsc::channel(20_000);
    let report = |seq| Report {
        reply: Reply::new(seq, sink.clone()),
        ..bed.report()
    };
    (0..5_000).for_each(|seq| bed.front.report(report(seq)));
    let mut again = Vec::new();
    for _ in 0..5_000 {
        let (seq, answer) = answers.recv().await.unwrap();
        if let Answer::Deferred(time, why) = answer {
            assert!(why.contains("more wakes"), "{why}");
            again.push((seq, time));
        }
    }
    assert!((800..=904).contains(&again.len()), "{}", again.len());
    tokio::time::sleep(again[0].1).await;
    for (seq, _) in &again {
        bed.front.report(report(*seq));
    }
    for _ in 0..again.len() {
        let (_, answer) = answers.recv().await.unwrap();
        assert!(matches!(answer, Answer::Final(..)), "{answer:?}");
    }
}
