//! What may happen to the two objects.

use std::time::{Duration, Instant, SystemTime};

use kube::api::{Patch, PatchParams};
use kubevirt_wol::manager::authority::{
    ca::trusts,
    certificate::Certificate,
    state::{Bundle, Trust},
};
use serde_json::json;

use super::bed::{
    CALM, HASTY, Replica, SECRET, bundle, data, empty_map, empty_secret, prepared, remove, restore,
    secrets, trust,
};
pub(crate) use super::manifests::{
    applying_the_manifests_again_takes_nothing_away, upgrading_with_helm_takes_nothing_away,
};
use crate::common::cluster::{Cluster, eventually};

/// Whether an agent that trusts `bundle` would accept what `replica` serves now.
fn accepts(bundle: &Bundle, replica: &Replica) -> bool {
    let Some(served) = replica.leaf() else {
        return false;
    };
    let leaf = Certificate::from_der(served.cert[0].clone()).unwrap();
    let now = SystemTime::now();
    let mut cas = bundle.certificates.iter();
    cas.any(|ca| trusts(ca, &leaf, "kubevirt-wol-grpc", now))
}

/// Waits until `replica` serves what agents accept, and gives what is kept then.
async fn settled(c: &Cluster, replica: &Replica) -> Trust {
    eventually("a certificate is served that agents accept", async || {
        replica.slot.get().is_some() && accepts(&bundle(c).await, replica)
    })
    .await;
    trust(c).await.expect("the Secret holds a CA")
}

pub(crate) async fn replicas_that_race_end_with_one_ca(c: &Cluster) {
    prepared(c).await;
    let start = |n| Replica::start(&c.client, CALM, n == 0);
    let replicas = [0, 1, 2].map(start);
    for replica in &replicas {
        settled(c, replica).await;
    }
    let created = replicas
        .iter()
        .map(|r| r.metric("ca_steps_total{step=\"create\"}"));
    assert_eq!(created.sum::<u64>(), 1);
    assert_eq!(bundle(c).await.certificates.len(), 1);
}

pub(crate) async fn an_emptied_secret_gets_the_same_ca_back(c: &Cluster) {
    prepared(c).await;
    let replica = Replica::start(&c.client, CALM, false);
    let before = settled(c, &replica).await;
    let served = replica.leaf().unwrap();
    empty_secret(c).await;
    eventually("the Secret is filled", async || trust(c).await.is_some()).await;
    assert_eq!(trust(c).await.unwrap(), before);
    assert_eq!(
        replica.leaf().unwrap().cert,
        served.cert,
        "agents notice nothing"
    );
}

pub(crate) async fn a_replica_that_starts_on_an_emptied_secret_leaves_it_to_one_that_serves(
    c: &Cluster,
) {
    prepared(c).await;
    let replica = Replica::start(&c.client, CALM, false);
    let before = settled(c, &replica).await;
    for _ in 0..3 {
        let fresh = Replica::start(&c.client, CALM, true);
        empty_secret(c).await;
        let other = Replica::start(&c.client, CALM, false);
        eventually("the Secret is filled", async || trust(c).await.is_some()).await;
        for new in [fresh, other] {
            assert_eq!(settled(c, &new).await, before);
            new.stop().await;
        }
    }
}

pub(crate) async fn where_nobody_knows_the_ca_any_more_a_new_one_is_made_after_a_while(
    c: &Cluster,
) {
    prepared(c).await;
    let replica = Replica::start(&c.client, HASTY, true);
    let lost = settled(c, &replica).await;
    replica.stop().await;
    empty_secret(c).await;
    let start = Instant::now();
    let replica = Replica::start(&c.client, HASTY, true);
    eventually("there is a CA", async || trust(c).await.is_some()).await;
    assert!(
        start.elapsed() >= HASTY.publish_wait,
        "somebody could know it"
    );
    assert_ne!(settled(c, &replica).await.signer, lost.signer);
}

