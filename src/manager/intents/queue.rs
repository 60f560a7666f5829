//! Owns whose turn it is: which call is made next, and which may not be made any more.

use std::{sync::Arc, time::Instant};

use crate::{
    manager::vm::Vm,
    sabotage::{self, Mechanism},
    wake::Outcome,
};

use super::{
    Action, Call, Intents,
    intent::{Intent, State},
};

impl Intents {
    /// Starts the calls that may start.
    pub(super) fn pump(&mut self, now: Instant) {
        while self.under_way < self.limits.concurrency {
            if let Some((_, uid)) = self.reads.pop_first() {
                self.call(&uid, Call::Read, now);
            } else if self.closing || !(self.pump_start(now) || self.pump_check(now)) {
                return;
            }
        }
    }

    /// Whether something became of the start whose turn it is.
    fn pump_start(&mut self, now: Instant) -> bool {
        let Some((uid, call)) = self.next_start() else {
            return false;
        };
        // The last look at the clock before the call: what waited too long starts nothing.
        if self.is_stale(&uid, now) {
            self.expire(&uid, now);
        } else if self.is_held(now) || !self.throttle.admit(now) {
            return false;
        } else {
            self.starts.pop_first();
            self.call(&uid, call, now);
        }
        true
    }

    /// Whether a VM that may have changed was looked at. Anybody can ask for that with a packet for one
    /// that is on: starts go first, and half of the places are theirs.
    fn pump_check(&mut self, now: Instant) -> bool {
        if !self.has_room_for_checks() || self.checks.is_empty() || !self.checking.admit(now) {
            return false;
        }
        if let Some((_, uid)) = self.checks.pop_first() {
            self.call(&uid, Call::Read, now);
        }
        true
    }

    pub(super) fn has_room_for_checks(&self) -> bool {
        self.under_way < self.limits.concurrency.div_ceil(2)
    }

    /// Whether nothing is started because this process stood still a moment ago.
    fn is_held(&self, now: Instant) -> bool {
        self.held_until.is_some_and(|until| now < until)
    }

    /// Whose turn it is to be started, or unpaused: what is called for now, not when it queued.
    fn next_start(&self) -> Option<(Arc<str>, Call)> {
        let (_, uid) = self.starts.first_key_value()?;
        let call = self.open.get(uid).map_or(Call::Start, Intent::wanted);
        Some((uid.clone(), call))
    }

    pub(super) fn expire(&mut self, uid: &Arc<str>, now: Instant) {
        if let Some(intent) = self.open.get(uid) {
            let why = format!("could not be started in time: {}", intent.why);
            self.settle(uid, Outcome::Expired, &why, now);
        }
    }

    fn is_stale(&self, uid: &str, now: Instant) -> bool {
        self.open.get(uid).is_some_and(|intent| {
            let fresh =
                sabotage::is(Mechanism::Ttl) || now < intent.last_heard + self.limits.event_ttl;
            now >= intent.deadline || !(fresh || intent.is_promised() || intent.first.deferred)
        })
    }

    fn call(&mut self, uid: &Arc<str>, call: Call, now: Instant) {
        self.tickets += 1;
        let id = self.tickets;
        let Some(intent) = self.open.get_mut(uid) else {
            return;
        };
        if call != Call::Read {
            intent.first_call.get_or_insert(now);
            intent.accepted = None;
            intent.decided_on = intent.vm.clone();
            // What was in the way the last time says more.
            if intent.failures == 0 {
                intent.why = "waiting for KubeVirt to answer".into();
            }
        }
        intent.state = State::Calling { call, id };
        self.under_way += 1;
        self.actions.push(Action::Call(call, id, intent.vm.clone()));
        self.schedule(uid);
    }

    /// Calls beside the call of the intent, as if nobody knew of that. Nobody waits for its answer.
    pub(super) fn call_again(&mut self, vm: Arc<Vm>) {
        self.under_way += 1;
        self.actions.push(Action::Call(Call::Start, u64::MAX, vm));
    }

    /// The intent that waits for call `id`; none where it was settled meanwhile.
    pub(super) fn calling(&mut self, uid: &str, id: u64) -> Option<&mut Intent> {
        self.open
            .get_mut(uid)
            .filter(|intent| matches!(intent.state, State::Calling { id: own, .. } if own == id))
    }

    pub(super) fn enqueue(&mut self, uid: &Arc<str>, call: Call) {
        self.tickets += 1;
        let ticket = self.tickets;
        if let Some(intent) = self.open.get_mut(uid) {
            intent.state = State::Queued { call, ticket };
            let queue = match call {
                Call::Start | Call::Unpause => &mut self.starts,
                Call::Read if intent.unsure => &mut self.checks,
                Call::Read => &mut self.reads,
            };
            queue.insert(ticket, uid.clone());
        }
    }

    /// Puts an intent into a state in which it wants no call.
    pub(super) fn unqueue(&mut self, uid: &str, state: State) {
        if let Some(intent) = self.open.get_mut(uid)
            && let State::Queued { ticket, .. } = std::mem::replace(&mut intent.state, state)
        {
            self.starts.remove(&ticket);
            self.reads.remove(&ticket);
            self.checks.remove(&ticket);
        }
    }
}
