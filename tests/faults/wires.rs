//! Owns the networks of a run: lines that several faults can break at once, and the LAN where each node
//! has a network namespace.

use std::{
    net::{SocketAddr, TcpListener, UdpSocket},
    sync::Arc,
};

use super::record;
use crate::common::{
    line::{Line, State},
    netns::{Host, Switch},
};

/// A line, and what is wrong with it: it is whole when every fault has ended.
pub(crate) struct Wire {
    line: Line,
    pub(crate) cuts: usize,
    pub(crate) silences: usize,
    /// Requests are answered with errors, which is as good as no answer.
    pub(crate) errors: usize,
}

impl Wire {
    pub(crate) async fn to(server: SocketAddr) -> Self {
        Self::of(Line::to(server).await)
    }

    /// The same from a host's loopback, or from ours.
    pub(crate) async fn from(host: Option<&Host>, server: SocketAddr) -> Self {
        let Some(host) = host else {
            return Self::to(server).await;
        };
        let listener = host.thread(|| TcpListener::bind("127.0.0.1:0").unwrap());
        let listener = listener.join().unwrap();
        listener.set_nonblocking(true).unwrap();
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        Self::of(Line::by(listener, server))
    }

    fn of(line: Line) -> Self {
        Self {
            line,
            cuts: 0,
            silences: 0,
            errors: 0,
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.line.address()
    }

    /// Brings the line into the state that the faults leave it in, and tells how it serves.
    pub(crate) fn settle(&self) -> record::Line {
        let state = match (self.cuts, self.silences) {
            (0, 0) => State::Whole,
            (0, _) => State::Silent,
            _ => State::Cut,
        };
        self.line.set(state);
        match state {
            State::Whole if self.errors == 0 => record::Line::Whole,
            State::Silent => record::Line::Silent,
            _ => record::Line::Cut,
        }
    }

    /// Ends all faults.
    pub(crate) fn heal(&mut self) -> record::Line {
        (self.cuts, self.silences, self.errors) = (0, 0, 0);
        self.settle()
    }
}

/// A switch with a sender's host and the nodes.
pub(crate) struct Lan {
    switch: Switch,
    _sender: Host,
    socket: Arc<UdpSocket>,
    /// From another address: what one sender may send is limited.
    flood: Arc<UdpSocket>,
}

impl Lan {
    pub(crate) fn new() -> Self {
        let switch = Switch::new("lan");
        let sender = Host::new("sender");
        sender.plug(&switch, "lan0", Some("10.77.0.1/24"));
        sender.ip("address add 10.77.0.2/24 dev lan0");
        let socket = |address: &'static str| {
            let opened = sender.thread(move || {
                let socket = UdpSocket::bind(address).unwrap();
                socket.set_broadcast(true).unwrap();
                socket
            });
            Arc::new(opened.join().unwrap())
        };
        Self {
            switch,
            socket: socket("10.77.0.1:0"),
            flood: socket("10.77.0.2:0"),
            _sender: sender,
        }
    }

    /// Adds a node.
    pub(crate) fn node(&self, number: usize) -> Host {
        let host = Host::new(&format!("node{number}"));
        self.plug(&host, number);
        host
    }

    /// Makes a node's interface.
    pub(crate) fn plug(&self, host: &Host, number: usize) {
        let address = format!("10.77.0.{}/24", 11 + number);
        host.plug(&self.switch, "lan0", Some(&address));
        // The sender knows it again after the interface was made anew.
        host.ip(&format!(
            "link set lan0 address 02:00:00:00:00:{number:02x}"
        ));
    }

    /// Sends a datagram to one node or to all.
    pub(crate) fn send(&self, bytes: &[u8], only: Option<usize>) {
        let host = only.map_or(255, |number| 11 + number);
        // A node without an interface cannot be reached.
        let _ = self.socket.send_to(bytes, format!("10.77.0.{host}:9"));
    }

    /// A socket for a flood, and where it goes to.
    pub(crate) fn flooding(&self) -> (Arc<UdpSocket>, Vec<SocketAddr>) {
        (self.flood.clone(), vec![([10, 77, 0, 255], 9).into()])
    }
}
