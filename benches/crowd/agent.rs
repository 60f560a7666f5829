//! One agent as the manager sees it: it comes, comes again where it has to, says hello, takes its
//! configuration, and reports what it is told to.

use std::{
    io,
    net::Ipv4Addr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use kubevirt_wol::{
    mac::MacAddr,
    rpc::pb::{
        Ack, Carrier, ConfigurationStatus, Event, Hello, Outcome, agent_message::Body as FromAgent,
        manager_message::Body as FromManager,
    },
};
use tokio::sync::watch;

use crate::wire::{Way, Wire};

/// An agent that has failed comes again after a random time up to this, doubled each time …
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// … and no more than this, as the real one does.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// What all agents are to do.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Order {
    Nothing,
    /// Report this address, which all heard at this moment.
    Report(MacAddr, Instant),
    /// Keep so many events unanswered, for addresses that no VM has.
    Flood(u32),
}

/// What all agents count together.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) connected: AtomicU64,
    /// Attempts that failed before a session was there.
    pub(crate) failures: AtomicU64,
    /// Sessions that ended.
    pub(crate) lost: AtomicU64,
    /// Events with a final answer.
    pub(crate) settled: AtomicU64,
    /// From the moment that all heard a broadcast to the first answer, and to the final one.
    acks: Mutex<[Vec<Duration>; 2]>,
    /// Why an attempt failed, or a session ended: the first one.
    pub(crate) trouble: Mutex<Option<String>>,
}

impl Tally {
    /// The times to the first and to the final answers since this was asked last.
    pub(crate) fn take_acks(&self) -> [Vec<Duration>; 2] {
        std::mem::take(&mut *self.acks.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn acked(&self, kind: usize, time: Duration) {
        self.acks.lock().unwrap_or_else(PoisonError::into_inner)[kind].push(time);
    }

    fn trouble(&self, error: &io::Error) {
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        trouble.get_or_insert_with(|| error.to_string());
    }
}

/// One agent. It runs for as long as it is polled.
pub(crate) struct Agent {
    pub(crate) number: u32,
    pub(crate) way: Way,
    pub(crate) token: Arc<str>,
    pub(crate) orders: watch::Receiver<Order>,
    pub(crate) tally: Arc<Tally>,
}

impl Agent {
    pub(crate) async fn run(mut self) {
        let mut pause = FIRST_PAUSE;
        loop {
            match self.connect().await {
                Ok(wire) => {
                    self.tally.connected.fetch_add(1, Relaxed);
                    pause = FIRST_PAUSE;
                    let Err(error) = self.serve(wire).await;
                    self.tally.connected.fetch_sub(1, Relaxed);
                    self.tally.lost.fetch_add(1, Relaxed);
                    self.tally.trouble(&error);
                }
                Err(error) => {
                    self.tally.failures.fetch_add(1, Relaxed);
                    self.tally.trouble(&error);
                }
            }
            tokio::time::sleep(pause.mul_f64(fastrand::f64())).await;
            pause = (2 * pause).min(LONGEST_PAUSE);
        }
    }

    /// A session that has its configuration.
    async fn connect(&self) -> io::Result<Wire> {
        let [_, _, high, low] = self.number.to_be_bytes();
        let from = Ipv4Addr::new(127, 1, high, low);
        let mut wire = Wire::open(&self.way, from, &self.token).await?;
        wire.send(FromAgent::Hello(Hello {
            node_name: format!("node-{}", self.number),
            boot_id: 1,
            version: "bench".into(),
        }))?;
        loop {
            if let Some(FromManager::Configuration(configuration)) = wire.next().await? {
                wire.send(FromAgent::ConfigurationStatus(ConfigurationStatus {
                    generation: configuration.generation,
                    accepted: true,
                    ..ConfigurationStatus::default()
                }))?;
                return Ok(wire);
            }
        }
    }

    async fn serve(&mut self, wire: Wire) -> io::Result<std::convert::Infallible> {
        let mut session = Session {
            wire,
            number: self.number,
            seq: 0,
            flooding: false,
            broadcast: None,
        };
        self.orders.mark_unchanged();
        loop {
            tokio::select! {
                message = session.wire.next() => {
                    if let Some(FromManager::Ack(ack)) = message? {
                        session.acked(&ack, &self.tally)?;
                    }
                }
                // The other end is as old as this one.
                Ok(()) = self.orders.changed() => {
                    let order = *self.orders.borrow_and_update();
                    session.take(order)?;
                }
            }
        }
    }
}

struct Session {
    wire: Wire,
    number: u32,
    seq: u64,
    flooding: bool,
    /// The broadcast that was reported last, when it was heard, and whether it has an answer.
    broadcast: Option<(u64, Instant, bool)>,
}

impl Session {
    fn take(&mut self, order: Order) -> io::Result<()> {
        self.flooding = matches!(order, Order::Flood(_));
        match order {
            Order::Nothing => Ok(()),
            Order::Report(mac, heard) => {
                self.report(mac)?;
                self.broadcast = Some((self.seq, heard, false));
                Ok(())
            }
            Order::Flood(window) => (0..window).try_for_each(|_| self.report_unknown()),
        }
    }

    fn acked(&mut self, ack: &Ack, tally: &Tally) -> io::Result<()> {
        let last = ack.outcome() != Outcome::Deferred;
        if let Some((seq, heard, answered)) = &mut self.broadcast
            && *seq == ack.seq
        {
            if !std::mem::replace(answered, true) {
                tally.acked(0, heard.elapsed());
            }
            if last {
                tally.acked(1, heard.elapsed());
            }
        }
        if last {
            tally.settled.fetch_add(1, Relaxed);
            if self.flooding {
                self.report_unknown()?;
            }
        }
        Ok(())
    }

    /// Reports an address that no VM has, and nobody reported before.
    fn report_unknown(&mut self) -> io::Result<()> {
        let number = (u64::from(self.number) << 24) | (self.seq & 0xff_ffff);
        let [_, _, _, rest @ ..] = number.to_be_bytes();
        let mut octets = [0x02, 0, 0, 0, 0, 0];
        octets[1..].copy_from_slice(&rest);
        self.report(MacAddr::new(octets))
    }

    fn report(&mut self, mac: MacAddr) -> io::Result<()> {
        self.seq += 1;
        self.wire.send(FromAgent::Event(Event {
            seq: self.seq,
            mac: mac.octets().to_vec(),
            carrier: Carrier::Udp.into(),
            interface: "eth0".into(),
            source_ip: vec![10, 0, 0, 7],
            source_port: 40_000,
            length: 102,
            ..Event::default()
        }))
    }
}
