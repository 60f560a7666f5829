//! Owns [`Intake`]: the one place where packets become events. Sockets put packets in, the sessions
//! take events out and bring the answers back, each through its [`Outlet`].

mod outlet;
mod witness;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use tokio::sync::{Notify, watch};

use super::{
    budget::Budget,
    lines::{self, LineBudget, Losses},
    metrics::{Invalid, Loss, Metrics, Socket, Verdict, carrier_word},
    ring::{Key, Ring, Settled},
    route::ReplicaId,
};
pub use outlet::Outlet;
pub use witness::{Way, Witness};

use crate::{
    dedup::{self, Window},
    filter::SourceFilter,
    mac::MacAddr,
    packet::{self, MagicPacket},
    rpc::{self, pb},
    sabotage::{self, Mechanism},
    settings::Settings,
    wake::{Answer, Origin, Wake},
    wakeable::WakeableMacs,
};

/// Wakes remembered at most. A flood of more within the window costs repeats, not memory.
const WINDOW_CAPACITY: usize = 32_768;

/// Filters, drops repeats, and keeps what is left until it is settled.
#[derive(Debug)]
pub struct Intake {
    node: String,
    metrics: Metrics,
    /// Who looks on, instead of a log.
    witness: Option<Arc<dyn Witness>>,
    state: Mutex<State>,
    /// Something was answered.
    answered: Notify,
    /// How many sessions have ended.
    ended: watch::Sender<u64>,
}

#[derive(Debug)]
struct State {
    filters: Vec<SourceFilter>,
    window: Window<Key>,
    evicted: u64,
    budget: Budget,
    forgotten: u64,
    /// What each replica knows to be wakeable; that of the last one outlives its session.
    wakeable: BTreeMap<ReplicaId, WakeableMacs>,
    /// The replicas that there is a session with, and by what each is woken.
    attached: BTreeMap<ReplicaId, Arc<Notify>>,
    ring: Ring,
    lines: LineBudget,
    losses: Losses,
}

impl Intake {
    /// Makes one with the settings that hold before a manager has spoken.
    #[must_use]
    pub fn new(node: String, metrics: Metrics) -> Self {
        Self::watched(node, metrics, None)
    }

    /// The same, and somebody looks on.
    #[must_use]
    pub fn watched(node: String, metrics: Metrics, witness: Option<Arc<dyn Witness>>) -> Self {
        let settings = Settings::default();
        Self {
            node,
            metrics,
            witness,
            state: Mutex::new(State {
                filters: settings.filters,
                window: Window::new(settings.dedup_window, WINDOW_CAPACITY),
                evicted: 0,
                budget: Budget::new(settings.rates),
                forgotten: 0,
                wakeable: BTreeMap::new(),
                attached: BTreeMap::new(),
                ring: Ring::new(settings.event_ttl),
                lines: LineBudget::default(),
                losses: Losses::default(),
            }),
            answered: Notify::new(),
            ended: watch::Sender::default(),
        }
    }

    /// The counters.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Takes over what concerns packets.
    pub fn apply(&self, settings: &Settings) {
        let mut state = self.lock();
        state.filters.clone_from(&settings.filters);
        state.window.set_length(settings.dedup_window);
        state.ring.set_ttl(settings.event_ttl);
        state.budget.set_rates(settings.rates);
    }

    /// Takes over which addresses go first, beside those that other replicas named.
    fn prefer(&self, replica: &ReplicaId, wakeable: WakeableMacs) {
        let mut state = self.lock();
        let State {
            attached,
            ring,
            wakeable: known,
            ..
        } = &mut *state;
        ring.recognize(|target| wakeable.contains(target));
        // What a replica of the past knew has served until now.
        known.retain(|other, _| attached.contains_key(other));
        known.insert(replica.clone(), wakeable);
        let bytes = known.values().map(|filter| filter.bits().len());
        let bytes = i64::try_from(bytes.sum::<usize>()).unwrap_or(i64::MAX);
        self.metrics.wakeable_filter.set(bytes);
    }

    /// Takes the payload of a frame or datagram that came by `origin`, just now.
    pub fn hear(&self, payload: &[u8], origin: &Origin, now: Instant) {
        self.take(payload, origin, now, now);
    }

