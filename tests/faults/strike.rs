//! Owns the course of a run: does what the plan says, and keeps up with what comes of it.

use std::{
    os::unix::process::ExitStatusExt as _,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use tokio::{sync::RwLock, task::JoinSet};

use super::{
    bed::{Bed, HOME, lock, name, strategy},
    flood::Flood,
    outage::{Outage, get},
    plan::{Refusal, Step, Who, paced},
    record::{Life, Record, What},
    tally::Tally,
};
use crate::common::{
    cluster::Cluster,
    kubevirt::{Phase, vm::RunStrategy},
    process::Process,
};

/// How often it is looked what has come of what was done.
const LOOK: Duration = Duration::from_millis(20);
/// A VM that is to be switched off, and stays off for so long, stays off.
const PATIENCE: u64 = 1_000;
/// Who was asked to end has to, in the end: ten seconds for what is under way, at a tenth, and as much
/// again for a machine that has much to do.
const ENDS_WITHIN: u64 = 4_000;

/// A run under way.
pub(crate) struct Course {
    pub(crate) bed: Bed,
    pub(crate) tally: Tally,
    /// What was wrong apart from the wakes.
    pub(crate) wrong: Vec<String>,
    /// Those who switch VMs off.
    off: JoinSet<()>,
    /// Faults of virt-api, the API server's errors by number, and the flood, as they are in force.
    pub(crate) refusals: Vec<Refusal>,
    pub(crate) errors: Vec<u64>,
    pub(crate) flood: Flood,
    pub(crate) outage: Outage,
}

impl Course {
    pub(crate) fn new(bed: Bed) -> Self {
        Self {
            bed,
            tally: Tally::default(),
            wrong: Vec::new(),
            off: JoinSet::new(),
            refusals: Vec::new(),
            errors: Vec::new(),
            flood: Flood::default(),
            outage: Outage::default(),
        }
    }

    /// Waits until everybody is ready.
    pub(crate) async fn warm_up(&mut self) -> Result<(), String> {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            self.look();
            let everybody = self.bed.everybody();
            let awaited = everybody.iter().filter(|who| self.bed.seat(**who).awaited);
            if awaited.count() == 0 && self.all_connected() {
                return Ok(());
            }
            if !self.wrong.is_empty() {
                return Err(self.wrong.join("; "));
            }
            if Instant::now() > deadline {
                return Err("not everybody was ready within a minute".into());
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    fn all_connected(&self) -> bool {
        self.bed.agents.iter().all(|agent| {
            let lines = agent.seat.process.iter().flat_map(Process::lines);
            let welcomes = lines.filter(|line| line.message() == "welcomed by a manager");
            welcomes.count() >= self.bed.plan.managers
        })
    }

    /// Waits until so much time has passed since the first process was started.
    pub(crate) async fn rest_until(&mut self, time: Duration) {
        let first = self.bed.record().0.first().map(|(at, _)| *at);
        while first.is_some_and(|at| at.elapsed() < time) {
            self.look();
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Does all that is planned.
    pub(crate) async fn run(&mut self) {
        let began = Instant::now();
        for (at, step) in self.bed.plan.steps.clone() {
            while Instant::now() < began + at {
                self.look();
                let left = (began + at).saturating_duration_since(Instant::now());
                tokio::time::sleep(left.min(LOOK)).await;
            }
            let late = Instant::now().saturating_duration_since(began + at);
            self.tally.late(late);
            self.step(step).await;
        }
    }

    /// Ends every fault, and starts again who is not there.
    pub(crate) async fn heal(&mut self) {
        self.flood.end();
        for number in self.errors.drain(..) {
            self.bed.server().faults().remove(number);
        }
        self.refusals.clear();
        self.restart_api();
        while self.outage.dead {
            self.look();
            tokio::time::sleep(LOOK).await;
        }
        self.settle_starts();
        for one in 0..self.bed.managers.len() {
            let line = self.bed.managers[one].api.heal();
            self.bed.record().add(What::Api(one, line));
        }
        for one in 0..self.bed.agents.len() {
            for manager in 0..self.bed.managers.len() {
                let line = self.bed.agents[one].wires[manager].heal();
                self.bed.record().add(What::Link(one, manager, line));
            }
            self.renew_token(one).await;
            self.plug(one);
        }
        for who in self.bed.everybody() {
            self.thaw(who);
            self.restart(who);
        }
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Wake { vm, only } => self.bed.wake(vm, only),
            Step::PowerOff { vm } => {
                let (cluster, record) = (self.bed.cluster.clone(), self.bed.shared_record());
                let alive = self.outage.alive.clone();
                self.off.spawn(switch_off(cluster, record, vm, alive));
            }
            Step::Fault {
                fault,
                begins: true,
            } => {
                let struck = self.begin(fault).await;
                self.tally.struck(fault.kind(), struck);
            }
            Step::Fault { fault, .. } => self.end(fault).await,
        }
    }

    pub(crate) fn kill(&mut self, who: Who) -> bool {
        let Some(mut process) = self.bed.seat_mut(who).process.take() else {
            return false;
        };
        process.signal(Signal::SIGKILL);
        self.bed.record().add(What::Life(who, Life::Killed));
        tokio::task::block_in_place(|| process.ended(paced(ENDS_WITHIN)));
        let seat = self.bed.seat_mut(who);
        seat.old.push(process);
        seat.awaited = false;
        true
    }

    pub(crate) fn signal(&mut self, who: Who, signal: Signal, life: Life) -> bool {
        let Some(process) = &self.bed.seat(who).process else {
            return false;
        };
        process.signal(signal);
        self.bed.record().add(What::Life(who, life));
        true
    }

    pub(crate) fn thaw(&mut self, who: Who) {
        if self.bed.record().frozen(who).contains(Instant::now()) {
            self.signal(who, Signal::SIGCONT, Life::Continued);
            let seat = self.bed.seat_mut(who);
            seat.asked = seat.asked.map(|_| Instant::now());
        }
    }

    pub(crate) fn terminate(&mut self, who: Who) -> bool {
        if self.bed.seat(who).asked.is_some() || !self.signal(who, Signal::SIGTERM, Life::Asked) {
            return false;
        }
        self.bed.seat_mut(who).asked = Some(Instant::now());
        true
    }

    /// Starts a process that has ended, or will once it has.
    pub(crate) fn restart(&mut self, who: Who) {
        let seat = self.bed.seat_mut(who);
        if seat.process.is_none() {
            self.bed.start(who);
        } else if seat.asked.is_some() {
            seat.again = true;
        }
    }

    /// Looks who is ready and who has ended.
    pub(crate) fn look(&mut self) {
        for who in self.bed.everybody() {
            self.look_at(who);
        }
        self.look_at_api();
        while self.off.try_join_next().is_some() {}
    }

    fn look_at(&mut self, who: Who) {
        if self.bed.record().frozen(who).contains(Instant::now()) {
            return;
        }
        let seat = self.bed.seat_mut(who);
        let Some(process) = &mut seat.process else {
            return;
        };
        if let Some(status) = process.end() {
            let asked = seat.asked.take().is_some();
            // The kernel ends who was asked before its first line, and has not begun to listen for signals.
            let begun = !process.lines().is_empty();
            let unborn = !begun && status.signal() == Some(Signal::SIGTERM as i32);
            seat.old.extend(seat.process.take());
            let again = std::mem::take(&mut seat.again);
            seat.awaited = false;
            self.bed.record().add(What::Life(who, Life::Ended));
            if !asked || !(status.success() || unborn) {
                let wrong = format!("{who:?} ended by {status}, asked to: {asked}");
                self.wrong.push(wrong);
            }
            if again {
                self.bed.start(who);
            }
            return;
        }
        if seat
            .asked
            .is_some_and(|at| at.elapsed() > paced(ENDS_WITHIN))
        {
            seat.asked = Some(Instant::now() + Duration::from_secs(3_600));
            let wrong = format!("{who:?} has not ended within {ENDS_WITHIN} ms, paced, of SIGTERM");
            self.wrong.push(wrong);
        }
        let configured = || {
            process
                .lines()
                .iter()
                .any(|line| line.message() == "configured")
        };
        let ready = seat.awaited
            && match who {
                Who::Manager(_) => seat.ready.try_join_next().is_some(),
                Who::Agent(_) => configured(),
            };
        if ready {
            seat.awaited = false;
            self.bed.record().add(What::Life(who, Life::Ready));
        }
    }
}

/// Switches a VM off once it is on; where it stays off for too long, nothing is done.
async fn switch_off(
    cluster: Arc<Cluster>,
    record: Arc<Mutex<Record>>,
    vm: usize,
    alive: Arc<RwLock<()>>,
) {
    let (kubevirt, name) = (&cluster.kubevirt, name(vm));
    let path = format!("/apis/kubevirt.io/v1/namespaces/{HOME}/virtualmachines/{name}");
    let is_on = async || {
        let vm = get(&cluster, &path).await;
        vm.map(|vm| vm["status"]["printableStatus"] == "Running")
    };
    let until = Instant::now() + paced(PATIENCE);
    while Instant::now() < until {
        let served = alive.read().await;
        // A VM that cannot be looked at now is looked at again.
        if is_on().await.is_ok_and(|on| on) {
            lock(&record).add(What::Off(vm));
            match strategy(vm) {
                RunStrategy::Halted => kubevirt.stop(HOME, &name).await,
                _ => kubevirt.guest_ends(HOME, &name, Phase::Succeeded),
            }
            // A server that dies now would not tell of it.
            while Instant::now() < until && is_on().await.is_ok_and(|on| on) {
                tokio::time::sleep(LOOK).await;
            }
            return;
        }
        drop(served);
        tokio::time::sleep(LOOK).await;
    }
}
