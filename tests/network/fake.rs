//! A manager that starts nothing and remembers every event: until the real one is there.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
};

use futures::Stream;
use kubevirt_wol::rpc::pb::{
    Ack, AgentMessage, Configuration, ManagerMessage, Outcome, SourceFilter, Welcome,
    agent_message::Body as FromAgent,
    agent_service_server::{AgentService, AgentServiceServer},
    manager_message::Body as FromManager,
};
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tonic::{Request, Response, Status, Streaming};

use crate::common::netns::Host;

type Counts = Arc<Mutex<BTreeMap<(String, Vec<u8>), usize>>>;

#[derive(Clone, Default)]
pub(crate) struct Fake {
    counts: Counts,
}

impl Fake {
    pub(crate) fn start(host: &Host, address: SocketAddr) -> Self {
        let fake = Self::default();
        let service = AgentServiceServer::new(fake.clone());
        host.thread(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(
                tonic::transport::Server::builder()
                    .add_service(service)
                    .serve(address),
            )
        });
        fake
    }

    /// Events by node.
    pub(crate) fn reports(&self, target: [u8; 6]) -> Vec<(String, usize)> {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let of = counts.iter().filter(|((_, mac), _)| mac == &target);
        of.map(|((node, _), count)| (node.clone(), *count))
            .collect()
    }
}

fn message(body: FromManager) -> Result<ManagerMessage, Status> {
    Ok(ManagerMessage { body: Some(body) })
}

#[tonic::async_trait]
impl AgentService for Fake {
    type SessionStream = Pin<Box<dyn Stream<Item = Result<ManagerMessage, Status>> + Send>>;

    async fn session(
        &self,
        request: Request<Streaming<AgentMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let mut incoming = request.into_inner();
        let (send, receive) = tokio::sync::mpsc::channel(1000);
        let counts = Arc::clone(&self.counts);
        let mut set = tokio::task::JoinSet::new();
        set.spawn(async move {
            let mut node = String::new();
            while let Some(Ok(AgentMessage { body: Some(body) })) = incoming.next().await {
                match body {
                    FromAgent::Hello(hello) => {
                        node = hello.node_name;
                        let welcome = Welcome {
                            replica_id: "fake".into(),
                            version: "0".into(),
                        };
                        let configuration = Configuration {
                            generation: 1,
                            udp_ports: vec![9, 7],
                            dedup_window_ms: 2000,
                            event_ttl_ms: 30_000,
                            filters: vec![SourceFilter::default()],
                        };
                        send.send(message(FromManager::Welcome(welcome)))
                            .await
                            .unwrap();
                        send.send(message(FromManager::Configuration(configuration)))
                            .await
                            .unwrap();
                    }
                    FromAgent::Event(event) => {
                        eprintln!("{node}: {event:?}");
                        *counts
                            .lock()
                            .unwrap()
                            .entry((node.clone(), event.mac))
                            .or_default() += 1;
                        let ack = Ack {
                            seq: event.seq,
                            outcome: Outcome::Started.into(),
                            ..Ack::default()
                        };
                        send.send(message(FromManager::Ack(ack))).await.unwrap();
                    }
                    FromAgent::ConfigurationStatus(status) => eprintln!("{node}: {status:?}"),
                }
            }
        });
        set.detach_all();
        Ok(Response::new(Box::pin(ReceiverStream::new(receive))))
    }
}
