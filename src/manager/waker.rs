//! Owns the waker: performs what the start intents decide, and brings them the news.

mod boots;
mod changes;
mod front;
mod journal;
mod stillness;

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, watch},
    task::{JoinError, JoinSet},
    time::{Instant, sleep_until, timeout_at},
};
use tokio_util::sync::CancellationToken;

use crate::{
    admin::Heartbeat,
    manager::{
        directory::{Directory, Lookup},
        events::Events,
        intents::{Action, Admission, Call, Intents, Limits, Settled},
        last_wake::LastWakes,
        metrics::{Metrics, Stage, Verdict},
        pulse::Pulse,
        report::Wakeable,
        start::{Answered, Reread, Starter},
        vm::{Power, Vm},
        watch::Contact,
    },
    shutdown::DRAIN,
    wake::Outcome,
};

use boots::{Booted, Boots};
pub use changes::Changes;
pub use front::{Freshness, Front};
pub use journal::Journal;

/// Wakes on their way to the waker; past this many, agents are asked to come again.
const MAX_WAITING: usize = 8_192;
/// Wakes taken in at once before anything else is looked at.
const BATCH: usize = 256;
/// With nothing to do, it looks up after this time nevertheless, to show that it lives.
const TURN: Duration = Duration::from_secs(2);
/// Why a wake is put off where a config may serve no longer.
const STALE: &str = "the API server has been away for longer than cacheTTL, so that nobody knows \
     whether this packet may wake a virtual machine";

/// Why a wake is put off where its password cannot be compared yet.
const LOCKED: &str = "this manager has not read the Secret with the SecureOn passwords yet";

/// Why starts are forbidden; none where the last that was answered was not.
pub type Forbidden = watch::Receiver<Option<String>>;

/// What the waker works with.
#[derive(Clone)]
pub struct Tools {
    /// Which VM is meant.
    pub directory: Arc<Directory>,
    /// How old the directory is.
    pub contact: Contact,
    /// Whether the process stood still.
    pub pulse: Arc<Pulse>,
    /// Who calls KubeVirt.
    pub starter: Starter,
    /// Who tells the owners of VMs.
    pub events: Events,
    /// Who writes log lines.
    pub journal: Arc<Journal>,
    /// Who tells the configs.
    pub last_wakes: Arc<LastWakes>,
    /// What is counted.
    pub metrics: Metrics,
}

/// Performs the start intents.
pub struct Waker {
    tools: Tools,
    intents: Intents,
    boots: Boots,
    queue: mpsc::Receiver<Wakeable>,
    changes: Arc<Changes>,
    calls: JoinSet<Done>,
    forbidden: watch::Sender<Option<String>>,
    /// How often the process has stood still, as far as the intents know.
    gaps: u64,
}

/// A call that has ended.
enum Done {
    /// A start or an unpausing, with the time from the call to its answer.
    Called(Call, Arc<str>, u64, Answered, Duration),
    Read(Arc<str>, u64, Reread),
}

impl Waker {
    /// Makes a waker and the way to hand it wakes.
    #[must_use]
    pub fn new(limits: Limits, tools: Tools) -> (Self, mpsc::Sender<Wakeable>) {
        let (sender, queue) = mpsc::channel(MAX_WAITING);
        let waker = Self {
            gaps: tools.pulse.gaps(),
            tools,
            intents: Intents::new(limits, fastrand::u64(..)),
            boots: Boots::default(),
            queue,
            changes: Arc::new(Changes::default()),
            calls: JoinSet::new(),
            forbidden: watch::Sender::default(),
        };
        (waker, sender)
    }

    /// Who is to be told of changes of VMs.
    #[must_use]
    pub fn changes(&self) -> Arc<Changes> {
        self.changes.clone()
    }

    /// Whether starts are forbidden, from the first that was to the next that is accepted.
    #[must_use]
    pub fn forbidden(&self) -> Forbidden {
        self.forbidden.subscribe()
    }

    /// Starts VMs until `token` is cancelled and it is known what came of the calls under way then.
    ///
    /// # Errors
    ///
    /// A call panicked.
    pub async fn run(mut self, token: CancellationToken, heart: Heartbeat) -> anyhow::Result<()> {
        while !token.is_cancelled() {
            heart.beat();
            if let Some(result) = token.run_until_cancelled(self.turn()).await {
                result?;
            }
            self.perform();
        }
        self.close(&heart).await
    }

