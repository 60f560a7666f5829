//! Owns [`Turn`]: whose turn it is in a handshake under way, so that a manager that gets too little of
//! the processor does not take it for the fault of its agents.

use std::{net, os::fd::AsFd as _};

use tokio::{net::TcpStream, task::AbortHandle, time::Instant};

/// A handshake under way.
pub(super) struct Turn {
    began: Instant,
    handshake: AbortHandle,
    /// The connection once more, to look into; none where there are no more open files.
    socket: Option<net::TcpStream>,
}

impl Turn {
    /// A second hold of a connection. It does not block.
    pub(super) fn socket(stream: &TcpStream) -> Option<net::TcpStream> {
        let socket = stream.as_fd().try_clone_to_owned().ok()?;
        Some(socket.into())
    }

    /// Begins now.
    pub(super) fn new(handshake: AbortHandle, socket: Option<net::TcpStream>) -> Self {
        Self {
            began: Instant::now(),
            handshake,
            socket,
        }
    }

    /// When it began.
    pub(super) fn began(&self) -> Instant {
        self.began
    }

    /// Whether it has ended, one way or the other.
    pub(super) fn is_over(&self) -> bool {
        self.handshake.is_finished()
    }

    /// Whether it is for the client to go on: nothing that it sent waits to be read.
    pub(super) fn is_the_clients(&self) -> bool {
        let unread = self.socket.as_ref().map(|socket| socket.peek(&mut [0]));
        !matches!(unread, Some(Ok(1..)))
    }

    /// Gives its place to another.
    pub(super) fn end(self) {
        self.handshake.abort();
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use tokio::{io::AsyncReadExt as _, net::TcpListener, task::JoinSet};

    use super::*;

    #[tokio::test]
    async fn it_is_the_clients_turn_unless_something_waits_to_be_read() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut tasks = JoinSet::new();
        let handshake = tasks.spawn(std::future::pending::<()>());
        let turn = Turn::new(handshake, Turn::socket(&stream));
        assert!(turn.is_the_clients(), "it has said nothing");
        client.write_all(b"hello").unwrap();
        stream.readable().await.unwrap();
        assert!(!turn.is_the_clients(), "its hello is not read");
        stream.read_exact(&mut [0; 5]).await.unwrap();
        assert!(turn.is_the_clients(), "it has said half of it");
        drop(client);
        stream.readable().await.unwrap();
        assert!(turn.is_the_clients(), "it is gone");
        turn.end();
        assert!(tasks.join_next().await.unwrap().unwrap_err().is_cancelled());
    }
}
