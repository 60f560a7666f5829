//! What becomes of the streams of the original agents' service.

use std::time::Duration;

use kubevirt_wol::rpc::pb::WolEvent;
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request};

use crate::{bed::SOON, world::Api};

#[tokio::test]
async fn a_stream_ends_with_its_reason_when_its_node_is_banned() {
    let api = Api::stand_in().await;
    let hour = Duration::from_secs(3_600);
    let bed = api.manager_with(hour, hour).await;
    let token = api.agent_token("agent-1", "node-1").await;
    let (events, receiver) = mpsc::channel(4);
    let mut request = Request::new(ReceiverStream::new(receiver));
    let header = format!("Bearer {token}").parse().unwrap();
    request.metadata_mut().insert("authorization", header);
    let answers = bed.legacy().report_wol_event_stream(request).await;
    let mut answers = answers.unwrap().into_inner();
    let event = WolEvent {
        mac_address: "02:00:00:00:00:01".into(),
        node_name: "node-9".into(),
        ..WolEvent::default()
    };
    events.send(event).await.unwrap();
    assert!(answers.message().await.unwrap().is_some());
    assert_eq!(&*bed.desk.reported(1).await[0].node, "node-1");
    api.ban("node-1").await;
    let end = timeout(SOON, answers.message()).await.unwrap();
    assert_eq!(end.unwrap_err().code(), Code::PermissionDenied);
}
