//! Owns the course of a run: does what the plan says, and keeps up with what comes of it.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use kube::api::{Patch, PatchParams};
use nix::sys::signal::Signal;
use serde_json::json;
use tokio::task::JoinSet;

use super::{
    bed::{Bed, HOME, lock, name, strategy},
    flood::Flood,
    plan::{Between, Fault, Refusal, Step, Who, paced},
    record::{Life, Record, What},
    tally::Tally,
    wires::Wire,
};
use crate::common::{
    apiserver::{self, WatchEnd, When},
    cluster::Cluster,
    kubevirt::{self, Phase, vm::RunStrategy},
    trust::Trust,
};

/// How often it is looked what has come of what was done.
const LOOK: Duration = Duration::from_millis(20);
/// A VM that is to be switched off, and stays off for so long, stays off.
const PATIENCE: u64 = 1_000;
/// Who was asked to end has to, in the end: ten seconds for what is under way, at a tenth, and as much
/// again for a machine that has much to do.
const ENDS_WITHIN: u64 = 4_000;
const LEASE: &str = "kubevirt-wol-manager";

/// A run under way.
pub(crate) struct Course {
    pub(crate) bed: Bed,
    pub(crate) tally: Tally,
    /// What was wrong apart from the wakes.
    pub(crate) wrong: Vec<String>,
    /// Those who switch VMs off.
    off: JoinSet<()>,
    refusals: Vec<Refusal>,
    errors: Vec<u64>,
    flood: Flood,
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
            let lines = agent.seat.process.iter().flat_map(|one| one.lines());
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
                self.off.spawn(switch_off(cluster, record, vm));
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

    /// Begins a fault; false where there was nothing to strike.
    async fn begin(&mut self, fault: Fault) -> bool {
        match fault {
            Fault::Kill(who) => self.kill(who),
            Fault::Freeze(who) => self.signal(who, Signal::SIGSTOP, Life::Frozen),
            Fault::Terminate(who) => self.terminate(who),
            Fault::Cut(between) => self.links(between, |wire| wire.cuts += 1),
            Fault::Silence(between) => self.links(between, |wire| wire.silences += 1),
            Fault::ApiCut(whose) => self.apis(whose, |wire| wire.cuts += 1),
            Fault::ApiSilence(whose) => self.apis(whose, |wire| wire.silences += 1),
            Fault::Start(refusal) => {
                self.refusals.push(refusal);
                self.settle_starts();
                true
            }
            Fault::ApiErrors => {
                let ours = |request: &http::request::Parts| {
                    let agent = request.headers.get(http::header::USER_AGENT);
                    agent.is_some_and(|agent| agent.as_bytes().starts_with(b"kubevirt-wol"))
                };
                let faults = self.bed.server().faults();
                let error = apiserver::Fault::internal_error();
                let number = faults.add(When::matching(ours), error);
                self.errors.push(number);
                self.apis(None, |wire| wire.errors += 1)
            }
            Fault::WatchReset => {
                self.bed.server().expire_history();
                self.bed.server().faults().end_watches(WatchEnd::Reset);
                self.bed.record().add(What::WatchReset);
                true
            }
            Fault::LeaseTheft => self.steal_lease().await,
            Fault::TokenExpiry(agent) => {
                let pod = &self.bed.agents[agent].pod;
                let (trust, audience) = (self.bed.trust(), Trust::audience());
                let token = trust.token_for(pod, &audience, -61).await;
                pod.volume.set("token", Some(&token));
                self.bed.record().add(What::Token(agent, false));
                true
            }
            Fault::Unplug(agent) => self.unplug(agent),
            Fault::Flood => self.flood.begin(self.bed.flooding()),
        }
    }

    async fn end(&mut self, fault: Fault) {
        let less = |number: &mut usize| *number = number.saturating_sub(1);
        match fault {
            Fault::Kill(who) | Fault::Terminate(who) => self.restart(who),
            Fault::Freeze(who) => self.thaw(who),
            Fault::Cut(between) => _ = self.links(between, |wire| less(&mut wire.cuts)),
            Fault::Silence(between) => _ = self.links(between, |wire| less(&mut wire.silences)),
            Fault::ApiCut(whose) => _ = self.apis(whose, |wire| less(&mut wire.cuts)),
            Fault::ApiSilence(whose) => _ = self.apis(whose, |wire| less(&mut wire.silences)),
            Fault::Start(refusal) => {
                let index = self.refusals.iter().position(|one| *one == refusal);
                index.map(|index| self.refusals.remove(index));
                self.settle_starts();
            }
            Fault::ApiErrors => {
                if let Some(number) = self.errors.pop() {
                    self.bed.server().faults().remove(number);
                }
                self.apis(None, |wire| less(&mut wire.errors));
            }
            Fault::TokenExpiry(agent) => self.renew_token(agent).await,
            Fault::Unplug(agent) => self.plug(agent),
            Fault::Flood => self.flood.end(),
            Fault::WatchReset | Fault::LeaseTheft => {}
        }
    }