    /// As [`hear`](Self::hear), of one that arrived at `heard_at` and was not read before `now`.
    pub fn take(&self, payload: &[u8], origin: &Origin, heard_at: Instant, now: Instant) {
        let found = match packet::scan(payload) {
            Ok(found) => found,
            Err(rejection) => {
                tracing::debug!(%origin, reason = rejection.as_str(), "not a magic packet");
                let reason = Invalid::Payload(rejection);
                self.metrics.invalid(Some(origin.carrier), reason);
                return self.show(Way::Known(origin), &[], Err(reason));
            }
        };
        if found.capped() {
            self.metrics.capped_packets.inc();
        }
        let verdict = self.admit(found.packets(), origin, (heard_at, now));
        self.metrics.packet(Some(origin.carrier), verdict);
        self.show(Way::Known(origin), found.packets(), Ok(verdict));
        if verdict != Verdict::Reported {
            tracing::debug!(%origin, ?verdict, "a magic packet that is not reported");
        }
    }

    /// Counts a frame that came by `interface` and that its socket could make nothing of.
    pub fn reject(&self, interface: &str, reason: Invalid) {
        tracing::debug!(reason = reason.as_str(), "a frame without a payload");
        self.metrics.invalid(None, reason);
        self.show(Way::Unread(interface), &[], Err(reason));
    }

    fn show(&self, way: Way<'_>, packets: &[MagicPacket], verdict: Result<Verdict, Invalid>) {
        if let Some(witness) = &self.witness {
            witness.saw(way, packets, verdict);
        }
    }

    /// Counts packets that the kernel dropped for a kind of socket.
    pub fn kernel_dropped(&self, socket: Socket, packets: u64) {
        if packets > 0 {
            self.metrics.kernel_dropped(socket, packets);
            self.lock().losses.dropped += packets;
            self.witness.iter().for_each(|one| one.missed(packets));
        }
    }

    fn admit(
        &self,
        packets: &[MagicPacket],
        origin: &Origin,
        (heard_at, now): (Instant, Instant),
    ) -> Verdict {
        let mut state = self.lock();
        let Some(passed) = fingerprint(&state.filters, origin) else {
            return Verdict::Filtered;
        };
        if state.ring.is_too_old(heard_at, now) {
            self.metrics.lost(Loss::Stale);
            return Verdict::Stale;
        }
        let mut verdict = Verdict::Repeat;
        for packet in packets {
            let key = (packet.target, packet.trailing, passed);
            // What waited while this agent was frozen is no copy of what came long after it.
            if state.window.admit(key, heard_at) == dedup::Verdict::Repeat
                && !sabotage::is(Mechanism::Dedup)
            {
                state.ring.improve(&key, origin);
                continue;
            }
            let known = state.is_wakeable(packet.target);
            if let Err(limit) = state.budget.take(packet.target, origin, known, now) {
                // A later copy counts anew.
                state.window.forget(&key);
                state.losses.refused += 1;
                self.metrics.limited(limit);
                if verdict == Verdict::Repeat {
                    verdict = Verdict::Limited;
                }
                continue;
            }
            verdict = Verdict::Reported;
            let wake = Wake {
                target: packet.target,
                trailing: packet.trailing,
                origin: origin.clone(),
            };
            if self.witness.is_none() && state.lines.take(now) {
                self.log(&wake);
            }
            let crowded = state.ring.is_crowded(packet.target);
            if let Some(dropped) = state.ring.push(wake, key, known, heard_at) {
                let loss = if crowded {
                    Loss::Crowded
                } else {
                    Loss::Overflow
                };
                self.metrics.lost(loss);
                state.unmark(&dropped);
            }
        }
        self.count(&mut state);
        state.rouse();
        verdict
    }

    fn log(&self, wake: &Wake) {
        let origin = &wake.origin;
        let source = origin.source.map(|ip| ip.to_string());
        let source = source.or_else(|| origin.source_mac.map(|mac| mac.to_string()));
        tracing::info!(
            mac = %wake.target,
            node = self.node,
            iface = &*origin.interface,
            source = source.unwrap_or_default(),
            carrier = carrier_word(origin.carrier),
            "heard a magic packet"
        );
    }

    /// A session with a replica began. None where there is one already.
    fn attach(&self, replica: &ReplicaId) -> Option<Arc<Notify>> {
        let mut state = self.lock();
        if state.attached.contains_key(replica) {
            return None;
        }
        let due = Arc::new(Notify::new());
        state.attached.insert(replica.clone(), Arc::clone(&due));
        state.ring.replica_came(replica.clone());
        state.rouse();
        self.metrics.connected(state.attached.len());
        Some(due)
    }

