//! Every answer of virt-api and of what is before it: what is final, and what is tried again.

use std::{collections::BTreeMap, time::Duration};

use super::{Bed, NS};
use crate::common::{
    cluster::{Cluster, eventually},
    kubevirt::{Fault, vm::RunStrategy},
};

struct Row {
    name: &'static str,
    fault: Option<Fault>,
    /// How the wake ends.
    ends: &'static str,
    /// What the manager makes of the answers to its calls.
    answers: &'static [&'static str],
    /// The reason of the Event, and words in it.
    event: Option<(&'static str, &'static str)>,
}

const STARTED: Option<(&str, &str)> = Some(("WakeOnLanStarted", "woken by a packet from"));

fn row(name: &'static str, code: u16, text: &str) -> Row {
    Row {
        name,
        fault: Some(Fault::Refuse(code, text.into())),
        ends: "started",
        answers: &["recheck", "accepted"],
        event: STARTED,
    }
}

impl Row {
    /// The refusal is final: no other call follows.
    fn for_good(self, ends: &'static str, answers: &'static [&'static str]) -> Self {
        let words = self.name;
        Self {
            ends,
            answers,
            event: (ends != "gone").then_some(("WakeOnLanRefused", words)),
            ..self
        }
    }

    /// The Event says this.
    fn saying(self, words: &'static str) -> Self {
        let event = self.event.map(|(reason, _)| (reason, words));
        Self { event, ..self }
    }

    /// It counts as one of KubeVirt's absences.
    fn unavailable(self) -> Self {
        let answers = &["unavailable", "accepted"];
        Self { answers, ..self }
    }

    fn meeting(self, fault: Fault) -> Self {
        let fault = Some(fault);
        Self { fault, ..self }
    }
}

/// An internal error; the text is KubeVirt's.
fn internal(name: &'static str, text: &str) -> Row {
    row(name, 500, &format!("Internal error occurred: {text}"))
}

/// What only somebody's doing changes.
fn for_good() -> Vec<Row> {
    let permanent = |name, code, text, ends, answers| row(name, code, text).for_good(ends, answers);
    let (bug, forbidden): (&[_], &[_]) = (&["not-understood"], &["forbidden"]);
    let once = "Once does not support manual start requests";
    let role = "cannot update resource \"virtualmachines/start\" in API group";
    let missing = "virtualmachine.kubevirt.io \"deleted\" not found";
    let denied = "admission webhook \"v\" denied the request: cpu is odd";
    let recovery = "VM recovery required: Volume migration failed";
    vec![
        permanent("body", 400, "Can not unmarshal", "unsupported", bug).saying("Can not unmarshal"),
        permanent("review", 401, "", "forbidden", forbidden)
            .meeting(Fault::Denied)
            .saying("401: unauthorized"),
        permanent("role", 403, role, "forbidden", forbidden).saying("virtualmachines/start"),
        permanent("deleted", 404, missing, "gone", &["gone"]),
        permanent("method", 405, "Method Not Allowed", "unsupported", bug).saying("405"),
        permanent("accept", 406, "Not Acceptable", "unsupported", bug).saying("406"),
        permanent("once", 409, once, "unsupported", &["unsupported"]).saying("Once does not"),
        permanent("repair", 409, recovery, "stuck", &["refused"]).saying("recovery required"),
        internal("denied", denied)
            .for_good("stuck", &["refused"])
            .saying("cpu is odd"),
    ]
}

/// What passes: the VM is looked at, or left alone for a moment, and started.
fn passing() -> Vec<Row> {
    let accepted = Row {
        fault: None,
        answers: &["accepted"],
        ..row("accepted", 202, "")
    };
    let [always, failed] = [
        "Always does not support manual start requests",
        "RerunOnFailure does not support starting VM from failed state",
    ];
    let [race, underway, snapshot, restore, webhook] = [
        "the server rejected our request due to an error in our request",
        "unable to complete request: stop/start already underway",
        "denied the request: Cannot update vm running state until snapshot \"s\" completes",
        "denied the request: Cannot update VM runStrategy until restore \"r\" completes",
        "failed calling webhook \"v\": connection refused",
    ];
    let unable = "the server is currently unable to handle the request";
    let timeout = "Timeout: request did not complete within 60s";
    vec![
        accepted,
        row("running", 409, "VM is already running"),
        row("always", 409, always),
        row("failed", 409, failed),
        internal("race", race),
        internal("underway", underway),
        internal("snapshot", snapshot),
        internal("restore", restore),
        internal("webhook", webhook).unavailable(),
        internal("etcd", "etcdserver: request timed out"),
        row("unavailable", 503, unable).unavailable(),
        row("unreachable", 503, "")
            .meeting(Fault::Away)
            .unavailable(),
        row("timeout", 504, timeout),
        // The API server's own: the manager's token is being renewed.
        row("token", 401, "Unauthorized").unavailable(),
        row("busy", 429, "").meeting(Fault::Busy(1)).unavailable(),
    ]
}

pub(crate) async fn every_answer_to_a_start_has_its_consequence(c: &Cluster) {
    let bed = Bed::new(c, &[]).await;
    let rows: Vec<Row> = passing().into_iter().chain(for_good()).collect();
    for (n, row) in rows.iter().enumerate() {
        bed.add(n, row.name, RunStrategy::Manual).await;
    }
    bed.up_to_date().await;
    let mut calls = BTreeMap::<String, usize>::new();
    for (n, row) in rows.iter().enumerate() {
        row.fault
            .iter()
            .for_each(|fault| c.kubevirt.fault_once(fault.clone()));
        let began = tokio::time::Instant::now();
        bed.hears(n);
        let (outcome, reason) = bed.ended(n);
        assert_eq!(outcome, row.ends, "{}: {reason}", row.name);
        for answer in row.answers {
            *calls.entry((*answer).to_owned()).or_default() += 1;
        }
        // The watch may be faster than the answer.
        let counted = format!("{}: {:?}", row.name, row.answers);
        eventually(&counted, async || bed.calls() == calls).await;
        if matches!(row.fault, Some(Fault::Busy(_))) {
            let start = c.kubevirt.starts().pop().expect("it was started");
            assert!(
                start.at >= began + Duration::from_secs(1),
                "the pause was not kept"
            );
        }
    }
    for row in &rows {
        match row.event {
            Some((reason, words)) => bed.told(row.name, reason, words).await,
            None => assert!(c.events(NS, row.name).await.is_empty(), "{}", row.name),
        }
        let started = usize::from(row.ends == "started");
        if started == 1 {
            c.kubevirt.wait_for_status(NS, row.name, "Running").await;
        }
        assert_eq!(c.kubevirt.boots(NS, row.name), started, "{}", row.name);
    }
    // What is refused for good is not asked for again.
    assert_eq!((bed.calls(), bed.open()), (calls, 0));
    for words in ["not allowed to start", "does not understand"] {
        let lines = bed.manager.process.lines();
        let told = lines
            .iter()
            .any(|line| line.field("level") == "ERROR" && line.message().contains(words));
        assert!(told, "an admin reads that it is {words}");
    }
}