    fn kill(&mut self, who: Who) -> bool {
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

    fn signal(&mut self, who: Who, signal: Signal, life: Life) -> bool {
        let Some(process) = &self.bed.seat(who).process else {
            return false;
        };
        process.signal(signal);
        self.bed.record().add(What::Life(who, life));
        true
    }

    fn thaw(&mut self, who: Who) {
        if self.bed.record().frozen(who).contains(Instant::now()) {
            self.signal(who, Signal::SIGCONT, Life::Continued);
            let seat = self.bed.seat_mut(who);
            seat.asked = seat.asked.map(|_| Instant::now());
        }
    }

    fn terminate(&mut self, who: Who) -> bool {
        if self.bed.seat(who).asked.is_some() || !self.signal(who, Signal::SIGTERM, Life::Asked) {
            return false;
        }
        self.bed.seat_mut(who).asked = Some(Instant::now());
        true
    }

    /// Starts a process that has ended, or will once it has.
    fn restart(&mut self, who: Who) {
        let seat = self.bed.seat_mut(who);
        if seat.process.is_none() {
            self.bed.start(who);
        } else if seat.asked.is_some() {
            seat.again = true;
        }
    }

    fn links(&mut self, between: Between, change: impl Fn(&mut Wire)) -> bool {
        for agent in 0..self.bed.plan.agents {
            for manager in 0..self.bed.plan.managers {
                let meant = |wish: Option<usize>, one| wish.is_none_or(|wish| wish == one);
                if meant(between.agent, agent) && meant(between.manager, manager) {
                    let wire = &mut self.bed.agents[agent].wires[manager];
                    change(wire);
                    let line = wire.settle();
                    self.bed.record().add(What::Link(agent, manager, line));
                }
            }
        }
        true
    }

    fn apis(&mut self, whose: Option<usize>, change: impl Fn(&mut Wire)) -> bool {
        for one in 0..self.bed.plan.managers {
            if whose.is_none_or(|wish| wish == one) {
                let wire = &mut self.bed.managers[one].api;
                change(wire);
                let line = wire.settle();
                self.bed.record().add(What::Api(one, line));
            }
        }
        true
    }

    /// The fault of virt-api that came last is the one that counts.
    fn settle_starts(&self) {
        use kubevirt::Fault as Of;
        let (mut fault, mut delay) = (None, Duration::ZERO);
        match self.refusals.last() {
            None => {}
            Some(Refusal::Away) => fault = Some(Of::Away),
            Some(Refusal::Error) => fault = Some(Of::Refuse(500, "injected".into())),
            Some(Refusal::Busy) => fault = Some(Of::Busy(1)),
            Some(Refusal::Swallow) => fault = Some(Of::Swallow),
            Some(Refusal::Slow) => delay = Duration::from_millis(300),
        }
        self.bed.cluster.kubevirt.fault(fault);
        self.bed.cluster.kubevirt.delay(delay);
        let well = self.refusals.is_empty();
        self.bed.record().add(What::Starts(well));
    }

    async fn steal_lease(&self) -> bool {
        let now = k8s_openapi::jiff::Timestamp::now();
        let spec = json!({"spec": {"holderIdentity": "thief", "renewTime": format!("{now:.6}")}});
        let leases = self.bed.trust();
        let leases = leases.api::<k8s_openapi::api::coordination::v1::Lease>();
        let patch = Patch::Merge(spec);
        let stolen = leases.patch(LEASE, &PatchParams::default(), &patch).await;
        stolen.is_ok()
    }

    async fn renew_token(&mut self, agent: usize) {
        if !self.bed.record().known(agent).contains(Instant::now()) {
            self.bed.agents[agent].pod.refresh().await;
            self.bed.record().add(What::Token(agent, true));
        }
    }

    fn unplug(&mut self, agent: usize) -> bool {
        let there = self.bed.record().plugged(agent).contains(Instant::now());
        let Some(host) = self.bed.agents[agent].host.as_ref().filter(|_| there) else {
            return false;
        };
        self.bed.record().add(What::Cable(agent, false));
        tokio::task::block_in_place(|| host.ip("link delete lan0"));
        true
    }

    fn plug(&mut self, agent: usize) {
        let there = self.bed.record().plugged(agent).contains(Instant::now());
        let host = self.bed.agents[agent].host.as_ref().filter(|_| !there);
        if let (Some(host), Some(lan)) = (host, &self.bed.lan) {
            tokio::task::block_in_place(|| lan.plug(host, agent));
            self.bed.record().add(What::Cable(agent, true));
        }
    }

    /// Looks who is ready and who has ended.
    pub(crate) fn look(&mut self) {
        for who in self.bed.everybody() {
            self.look_at(who);
        }
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
            seat.old.extend(seat.process.take());
            let again = std::mem::take(&mut seat.again);
            seat.awaited = false;
            self.bed.record().add(What::Life(who, Life::Ended));
            if !asked || !status.success() {
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
async fn switch_off(cluster: Arc<Cluster>, record: Arc<Mutex<Record>>, vm: usize) {
    let (kubevirt, name) = (&cluster.kubevirt, name(vm));
    let path = format!("/apis/kubevirt.io/v1/namespaces/{HOME}/virtualmachines/{name}");
    let until = Instant::now() + paced(PATIENCE);
    loop {
        let request = http::Request::get(&path).body(Vec::new());
        let request = request.expect("the path is one");
        // A VM that cannot be looked at now is looked at again.
        let seen = cluster.client.request::<serde_json::Value>(request).await;
        if seen.is_ok_and(|vm| vm["status"]["printableStatus"] == "Running") {
            break;
        }
        if Instant::now() > until {
            return;
        }
        tokio::time::sleep(LOOK).await;
    }
    lock(&record).add(What::Off(vm));
    match strategy(vm) {
        RunStrategy::Halted => kubevirt.stop(HOME, &name).await,
        _ => kubevirt.guest_ends(HOME, &name, Phase::Succeeded),
    }
}
