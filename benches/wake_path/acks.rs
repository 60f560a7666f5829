//! What the manager takes from many agents: clients in this process that speak the protocol.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures::{StreamExt as _, stream};
use kubevirt_wol::rpc::pb::{
    AgentMessage, Carrier, Event, Hello, ManagerMessage, Outcome, agent_message::Body as FromAgent,
    agent_service_client::AgentServiceClient, manager_message::Body as FromManager,
};
use tokio::{sync::mpsc, task::JoinSet, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Streaming, transport::Endpoint};

use crate::{
    bed::{Bed, mac, quantile, unknown},
    process,
    table::Table,
};

/// Events of all clients that wait for an answer.
const WINDOW: usize = 1_024;

const SPAN: Duration = Duration::from_secs(5);

const AGENTS: u32 = 5_000;

const BROADCASTS: u32 = 20;

/// A session as an agent has it.
struct Client {
    outgoing: mpsc::Sender<AgentMessage>,
    incoming: Streaming<ManagerMessage>,
}

impl Client {
    /// Connects and says hello.
    async fn connect(manager: SocketAddr, node: String) -> Self {
        let endpoint = Endpoint::from_shared(format!("http://{manager}")).expect("an address");
        let channel = endpoint.connect().await.expect("the manager listens");
        let (outgoing, messages) = mpsc::channel(WINDOW);
        let hello = FromAgent::Hello(Hello {
            node_name: node,
            boot_id: 1,
            version: "bench".into(),
        });
        let hello = AgentMessage { body: Some(hello) };
        outgoing.send(hello).await.expect("room for one");
        let session = AgentServiceClient::new(channel)
            .session(ReceiverStream::new(messages))
            .await;
        let mut incoming = session.expect("a session").into_inner();
        let welcome = incoming.message().await.expect("an answer");
        assert!(matches!(
            welcome.and_then(|message| message.body),
            Some(FromManager::Welcome(_))
        ));
        Self { outgoing, incoming }
    }

    /// The final outcome of an event, when one comes; none at the end of the session.
    async fn outcome(incoming: &mut Streaming<ManagerMessage>) -> Option<Outcome> {
        loop {
            match incoming.message().await.ok()??.body {
                Some(FromManager::Ack(ack)) if ack.outcome() != Outcome::Deferred => {
                    return Some(ack.outcome());
                }
                _ => {}
            }
        }
    }
}

fn event(seq: u64, target: [u8; 6]) -> AgentMessage {
    let event = Event {
        seq,
        mac: target.to_vec(),
        carrier: Carrier::Udp.into(),
        interface: "eth0".into(),
        source_ip: vec![10, 0, 0, 7],
        source_port: 40_000,
        length: 102,
        ..Event::default()
    };
    AgentMessage {
        body: Some(FromAgent::Event(event)),
    }
}

/// Reports of addresses that no VM has, each sent as soon as another one is answered.
pub(crate) async fn throughput(table: &mut Table) {
    let bed = Bed::new(&[]).await;
    for (sessions, what) in [(1, "one session"), (8, "8 sessions")] {
        let answered = Arc::new(AtomicU64::new(0));
        let mut clients = JoinSet::new();
        for number in 0..sessions {
            let client = Client::connect(bed.manager.grpc, format!("client-{number}")).await;
            let share = WINDOW / sessions;
            clients.spawn(report(client, number, share, answered.clone()));
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        let (before, start) = (answered.load(Ordering::Relaxed), Instant::now());
        let cpu = process::cpu(bed.manager.process.pid());
        tokio::time::sleep(SPAN).await;
        let count = answered.load(Ordering::Relaxed) - before;
        let per_second = u128::from(count) * 1_000 / start.elapsed().as_millis();
        let per_second = u64::try_from(per_second).unwrap_or(u64::MAX);
        let cpu = process::cpu(bed.manager.process.pid()).saturating_sub(cpu);
        table.rate(
            format!("events acknowledged, {what}"),
            per_second,
            Some(30_000),
        );
        let each = cpu / u32::try_from(count).unwrap_or(u32::MAX).max(1);
        table.time("  processor time of the manager for each", each, None);
    }
}

async fn report(mut client: Client, number: usize, window: usize, answered: Arc<AtomicU64>) {
    let mut seq = 0;
    let mut send = async |outgoing: &mpsc::Sender<AgentMessage>| {
        seq += 1;
        let target = unknown(u32::try_from((number << 24) | (seq % (1 << 24))).unwrap_or(0));
        let message = event(seq as u64, target.octets());
        // Fails only at the end.
        let _ = outgoing.send(message).await;
    };
    for _ in 0..window {
        send(&client.outgoing).await;
    }
    while Client::outcome(&mut client.incoming).await.is_some() {
        answered.fetch_add(1, Ordering::Relaxed);
        send(&client.outgoing).await;
    }
}

/// All nodes of a large cluster hear the same broadcast.
pub(crate) async fn agents(table: &mut Table) {
    let mut bed = Bed::new(&[]).await;
    let vms = bed.vms(2 * BROADCASTS).await;
    let manager = bed.manager.process.pid();
    let before = process::resident(manager);
    let clients: Vec<Client> = stream::iter(0..AGENTS)
        .map(|number| Client::connect(bed.manager.grpc, format!("fleet-{number}")))
        .buffer_unordered(32)
        .collect()
        .await;
    let grown = process::resident(manager).saturating_sub(before);
    table.memory(
        "manager: resident for each of 5,000 agents",
        grown / u64::from(AGENTS),
        Some(64),
    );

    let answered = Arc::new(AtomicU64::new(0));
    let mut reading = JoinSet::new();
    let mut fleet = Vec::new();
    for mut client in clients {
        fleet.push(client.outgoing);
        let answered = answered.clone();
        reading.spawn(async move {
            while Client::outcome(&mut client.incoming).await.is_some() {
                answered.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    let (mut heard, mut other) = (Vec::new(), Vec::new());
    for (seq, pair) in vms.chunks(2).enumerate() {
        let [broadcast, single] = [pair[0], pair[1]];
        heard.push((broadcast, bed.wake(broadcast)));
        for agent in &fleet {
            let message = event(seq as u64 + 1, mac(broadcast).octets());
            agent.try_send(message).expect("room for one");
        }
        other.push((single, bed.wake(single)));
        let all = (seq as u64 + 1) * u64::from(AGENTS);
        let answers = until(Duration::from_secs(10), || {
            answered.load(Ordering::Relaxed) >= all
        });
        answers.await;
    }
    let limit = Some(Duration::from_millis(250));
    for (what, sent) in [("its VM", heard), ("another VM", other)] {
        let times = bed.times(&sent, Duration::from_secs(5)).await;
        let what = format!("packet to start call, 5,000 agents report a broadcast: {what}");
        table.all(
            format!("{what}: started"),
            times.len() as u64,
            u64::from(BROADCASTS),
        );
        table.time("  p50", quantile(&times, 0.5), None);
        table.time("  p99", quantile(&times, 0.99), limit);
    }
    let all = u64::from(BROADCASTS) * u64::from(AGENTS);
    table.all("  reports settled", answered.load(Ordering::Relaxed), all);
}

async fn until(patience: Duration, holds: impl Fn() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    // What is missing then shows in the table.
    let _ = timeout(patience, waiting).await;
}
