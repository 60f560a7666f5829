//! A line between the program and a server, which tests can cut, silence and mend whichever server it
//! is. Cut, connections break, and new ones are closed at once; silent, they stay, and nothing gets
//! through.

use std::{net::SocketAddr, sync::Arc};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

/// A running line; dropping it cuts it for good.
pub struct Line {
    address: SocketAddr,
    state: watch::Sender<State>,
    _tasks: JoinSet<()>,
}

/// How a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Whole,
    Silent,
    Cut,
}

impl Line {
    /// A whole line to `server`.
    pub async fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await;
        Self::by(listener.expect("loopback can be bound"), server)
    }

    /// The same by a socket that listens already, perhaps in another network namespace.
    pub fn by(listener: TcpListener, server: SocketAddr) -> Self {
        let address = listener.local_addr().expect("it has an address");
        let state = watch::Sender::new(State::Whole);
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, server, Arc::new(state.subscribe())));
        Self {
            address,
            state,
            _tasks: tasks,
        }
    }

    /// Where to connect to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Cuts it, or mends it.
    pub fn cut(&self, cut: bool) {
        self.set(if cut { State::Cut } else { State::Whole });
    }

    /// Has it fall silent, or mends it.
    pub fn silence(&self, silent: bool) {
        self.set(if silent { State::Silent } else { State::Whole });
    }

    /// Brings it into a state.
    pub fn set(&self, state: State) {
        self.state.send_replace(state);
    }
}

async fn accept(listener: TcpListener, server: SocketAddr, state: Arc<watch::Receiver<State>>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((client, _)) = listener.accept().await else {
            continue;
        };
        while connections.try_join_next().is_some() {}
        let state = watch::Receiver::clone(&state);
        let mut cut = state.clone();
        connections.spawn(async move {
            tokio::select! {
                biased;
                _ = cut.wait_for(|state| *state == State::Cut) => {}
                () = carry(client, server, state) => {}
            }
        });
    }
}

async fn carry(client: TcpStream, server: SocketAddr, mut state: watch::Receiver<State>) {
    pause(&mut state).await;
    if let Ok(server) = TcpStream::connect(server).await {
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        tokio::join!(
            copy(from_client, to_server, state.clone()),
            copy(from_server, to_client, state),
        );
    }
}

/// Carries one direction to its end. Either end may break it off.
async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut state: watch::Receiver<State>,
) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        pause(&mut state).await;
        if to.write_all(&buffer[..length]).await.is_err() {
            break;
        }
    }
    pause(&mut state).await;
    // The other direction goes on until it ends, too.
    let _ = to.shutdown().await;
}

async fn pause(state: &mut watch::Receiver<State>) {
    // Fails only where the line is gone, and with it this task.
    let _ = state.wait_for(|state| *state != State::Silent).await;
}
