//! What an agent of the original implementation is told.

use kubevirt_wol::{
    manager::vm::Power,
    rpc::pb::{
        HealthCheckRequest, WolEvent, health_check_response, wol_event_response::Status as S,
    },
    wake::{Answer, Outcome},
};
use tokio::time::Instant;

use crate::{
    bed::{Bed, SOON},
    world::vm,
};

fn event(mac: &str) -> WolEvent {
    WolEvent {
        mac_address: mac.into(),
        node_name: "node-9".into(),
        source_ip: "::ffff:10.0.0.7".into(),
        source_port: 40_000,
        packet_size: 102,
        ..WolEvent::default()
    }
}

#[tokio::test]
async fn every_outcome_has_a_status_that_old_agents_know() {
    let bed = Bed::new().await;
    for outcome in Outcome::ALL {
        let expected = match outcome {
            Outcome::Started => S::VmStartInitiated,
            Outcome::AlreadyOn => S::VmAlreadyRunning,
            Outcome::Duplicate => S::Duplicate,
            Outcome::NotFound | Outcome::NotSelected => S::VmNotFound,
            _ => S::Error,
        };
        *bed.desk.answer.lock().unwrap() = Some(Answer::Final(outcome, "why".into()));
        let answer = bed
            .legacy()
            .report_wol_event(event("02:00:00:00:00:01"))
            .await;
        let answer = answer.unwrap().into_inner();
        assert_eq!(
            (answer.status(), &*answer.message),
            (expected, "why"),
            "{outcome:?}"
        );
        assert_eq!(answer.was_duplicate, outcome == Outcome::Duplicate);
    }
    let report = bed.desk.reports.lock().unwrap()[0].clone();
    assert_eq!(&*report.node, "node-9");
    assert_eq!(report.wake.origin.source, Some([10, 0, 0, 7].into()));
}

#[tokio::test]
async fn a_wake_that_is_not_settled_yet_is_accepted_within_a_second() {
    let bed = Bed::new().await;
    *bed.desk.answer.lock().unwrap() = Some(Answer::Deferred(SOON, "stopping".into()));
    let answer = bed
        .legacy()
        .report_wol_event(event("02-00-00-00-00-01"))
        .await;
    let answer = answer.unwrap().into_inner();
    assert_eq!(
        (answer.status(), &*answer.message),
        (S::Accepted, "stopping")
    );

    *bed.desk.answer.lock().unwrap() = None;
    let began = Instant::now();
    let answer = bed.legacy().report_wol_event(event("0200.0000.0001")).await;
    assert_eq!(answer.unwrap().into_inner().status(), S::Accepted);
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
}

#[tokio::test]
async fn the_vm_is_named_where_it_is_known() {
    let bed = Bed::new().await;
    *bed.desk.answer.lock().unwrap() = Some(Answer::Final(Outcome::AlreadyOn, String::new()));
    *bed.desk.vm.lock().unwrap() = Some(vm("db", Power::On));
    let answer = bed
        .legacy()
        .report_wol_event(event("02:00:00:00:00:01"))
        .await;
    let info = answer.unwrap().into_inner().vm_info.unwrap();
    let words = (&*info.namespace, &*info.name, &*info.current_state);
    assert_eq!(words, ("default", "db", "Running"));
}

#[tokio::test]
async fn what_is_no_station_s_address_is_an_error_and_wakes_nothing() {
    let bed = Bed::new().await;
    for mac in [
        "",
        "02:00:00:00:00",
        "ff:ff:ff:ff:ff:ff",
        "00:00:00:00:00:00",
    ] {
        let answer = bed
            .legacy()
            .report_wol_event(event(mac))
            .await
            .unwrap()
            .into_inner();
        assert_eq!(answer.status(), S::Error, "{mac:?}");
        assert!(!answer.message.is_empty(), "{mac:?}");
    }
    assert_eq!(bed.desk.reports.lock().unwrap().len(), 0);
}

#[tokio::test]
async fn a_stream_is_answered_in_order_and_ends_with_the_manager() {
    let bed = Bed::new().await;
    *bed.desk.answer.lock().unwrap() = Some(Answer::Final(Outcome::Started, String::new()));
    let events = ["02:00:00:00:00:01", "nonsense", "02:00:00:00:00:02"].map(event);
    let events = futures::StreamExt::chain(tokio_stream::iter(events), futures::stream::pending());
    let answers = bed.legacy().report_wol_event_stream(events).await.unwrap();
    let mut answers = answers.into_inner();
    for expected in [S::VmStartInitiated, S::Error, S::VmStartInitiated] {
        assert_eq!(answers.message().await.unwrap().unwrap().status(), expected);
    }
    bed.token.cancel();
    let end = tokio::time::timeout(SOON, answers.message()).await.unwrap();
    assert!(end.unwrap().is_none());
}

#[tokio::test]
async fn health_follows_readiness() {
    use health_check_response::Status::{NotServing, Serving};
    let bed = Bed::new().await;
    let mut client = bed.legacy();
    let answer = client
        .health_check(HealthCheckRequest::default())
        .await
        .unwrap();
    assert_eq!(answer.into_inner().status(), NotServing);
    bed.ready.open();
    let answer = client
        .health_check(HealthCheckRequest::default())
        .await
        .unwrap();
    assert_eq!(answer.into_inner().status(), Serving);
}
