//! Hears every frame that reaches a host, as `tcpdump` would.

use std::{
    io::Read as _,
    sync::mpsc::{Receiver, channel},
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, Type};

use crate::common::netns::Host;

/// Frames that carry a magic packet, from now on.
pub(crate) struct Capture {
    frames: Receiver<Vec<u8>>,
}

impl Capture {
    /// Begins to listen on every interface of a host.
    pub(crate) fn start(host: &Host) -> Self {
        let every_protocol = i32::from(0x0003_u16.to_be());
        let socket = host.thread(move || {
            Socket::new(
                Domain::PACKET,
                Type::RAW,
                Some(Protocol::from(every_protocol)),
            )
        });
        let mut socket = socket.join().unwrap().unwrap();
        let (heard, frames) = channel();
        std::thread::spawn(move || {
            let mut buffer = vec![0; 65_536];
            while let Ok(len) = socket.read(&mut buffer) {
                let frame = &buffer[..len];
                let magic = frame.windows(6).skip(6).any(|bytes| bytes == [0xff; 6]);
                if magic && heard.send(frame.to_vec()).is_err() {
                    break;
                }
            }
        });
        Self { frames }
    }

    /// The next frame.
    ///
    /// # Panics
    ///
    /// None came within five seconds.
    pub(crate) fn next(&self) -> Vec<u8> {
        let frame = self.frames.recv_timeout(Duration::from_secs(5));
        frame.expect("a magic packet arrives")
    }

    /// Whether nothing comes for half a second.
    pub(crate) fn is_quiet(&self) -> bool {
        self.frames
            .recv_timeout(Duration::from_millis(500))
            .is_err()
    }
}
