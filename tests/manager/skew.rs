//! Agents of another version: what they say beyond our words is skipped, and what they do not say is not
//! waited for.

use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use kubevirt_wol::{
    rpc::pb::{self, ManagerMessage, manager_message},
    wake::{Answer, Carrier, Outcome},
};
use prost::Message as _;
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Streaming, client::Grpc};

use crate::{
    bed::{Bed, SOON},
    raw::{Raw, body, extended, later_field},
};

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

/// The fields of the messages of an agent.
const HELLO: u32 = 1;
const EVENT: u32 = 2;
const LATER: u32 = 60;

/// An agent that says whatever the test says.
struct Agent {
    sender: mpsc::Sender<Bytes>,
    answers: Streaming<Bytes>,
}

impl Agent {
    async fn open(bed: &Bed) -> Self {
        let (sender, messages) = mpsc::channel(64);
        let mut grpc = Grpc::new(bed.channel());
        grpc.ready().await.unwrap();
        let request = Request::new(ReceiverStream::new(messages));
        let path = PathAndQuery::from_static("/wol.v1.AgentService/Session");
        let answers = grpc.streaming(request, path, Raw).await.unwrap();
        Self {
            sender,
            answers: answers.into_inner(),
        }
    }

    async fn say(&self, message: Bytes) {
        self.sender.send(message).await.unwrap();
    }

    async fn next(&mut self) -> manager_message::Body {
        let message = timeout(SOON, self.answers.message()).await;
        let bytes = message.expect("the manager says something").unwrap();
        let message = ManagerMessage::decode(bytes.unwrap()).unwrap();
        message.body.unwrap()
    }
}

fn event(seq: u64) -> pb::Event {
    pb::Event {
        seq,
        mac: MAC.into(),
        interface: "eth0".into(),
        ..pb::Event::default()
    }
}

#[tokio::test]
async fn a_newer_agent_is_served_although_it_says_more_than_we_understand() {
    let bed = Bed::new().await;
    *bed.desk.answer.lock().unwrap() = Some(Answer::Final(Outcome::NotFound, String::new()));
    let mut agent = Agent::open(&bed).await;
    let hello = pb::Hello {
        node_name: "node-1".into(),
        boot_id: 7,
        version: "9.0.0".into(),
    };
    agent.say(body(HELLO, &extended(&hello))).await;
    assert!(matches!(
        agent.next().await,
        manager_message::Body::Welcome(_)
    ));
    assert!(matches!(
        agent.next().await,
        manager_message::Body::Configuration(_)
    ));
    agent.say(body(LATER, &later_field(1))).await;
    let odd = pb::Event {
        carrier: 99,
        ..event(1)
    };
    agent.say(body(EVENT, &extended(&odd))).await;
    agent.say(body(LATER, &[])).await;
    let manager_message::Body::Ack(ack) = agent.next().await else {
        panic!("no answer");
    };
    assert_eq!((ack.seq, ack.outcome()), (1, pb::Outcome::NotFound));
    let reports = bed.desk.reported(1).await;
    assert_eq!(&*reports[0].node, "node-1");
    assert_eq!(
        reports[0].wake.origin.carrier,
        Carrier::Udp,
        "as good as unknown"
    );
    assert_eq!(bed.sessions.agents()[0].1.version, "9.0.0");
}

#[tokio::test]
async fn an_older_agent_that_never_tells_of_its_settings_is_served() {
    let bed = Bed::new().await;
    *bed.desk.answer.lock().unwrap() = Some(Answer::Final(Outcome::Started, String::new()));
    let mut agent = Agent::open(&bed).await;
    let hello = pb::Hello {
        node_name: "node-1".into(),
        ..pb::Hello::default()
    };
    agent.say(body(HELLO, &hello.encode_to_vec())).await;
    assert!(matches!(
        agent.next().await,
        manager_message::Body::Welcome(_)
    ));
    assert!(matches!(
        agent.next().await,
        manager_message::Body::Configuration(_)
    ));
    bed.settings.send_modify(|settings| settings.0 += 1);
    assert!(matches!(
        agent.next().await,
        manager_message::Body::Configuration(_)
    ));
    tokio::time::sleep(Duration::from_millis(100)).await;
    agent.say(body(EVENT, &event(1).encode_to_vec())).await;
    let manager_message::Body::Ack(ack) = agent.next().await else {
        panic!("no answer");
    };
    assert_eq!((ack.seq, ack.outcome()), (1, pb::Outcome::Started));
    let agents = bed.sessions.agents();
    assert_eq!((agents.len(), agents[0].1.configured), (1, None));
}
