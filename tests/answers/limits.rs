//! Many at once: managers that race for one VM, and VMs that wait for each other.

use std::time::Duration;

use futures::future::join_all;
use kubevirt_wol::rpc::pb::{
    WolEvent, wol_event_response::Status, wol_service_client::WolServiceClient,
};
use tokio::time::Instant;

use super::{Bed, NS, mac, usize_of};
use crate::common::{
    cluster::{Cluster, Manager, eventually},
    kubevirt::vm::RunStrategy::{Halted, Manual, RerunOnFailure},
};

/// Reports a packet to a manager, by the protocol that needs no agent.
async fn report(manager: &Manager, mac: String) -> Status {
    let address = format!("http://{}", manager.grpc);
    let mut client = WolServiceClient::connect(address)
        .await
        .expect("it listens");
    let event = WolEvent {
        mac_address: mac,
        node_name: "node-1".into(),
        ..WolEvent::default()
    };
    let response = client.report_wol_event(event).await.expect("an answer");
    response.into_inner().status()
}

pub(crate) async fn of_many_managers_that_race_one_starts_the_vm(c: &Cluster) {
    let bed = Bed::new(c, &[]).await;
    let machines = [
        ("halted", Halted),
        ("manual", Manual),
        ("rerun", RerunOnFailure),
    ];
    for (n, (name, strategy)) in machines.into_iter().enumerate() {
        bed.add(n, name, strategy).await;
    }
    bed.up_to_date().await;
    let others = join_all((0..7).map(|_| c.manager(&[]))).await;
    let managers: Vec<&Manager> = others.iter().chain([&bed.manager]).collect();
    for (n, (name, _)) in machines.into_iter().enumerate() {
        let answers = join_all(managers.iter().map(|manager| report(manager, mac(n)))).await;
        let fine = [
            Status::VmStartInitiated,
            Status::VmAlreadyRunning,
            Status::Accepted,
        ];
        assert!(
            answers.iter().all(|a| fine.contains(a)),
            "{name}: {answers:?}"
        );
        c.kubevirt.wait_for_status(NS, name, "Running").await;
        assert_eq!(c.kubevirt.boots(NS, name), 1, "{name}");
        let codes = c.kubevirt.codes(NS, name);
        // To a Manual VM KubeVirt may say so to several; the VM starts once all the same.
        assert!(codes.contains(&202), "{name}: {codes:?}");
    }
    for manager in managers {
        eventually("every manager is done", async || {
            manager.metric("kubevirt_wol_intents_open") < 1.0
        })
        .await;
        let ended = |outcome: &str| {
            let series = format!("kubevirt_wol_wakes_total{{outcome=\"{outcome}\"}}");
            usize_of(manager.metric(&series))
        };
        let fine = ended("started") + ended("already-on");
        assert_eq!(fine, machines.len(), "each heard that the VM is on");
    }
}

const VMS: usize = 12;

/// Flags, and how long twelve calls of 100 ms take with them at least, in milliseconds.
const BOUNDS: [([&str; 3], u64); 3] = [
    // Two at once, and ten more at ten per second.
    (
        [
            "--start-rate=10",
            "--start-burst=2",
            "--start-concurrency=16",
        ],
        1_000,
    ),
    // Two places.
    (
        [
            "--start-rate=1000",
            "--start-burst=100",
            "--start-concurrency=2",
        ],
        600,
    ),
    // What is set by default does not show here.
    (
        [
            "--start-rate=20",
            "--start-burst=50",
            "--start-concurrency=16",
        ],
        100,
    ),
];

pub(crate) async fn starts_keep_to_the_rate_and_the_places_that_were_set(c: &Cluster) {
    for (round, (flags, least)) in BOUNDS.into_iter().enumerate() {
        let bed = Bed::new(c, &flags).await;
        for n in 0..VMS {
            bed.add(round * VMS + n, &format!("vm-{round}-{n}"), Manual)
                .await;
        }
        bed.up_to_date().await;
        c.kubevirt.delay(Duration::from_millis(100));
        let (before, began) = (c.kubevirt.starts().len(), Instant::now());
        for n in 0..VMS {
            bed.hears(round * VMS + n);
        }
        for n in 0..VMS {
            assert_eq!(bed.ended(round * VMS + n).0, "started");
        }
        // Not one more or less than one call for each.
        eventually("each call is answered", async || {
            c.kubevirt.starts().len() == before + VMS
        })
        .await;
        let starts = c.kubevirt.starts();
        let last = starts.last().expect("there are starts").at - began;
        assert!(
            last >= Duration::from_millis(least),
            "{flags:?}: all within {last:?}"
        );
        c.kubevirt.delay(Duration::ZERO);
        assert_eq!(bed.outcomes("started"), VMS);
    }
    let codes: Vec<u16> = c.kubevirt.starts().iter().map(|s| s.code).collect();
    assert_eq!(codes, [202; 3 * VMS]);
}
