//! What owners of VMs are told when there is more to tell than can be written.

use std::{convert::Infallible, sync::Arc};

use http::{Request, Response};
use kube::{Client, client::Body};
use kubevirt_wol::{
    manager::{
        events::Events,
        intents::{Settled, Waiting},
        metrics::Metrics,
        report::{Reply, Report},
        vm::Power,
    },
    telemetry,
    wake::Outcome,
};
use prometheus_client::{encoding::text::encode, registry::Registry};
use tokio::{sync::mpsc, time::Instant};

use crate::world::{vm, wake};

fn report() -> Report {
    Report {
        node: "node-3".into(),
        wake: wake(),
        heard_at: Instant::now().into_std(),
        deferred: false,
        reply: Reply::new(1, mpsc::channel(1).0),
    }
}

fn dropped(registry: &Registry) -> usize {
    let mut text = String::new();
    encode(&mut text, registry).unwrap();
    let counted = |result: &str| {
        let series = format!("kubevirt_wol_kubernetes_events_total{{result=\"{result}\"}} ");
        let value = text.lines().find_map(|line| line.strip_prefix(&*series));
        value.map_or(0, |value| value.parse::<usize>().unwrap())
    };
    counted("rate-limited") + counted("queue-full")
}

#[tokio::test]
async fn many_wakes_that_wait_leave_room_for_those_that_are_decided() {
    let api = tower::service_fn(|_: Request<Body>| async {
        Ok::<_, Infallible>(Response::new(Body::empty()))
    });
    let mut registry = telemetry::registry();
    let metrics = Metrics::new(&mut registry);
    // Nobody writes meanwhile.
    let client = Client::new(api, "default");
    let (events, _scribe) = Events::new(client, Arc::from("replica-a"), metrics);
    let now = Instant::now().into_std();
    for n in 0..1_000 {
        let waiting = Waiting {
            report: report(),
            vm: vm(&format!("waiting-{n}"), Power::Off),
            why: "waiting for its turn to be started".into(),
        };
        events.deferred(&waiting, now);
    }
    let lost = dropped(&registry);
    assert!((800..1_000).contains(&lost), "{lost} of 1,000 are dropped");
    // As many as may start at once.
    for n in 0..50 {
        let settled = Settled {
            report: report(),
            vm: vm(&format!("vm-{n}"), Power::Off),
            outcome: Outcome::Started,
            message: "started".into(),
            reporters: 1,
            queued: None,
            boot: None,
        };
        events.settled(&settled, now);
    }
    assert_eq!(dropped(&registry), lost, "no start goes untold");
}
