//! What passes is waited for, what happens meanwhile counts, and no wake waits for ever.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Bed, NS, mac};
use crate::common::{
    cluster::{Cluster, eventually},
    kubevirt::{
        Fault, Phase,
        vm::{RunStrategy, vm},
    },
};

/// Longer than a call takes that nothing holds up.
const A_MOMENT: Duration = Duration::from_millis(150);

/// VM number `n` is off, Halted, and in use by a snapshot or a restore.
async fn in_use(bed: &Bed<'_>, n: usize, name: &str, field: &str) {
    bed.add(n, name, RunStrategy::Halted).await;
    let status = json!({field: "s"});
    bed.c.kubevirt.edit_status(NS, name, status).await;
}

/// The guest of VM number `n` has crashed, and KubeVirt has yet to restart it.
async fn failed(c: &Cluster, n: usize, name: &str) {
    let failing = vm(NS, name)
        .mac(&mac(n))
        .run_strategy(RunStrategy::RerunOnFailure);
    c.kubevirt.create(&failing).await;
    c.kubevirt.wait_for_status(NS, name, "Running").await;
    c.kubevirt.hold(NS, name);
    c.kubevirt.guest_ends(NS, name, Phase::Failed);
    c.kubevirt.wait_for_status(NS, name, "Stopped").await;
}

pub(crate) async fn a_snapshot_or_a_restore_is_waited_for(c: &Cluster) {
    let bed = Bed::new(c, &[]).await;
    let uses = [
        (
            0,
            "snap",
            "snapshotInProgress",
            "until snapshot \"s\" completes",
        ),
        (
            1,
            "rest",
            "restoreInProgress",
            "until restore \"s\" completes",
        ),
    ];
    for (n, name, field, _) in uses {
        in_use(&bed, n, name, field).await;
    }
    bed.add(2, "manual", RunStrategy::Manual).await;
    let status = json!({"snapshotInProgress": "s"});
    c.kubevirt.edit_status(NS, "manual", status).await;
    bed.up_to_date().await;
    for n in 0..=2 {
        bed.hears(n);
    }
    // Of one that is not Halted, a snapshot does not keep a start off.
    assert_eq!(bed.ended(2).0, "started");
    for (_, name, _, words) in uses {
        bed.told(name, "WakeOnLanDeferred", words).await;
    }
    for (n, name, field, _) in uses {
        c.kubevirt.edit_status(NS, name, json!({field: null})).await;
        assert_eq!(bed.ended(n).0, "started");
        c.kubevirt.wait_for_status(NS, name, "Running").await;
        assert_eq!(c.kubevirt.boots(NS, name), 1);
        let codes = c.kubevirt.codes(NS, name);
        assert!(codes.ends_with(&[500, 202]), "{codes:?}");
    }
}

pub(crate) async fn what_will_pass_is_waited_for(c: &Cluster) {
    let bed = Bed::new(c, &[]).await;
    failed(c, 0, "failing").await;
    for (n, name) in [(1, "changed"), (2, "deleted")] {
        bed.add(n, name, RunStrategy::Manual).await;
        c.kubevirt.show(NS, name, "Stopping");
        c.kubevirt.wait_for_status(NS, name, "Stopping").await;
    }
    bed.up_to_date().await;
    for n in 0..=2 {
        bed.hears(n);
    }
    bed.told("failing", "WakeOnLanDeferred", "failed state")
        .await;
    bed.told("changed", "WakeOnLanDeferred", "to stop").await;
    assert_eq!(bed.open(), 3);
    // KubeVirt restarts it by itself.
    c.kubevirt.release(NS, "failing");
    assert_eq!(bed.ended(0).0, "already-on");
    assert!(!c.kubevirt.codes(NS, "failing").contains(&202));
    let halted = json!({"spec": {"runStrategy": "Halted"}});
    c.kubevirt.edit(NS, "changed", halted).await;
    assert_eq!(bed.ended(1).0, "expired");
    bed.told("changed", "WakeOnLanExpired", "runStrategy was changed")
        .await;
    c.kubevirt.delete(NS, "deleted").await;
    assert_eq!(bed.ended(2).0, "gone");
    for name in ["changed", "deleted"] {
        assert!(c.kubevirt.codes(NS, name).is_empty(), "{name}");
    }
}