pub(crate) async fn an_emptied_bundle_gets_the_same_ca_back(c: &Cluster) {
    prepared(c).await;
    let replica = Replica::start(&c.client, CALM, false);
    let before = settled(c, &replica).await;
    empty_map(c).await;
    eventually("the bundle is filled", async || {
        bundle(c).await.has(&before.signer.certificate)
    })
    .await;
}

pub(crate) async fn deleted_objects_are_told_and_filled_when_they_are_back(c: &Cluster) {
    prepared(c).await;
    let replica = Replica::start(&c.client, CALM, true);
    let before = settled(c, &replica).await;
    let served = replica.leaf().unwrap();
    remove(c).await;
    eventually("it is told", async || {
        replica.failed("secret", "absent") && replica.failed("bundle", "absent")
    })
    .await;
    assert!(replica.slot.get().is_some(), "everything goes on");
    restore(c).await;
    eventually("both are filled", async || {
        trust(c).await.is_some() && accepts(&bundle(c).await, &replica)
    })
    .await;
    assert_eq!(trust(c).await.unwrap(), before);
    assert_eq!(replica.leaf().unwrap().cert, served.cert);
}

pub(crate) async fn a_secret_that_makes_no_sense_is_told_and_never_written_over(c: &Cluster) {
    prepared(c).await;
    let put = json!({"data": {"tls.crt": "Z2FyYmFnZQ==", "tls.key": "Z2FyYmFnZQ=="}});
    let params = PatchParams::default();
    secrets(c)
        .patch(SECRET, &params, &Patch::Merge(put))
        .await
        .unwrap();
    let replica = Replica::start(&c.client, CALM, true);
    eventually("it is told", async || {
        replica.failed("secret", "unreadable")
    })
    .await;
    assert!(replica.slot.get().is_none(), "it has nothing to serve with");
    assert_eq!(data(c).await["tls.key"], b"garbage");
    // The remedy that the log names.
    empty_secret(c).await;
    settled(c, &replica).await;
}

pub(crate) async fn a_restarted_replica_goes_on_with_the_ca_and_publishes_it(c: &Cluster) {
    prepared(c).await;
    let first = Replica::start(&c.client, CALM, true);
    let before = settled(c, &first).await;
    first.stop().await;
    empty_map(c).await;
    let after = settled(c, &Replica::start(&c.client, CALM, false)).await;
    assert_eq!(after, before);
}

pub(crate) async fn a_rotation_publishes_then_signs_then_drops(c: &Cluster) {
    prepared(c).await;
    let replicas = [true, false].map(|leads| Replica::start(&c.client, HASTY, leads));
    let first = settled(c, &replicas[0]).await.signer.certificate;
    settled(c, &replicas[1]).await;
    let end = Instant::now() + Duration::from_secs(60);
    let (mut published, mut signed) = (None, None);
    // An agent whose kubelet is slow: it knows what the bundle was two seconds ago.
    let mut known = vec![(Instant::now(), bundle(c).await)];
    loop {
        assert!(
            Instant::now() < end,
            "published: {published:?}, signed: {signed:?}"
        );
        let (now, seen, kept) = (Instant::now(), bundle(c).await, trust(c).await.unwrap());
        let late = known
            .iter()
            .rev()
            .find(|(at, _)| now - *at > Duration::from_secs(2));
        for replica in &replicas {
            let bundle = late.map_or(&seen, |(_, bundle)| bundle);
            assert!(
                accepts(bundle, replica),
                "published: {published:?}, signed: {signed:?}"
            );
        }
        if seen.certificates.len() == 2 {
            published.get_or_insert(now);
        }
        if kept.signer.certificate != first {
            signed.get_or_insert(now);
        }
        if !seen.has(&first) {
            break;
        }
        known.push((now, seen));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let (published, signed) = (published.unwrap(), signed.unwrap());
    let margin = Duration::from_millis(500);
    assert!(signed - published + margin >= HASTY.publish_wait);
    assert!(signed.elapsed() + margin >= HASTY.leaf_life);
}
