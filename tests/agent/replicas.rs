//! What several managers see of an agent.

use std::{
    net::{SocketAddr, UdpSocket},
    time::Instant,
};

use kubevirt_wol::{
    agent::route::Routes,
    cli::AgentArgs,
    mac::MacAddr,
    rpc::pb::{ConfigurationStatus, Outcome},
};

use crate::{
    bed::{Agent, args, free_address, free_port, get, magic, millis, send, settings},
    fake_manager::{FakeManager, Session},
};

/// Replicas, an agent that has a session with each, and the port where it hears.
struct Replicas {
    managers: Vec<FakeManager>,
    sessions: Vec<Session>,
    agent: Agent,
    port: u16,
    admin: SocketAddr,
    routes: Routes,
}

impl Replicas {
    async fn start(names: &[&str]) -> Self {
        let (port, admin) = (free_port(), free_address());
        let (mut managers, mut addresses) = (Vec::new(), Vec::new());
        let mut routes = Routes::default();
        for name in names {
            let address = free_address();
            managers.push(FakeManager::named(name, address).await);
            addresses.push(address.to_string());
            routes.insert((*name).into());
        }
        let agent = Agent::start(AgentArgs {
            managers: addresses,
            admin_bind: Some(admin),
            ..args(free_address(), &[port])
        });
        let mut sessions = Vec::new();
        for manager in &mut managers {
            let (_, mut session) = manager.accept().await;
            session.configure(settings(1, &[port])).await;
            sessions.push(session);
        }
        Self {
            managers,
            sessions,
            agent,
            port,
            admin,
            routes,
        }
    }

    /// The position of the replica that wakes for this target go to.
    fn home(&self, last: u8, names: &[&str]) -> usize {
        let target = MacAddr::new([0x52, 0x54, 0, 0, 0, last]);
        let best = self.routes.best(target, &[]).unwrap();
        names.iter().position(|name| **name == **best).unwrap()
    }
}

const THREE: [&str; 3] = ["manager-a", "manager-b", "manager-c"];
const TWO: [&str; 2] = ["manager-a", "manager-b"];