/// Wakes VM number `n`, and does something to it while the call is on its way.
async fn meanwhile(bed: &Bed<'_>, n: usize, something: impl Future<Output = ()>) {
    bed.c.kubevirt.delay(A_MOMENT * 3);
    bed.hears(n);
    tokio::time::sleep(A_MOMENT).await;
    something.await;
    tokio::time::sleep(A_MOMENT * 3).await;
    bed.c.kubevirt.delay(Duration::ZERO);
}

fn requests(action: &str) -> Value {
    json!({"stateChangeRequests": [{"action": action, "uid": "of-another-instance"}]})
}

pub(crate) async fn what_happens_during_a_call_counts(c: &Cluster) {
    let bed = Bed::new(c, &[]).await;
    let k = &c.kubevirt;
    for (n, name) in ["deleted", "stopped", "started", "switched-on"]
        .into_iter()
        .enumerate()
    {
        bed.add(n, name, RunStrategy::Manual).await;
    }
    bed.up_to_date().await;

    meanwhile(&bed, 0, k.delete(NS, "deleted")).await;
    assert_eq!(bed.ended(0).0, "gone");
    bed.called("deleted", &[404]).await;

    // A stop is queued: the wake waits until KubeVirt has acted on it.
    k.hold(NS, "stopped");
    meanwhile(&bed, 1, k.edit_status(NS, "stopped", requests("Stop"))).await;
    bed.called("stopped", &[500]).await;
    bed.told("stopped", "WakeOnLanDeferred", "to stop").await;
    assert!(!bed.has_ended(1));
    k.release(NS, "stopped");
    assert_eq!(bed.ended(1).0, "started");

    // A start is queued, by whomever: that is what was wanted.
    k.hold(NS, "started");
    meanwhile(&bed, 2, k.edit_status(NS, "started", requests("Start"))).await;
    assert_eq!(bed.ended(2).0, "started");
    bed.called("started", &[500]).await;
    k.release(NS, "started");

    let always = json!({"spec": {"runStrategy": "Always"}});
    meanwhile(&bed, 3, k.edit(NS, "switched-on", always)).await;
    assert_eq!(bed.ended(3).0, "started");
    bed.called("switched-on", &[409]).await;

    for name in ["stopped", "started", "switched-on"] {
        k.wait_for_status(NS, name, "Running").await;
        assert_eq!(k.boots(NS, name), 1, "{name}");
    }
    assert_eq!(bed.open(), 0);
}

pub(crate) async fn a_kubevirt_that_hangs_starts_the_vm_once(c: &Cluster) {
    let bed = Bed::new(c, &["--start-timeout", "300ms"]).await;
    bed.add(0, "silent", RunStrategy::Manual).await;
    bed.add(1, "hanging", RunStrategy::Halted).await;
    bed.up_to_date().await;

    // It is started, and nobody says so.
    c.kubevirt.fault(Some(Fault::Swallow));
    bed.hears(0);
    assert_eq!(bed.ended(0).0, "started");
    bed.called("silent", &[202]).await;

    // Nothing happens, and then everything that was asked for does.
    c.kubevirt.fault(Some(Fault::Hang));
    bed.hears(1);
    eventually("it is asked again and again", async || {
        bed.calls().get("recheck") >= Some(&3)
    })
    .await;
    bed.told(
        "hanging",
        "WakeOnLanDeferred",
        "did not answer within 300ms",
    )
    .await;
    assert_eq!(c.kubevirt.boots(NS, "hanging"), 0);
    c.kubevirt.fault(None);
    assert_eq!(bed.ended(1).0, "started");
    for name in ["silent", "hanging"] {
        c.kubevirt.wait_for_status(NS, name, "Running").await;
        assert_eq!(c.kubevirt.boots(NS, name), 1, "{name}");
        let codes = c.kubevirt.codes(NS, name);
        let effective = codes.iter().filter(|code| **code == 202).count();
        assert_eq!(effective, 1, "{name}: {codes:?}");
    }
}