    /// The session ended: what it carried and was not settled goes to other replicas.
    fn detach(&self, replica: &str) {
        let mut state = self.lock();
        state.attached.remove(replica);
        state.ring.replica_lost(replica);
        state.rouse();
        self.metrics.connected(state.attached.len());
        drop(state);
        self.ended.send_modify(|sessions| *sessions += 1);
    }

    /// The replica is to be sent nothing more, but may still answer.
    fn leave(&self, replica: &str) {
        let mut state = self.lock();
        state.ring.replica_leaves(replica);
        state.rouse();
    }

    /// Changes whenever a session ends.
    #[must_use]
    pub fn ended(&self) -> watch::Receiver<u64> {
        self.ended.subscribe()
    }

    /// Writes the oldest event that is due to a replica; it counts as sent from now on.
    fn next_event(&self, replica: &str, now: Instant) -> Option<pb::Event> {
        let mut state = self.lock();
        let due = state.ring.next_unsent(replica, now)?;
        Some(pb::Event {
            deferred: due.deferred,
            ..rpc::event(due.seq, due.wake, due.age)
        })
    }

    fn has_due(&self, replica: &str, now: Instant) -> bool {
        self.lock().ring.has_due(replica, now)
    }

    fn answer(&self, replica: &ReplicaId, seq: u64, answer: &Answer, now: Instant) {
        self.metrics.answered(answer);
        let mut state = self.lock();
        if let Some(settled) = state.ring.acked(replica, seq, answer, now) {
            state.unmark(&settled);
        }
        self.count(&mut state);
        drop(state);
        self.answered.notify_one();
    }

    /// Lets time pass. To be called a few times a second.
    pub fn tick(&self, now: Instant) {
        let mut state = self.lock();
        state.lines.settle(now);
        state.losses.tell(now);
        let given_up = state.ring.tick(now);
        for settled in &given_up {
            self.metrics.lost(Loss::Stale);
            state.unmark(settled);
        }
        let targets = given_up.iter().map(|settled| settled.key.0);
        let macs = lines::names(targets, |target| state.is_wakeable(target));
        self.count(&mut state);
        state.rouse();
        drop(state);
        if let Some(macs) = macs {
            let events = given_up.len();
            tracing::warn!(events, macs, "no manager took these wakes in time");
            self.answered.notify_one();
        }
    }

    /// Waits until nothing would be lost if the process ended at `patience` at the latest. For one
    /// waiter.
    pub async fn flushed(&self, patience: Instant) {
        while !self.lock().ring.is_flushed(patience) {
            self.answered.notified().await;
        }
    }

    fn awaits_answers(&self, replica: &str) -> bool {
        self.lock().ring.awaits_answers(replica)
    }

    fn count(&self, state: &mut State) {
        let evicted = state.window.evicted();
        self.metrics.dedup_evictions.inc_by(evicted - state.evicted);
        state.evicted = evicted;
        let forgotten = state.budget.forgotten();
        let new = forgotten.saturating_sub(state.forgotten);
        self.metrics.forgotten_shares.inc_by(new);
        state.forgotten = forgotten;
        let unsettled = i64::try_from(state.ring.len()).unwrap_or(i64::MAX);
        self.metrics.unsettled.set(unsettled);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn is_wakeable(&self, target: MacAddr) -> bool {
        let listed = |filter: &WakeableMacs| filter.contains(target);
        self.wakeable.values().any(listed) || self.ring.knows(target)
    }

    /// Wakes the sessions that something is queued for.
    fn rouse(&self) {
        for (replica, due) in &self.attached {
            if self.ring.has_queued(replica) {
                due.notify_one();
            }
        }
    }

    fn unmark(&mut self, settled: &Settled) {
        if settled.retry {
            self.window.forget(&settled.key);
        }
    }
}

/// Names the set of filters that a packet passes; none where it passes none. Copies of a packet
/// that come by ways which different `WolConfig`s trust are different wakes.
fn fingerprint(filters: &[SourceFilter], origin: &Origin) -> Option<u64> {
    // The constant is the multiplier of FNV-1a; any odd number would do.
    let mix = |hash: u64, position: usize| (hash ^ position as u64).wrapping_mul(0x0100_0000_01b3);
    let passed = filters.iter().enumerate().filter(|(_, f)| f.passes(origin));
    passed.fold(None, |hash, (position, _)| {
        Some(mix(hash.unwrap_or(0), position + 1))
    })
}

#[cfg(test)]
mod tests;
