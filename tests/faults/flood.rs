//! Owns a flood: junk, and wakes for addresses that nobody has, beside what is of interest.

use std::{
    net::{SocketAddr, UdpSocket},
    sync::Arc,
    time::Duration,
};

use kubevirt_wol::{mac::MacAddr, packet::MagicPacket};
use tokio::task::JoinSet;

/// Packets at once, and how far apart those are: a thousand in a second.
const AT_ONCE: usize = 20;
const PAUSE: Duration = Duration::from_millis(20);

/// A flood, or none.
#[derive(Default)]
pub(crate) struct Flood(JoinSet<()>);

impl Flood {
    /// Begins, where there is none.
    pub(crate) fn begin(&mut self, (socket, to): (Arc<UdpSocket>, Vec<SocketAddr>)) -> bool {
        let dry = self.0.is_empty();
        if dry {
            self.0.spawn(pour(socket, to));
        }
        dry
    }

    pub(crate) fn end(&mut self) {
        self.0 = JoinSet::new();
    }
}

async fn pour(socket: Arc<UdpSocket>, to: Vec<SocketAddr>) {
    let junk = [0x55; 102];
    loop {
        for number in 0..AT_ONCE {
            let [_, a, b, c] = fastrand::u32(..).to_be_bytes();
            let packet = MagicPacket::new(MacAddr::new([0x52, 0x54, 1, a, b, c]), &[]);
            let bytes = packet.map(|packet| packet.to_bytes());
            let bytes = match &bytes {
                Ok(bytes) if number % 2 == 0 => bytes.as_slice(),
                _ => junk.as_slice(),
            };
            for address in &to {
                // Whether anybody listens is all the same.
                let _ = socket.send_to(bytes, address);
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}
