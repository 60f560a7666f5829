//! Many at once: managers that race for one VM, and VMs that wait for each other.

use std::{
    array,
    net::{SocketAddr, UdpSocket},
    time::Duration,
};

use futures::future::join_all;
use kubevirt_wol::{
    packet::MagicPacket,
    rpc::pb::{WolEvent, wol_event_response::Status, wol_service_client::WolServiceClient},
};
use tokio::time::Instant;

use super::{Bed, NS, mac, usize_of};
use crate::common::{
    cluster::{Cluster, eventually},
    kubevirt::vm::RunStrategy::{Halted, Manual, RerunOnFailure},
    process::free_tcp,
};

/// Where managers listen for agents that can prove nothing.
const LEGACY: &str = "--legacy-plaintext-bind";

/// Reports a packet to a manager, by the protocol that needs no agent.
async fn report(manager: SocketAddr, mac: String) -> Status {
    let address = format!("http://{manager}");
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
    let addresses: [SocketAddr; 8] = array::from_fn(|_| free_tcp());
    let manager = |address: SocketAddr| async move {
        let address = address.to_string();
        c.manager(&[LEGACY, &address]).await
    };
    let bed = Bed::new(c, &[LEGACY, &addresses[0].to_string()]).await;
    let machines = [
        ("halted", Halted),
        ("manual", Manual),
        ("rerun", RerunOnFailure),
    ];
    for (n, (name, strategy)) in machines.into_iter().enumerate() {
        bed.add(n, name, strategy).await;
    }
    bed.up_to_date().await;
    let others = join_all(addresses[1..].iter().map(|address| manager(*address))).await;
    for (n, (name, _)) in machines.into_iter().enumerate() {
        let answers = join_all(addresses.map(|address| report(address, mac(n)))).await;
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
    for manager in others.iter().chain([&bed.manager]) {
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

/// What the flood asks for, and what it does not.
const ASKED: usize = 20;
const RATE: u32 = 10;
const BURST: u32 = 4;

pub(crate) async fn a_flood_for_known_vms_starts_each_once_and_no_faster_than_the_throttle(
    c: &Cluster,
) {
    let (rate, burst) = (
        format!("--start-rate={RATE}"),
        format!("--start-burst={BURST}"),
    );
    let bed = Bed::new(c, &[&rate, &burst]).await;
    for n in 0..2 * ASKED {
        bed.add(n, &format!("vm-{n}"), Manual).await;
    }
    bed.up_to_date().await;
    let agent = UdpSocket::bind("127.0.0.1:0").unwrap();
    agent.connect(("127.0.0.1", bed.agent.port)).unwrap();
    // What follows the pattern differs each time, so that no agent takes one for a repeat.
    let began = Instant::now();
    let mut packets = 0_u32;
    while began.elapsed() < Duration::from_secs(4) {
        for n in 0..ASKED {
            packets += 1;
            let packet = MagicPacket::new(mac(n).parse().unwrap(), &packets.to_be_bytes());
            agent.send(&packet.unwrap().to_bytes()).unwrap();
        }
        tokio::time::sleep(Duration::from_millis(4)).await;
    }
    for n in 0..ASKED {
        assert_eq!(bed.ended(n).0, "started");
    }
    let starts = c.kubevirt.starts();
    let mut vms: Vec<String> = starts.iter().map(|start| start.vm.name.clone()).collect();
    let times: Vec<Instant> = starts.iter().map(|start| start.at).collect();
    vms.sort();
    let mut asked: Vec<String> = (0..ASKED).map(|n| format!("vm-{n}")).collect();
    asked.sort();
    assert_eq!(vms, asked, "each once, and no other");
    // Calls that left in step may arrive closer together, by so much.
    let jitter = Duration::from_millis(500);
    for (first, from) in times.iter().enumerate() {
        for (last, until) in times.iter().enumerate().skip(first) {
            let allowed =
                f64::from(BURST) + f64::from(RATE) * (*until - *from + jitter).as_secs_f64();
            let made = u32::try_from(last - first + 1).unwrap();
            assert!(
                f64::from(made) <= allowed,
                "{made} starts within {:?}",
                *until - *from
            );
        }
    }
    eprintln!("{packets} packets for {ASKED} VMs in {:?}", began.elapsed());
}
