//! Owns [`Screen`], which sees every packet, and [`Printer`], which writes what it saw. Between them
//! is a bounded queue: a reader that is slow misses lines, never the agent packets.

use std::{
    collections::VecDeque,
    io::{self, ErrorKind, Write as _},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use k8s_openapi::jiff::Timestamp;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{line::Sighting, summary::Summary};
use crate::{
    agent::{
        intake::Witness,
        metrics::{Invalid, Verdict},
    },
    mac::MacAddr,
    packet::MagicPacket,
    wake::{Carrier, Origin},
};

/// Lines that wait to be written; more are not shown, and counted.
const MAX_LINES: usize = 4_096;

/// A datagram reaches a UDP socket within this time of its frame, or the other way round.
const SAME_PACKET: Duration = Duration::from_secs(1);

/// Datagrams that wait for their frames, or the other way round.
const MAX_HALVES: usize = 64;

/// Counts every packet, and has it printed.
#[derive(Debug)]
pub(super) struct Screen {
    state: Mutex<State>,
    lines: mpsc::Sender<Sighting>,
}

#[derive(Debug, Default)]
struct State {
    summary: Summary,
    halves: Halves,
}

impl Screen {
    /// A screen, and where its lines come out.
    pub(super) fn new() -> (Self, mpsc::Receiver<Sighting>) {
        let (lines, out) = mpsc::channel(MAX_LINES);
        let state = Mutex::default();
        (Self { state, lines }, out)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Witness for Screen {
    fn saw(
        &self,
        origin: Option<&Origin>,
        packets: &[MagicPacket],
        verdict: Result<Verdict, Invalid>,
    ) {
        let mut state = self.lock();
        // What this node sends was not heard.
        if verdict == Err(Invalid::Outgoing) {
            return;
        }
        let targets: Vec<MacAddr> = packets.iter().map(|packet| packet.target).collect();
        if let Some(origin) = origin
            && state.halves.completes(origin, &targets, Instant::now())
        {
            return;
        }
        state.summary.count(verdict);
        let sighting = Sighting {
            at: Timestamp::now(),
            origin: origin.cloned(),
            targets,
            trailing: packets
                .first()
                .map_or(0, |packet| packet.trailing.as_bytes().len()),
            verdict,
        };
        if self.lines.try_send(sighting).is_err() {
            state.summary.not_shown += 1;
        }
    }

    fn missed(&self, packets: u64) {
        self.lock().summary.missed += packets;
    }
}

/// The packets that one kind of socket heard, and the other kind has not heard yet: a datagram for
/// an open port comes by both, and is one packet.
#[derive(Debug, Default)]
struct Halves(VecDeque<(Instant, Half)>);

#[derive(Debug, PartialEq, Eq)]
struct Half {
    carrier: Carrier,
    source: Option<IpAddr>,
    port: u16,
    targets: Vec<MacAddr>,
}

impl Halves {
    /// Whether the other kind of socket heard this one before.
    fn completes(&mut self, origin: &Origin, targets: &[MacAddr], now: Instant) -> bool {
        let other = match origin.carrier {
            Carrier::Udp => Carrier::EthernetUdp,
            Carrier::EthernetUdp => Carrier::Udp,
            Carrier::Ethernet => return false,
        };
        let half = |carrier| Half {
            carrier,
            source: origin.source,
            port: origin.source_port,
            targets: targets.to_vec(),
        };
        let old = |at: Instant| now.saturating_duration_since(at) > SAME_PACKET;
        while self.0.front().is_some_and(|(at, _)| old(*at)) {
            self.0.pop_front();
        }
        let wanted = half(other);
        if let Some(at) = self.0.iter().position(|(_, half)| *half == wanted) {
            self.0.remove(at);
            return true;
        }
        if self.0.len() == MAX_HALVES {
            self.0.pop_front();
        }
        self.0.push_back((now, half(origin.carrier)));
        false
    }
}

/// Writes the lines to standard output.
pub(super) struct Printer {
    lines: mpsc::Receiver<Sighting>,
    screen: Arc<Screen>,
    json: bool,
    window: Duration,
}

impl Printer {
    pub(super) fn new(
        lines: mpsc::Receiver<Sighting>,
        screen: Arc<Screen>,
        json: bool,
        window: Duration,
    ) -> Self {
        Self {
            lines,
            screen,
            json,
            window,
        }
    }

    /// Writes until `token` is cancelled, or nobody reads; whether somebody does.
    ///
    /// # Errors
    ///
    /// A line cannot be written.
    pub(super) async fn follow(&mut self, token: &CancellationToken) -> anyhow::Result<bool> {
        while let Some(Some(line)) = token.run_until_cancelled(self.lines.recv()).await {
            // A terminal may be held up for as long as its reader likes.
            let written = tokio::task::block_in_place(|| self.write(&line));
            match written {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(false),
                Err(error) => return Err(error).context("cannot print what was heard"),
            }
        }
        Ok(true)
    }

    /// Writes what is left, and the summary.
    ///
    /// # Errors
    ///
    /// It cannot be written.
    pub(super) fn finish(&mut self) -> anyhow::Result<()> {
        while let Ok(line) = self.lines.try_recv() {
            self.write(&line).context("cannot print what was heard")?;
        }
        let state = self.screen.lock();
        let summary = if self.json {
            state.summary.json().to_string()
        } else {
            state.summary.text()
        };
        drop(state);
        writeln!(io::stdout(), "{summary}").context("cannot print the summary")
    }

    fn write(&self, line: &Sighting) -> io::Result<()> {
        let text = if self.json {
            line.json().to_string()
        } else {
            line.text(self.window)
        };
        writeln!(io::stdout(), "{text}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(carrier: Carrier, port: u16) -> Origin {
        Origin {
            carrier,
            interface: "eth0".into(),
            vlan: None,
            source_mac: None,
            source: Some([10, 0, 0, 7].into()),
            source_port: port,
            length: 102,
        }
    }

    #[test]
    fn a_packet_that_comes_by_two_sockets_is_one_whichever_reads_it_first() {
        let (mut halves, t0) = (Halves::default(), Instant::now());
        let (udp, frame) = (Carrier::Udp, Carrier::EthernetUdp);
        let target = [MacAddr::new([2, 0, 0, 0, 0, 1])];
        let mut is_copy = |carrier, port| halves.completes(&origin(carrier, port), &target, t0);
        assert_eq!([udp, frame].map(|one| is_copy(one, 5)), [false, true]);
        assert_eq!([frame, udp].map(|one| is_copy(one, 5)), [false, true]);
        // Two packets are two, and so are those of two senders.
        assert_eq!([udp, udp].map(|one| is_copy(one, 5)), [false, false]);
        assert!(!is_copy(frame, 6));
        let later = t0 + 2 * SAME_PACKET;
        assert!(!halves.completes(&origin(frame, 5), &target, later));
    }

    #[test]
    fn a_reader_that_is_slow_misses_lines_and_is_told_how_many() {
        let (screen, lines) = Screen::new();
        for port in 0..5_000 {
            let short = Err(Invalid::Payload(crate::packet::Rejection::Short));
            screen.saw(Some(&origin(Carrier::Ethernet, port)), &[], short);
        }
        assert_eq!(lines.len(), MAX_LINES);
        let told = screen.lock().summary.text();
        assert!(
            told.contains("5000 packets") && told.contains("904 not shown"),
            "{told}"
        );
    }
}