pub(crate) async fn a_kubevirt_that_is_away_is_waited_for(c: &Cluster) {
    let bed = Bed::new(c, &[]).await;
    bed.add(0, "webhook", RunStrategy::Halted).await;
    bed.add(1, "no-kubevirt", RunStrategy::Manual).await;
    bed.up_to_date().await;
    let down = "Internal error occurred: failed calling webhook \"v\": connection refused";
    for (name, n, fault, words) in [
        (
            "webhook",
            0,
            Some(Fault::Refuse(500, down.into())),
            "failed calling webhook",
        ),
        ("no-kubevirt", 1, None, "KubeVirt's API is not there"),
    ] {
        if fault.is_none() {
            c.virt_api_absent(true).await;
        }
        c.kubevirt.fault(fault.clone());
        bed.hears(n);
        bed.told(name, "WakeOnLanDeferred", words).await;
        c.kubevirt.fault(None);
        if fault.is_none() {
            c.virt_api_absent(false).await;
        }
        assert_eq!(bed.ended(n).0, "started", "{name}");
        let missing = bed.calls().contains_key("api-missing");
        assert_eq!(missing, name == "no-kubevirt", "{:?}", bed.calls());
        bed.called(name, &[202]).await;
        c.kubevirt.wait_for_status(NS, name, "Running").await;
    }
}

pub(crate) async fn a_wake_ends_at_its_deadline_and_says_why(c: &Cluster) {
    let bed = Bed::new(c, &["--wake-deadline", "2s"]).await;
    bed.add(0, "stopping", RunStrategy::Manual).await;
    c.kubevirt.show(NS, "stopping", "Stopping");
    c.kubevirt.wait_for_status(NS, "stopping", "Stopping").await;
    in_use(&bed, 1, "in-use", "snapshotInProgress").await;
    bed.up_to_date().await;
    let began = tokio::time::Instant::now();
    bed.hears(0);
    bed.hears(1);
    for (n, name, words) in [(0, "stopping", "to stop"), (1, "in-use", "until snapshot")] {
        let (outcome, reason) = bed.ended(n);
        assert_eq!(outcome, "expired", "{name}: {reason}");
        bed.told(name, "WakeOnLanExpired", words).await;
        assert_eq!(c.kubevirt.boots(NS, name), 0);
    }
    assert!(began.elapsed() >= Duration::from_secs(2));
    // What is possible a moment too late is another packet's to ask for.
    c.kubevirt.release(NS, "stopping");
    c.kubevirt.wait_for_status(NS, "stopping", "Stopped").await;
    tokio::time::sleep(A_MOMENT * 2).await;
    assert!(c.kubevirt.codes(NS, "stopping").is_empty());
}

pub(crate) async fn a_boot_is_timed_until_the_vm_runs(c: &Cluster) {
    let bed = Bed::new(c, &[]).await;
    for (n, name) in ["slow", "stopped"].into_iter().enumerate() {
        bed.add(n, name, RunStrategy::Manual).await;
        c.kubevirt.hold_at(NS, name, "Starting");
    }
    bed.up_to_date().await;
    let metric = |series: &str| bed.manager.metric(&format!("kubevirt_wol_{series}"));
    let seconds = |part: &str| {
        metric(&format!(
            "wake_duration_seconds_{part}{{stage=\"running\"}}"
        ))
    };
    for (n, name) in [(0, "slow"), (1, "stopped")] {
        bed.hears(n);
        assert_eq!(bed.ended(n).0, "started");
        c.kubevirt.wait_for_status(NS, name, "Starting").await;
    }
    tokio::time::sleep(A_MOMENT * 2).await;
    assert_eq!(usize::from(seconds("count") > 0.0), 0, "neither runs yet");
    c.kubevirt.release(NS, "slow");
    eventually("the boot is timed", async || seconds("count") >= 1.0).await;
    assert!(
        seconds("sum") >= (A_MOMENT * 2).as_secs_f64(),
        "the whole of it"
    );
    c.kubevirt.show(NS, "stopped", "Stopping");
    eventually("the other one is given up", async || {
        metric("boots_unseen_total{reason=\"off\"}") >= 1.0
    })
    .await;
    assert!(seconds("count") < 2.0);
}
