//! A world for the pure state machine: VMs in any state, agents that report, and a clock.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use kubevirt_wol::{
    mac::MacAddr,
    manager::{
        intents::{Action, Admission, Call, Intents, Limits, Settled, Waiting},
        report::{Reply, Report, Wakeable},
        start::{Answered, Reread},
        vm::{Power, RunStrategy, Vm, VmKey},
    },
    packet::Trailing,
    wake::{Answer, Carrier, Origin, Outcome, Wake},
};
use tokio::sync::mpsc;

pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const MINUTE: Duration = Duration::from_secs(60);

pub(crate) fn limits() -> Limits {
    Limits {
        wake_deadline: 5 * MINUTE,
        event_ttl: 30 * SECOND,
        dedup_window: 10 * SECOND,
        concurrency: 16,
        rate: 20,
        burst: 50,
        intents: 100,
        reporters: 1_000,
    }
}

pub(crate) fn vm(name: &str, power: Power) -> Arc<Vm> {
    Arc::new(Vm {
        key: VmKey::new("default", name),
        uid: format!("uid-of-{name}").into(),
        resource_version: "1".into(),
        labels: [].into(),
        macs: Vec::new(),
        bad_macs: Vec::new(),
        strategy: RunStrategy::Manual,
        power,
        running: power == Power::On,
        on_since: None,
        off_since: None,
    })
}

pub(crate) fn wake() -> Wake {
    Wake {
        target: MacAddr::new([2, 0, 0, 0, 0, 1]),
        trailing: Trailing::default(),
        origin: Origin {
            carrier: Carrier::Udp,
            interface: "eth0".into(),
            vlan: None,
            source_mac: None,
            source: Some([10, 0, 0, 7].into()),
            source_port: 9,
            length: 102,
        },
    }
}

#[derive(Debug, Clone)]
pub(crate) struct World {
    pub(crate) intents: Intents,
    pub(crate) now: Instant,
    /// Every call that was asked for, oldest first.
    pub(crate) calls: Vec<(Call, u64, Arc<Vm>)>,
    /// Every answer that a reporter got.
    pub(crate) answers: Vec<(u64, Answer)>,
    pub(crate) settled: Vec<Settled>,
    /// What the owners of VMs are told of wakes that take longer.
    pub(crate) waiting: Vec<Waiting>,
    /// Whether packets may unpause VMs.
    pub(crate) unpause: bool,
    /// Whether VMs may have changed since word of them came.
    pub(crate) unsure: bool,
    /// Whether what is reported was deferred before.
    pub(crate) deferred: bool,
    reported: u64,
    replies: mpsc::Sender<(u64, Answer)>,
    inbox: Arc<Mutex<mpsc::Receiver<(u64, Answer)>>>,
}

impl World {
    pub(crate) fn new(limits: Limits) -> Self {
        let (replies, inbox) = mpsc::channel(100_000);
        Self {
            intents: Intents::new(limits, 7),
            now: Instant::now() + 1_000 * SECOND,
            calls: Vec::new(),
            answers: Vec::new(),
            settled: Vec::new(),
            waiting: Vec::new(),
            unpause: false,
            unsure: false,
            deferred: false,
            reported: 0,
            replies,
            inbox: Arc::new(Mutex::new(inbox)),
        }
    }

    /// A packet for a VM, heard just now; returns the number under which it is answered.
    pub(crate) fn wake(&mut self, vm: &Arc<Vm>) -> u64 {
        self.wake_aged(vm, Duration::ZERO).0
    }

    pub(crate) fn wake_aged(&mut self, vm: &Arc<Vm>, age: Duration) -> (u64, Admission) {
        self.reported += 1;
        let report = Report {
            node: "node-3".into(),
            wake: wake(),
            heard_at: self.now - age,
            deferred: self.deferred,
            reply: Reply::new(self.reported, self.replies.clone()),
        };
        let wake = Wakeable {
            report,
            vm: vm.clone(),
            unpause: self.unpause,
            unsure: self.unsure,
        };
        let admission = self.intents.wake(wake, self.now);
        self.act();
        (self.reported, admission)
    }

    pub(crate) fn changed(&mut self, vm: &Arc<Vm>) {
        self.intents.changed(vm, self.now);
        self.act();
    }

    /// Lets time pass, with the timer as the caller of the state machine would run it.
    pub(crate) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(due) = self.intents.next_due(self.now).filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.intents.tick(self.now);
            self.act();
        }
        self.now = end;
    }

    /// The sessions of all who reported so far end.
    pub(crate) fn agents_end(&mut self) {
        let (replies, inbox) = mpsc::channel(100_000);
        (self.replies, self.inbox) = (replies, Arc::new(Mutex::new(inbox)));
    }

    /// The last call asked for.
    pub(crate) fn call(&self) -> (Call, u64, Arc<Vm>) {
        self.calls.last().expect("a call was asked for").clone()
    }

    /// Answers the last start.
    pub(crate) fn answered(&mut self, answer: Answered) {
        let (call, id, vm) = self.call();
        assert_ne!(call, Call::Read);
        self.intents.answered(&vm.uid, id, answer, self.now);
        self.act();
    }

    /// Answers the last read.
    pub(crate) fn read(&mut self, found: Reread) {
        let (call, id, vm) = self.call();
        assert_eq!(call, Call::Read);
        self.intents.reread(&vm.uid, id, found, self.now);
        self.act();
    }

    pub(crate) fn starts(&self) -> usize {
        self.count(Call::Start)
    }

    pub(crate) fn unpausings(&self) -> usize {
        self.count(Call::Unpause)
    }

    pub(crate) fn reads(&self) -> usize {
        self.count(Call::Read)
    }

    fn count(&self, wanted: Call) -> usize {
        self.calls
            .iter()
            .filter(|(call, ..)| *call == wanted)
            .count()
    }

    pub(crate) fn answers_to(&self, report: u64) -> Vec<&Answer> {
        let own = self.answers.iter().filter(|(seq, _)| *seq == report);
        own.map(|(_, answer)| answer).collect()
    }

    /// The final answer to a report, if there is one; there is never more than one.
    pub(crate) fn outcome(&self, report: u64) -> Option<Outcome> {
        let mut finals = self
            .answers_to(report)
            .into_iter()
            .filter_map(|answer| match answer {
                Answer::Final(outcome, _) => Some(*outcome),
                Answer::Deferred(..) => None,
            });
        let outcome = finals.next();
        assert_eq!(finals.next(), None, "report {report} was settled twice");
        outcome
    }

    pub(crate) fn deferrals(&self, report: u64) -> usize {
        let answers = self.answers_to(report);
        answers
            .iter()
            .filter(|a| matches!(a, Answer::Deferred(..)))
            .count()
    }

    pub(crate) fn act(&mut self) {
        for action in self.intents.take_actions() {
            match action {
                Action::Call(call, id, vm) => self.calls.push((call, id, vm)),
                Action::Answer(reply, answer) => {
                    assert!(reply.send(answer) || !reply.is_open());
                }
                Action::Waiting(waiting) => self.waiting.push(*waiting),
                Action::Settled(settled) => self.settled.push(*settled),
            }
        }
        let mut inbox = self.inbox.lock().unwrap();
        while let Ok(answer) = inbox.try_recv() {
            self.answers.push(answer);
        }
    }
}
