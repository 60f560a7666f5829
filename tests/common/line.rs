//! A line between the program and an API server, which tests can cut and mend whichever server it
//! is: connections break, and new ones are closed at once.

use std::{net::SocketAddr, sync::Arc};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

/// A running line; dropping it cuts it for good.
pub struct Line {
    address: SocketAddr,
    cut: watch::Sender<bool>,
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
        tasks.spawn(accept(listener, server, Arc::new(cut.subscribe())));
        Self {
            address,
            cut,
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
}

async fn accept(listener: TcpListener, server: SocketAddr, cut: Arc<watch::Receiver<bool>>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((client, _)) = listener.accept().await else {
            continue;
        };
        while connections.try_join_next().is_some() {}
        let mut cut = watch::Receiver::clone(&cut);
        connections.spawn(async move {
            tokio::select! {
                biased;
                _ = cut.wait_for(|cut| *cut) => {}
                () = carry(client, server) => {}
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
