//! A line between the program and an API server, which tests can cut and mend whichever server it
//! is: connections break, and new ones are closed at once. Or it falls silent: connections stay and
//! new ones are taken, but nothing gets through until it is mended.

use std::{net::SocketAddr, pin::pin, sync::Arc};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

/// What becomes of what is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Whole,
    Cut,
    Silent,
}

/// A running line; dropping it cuts it for good.
pub struct Line {
    address: SocketAddr,
    state: watch::Sender<State>,
    _tasks: JoinSet<()>,
}

impl Line {
    /// A whole line to `server`.
    pub async fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.expect("loopback can be bound");
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
        let state = if cut { State::Cut } else { State::Whole };
        self.state.send_replace(state);
    }

    /// Has it fall silent, or mends it.
    pub fn silence(&self, silent: bool) {
        let state = if silent { State::Silent } else { State::Whole };
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
        let mut state = watch::Receiver::clone(&state);
        connections.spawn(async move {
            let mut carried = pin!(carry(client, server));
            loop {
                let now = *state.borrow_and_update();
                tokio::select! {
                    biased;
                    changed = state.changed() => if changed.is_err() { return },
                    () = &mut carried, if now == State::Whole => return,
                    () = std::future::ready(()), if now == State::Cut => return,
                }
            }
        });
    }
}

async fn carry(mut client: TcpStream, server: SocketAddr) {
    if let Ok(mut server) = TcpStream::connect(server).await {
        // Either end may break it off.
        let _ = copy_bidirectional(&mut client, &mut server).await;
    }
}
