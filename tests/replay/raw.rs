//! Agents that say what the test says, to one manager.

use std::time::{Duration, Instant};

use kubevirt_wol::rpc::pb::Outcome;

use super::{NAME, NS, calls, cluster, eventually, keep_stopping, knows_all, managers, waits};
use crate::common::{
    cluster::{Cluster, INSECURE, Manager},
    sessions::{Session, Way},
};

const MAC: [u8; 6] = [0x52, 0x54, 0, 0, 0, 1];

async fn session(manager: &Manager, node: &str) -> Session {
    let way = Way {
        manager: manager.grpc,
        tls: None,
    };
    Session::open(&way, node, None).await.unwrap()
}

pub(crate) async fn every_agent_that_reported_a_wake_learns_how_it_ended(c: &Cluster) {
    cluster(c).await;
    let [manager, _other] = managers(c, &[INSECURE]).await;
    let first = session(&manager, "node-1").await;
    let seq = first.aged(MAC, Duration::ZERO).await;
    assert_eq!(first.outcome(seq).await, Outcome::Started);
    c.kubevirt.wait_for_status(NS, NAME, "Running").await;
    keep_stopping(c).await;
    // The mark of the first wake is over by then.
    tokio::time::sleep(Duration::from_secs(10)).await;
    let second = session(&manager, "node-2").await;
    let one = first.aged(MAC, Duration::ZERO).await;
    waits(&manager).await;
    let two = second.aged(MAC, Duration::from_millis(300)).await;
    let reported = Instant::now();
    for (session, seq) in [(&first, one), (&second, two)] {
        eventually("it is told to wait", async || {
            let answers = session.record().answers;
            answers.contains(&(seq, Outcome::Deferred))
        })
        .await;
    }
    assert!(reported.elapsed() < Duration::from_secs(2));
    c.kubevirt.release(NS, NAME);
    for (session, seq) in [(&first, one), (&second, two)] {
        assert_eq!(session.outcome(seq).await, Outcome::Started);
    }
    // Settled, and only from then on, a copy is a duplicate.
    let copy = second.aged(MAC, Duration::ZERO).await;
    assert_eq!(second.outcome(copy).await, Outcome::Duplicate);
    assert_eq!(c.kubevirt.boots(NS, NAME), 2);
}

pub(crate) async fn a_wake_that_is_too_old_starts_nothing_and_is_told(c: &Cluster) {
    cluster(c).await;
    let [manager, _other] = managers(c, &[INSECURE]).await;
    let agent = session(&manager, "node-1").await;
    let old = agent.aged(MAC, Duration::from_secs(31)).await;
    assert_eq!(agent.outcome(old).await, Outcome::Expired);
    let impossible = agent.aged(MAC, Duration::from_secs(1 << 40)).await;
    assert_eq!(agent.outcome(impossible).await, Outcome::Expired);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(calls(&manager) < 0.5);
    let young = agent.aged(MAC, Duration::from_secs(28)).await;
    assert_eq!(agent.outcome(young).await, Outcome::Started);
    c.kubevirt.wait_for_status(NS, NAME, "Running").await;
    assert_eq!(c.kubevirt.boots(NS, NAME), 1);
}

pub(crate) async fn a_wake_heard_while_the_vm_was_on_does_not_start_it_after_its_owner_has_stopped_it(
    c: &Cluster,
) {
    cluster(c).await;
    let [manager, _other] = managers(c, &[INSECURE]).await;
    let agent = session(&manager, "node-1").await;
    let first = agent.aged(MAC, Duration::ZERO).await;
    assert_eq!(agent.outcome(first).await, Outcome::Started);
    c.kubevirt.wait_for_status(NS, NAME, "Running").await;
    // Past the mark that the start has left.
    tokio::time::sleep(Duration::from_secs(10)).await;
    let heard = Instant::now();
    tokio::time::sleep(Duration::from_millis(500)).await;
    c.kubevirt.stop(NS, NAME).await;
    c.kubevirt.wait_for_status(NS, NAME, "Stopped").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let late = agent.aged(MAC, heard.elapsed()).await;
    assert_eq!(agent.outcome(late).await, Outcome::AlreadyOn);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(
        c.kubevirt.boots(NS, NAME),
        1,
        "its owner has just stopped it"
    );
    // One who came later has not seen that, and has only the age to go by.
    let fresh = c.manager(&[INSECURE, "--replica-id", "manager-c"]).await;
    knows_all(&fresh).await;
    let to_fresh = session(&fresh, "node-1").await;
    let replayed = to_fresh.aged(MAC, heard.elapsed()).await;
    assert_eq!(to_fresh.outcome(replayed).await, Outcome::Started);
    c.kubevirt.wait_for_status(NS, NAME, "Running").await;
    assert_eq!(c.kubevirt.boots(NS, NAME), 2);
}
