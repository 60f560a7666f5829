//! How old the directory is, through all that may become of the watches.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::{
    CONFIGS, VMS,
    cluster::{Cluster, ResourceKind, vm},
    common::apiserver::{Failure, Fault, WatchEnd, When},
    config,
};

/// More than a watch takes to be answered.
const A_WHILE: Duration = Duration::from_millis(300);

#[tokio::test]
async fn a_break_is_noticed_and_healed_without_any_event() {
    let cluster = Cluster::with_everything().await;
    cluster.in_contact().await;
    for resource in ["virtual-machines", "wol-configs"] {
        let of = |metric| format!("{metric}{{resource=\"{resource}\"}}");
        assert!(cluster.has(&format!("{} 1", of("watch_connected"))));
        assert!(cluster.has(&format!("{} 0.0", of("cache_age_seconds"))));
    }
    cluster.server.faults().away(true);
    for resource in ["virtual-machines", "wol-configs"] {
        let of = |metric| format!("{metric}{{resource=\"{resource}\"}}");
        let broken = || cluster.has(&format!("{} 0", of("watch_connected")));
        cluster.until("the break shows", broken).await;
        // What is 0.1 or more shows that time passes.
        let grows = || !cluster.has(&format!("{} 0.0", of("cache_age_seconds")));
        cluster.until("the age shows", grows).await;
    }
    cluster.server.faults().away(false);
    cluster.in_contact().await;
    assert!(cluster.told().is_empty(), "nothing has happened meanwhile");
}

#[tokio::test]
async fn either_resource_alone_makes_the_directory_old() {
    for path in [VMS, CONFIGS] {
        let cluster = Cluster::with_everything().await;
        cluster.in_contact().await;
        let faults = cluster.server.faults();
        let broken = faults.add(When::path(path), Fault::Answer(Failure::unauthorized()));
        faults.end_watches(WatchEnd::Reset);
        cluster.out_of_contact().await;
        faults.remove(broken);
        cluster.in_contact().await;
    }
}

#[tokio::test]
async fn a_watch_that_is_never_answered_is_not_contact() {
    let cluster = Cluster::with_everything().await;
    cluster.in_contact().await;
    let (faults, silence) = (cluster.server.faults(), Duration::from_secs(40));
    // Well at that time is only what is watched anew from here on.
    let later = Instant::now() + silence;
    faults.end_watches(WatchEnd::Clean);
    let anew = || cluster.contact.age(later).is_zero();
    cluster.until("both are watched anew", anew).await;
    let later = Instant::now() + silence;
    faults.add(When::path(VMS).watches(), Fault::Hang);
    faults.end_watches(WatchEnd::Clean);
    tokio::time::sleep(A_WHILE).await;
    assert!(cluster.contact.age(later) > silence);
}

#[tokio::test]
async fn a_forgotten_version_is_contact_only_when_all_is_listed_anew() {
    for by_code in [false, true] {
        let cluster = Cluster::with_everything().await;
        cluster.in_contact().await;
        cluster.server.set(|s| s.expired_by_code = by_code);
        let faults = cluster.server.faults();
        let lists = faults.add(When::path(VMS).not_watches(), Fault::internal_error());
        let watches = faults.add(When::path(VMS).watches(), Fault::Cut);
        faults.end_watches(WatchEnd::Reset);
        cluster.out_of_contact().await;
        cluster.create(vm("web", "52:54:00:00:00:01")).await;
        cluster.server.expire_history();
        faults.remove(watches);
        // Every watch is answered now, by the word that the version is forgotten.
        tokio::time::sleep(Duration::from_secs(2)).await;
        let age = cluster.contact.age(Instant::now());
        assert!(age > Duration::from_secs(2), "{age:?}");
        faults.remove(lists);
        cluster.in_contact().await;
        assert_eq!(cluster.look_up(1), "wakes shop/web");
    }
}

#[tokio::test]
async fn a_resource_that_does_not_exist_is_a_true_answer() {
    let mut cluster = Cluster::new().await;
    cluster.install(ResourceKind::Config).await;
    cluster.create(config("default", &json!({}))).await;
    cluster.watch();
    cluster.ready().await;
    cluster.in_contact().await;
    cluster.server.faults().away(true);
    cluster.out_of_contact().await;
}
