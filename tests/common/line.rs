//! A line between the program and an API server, which tests can cut and mend whichever server it
//! is: connections break, and new ones are closed at once. It can also fall silent, as where a cable is
//! pulled: nothing arrives, and nobody is told.

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
    cut: watch::Sender<bool>,
    silent: watch::Sender<bool>,
    _tasks: JoinSet<()>,
}

impl Line {
    /// A whole line to `server`.
    pub async fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.expect("loopback can be bound");
        let address = listener.local_addr().expect("it has an address");
        let cut = watch::Sender::new(false);
        let mut tasks = JoinSet::new();
        let silent = watch::Sender::new(false);
        let states = (Arc::new(cut.subscribe()), Arc::new(silent.subscribe()));
        tasks.spawn(accept(listener, server, states));
        Self {
            address,
            cut,
            silent,
            _tasks: tasks,
        }
    }

    /// Where to connect to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Cuts it, or mends it.
    pub fn cut(&self, cut: bool) {
        self.cut.send_replace(cut);
    }

    /// Carries nothing any more, without a word to either end, or again.
    pub fn silence(&self, silent: bool) {
        self.silent.send_replace(silent);
    }
}

/// Whether the line is cut, and whether it is silent.
type States = (Arc<watch::Receiver<bool>>, Arc<watch::Receiver<bool>>);

async fn accept(listener: TcpListener, server: SocketAddr, (cut, silent): States) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((client, _)) = listener.accept().await else {
            continue;
        };
        while connections.try_join_next().is_some() {}
        let mut cut = watch::Receiver::clone(&cut);
        let silent = watch::Receiver::clone(&silent);
        connections.spawn(async move {
            tokio::select! {
                biased;
                _ = cut.wait_for(|cut| *cut) => {}
                () = carry(client, server, silent) => {}
            }
        });
    }
}

async fn carry(mut client: TcpStream, server: SocketAddr, silent: watch::Receiver<bool>) {
    if let Ok(mut server) = TcpStream::connect(server).await {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        // Either end may break it off.
        tokio::select! {
            () = pump(from_client, to_server, silent.clone()) => {}
            () = pump(from_server, to_client, silent) => {}
        }
    }
}

async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut silent: watch::Receiver<bool>,
) {
    let mut buffer = [0; 16 * 1_024];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        // The other end is the line, so it does not go away.
        let _ = silent.wait_for(|silent| !silent).await;
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}
