//! Owns [`Listeners`]: which sockets are open. Ports come and go with the managers' wishes, without
//! touching the sockets that stay.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{task::JoinSet, time::MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::{
    intake::Intake,
    listen::{self, Listen, ListenError},
    metrics::ListenerState,
    raw::RawListener,
    udp::UdpListener,
};
use crate::{
    admin::{Gate, Heartbeat, Liveness},
    rpc::pb,
    telemetry::Word,
};

/// A port that could not be opened is tried again after this time.
const RETRY: Duration = Duration::from_secs(30);

/// A reader that has not taken a turn for so long hangs; it takes one every few seconds.
const STUCK_AFTER: Duration = Duration::from_secs(30);

/// The sockets that the agent opened before its runtime existed.
#[derive(Debug)]
pub struct Ears {
    raw: Option<Result<RawListener, ListenError>>,
    udp: BTreeMap<u16, Result<UdpListener, ListenError>>,
}

impl Ears {
    /// Opens what can be opened.
    pub(super) fn open(raw: bool, ports: &BTreeSet<u16>) -> Self {
        Self::open_by(raw, ports, open_udp)
    }

    /// The same, but shares no port: of the sockets that do, each gets a part of the packets.
    pub(super) fn open_beside_an_agent(raw: bool, ports: &BTreeSet<u16>) -> Self {
        Self::open_by(raw, ports, |port| {
            UdpListener::open_alone(port).map_err(|error| ListenError::udp(port, error))
        })
    }

    fn open_by(
        raw: bool,
        ports: &BTreeSet<u16>,
        open: impl Fn(u16) -> Result<UdpListener, ListenError>,
    ) -> Self {
        let raw = raw.then(|| RawListener::open().map_err(ListenError::raw));
        let udp = ports.iter().map(|port| (*port, open(*port)));
        Self {
            raw,
            udp: udp.collect(),
        }
    }

    /// The ports that could not be opened, and are tried again.
    pub(super) fn not_open(&self) -> BTreeSet<u16> {
        let failed = self.udp.iter().filter(|(_, socket)| socket.is_err());
        failed.map(|(port, _)| *port).collect()
    }
}

fn open_udp(port: u16) -> Result<UdpListener, ListenError> {
    UdpListener::open(port).map_err(|error| ListenError::udp(port, error))
}

/// Names a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Name {
    Raw,
    Udp(u16),
}

impl Name {
    /// The task that reads it, for `/livez`.
    const fn task(self) -> &'static str {
        match self {
            Self::Raw => "raw socket",
            Self::Udp(_) => "UDP socket",
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Raw => f.write_str("raw"),
            Self::Udp(port) => write!(f, "udp/{port}"),
        }
    }
}

/// The sockets, open and failed, and the tasks that read them.
#[derive(Debug)]
pub(super) struct Listeners {
    intake: Arc<Intake>,
    /// Open while anything listens.
    gate: Gate,
    /// Notices a reader that hangs.
    liveness: Liveness,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    slots: BTreeMap<Name, Slot>,
    readers: JoinSet<()>,
    revision: u64,
    closing: bool,
}

#[derive(Debug)]
enum Slot {
    /// Cancelled to close the socket, once its queue is read.
    Open(CancellationToken),
    Failed(ListenError),
}

impl Listeners {
    /// Starts to read what is open. To be called within the runtime.
    #[must_use]
    pub(super) fn start(ears: Ears, intake: Arc<Intake>, gate: Gate, liveness: Liveness) -> Self {
        let listeners = Self {
            intake,
            gate,
            liveness,
            state: Mutex::new(State {
                slots: BTreeMap::new(),
                readers: JoinSet::new(),
                revision: 0,
                closing: false,
            }),
        };
        let mut state = listeners.lock();
        if let Some(raw) = ears.raw {
            listeners.install(&mut state, Name::Raw, raw);
        }
        for (port, socket) in ears.udp {
            listeners.install(&mut state, Name::Udp(port), socket);
        }
        listeners.refresh(&mut state);
        drop(state);
        listeners
    }

    /// Opens and closes UDP ports, so that exactly `ports` are listened on; those that failed
    /// before are tried again.
    pub(super) fn apply(&self, ports: &BTreeSet<u16>) {
        let mut state = self.lock();
        if state.closing {
            return;
        }
        let unwanted = |name: &Name| matches!(name, Name::Udp(port) if !ports.contains(port));
        state.slots.retain(|name, slot| {
            if !unwanted(name) {
                return true;
            }
            slot.close();
            tracing::info!(listener = %name, "closed, as no manager asks for it any more");
            false
        });
        for port in ports {
            let name = Name::Udp(*port);
            if !matches!(state.slots.get(&name), Some(Slot::Open(_))) {
                self.install(&mut state, name, open_udp(*port));
            }
        }
        self.refresh(&mut state);
    }