    /// Takes the next news, or does what is due.
    async fn turn(&mut self) -> anyhow::Result<()> {
        let now = Instant::now();
        let turn = now + crate::pace::of(TURN);
        let due = self.intents.next_due(now.into_std());
        let due = due.map_or(turn, |due| turn.min(Instant::from_std(due)));
        tokio::select! {
            biased;
            Some(done) = self.calls.join_next() => self.done(done)?,
            () = self.changes.some() => self.news(),
            () = self.tools.contact.returned() => self.intents.hasten(Instant::now().into_std()),
            () = sleep_until(due) => {
                self.heed_pulse();
                self.intents.tick(Instant::now().into_std());
            }
            Some(wake) = self.queue.recv() => {
                self.heed_pulse();
                self.admit(wake);
            }
        }
        Ok(())
    }

    async fn close(mut self, heart: &Heartbeat) -> anyhow::Result<()> {
        let end = Instant::now() + crate::pace::of(DRAIN);
        loop {
            heart.beat();
            self.intents.close(Instant::now().into_std());
            self.perform();
            if !self.intents.is_at_work() {
                break;
            }
            match timeout_at(end, self.turn()).await {
                Ok(result) => result?,
                Err(_) => break,
            }
        }
        let open = self.intents.len();
        if open > 0 {
            tracing::info!(
                open,
                "wakes that are not settled are left to the other managers"
            );
        }
        // Who was admitted late still hears that it has to go elsewhere.
        self.queue.close();
        while let Ok(Some(wake)) = timeout_at(end, heart.waiting(self.queue.recv())).await {
            self.admit(wake);
            self.perform();
        }
        Ok(())
    }

    fn admit(&mut self, first: Wakeable) {
        let mut next = Some(first);
        for _ in 0..BATCH {
            let Some(wake) = next else { return };
            self.wake(wake);
            next = self.queue.try_recv().ok();
        }
        if let Some(wake) = next {
            self.wake(wake);
        }
    }

    fn wake(&mut self, wake: Wakeable) {
        let now = Instant::now().into_std();
        let known = wake.vm.clone();
        let uid = known.uid.clone();
        // First asked to be told of changes, then looked: no change falls in between.
        self.changes.follow(&uid);
        let current = self.tools.directory.vm(&known.key);
        let current = current.filter(|current| current.uid == uid);
        // A start goes by name, and the name may be another VM's by now.
        let vm = current.unwrap_or_else(|| {
            self.intents.deleted(&uid, now);
            let power = Power::Gone;
            Arc::new(Vm {
                power,
                ..(*known).clone()
            })
        });
        let admission = self.intents.wake(Wakeable { vm, ..wake }, now);
        self.unfollow(&uid);
        self.tools.metrics.reported(match admission {
            Admission::Opened => Verdict::Opened,
            Admission::Joined => Verdict::Joined,
            Admission::Answered => Verdict::Answered,
            Admission::Busy => Verdict::Busy,
        });
    }

    fn news(&mut self) {
        let now = Instant::now().into_std();
        for (uid, vm) in self.changes.take() {
            let booted = self.boots.saw(&uid, vm.as_deref(), now);
            match &vm {
                Some(vm) => self.intents.changed(vm, now),
                None => self.intents.deleted(&uid, now),
            }
            if let Some(booted) = booted {
                self.booted(&uid, booted);
            }
        }
    }

    fn booted(&self, uid: &str, booted: Booted) {
        match booted {
            Booted::Running(time) => self.tools.metrics.took(Stage::Running, time),
            Booted::Unseen(reason) => self.tools.metrics.unseen(reason),
        }
        self.unfollow(uid);
    }

    /// Ends the interest in a VM of which nobody waits for news.
    fn unfollow(&self, uid: &str) {
        if !self.intents.contains(uid) && !self.boots.contains(uid) {
            self.changes.unfollow(uid);
        }
    }

    fn done(&mut self, done: Result<Done, JoinError>) -> anyhow::Result<()> {
        let now = Instant::now().into_std();
        match done? {
            Done::Called(call, uid, id, answer, time) => {
                let metrics = &self.tools.metrics;
                if call == Call::Unpause {
                    metrics.unpause_answered(answer.meaning());
                } else {
                    metrics.start_answered(answer.meaning());
                    metrics.took(Stage::Api, time);
                    self.note_rights(&answer);
                }
                self.tools.journal.answered(call, &answer);
                self.intents.answered(&uid, id, answer, now);
            }
            Done::Read(uid, id, read) => {
                self.tools.metrics.read(read.found());
                self.intents.reread(&uid, id, read, now);
            }
        }
        Ok(())
    }

