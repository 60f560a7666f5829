//! Owns how each fault begins and ends.

use std::time::{Duration, Instant};

use kube::api::{Patch, PatchParams};
use nix::sys::signal::Signal;
use serde_json::json;

use super::{
    plan::{Between, Fault, Refusal},
    record::{Life, What},
    strike::Course,
    wires::Wire,
};
use crate::common::{
    apiserver::{self, WatchEnd, When},
    kubevirt,
    trust::Trust,
};

const LEASE: &str = "kubevirt-wol-manager";

impl Course {
    /// Begins a fault; false where there was nothing to strike.
    pub(crate) async fn begin(&mut self, fault: Fault) -> bool {
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
            Fault::ApiKill => self.kill_api().await,
            Fault::WatchReset => {
                self.bed.server().expire_history();
                self.bed.server().faults().end_watches(WatchEnd::Reset);
                self.bed.record().add(What::WatchReset);
                true
            }
            Fault::LeaseTheft | Fault::TokenExpiry(_) if self.outage.dead => false,
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

    pub(crate) async fn end(&mut self, fault: Fault) {
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
            Fault::ApiKill => self.restart_api(),
            Fault::TokenExpiry(agent) => self.renew_token(agent).await,
            Fault::Unplug(agent) => self.plug(agent),
            Fault::Flood => self.flood.end(),
            Fault::WatchReset | Fault::LeaseTheft => {}
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

    pub(crate) fn apis(&mut self, whose: Option<usize>, change: impl Fn(&mut Wire)) -> bool {
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
    pub(crate) fn settle_starts(&self) {
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
        let well = self.refusals.is_empty() && !self.outage.dead;
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

    pub(crate) async fn renew_token(&mut self, agent: usize) {
        let known = self.bed.record().known(agent).contains(Instant::now());
        // Where nobody gives tokens, the end of the run does.
        if !known && !self.outage.dead {
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

    pub(crate) fn plug(&mut self, agent: usize) {
        let there = self.bed.record().plugged(agent).contains(Instant::now());
        let host = self.bed.agents[agent].host.as_ref().filter(|_| !there);
        if let (Some(host), Some(lan)) = (host, &self.bed.lan) {
            tokio::task::block_in_place(|| lan.plug(host, agent));
            self.bed.record().add(What::Cable(agent, true));
        }
    }
}