    /// Tries again every 30 s what could not be opened, until `stop` is cancelled; then closes
    /// every socket once its queue is read, and returns.
    pub(super) async fn supervise(&self, stop: CancellationToken, heart: Heartbeat) {
        let mut retry = tokio::time::interval(crate::pace::of(RETRY));
        retry.set_missed_tick_behavior(MissedTickBehavior::Delay);
        retry.reset();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                _ = heart.waiting(retry.tick()) => self.retry_failed(),
            }
        }
        heart.waiting(self.close()).await;
    }

    /// Closes every socket once its queue is read.
    pub(super) async fn close(&self) {
        let mut readers = {
            let mut state = self.lock();
            state.closing = true;
            state.slots.values().for_each(Slot::close);
            std::mem::take(&mut state.readers)
        };
        while readers.join_next().await.is_some() {}
    }

    fn retry_failed(&self) {
        let mut state = self.lock();
        let failed = |(name, slot): (&Name, &Slot)| match (name, slot) {
            (Name::Udp(port), Slot::Failed(_)) => Some(*port),
            // A packet socket needs a privilege that is gone by now.
            _ => None,
        };
        let ports: Vec<u16> = state.slots.iter().filter_map(failed).collect();
        for port in ports {
            self.install(&mut state, Name::Udp(port), open_udp(port));
        }
        self.refresh(&mut state);
    }

    /// Every listener as managers read it, and a number that rises whenever that changes.
    #[must_use]
    pub(super) fn report(&self) -> (u64, Vec<pb::Listener>) {
        let state = self.lock();
        let listeners = state.slots.iter().map(|(name, slot)| pb::Listener {
            name: name.to_string(),
            error: match slot {
                Slot::Open(_) => String::new(),
                Slot::Failed(error) => error.to_string(),
            },
        });
        (state.revision, listeners.collect())
    }

    /// The number alone.
    #[must_use]
    pub(super) fn revision(&self) -> u64 {
        self.lock().revision
    }

    fn install<S: Listen>(&self, state: &mut State, name: Name, socket: Result<S, ListenError>) {
        let slot = match socket.and_then(listen::watch) {
            Ok(socket) => {
                tracing::info!(listener = %name, "listening");
                let close = CancellationToken::new();
                let (intake, token) = (Arc::clone(&self.intake), close.clone());
                let heart = self.liveness.task(name.task(), STUCK_AFTER);
                state.readers.spawn(async move {
                    if let Err(error) = listen::read(socket, &intake, token, heart).await {
                        tracing::error!(listener = %name, %error, "cannot read a socket");
                    }
                });
                Slot::Open(close)
            }
            Err(error) => Slot::Failed(error),
        };
        let news = match (state.slots.get(&name), &slot) {
            (Some(Slot::Failed(old)), Slot::Failed(new)) => old.to_string() != new.to_string(),
            _ => true,
        };
        if let (true, Slot::Failed(error)) = (news, &slot) {
            tracing::warn!(listener = %name, reason = %Word(error.state()), "cannot listen: {error}");
        }
        state.slots.insert(name, slot);
        state.revision += u64::from(news);
    }

    fn refresh(&self, state: &mut State) {
        while state.readers.try_join_next().is_some() {}
        let open = |slot: &Slot| matches!(slot, Slot::Open(_));
        if state.slots.values().any(open) {
            self.gate.open();
        } else {
            self.gate.close();
        }
        let states = state.slots.values().map(|slot| match slot {
            Slot::Open(_) => ListenerState::Open,
            Slot::Failed(error) => error.state(),
        });
        self.intake.metrics().listeners(states);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    fn close(&self) {
        if let Self::Open(token) = self {
            token.cancel();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::File,
        os::fd::{AsRawFd, RawFd},
    };

    use super::*;
    use crate::{admin::Readiness, agent::metrics::Metrics};

    /// A file, which no kernel can watch.
    struct Unwatchable(File);

    impl AsRawFd for Unwatchable {
        fn as_raw_fd(&self) -> RawFd {
            self.0.as_raw_fd()
        }
    }

    impl Listen for Unwatchable {
        fn hear_one(&mut self, _: &Intake) -> nix::Result<()> {
            Err(nix::errno::Errno::EAGAIN)
        }

        fn withdraw(&self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_socket_that_cannot_be_read_is_not_said_to_listen() {
        let intake = Arc::new(Intake::new("node-1".to_owned(), Metrics::default()));
        let readiness = Readiness::default();
        let ears = Ears::open(false, &BTreeSet::new());
        let listeners = Listeners::start(
            ears,
            intake,
            readiness.gate("a socket"),
            Liveness::default(),
        );
        let file = File::open("/proc/self/exe").unwrap();
        let mut state = listeners.lock();
        listeners.install(&mut state, Name::Udp(9), Ok(Unwatchable(file)));
        listeners.refresh(&mut state);
        drop(state);
        let (_, told) = listeners.report();
        assert!(!told[0].error.is_empty(), "{told:?}");
        assert_eq!(readiness.waiting_for(), ["a socket"]);
    }
}
