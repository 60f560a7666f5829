//! Owns [`Intake`]: the one place where packets become events. Sockets put packets in, the session
//! takes events out and brings the answers back.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use tokio::sync::Notify;

use super::{
    budget::Budget,
    lines::{LineBudget, Losses},
    metrics::{Invalid, Loss, Metrics, Socket, Verdict, carrier_word},
    ring::{Key, Ring, Settled},
};
use crate::{
    dedup::{self, Window},
    filter::SourceFilter,
    mac::MacAddr,
    packet::{self, MagicPacket},
    rpc::{self, pb},
    settings::Settings,
    wake::{Answer, Carrier, Origin, Wake},
    wakeable::WakeableMacs,
};

/// Wakes remembered at most. A flood of more within the window costs repeats, not memory.
const WINDOW_CAPACITY: usize = 32_768;

/// Filters, drops repeats, and keeps what is left until it is settled.
#[derive(Debug)]
pub struct Intake {
    node: String,
    metrics: Metrics,
    state: Mutex<State>,
    /// Something is due to be sent.
    due: Notify,
    /// Something was answered.
    answered: Notify,
}

#[derive(Debug)]
struct State {
    filters: Vec<SourceFilter>,
    window: Window<Key>,
    evicted: u64,
    budget: Budget,
    forgotten: u64,
    /// None until a manager has sent it.
    wakeable: Option<WakeableMacs>,
    ring: Ring,
    lines: LineBudget,
    losses: Losses,
}

impl Intake {
    /// Makes one with the settings that hold before a manager has spoken.
    #[must_use]
    pub fn new(node: String, metrics: Metrics) -> Self {
        let settings = Settings::default();
        Self {
            node,
            metrics,
            state: Mutex::new(State {
                filters: settings.filters,
                window: Window::new(settings.dedup_window, WINDOW_CAPACITY),
                evicted: 0,
                budget: Budget::new(settings.rates),
                forgotten: 0,
                wakeable: None,
                ring: Ring::new(settings.event_ttl),
                lines: LineBudget::default(),
                losses: Losses::default(),
            }),
            due: Notify::new(),
            answered: Notify::new(),
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

    /// Takes over which addresses go first.
    pub fn prefer(&self, wakeable: WakeableMacs) {
        let bytes = i64::try_from(wakeable.bits().len()).unwrap_or(i64::MAX);
        self.metrics.wakeable_filter.set(bytes);
        let mut state = self.lock();
        state.ring.recognize(|target| wakeable.contains(target));
        state.wakeable = Some(wakeable);
    }

    /// Takes the payload of a frame or datagram that came by `origin`.
    pub fn hear(&self, payload: &[u8], origin: &Origin, now: Instant) {
        let found = match packet::scan(payload) {
            Ok(found) => found,
            Err(rejection) => {
                tracing::debug!(%origin, reason = rejection.as_str(), "not a magic packet");
                let carrier = Some(origin.carrier);
                return self.metrics.invalid(carrier, Invalid::Payload(rejection));
            }
        };
        if found.capped() {
            self.metrics.capped_packets.inc();
        }
        let verdict = self.admit(found.packets(), origin, now);
        self.metrics.packet(Some(origin.carrier), verdict);
        match verdict {
            Verdict::Reported => self.due.notify_one(),
            other => {
                tracing::debug!(%origin, verdict = ?other, "a magic packet that is not reported");
            }
        }
    }

    /// Counts a packet that a socket itself could make nothing of.
    pub fn reject(&self, carrier: Option<Carrier>, reason: Invalid) {
        tracing::debug!(reason = reason.as_str(), "a frame without a payload");
        self.metrics.invalid(carrier, reason);
    }

    /// Counts packets that the kernel dropped for a kind of socket.
    pub fn kernel_dropped(&self, socket: Socket, packets: u64) {
        if packets > 0 {
            self.metrics.kernel_dropped(socket, packets);
            self.lock().losses.dropped += packets;
        }
    }

    fn admit(&self, packets: &[MagicPacket], origin: &Origin, now: Instant) -> Verdict {
        let mut state = self.lock();
        let Some(passed) = fingerprint(&state.filters, origin) else {
            return Verdict::Filtered;
        };
        let mut verdict = Verdict::Repeat;
        for packet in packets {
            let key = (packet.target, packet.trailing, passed);
            if state.window.admit(key, now) == dedup::Verdict::Repeat {
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
            if state.lines.take(now) {
                self.log(&wake);
            }
            if let Some(dropped) = state.ring.push(wake, key, known, now) {
                self.metrics.lost(Loss::Overflow);
                state.unmark(&dropped);
            }
        }
        self.count(&mut state);
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

    /// Writes the oldest event that is due; it counts as sent from now on.
    #[must_use]
    pub fn next_event(&self, now: Instant) -> Option<pb::Event> {
        let mut state = self.lock();
        let due = state.ring.next_unsent(now)?;
        Some(pb::Event {
            deferred: due.deferred,
            ..rpc::event(due.seq, due.wake, due.age)
        })
    }

    /// Whether an event is due.
    #[must_use]
    pub fn has_due(&self, now: Instant) -> bool {
        self.lock().ring.has_due(now)
    }

    /// Takes an answer.
    pub fn answer(&self, seq: u64, answer: &Answer, now: Instant) {
        self.metrics.answered(answer);
        let mut state = self.lock();
        if let Some(settled) = state.ring.acked(seq, answer, now) {
            state.unmark(&settled);
        }
        self.count(&mut state);
        drop(state);
        self.answered.notify_one();
    }

    /// The session ended: what it carried and was not settled is due again.
    pub fn session_lost(&self) {
        self.lock().ring.session_lost();
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
        self.count(&mut state);
        drop(state);
        if !given_up.is_empty() {
            tracing::warn!(
                events = given_up.len(),
                "no manager took these wakes in time"
            );
            self.answered.notify_one();
        }
    }

    /// Waits until something may be due. For one waiter.
    pub async fn due(&self) {
        self.due.notified().await;
    }

    /// Waits until nothing would be lost if the process ended at `patience` at the latest. For one
    /// waiter.
    pub async fn flushed(&self, patience: Instant) {
        while !self.lock().ring.is_flushed(patience) {
            self.answered.notified().await;
        }
    }

    /// Whether an answer is outstanding for what was sent.
    #[must_use]
    pub fn awaits_answers(&self) -> bool {
        self.lock().ring.awaits_answers()
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
        let listed = self.wakeable.as_ref().is_some_and(|w| w.contains(target));
        listed || self.ring.knows(target)
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
