//! The bytes of one agent's session: TLS, HTTP/2 and gRPC's frames with nothing around them, so that
//! thousands of them leave some of the processors to the manager.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use h2::{RecvStream, SendStream, client::Connection};
use http::Request;
use kubevirt_wol::rpc::pb::{
    AgentMessage, ManagerMessage, agent_message::Body as FromAgent,
    manager_message::Body as FromManager,
};
use prost::Message as _;
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// In front of each message: whether it is compressed, and its length.
const PREFIX: usize = 5;

/// How agents reach the manager.
#[derive(Clone)]
pub(crate) struct Way {
    pub(crate) manager: SocketAddr,
    pub(crate) tls: Arc<ClientConfig>,
    pub(crate) name: ServerName<'static>,
}

/// A session's stream, both ways. It moves only while it is read from.
pub(crate) struct Wire {
    outgoing: SendStream<Bytes>,
    incoming: RecvStream,
    received: BytesMut,
    connection: Connection<TlsStream<TcpStream>, Bytes>,
}

impl Wire {
    /// Opens a session, from an address of the agent's own, as every node has one.
    pub(crate) async fn open(way: &Way, from: Ipv4Addr, token: &str) -> io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((from, 0).into())?;
        let stream = socket.connect(way.manager).await?;
        stream.set_nodelay(true)?;
        let connector = TlsConnector::from(way.tls.clone());
        let stream = connector.connect(way.name.clone(), stream).await?;
        let (mut requests, mut connection) = h2::client::handshake(stream)
            .await
            .map_err(io::Error::other)?;
        let request = Request::post("https://manager/wol.v1.AgentService/Session")
            .header("te", "trailers")
            .header("content-type", "application/grpc")
            .header("authorization", format!("Bearer {token}"))
            .body(())
            .map_err(io::Error::other)?;
        let (answer, outgoing) = requests
            .send_request(request, false)
            .map_err(io::Error::other)?;
        let answer = tokio::select! {
            answer = answer => answer.map_err(io::Error::other)?,
            ended = &mut connection => return Err(lost(ended)),
        };
        if answer.headers().contains_key("grpc-status") {
            return Err(io::Error::other(format!("refused: {:?}", answer.headers())));
        }
        Ok(Self {
            outgoing,
            incoming: answer.into_body(),
            received: BytesMut::new(),
            connection,
        })
    }

    /// Sends a message, when the stream is read from next.
    pub(crate) fn send(&mut self, body: FromAgent) -> io::Result<()> {
        let message = AgentMessage { body: Some(body) };
        let length = message.encoded_len();
        let mut bytes = BytesMut::with_capacity(PREFIX + length);
        bytes.put_u8(0);
        bytes.put_u32(u32::try_from(length).expect("no such message"));
        message.encode(&mut bytes).expect("there is room");
        let sent = self.outgoing.send_data(bytes.freeze(), false);
        sent.map_err(io::Error::other)
    }

    /// The next message. Nothing is lost where the wait is given up.
    pub(crate) async fn next(&mut self) -> io::Result<Option<FromManager>> {
        loop {
            if let Some(message) = self.message()? {
                return Ok(message.body);
            }
            let chunk = tokio::select! {
                biased;
                ended = &mut self.connection => return Err(lost(ended)),
                chunk = self.incoming.data() => chunk,
            };
            let chunk = chunk.ok_or_else(|| io::Error::other("closed by the manager"))?;
            let chunk = chunk.map_err(io::Error::other)?;
            let flow = self.incoming.flow_control();
            flow.release_capacity(chunk.len())
                .map_err(io::Error::other)?;
            self.received.extend_from_slice(&chunk);
        }
    }

    /// A message that has been received as a whole.
    fn message(&mut self) -> io::Result<Option<ManagerMessage>> {
        let Some([_, length @ ..]) = self.received.first_chunk::<PREFIX>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*length) as usize;
        if self.received.len() < PREFIX + length {
            return Ok(None);
        }
        self.received.advance(PREFIX);
        let message = ManagerMessage::decode(self.received.split_to(length));
        message.map(Some).map_err(io::Error::other)
    }
}

fn lost(ended: Result<(), h2::Error>) -> io::Error {
    match ended {
        Ok(()) => io::Error::other("the connection was closed"),
        Err(error) => io::Error::other(error),
    }
}