    /// The first refusal stands: each names another VM, and says the same.
    fn note_rights(&self, answer: &Answered) {
        self.forbidden.send_if_modified(|reason| match answer {
            Answered::Accepted => reason.take().is_some(),
            Answered::Forbidden(why) if reason.is_none() => reason.replace(why.clone()).is_none(),
            _ => false,
        });
    }

    fn perform(&mut self) {
        self.heed_pulse();
        loop {
            let actions = self.intents.take_actions();
            if actions.is_empty() {
                break;
            }
            for action in actions {
                match action {
                    Action::Call(call, id, vm) => self.call(call, id, vm),
                    Action::Answer(reply, answer) => {
                        if !reply.send(answer) {
                            self.tools.metrics.dropped_answers.inc();
                        }
                    }
                    Action::Waiting(waiting) => {
                        let now = Instant::now().into_std();
                        self.tools.events.deferred(&waiting, now);
                    }
                    Action::Settled(settled) => self.settled(&settled),
                }
            }
        }
        for (uid, reason) in self.boots.let_go(Instant::now().into_std()) {
            self.booted(&uid, Booted::Unseen(reason));
        }
        let metrics = &self.tools.metrics;
        let gauge = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        metrics.intents.set(gauge(self.intents.len()));
        metrics.calls.set(gauge(self.intents.under_way()));
        let known = metrics.evicted_marks.get();
        let evicted = self.intents.evicted().saturating_sub(known);
        metrics.evicted_marks.inc_by(evicted);
    }

    fn settled(&mut self, settled: &Settled) {
        let now = Instant::now().into_std();
        if let Some((accepted, vm)) = &settled.boot {
            self.boots.begin(&vm.uid, *accepted);
            if let Some(booted) = self.boots.saw(&vm.uid, Some(vm), now) {
                self.booted(&vm.uid, booted);
            }
        }
        self.unfollow(&settled.vm.uid);
        let metrics = &self.tools.metrics;
        metrics.decided(settled.outcome);
        if let Some(time) = settled.queued {
            metrics.took(Stage::Queue, time);
        }
        if settled.outcome == Outcome::Started {
            let directory = &self.tools.directory;
            let configs = directory.granting(&settled.report.wake, &settled.vm);
            self.tools.last_wakes.note(configs, settled);
        }
        self.tools.journal.settled(settled, now);
        self.tools.events.settled(settled, now);
    }

    /// Whether the packet that asked for this call may still wake the VM, or unpause it: it may have
    /// waited for minutes. An error says why that cannot be known at the moment.
    fn is_still_meant(
        &self,
        call: Call,
        uid: &str,
        now: std::time::Instant,
    ) -> Result<bool, &'static str> {
        let Some(wake) = self.intents.wake_of(uid) else {
            return Ok(false);
        };
        let age = self.tools.contact.age(now);
        match self.tools.directory.look_up(wake, age) {
            Lookup::Wakeable { vm, unpause } => {
                Ok(*vm.uid == *uid && (unpause || call == Call::Start))
            }
            Lookup::Stale => Err(STALE),
            Lookup::Locked => Err(LOCKED),
            _ => Ok(false),
        }
    }

    fn call(&mut self, call: Call, id: u64, vm: Arc<Vm>) {
        if call != Call::Read {
            let now = Instant::now().into_std();
            match self.is_still_meant(call, &vm.uid, now) {
                Ok(true) => {}
                Ok(false) => return self.intents.withdrawn(&vm.uid, id, now),
                Err(why) => {
                    let later = Answered::Retry {
                        after: None,
                        why: why.into(),
                        effective: false,
                    };
                    return self.intents.answered(&vm.uid, id, later, now);
                }
            }
        }
        let (starter, contact) = (self.tools.starter.clone(), self.tools.contact.clone());
        let called = Instant::now();
        let before = contact.age(called.into_std());
        self.calls.spawn(async move {
            let uid = vm.uid.clone();
            match call {
                Call::Read => Done::Read(uid, id, starter.read(&vm.key).await),
                Call::Start | Call::Unpause => {
                    let answer = if call == Call::Start {
                        starter.start(&vm.key).await
                    } else {
                        starter.unpause(&vm.key).await
                    };
                    let after = contact.age(Instant::now().into_std());
                    let answer = answer.doubted(before.max(after));
                    Done::Called(call, uid, id, answer, called.elapsed())
                }
            }
        });
    }
}