#[tokio::test(flavor = "multi_thread")]
async fn each_target_is_reported_to_the_one_replica_that_all_agents_choose() {
    let mut world = Replicas::start(&THREE).await;
    let metrics = get(world.admin, "/metrics").await;
    assert!(metrics.contains("agent_connected_managers 3"), "{metrics}");
    let mut expected = [Vec::new(), Vec::new(), Vec::new()];
    for last in 0..60 {
        expected[world.home(last, &THREE)].push(last);
        send(world.port, &magic(last));
    }
    for (session, expected) in world.sessions.iter_mut().zip(expected) {
        assert!(!expected.is_empty());
        let mut heard = Vec::new();
        for _ in 0..expected.len() {
            let event = session.event().await;
            session.settle(event.seq, Outcome::Started).await;
            heard.push(event.mac[5]);
        }
        heard.sort_unstable();
        assert_eq!(heard, expected);
        session.no_event(millis(50)).await;
    }
    drop(world.agent);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_lost_manager_had_not_settled_goes_to_the_others_at_once() {
    let mut world = Replicas::start(&TWO).await;
    let of_a: Vec<u8> = (0..40).filter(|n| world.home(*n, &TWO) == 0).collect();
    for last in &of_a[..3] {
        send(world.port, &magic(*last));
    }
    let mut a = world.sessions.remove(0);
    let mut seqs = Vec::new();
    for _ in 0..3 {
        seqs.push(a.event().await.seq);
    }
    a.settle(seqs[0], Outcome::Started).await;
    a.ack(seqs[1], Outcome::Deferred, 60_000).await;
    tokio::time::sleep(millis(100)).await;
    let lost = Instant::now();
    drop((a, world.managers.remove(0)));
    let b = &mut world.sessions[0];
    let (first, second) = (b.event().await, b.event().await);
    assert!(lost.elapsed() < millis(1500), "before they are overdue");
    assert_eq!((first.seq, first.deferred), (seqs[1], true));
    assert_eq!((second.seq, second.deferred), (seqs[2], false));
    b.settle(first.seq, Outcome::Started).await;
    b.settle(second.seq, Outcome::Started).await;
    send(world.port, &magic(of_a[3]));
    assert_eq!(b.event().await.mac[5], of_a[3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manager_that_is_silent_costs_two_seconds() {
    let mut world = Replicas::start(&TWO).await;
    let home = world.home(1, &TWO);
    send(world.port, &magic(1));
    let asked = world.sessions[home].event().await;
    let again = world.sessions[1 - home].event().await;
    assert_eq!(again.seq, asked.seq);
    assert!((2_000..4_000).contains(&again.age_ms), "{again:?}");
    // Whoever answers, it is settled.
    world.sessions[home].settle(1, Outcome::Started).await;
    for session in &mut world.sessions {
        session.no_event(millis(2_500)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_manager_does_not_even_take_goes_to_the_next_one_after_two_seconds() {
    let (port, addresses) = (free_port(), [free_address(), free_address()]);
    let mut a = FakeManager::taking(TWO[0], addresses[0], Some(256)).await;
    let mut b = FakeManager::named(TWO[1], addresses[1]).await;
    let _agent = Agent::start(AgentArgs {
        managers: addresses.map(|address| address.to_string()).into(),
        ..args(addresses[0], &[port])
    });
    let ((_, mut with_a), (_, mut with_b)) = (a.accept().await, b.accept().await);
    with_a.configure(settings(1, &[port])).await;
    with_b.configure(settings(1, &[port])).await;
    let mut routes = Routes::default();
    for name in TWO {
        routes.insert(name.into());
    }
    let of_a = |last: &u8| {
        let target = MacAddr::new([0x52, 0x54, 0, 0, 0, *last]);
        **routes.best(target, &[]).unwrap() == *TWO[0]
    };
    let of_a: Vec<u8> = (0..=255).filter(of_a).take(100).collect();
    // From here on it reads nothing. The first few fill its window, the next ones what is before that,
    // and the others are not taken at all.
    for last in &of_a[..20] {
        send(port, &magic(*last));
        tokio::time::sleep(millis(20)).await;
    }
    let sent = Instant::now();
    for last in &of_a[20..] {
        send(port, &magic(*last));
    }
    let mut heard = Vec::new();
    for _ in &of_a {
        let event = with_b.event().await;
        with_b.settle(event.seq, Outcome::Started).await;
        heard.push(event.mac[5]);
    }
    assert!(sent.elapsed() < millis(5_000), "{:?}", sent.elapsed());
    heard.sort_unstable();
    assert_eq!(heard, of_a);
    drop(with_a);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manager_that_goes_away_is_sent_nothing_more_and_gets_its_share_back_later() {
    let mut world = Replicas::start(&TWO).await;
    let of_a: Vec<u8> = (0..40).filter(|n| world.home(*n, &TWO) == 0).collect();
    send(world.port, &magic(of_a[0]));
    assert_eq!(world.sessions[0].event().await.mac[5], of_a[0]);
    world.sessions[0].go_away(millis(100)).await;
    let moved = world.sessions[1].event().await;
    assert_eq!(moved.mac[5], of_a[0]);
    assert!(moved.age_ms < 1_500, "{moved:?}");
    world.sessions[1].settle(moved.seq, Outcome::Started).await;
    let (_, mut a) = world.managers[0].accept().await;
    // Until then there is only one that asks for anything.
    a.configure(settings(1, &[world.port])).await;
    send(world.port, &magic(of_a[1]));
    assert_eq!(a.event().await.mac[5], of_a[1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_addresses_of_one_manager_make_one_session() {
    let (first, second) = (free_address(), free_address());
    let mut one = FakeManager::named("manager-a", first).await;
    let (port, admin) = (free_port(), free_address());
    let _agent = Agent::start(AgentArgs {
        managers: vec![first.to_string(), second.to_string()],
        admin_bind: Some(admin),
        ..args(first, &[port])
    });
    let (_, mut session) = one.accept().await;
    session.configure(settings(1, &[port])).await;
    // Now the other address answers, and it is the same replica.
    let mut other = FakeManager::named("manager-a", second).await;
    let (_, double) = other.accept().await;
    send(port, &magic(1));
    let event = session.event().await;
    session.settle(event.seq, Outcome::Started).await;
    let metrics = get(admin, "/metrics").await;
    assert!(metrics.contains("agent_connected_managers 1"), "{metrics}");
    drop((double, session, one));
    // The way that was left over is used as soon as the first is lost.
    let lost = Instant::now();
    let (_, mut session) = other.accept().await;
    assert!(lost.elapsed().as_secs() < 10, "{:?}", lost.elapsed());
    session.configure(settings(1, &[port])).await;
    send(port, &magic(2));
    assert_eq!(session.event().await.mac[5], 2);
}

fn listeners(status: &ConfigurationStatus) -> Vec<String> {
    let mut names: Vec<_> = status.listeners.iter().map(|l| l.name.clone()).collect();
    names.sort_unstable();
    names
}

fn names(ports: &[u16]) -> Vec<String> {
    let mut names: Vec<_> = ports.iter().map(|port| format!("udp/{port}")).collect();
    names.sort_unstable();
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_is_open_while_any_connected_manager_asks_for_it() {
    let (addresses, ports) = ([free_address(), free_address()], [free_port(), free_port()]);
    let mut a = FakeManager::named("manager-a", addresses[0]).await;
    let mut b = FakeManager::named("manager-b", addresses[1]).await;
    let _agent = Agent::start(AgentArgs {
        managers: addresses.map(|address| address.to_string()).into(),
        ..args(addresses[0], &[])
    });
    let ((_, mut with_a), (_, mut with_b)) = (a.accept().await, b.accept().await);
    let status = with_a.configure(settings(7, &ports[..1])).await;
    assert_eq!(listeners(&status), names(&ports[..1]));
    let status = with_b.configure(settings(3, &ports[1..])).await;
    assert_eq!(listeners(&status), names(&ports), "each by its own number");
    // The one that was told before is told what has changed.
    assert_eq!(with_a.status().await.generation, 7);
    drop((with_a, a));
    for _ in 0..500 {
        let closed = UdpSocket::bind(("::", ports[0])).is_ok();
        if closed {
            assert!(UdpSocket::bind(("::", ports[1])).is_err());
            drop((with_b, b));
            tokio::time::sleep(millis(300)).await;
            let stays = UdpSocket::bind(("::", ports[1])).is_err();
            return assert!(stays, "what the last manager asked for");
        }
        tokio::time::sleep(millis(10)).await;
    }
    panic!("port {} is never closed", ports[0]);
}
