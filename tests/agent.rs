//! What a manager sees of an agent, and what an agent does without one. Packets are real, on the
//! loopback interface.

#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    reason = "the test bed is shared, and one that breaks has to fail the test"
)]

use std::{
    net::{Ipv6Addr, UdpSocket},
    process::Command,
    time::Instant,
};

use kubevirt_wol::{
    cli::AgentArgs,
    rpc::pb::{self, Outcome},
};

#[path = "agent/bed.rs"]
mod bed;
#[path = "common/fake_manager.rs"]
mod fake_manager;
#[path = "agent/floods.rs"]
mod floods;
#[path = "agent/health.rs"]
mod health;
#[path = "agent/partings.rs"]
mod partings;
#[path = "common/raw.rs"]
mod raw;
#[path = "agent/replicas.rs"]
mod replicas;
#[path = "agent/skew.rs"]
mod skew;
#[path = "common/skip.rs"]
mod skip;

use bed::{
    Agent, args, free_address, free_port, get, magic, millis, pair, send, settings,
    wait_until_bound,
};
use fake_manager::FakeManager;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_heard_before_a_manager_exists_is_delivered_with_its_true_age() {
    let (address, port) = (free_address(), free_port());
    let _agent = Agent::start(args(address, &[port]));
    wait_until_bound(port).await;
    let heard = Instant::now();
    send(port, &magic(1));
    tokio::time::sleep(millis(700)).await;
    send(port, &magic(2));
    let mut manager = FakeManager::start(address).await;
    let (hello, mut session) = manager.accept().await;
    assert_eq!(hello.node_name, "node-1");
    assert_ne!(hello.boot_id, 0);
    let (first, second) = (session.event().await, session.event().await);
    let age = u64::try_from(heard.elapsed().as_millis()).unwrap();
    assert_eq!((first.seq, first.mac), (1, vec![0x52, 0x54, 0, 0, 0, 1]));
    assert!(
        (700..=age).contains(&first.age_ms),
        "{} of {age} ms",
        first.age_ms
    );
    assert_eq!(second.seq, 2);
    assert!(second.age_ms <= age - 700, "{} of {age} ms", second.age_ms);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_tells_how_the_packet_came() {
    let (_manager, mut session, _agent, port) = pair().await;
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut payload = magic(1);
    payload.extend(b"secret and more");
    socket.send_to(&payload, ("127.0.0.1", port)).unwrap();
    let event = session.event().await;
    assert_eq!(event.trailing, b"secret");
    assert_eq!(event.carrier(), pb::Carrier::Udp);
    assert_eq!(event.interface, "lo");
    assert_eq!(
        event.source_ip,
        [127, 0, 0, 1],
        "IPv4 even on a dual-stack socket"
    );
    assert_eq!(
        event.source_port,
        u32::from(socket.local_addr().unwrap().port())
    );
    assert_eq!(event.length, 117);
}

#[tokio::test(flavor = "multi_thread")]
async fn packets_come_over_ipv6_too() {
    let (_manager, mut session, _agent, port) = pair().await;
    let Ok(socket) = UdpSocket::bind("[::1]:0") else {
        return skip::skipped("this machine has no IPv6");
    };
    socket.send_to(&magic(1), ("::1", port)).unwrap();
    let event = session.event().await;
    assert_eq!(event.source_ip, Ipv6Addr::LOCALHOST.octets());
}

#[tokio::test(flavor = "multi_thread")]
async fn unsettled_events_are_replayed_with_their_numbers_after_a_lost_session() {
    let (mut manager, mut session, _agent, port) = pair().await;
    for n in 1..=3 {
        send(port, &magic(n));
        assert_eq!(session.event().await.seq, u64::from(n));
    }
    session.settle(1, Outcome::Started).await;
    session.ack(2, Outcome::Deferred, 60_000).await;
    tokio::time::sleep(millis(200)).await;
    drop(session);
    let (_, mut session) = manager.accept().await;
    let replayed = session.event().await;
    assert_eq!((replayed.seq, replayed.mac[5]), (2, 2));
    assert!(replayed.age_ms >= 200 && replayed.deferred);
    let fresh = session.event().await;
    assert!(fresh.seq == 3 && !fresh.deferred, "{fresh:?}");
    session.no_event(millis(300)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_without_an_answer_is_sent_again_after_two_seconds() {
    let (_manager, mut session, _agent, port) = pair().await;
    send(port, &magic(1));
    assert_eq!(session.event().await.seq, 1);
    session.no_event(millis(1000)).await;
    let again = session.event().await;
    assert_eq!(again.seq, 1);
    assert!(again.age_ms >= 2000, "{again:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_within_the_window_is_not_reported_and_one_after_it_is() {
    let (_manager, mut session, _agent, port) = pair().await;
    let mut window = settings(2, &[port]);
    window.dedup_window_ms = 60_000;
    session.configure(window.clone()).await;
    for _ in 0..3 {
        send(port, &magic(1));
    }
    assert_eq!(session.event().await.seq, 1);
    session.settle(1, Outcome::Started).await;
    session.no_event(millis(300)).await;
    (window.generation, window.dedup_window_ms) = (3, 100);
    session.configure(window).await;
    send(port, &magic(1));
    assert_eq!(session.event().await.seq, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_of_a_hundred_targets_is_reported_whole() {
    let (_manager, mut session, _agent, port) = pair().await;
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    for n in 0..100 {
        socket.send_to(&magic(n), ("127.0.0.1", port)).unwrap();
    }
    for n in 0..100 {
        let event = session.event().await;
        assert_eq!((event.seq, event.mac[5]), (u64::from(n) + 1, n));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_packets_do_no_harm() {
    let (_manager, mut session, _agent, port) = pair().await;
    let whole = magic(1);
    send(port, &[]);
    (1..102).for_each(|length| send(port, &whole[..length]));
    send(port, &vec![0xff; 65_507]);
    send(port, &vec![0; 65_507]);
    send(port, &whole[1..]);
    let bait = [&whole[..101], &[0]].concat();
    send(port, &bait.repeat(600));
    session.no_event(millis(200)).await;
    // Any offset, to the very last byte of the longest datagram.
    let last = [&vec![0x55; 65_507 - 102], &*magic(7)].concat();
    send(port, &last);
    let event = session.event().await;
    assert_eq!((event.seq, event.mac[5], event.length), (1, 7, 65_507));
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_come_and_go_with_the_settings() {
    let address = free_address();
    let (stays, goes, comes) = (free_port(), free_port(), free_port());
    let mut manager = FakeManager::start(address).await;
    // Without --wol-port the ports are the managers' to say.
    let _agent = Agent::start(args(address, &[]));
    let (_, mut session) = manager.accept().await;
    session.configure(settings(1, &[stays, goes])).await;
    let status = session.configure(settings(2, &[stays, comes])).await;
    let mut listeners: Vec<_> = status.listeners.iter().map(|l| &*l.name).collect();
    listeners.sort_unstable();
    let mut wanted = [format!("udp/{stays}"), format!("udp/{comes}")];
    wanted.sort_unstable();
    assert_eq!(listeners, wanted);
    for (n, port) in [(1, stays), (2, comes)] {
        send(port, &magic(n));
        assert_eq!(session.event().await.mac[5], n);
    }
    for _ in 0..100 {
        if UdpSocket::bind((Ipv6Addr::UNSPECIFIED, goes)).is_ok() {
            return;
        }
        tokio::time::sleep(millis(10)).await;
    }
    panic!("port {goes} is never closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_port_is_told_and_the_others_work() {
    let address = free_address();
    let taken = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).unwrap();
    let taken_port = taken.local_addr().unwrap().port();
    let port = free_port();
    let mut manager = FakeManager::start(address).await;
    let _agent = Agent::start(args(address, &[]));
    let (_, mut session) = manager.accept().await;
    let status = session.configure(settings(1, &[taken_port, port])).await;
    let error = |status: &pb::ConfigurationStatus, port| {
        let name = format!("udp/{port}");
        status
            .listeners
            .iter()
            .find(|l| l.name == name)
            .unwrap()
            .error
            .clone()
    };
    assert!(status.accepted);
    assert!(
        error(&status, taken_port).contains("another process has port"),
        "{status:?}"
    );
    assert_eq!(error(&status, port), "");
    send(port, &magic(1));
    assert_eq!(session.event().await.seq, 1);
    drop(taken);
    let status = session.configure(settings(2, &[taken_port, port])).await;
    assert_eq!(error(&status, taken_port), "", "free again");
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_make_no_sense_are_refused_and_the_old_ones_stay() {
    let (_manager, mut session, _agent, port) = pair().await;
    let mut bad = settings(2, &[port]);
    bad.filters[0].source_ranges = vec!["10.0.0.0/64".to_owned()];
    let status = session.configure(bad).await;
    assert!(!status.accepted);
    assert!(status.message.contains("10.0.0.0/64"), "{status:?}");
    let many: Vec<u16> = (20_000..20_100).collect();
    assert!(!session.configure(settings(3, &many)).await.accepted);
    let mut zero = settings(4, &[]);
    zero.udp_ports = vec![0];
    assert!(!session.configure(zero).await.accepted);
    send(port, &magic(1));
    assert_eq!(session.event().await.seq, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_of_the_command_line_win_and_the_manager_is_told() {
    let (_manager, mut session, _agent, port) = pair().await;
    let status = session.configure(settings(2, &[port, 47_009])).await;
    assert!(
        status.accepted && status.message.contains("--wol-port"),
        "{status:?}"
    );
    assert_eq!(status.listeners.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_is_ready_once_it_listens_and_is_configured_and_stays_so() {
    let (address, port, admin) = (free_address(), free_port(), free_address());
    let _agent = Agent::start(AgentArgs {
        admin_bind: Some(admin),
        ..args(address, &[port])
    });
    wait_until_bound(port).await;
    let unready = get(admin, "/readyz").await;
    assert!(unready.contains("503"), "{unready}");
    assert!(
        unready.contains("waiting for the settings from a manager"),
        "{unready}"
    );
    let mut manager = FakeManager::start(address).await;
    let (_, mut session) = manager.accept().await;
    session.configure(settings(1, &[port])).await;
    assert!(get(admin, "/readyz").await.contains("200 OK"));
    let metrics = get(admin, "/metrics").await;
    for line in [
        "agent_connected_managers 1",
        r#"agent_listeners{state="open"} 1"#,
    ] {
        assert!(
            metrics.contains(&format!("kubevirt_wol_{line}")),
            "{metrics}"
        );
    }
    drop((session, manager));
    while !get(admin, "/metrics")
        .await
        .contains("agent_connected_managers 0")
    {
        tokio::time::sleep(millis(10)).await;
    }
    assert!(
        get(admin, "/readyz").await.contains("200 OK"),
        "without a session"
    );
}

#[test]
fn a_manager_that_cannot_be_one_is_refused() {
    let output = Command::new(env!("CARGO_BIN_EXE_kubevirt-wol"))
        .args([
            "agent",
            "--node-name=node-1",
            "--insecure",
            "--no-raw",
            "--manager=nonsense",
        ])
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert!(error.contains("host:port"), "{error}");
}
