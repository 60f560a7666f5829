//! The watches keep the directory and the agents' settings true, whatever the API server does.

#![allow(
    clippy::unwrap_used,
    reason = "a fixture that breaks has to fail the test"
)]

mod cluster;
#[path = "../common/mod.rs"]
mod common;
mod contact;
mod troubles;

use std::time::Duration;

use cluster::{Cluster, ResourceKind, vm};
use common::apiserver::{Failure, Fault, WatchEnd, When};
use kubevirt_wol::{
    manager::{config::Windows, vm::Power},
    settings::{Rates, Settings},
};
use serde_json::json;

const VMS: &str = "/apis/kubevirt.io/v1/virtualmachines";
const CONFIGS: &str = "/apis/wol.pillon.org/v1beta1/wolconfigs";

#[tokio::test]
async fn a_vm_is_wakeable_as_long_as_it_exists() {
    let cluster = Cluster::with_everything().await;
    cluster.create(vm("web", "52:54:00:00:00:01")).await;
    cluster.eventually(1, "wakes shop/web").await;
    cluster.delete(ResourceKind::Vm, "web").await;
    cluster.eventually(1, "not found").await;
    let told = cluster.told();
    assert_eq!(told, ["changed shop/web", "deleted shop/web"]);
}

#[tokio::test]
async fn what_was_there_before_is_known_when_the_manager_is_ready() {
    let mut cluster = Cluster::new().await;
    cluster.install(ResourceKind::Vm).await;
    cluster.install(ResourceKind::Config).await;
    // More than two pages.
    for number in 0..=255_u8 {
        let mac = format!("52:54:00:00:00:{number:02x}");
        cluster.create(vm(&format!("first-{number}"), &mac)).await;
        let mac = format!("52:54:00:00:01:{number:02x}");
        cluster.create(vm(&format!("second-{number}"), &mac)).await;
    }
    cluster.create(config("default", &json!({}))).await;
    cluster.watch();
    cluster.ready().await;
    assert_eq!(cluster.look_up(7), "wakes shop/first-7");
    assert_eq!(cluster.directory.size().vms, 512);
}

#[tokio::test]
async fn changes_of_a_vm_take_effect() {
    let cluster = Cluster::with_everything().await;
    cluster.delete(ResourceKind::Config, "default").await;
    let labelled = json!({
        "discoveryMode": "LabelSelector",
        "vmSelector": {"matchLabels": {"wol": "on"}},
    });
    cluster.create(config("labelled", &labelled)).await;
    cluster.create(vm("web", "52:54:00:00:00:01")).await;
    cluster.eventually(1, "shop/web: NoConfig").await;
    let patch = json!({"metadata": {"labels": {"wol": "on"}}});
    cluster.patch(ResourceKind::Vm, "web", patch).await;
    cluster.eventually(1, "wakes shop/web").await;

    let mut moved = vm("web", "52:54:00:00:00:02");
    let interfaces = moved["spec"]["template"].take();
    let patch = json!({"spec": {"template": interfaces}});
    cluster.patch(ResourceKind::Vm, "web", patch).await;
    cluster.eventually(2, "wakes shop/web").await;
    cluster.eventually(1, "not found").await;

    let patch = json!({"status": {"printableStatus": "Running"}});
    cluster.patch(ResourceKind::Vm, "web", patch).await;
    let running = || cluster.known("web").is_some_and(|vm| vm.power == Power::On);
    cluster.until("the VM is known to run", running).await;
    assert!(cluster.known("web").unwrap().on_since.is_some());
}

#[tokio::test]
async fn a_config_counts_from_its_creation_to_its_deletion() {
    let cluster = Cluster::with_everything().await;
    cluster.create(vm("web", "52:54:00:00:00:01")).await;
    cluster.eventually(1, "wakes shop/web").await;
    let patch = json!({"spec": {"wolPorts": [4000]}});
    cluster.patch(ResourceKind::Config, "default", patch).await;
    cluster
        .until("agents listen on the new port", || {
            cluster.settings().1.udp_ports == [4000].into()
        })
        .await;
    let before = cluster.settings();
    let same = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"wakePaused": true}});
    cluster.patch(ResourceKind::Config, "default", same).await;
    cluster.eventually(1, "wakes or unpauses shop/web").await;
    // Nothing that agents have to know has changed.
    assert_eq!(cluster.settings(), before);
    cluster.delete(ResourceKind::Config, "default").await;
    cluster.eventually(1, "shop/web: NoConfig").await;
    cluster
        .until("agents are back on the default ports", || {
            cluster.settings().1.udp_ports == [7, 9].into()
        })
        .await;
    assert!(cluster.settings().0 > before.0);
}

#[tokio::test]
async fn an_unreadable_vm_hides_no_other() {
    let mut cluster = Cluster::new().await;
    cluster.install(ResourceKind::Vm).await;
    cluster.install(ResourceKind::Config).await;
    cluster.create(config("default", &json!({}))).await;
    let mut odd = vm("odd", "52:54:00:00:00:01");
    odd["spec"]["running"] = json!("perhaps");
    cluster.create(odd).await;
    cluster.create(vm("web", "52:54:00:00:00:02")).await;
    cluster.watch();
    cluster.ready().await;
    assert_eq!(cluster.look_up(2), "wakes shop/web");
    assert_eq!(cluster.look_up(1), "not found");
    assert!(cluster.has("unreadable_objects{resource=\"virtual-machines\"} 1"));
    // Neither in the list nor later.
    let patch = json!({"spec": {"running": null}});
    cluster.patch(ResourceKind::Vm, "odd", patch).await;
    cluster.eventually(1, "wakes shop/odd").await;
    let patch = json!({"spec": {"runStrategy": 7}});
    cluster.patch(ResourceKind::Vm, "odd", patch).await;
    cluster.eventually(1, "not found").await;
    cluster.create(vm("db", "52:54:00:00:00:03")).await;
    cluster.eventually(3, "wakes shop/db").await;
    assert!(cluster.has("unreadable_objects{resource=\"virtual-machines\"} 1"));
}

#[tokio::test]
async fn an_unreadable_config_allows_nothing_and_hides_no_other() {
    let cluster = Cluster::with_everything().await;
    cluster.delete(ResourceKind::Config, "default").await;
    let odd = json!({"discoveryMode": "Everything"});
    cluster.create(config("odd", &odd)).await;
    cluster.create(vm("web", "52:54:00:00:00:01")).await;
    cluster.eventually(1, "shop/web: NoConfig").await;
    cluster
        .until("the config is counted", || {
            cluster.has("unreadable_objects{resource=\"wol-configs\"} 1")
        })
        .await;
    cluster.create(config("good", &json!({}))).await;
    cluster.eventually(1, "wakes shop/web").await;
}

#[tokio::test]
async fn what_happened_while_the_watch_was_broken_shows_afterwards() {
    let cluster = Cluster::with_everything().await;
    cluster.create(vm("web", "52:54:00:00:00:01")).await;
    cluster.create(vm("db", "52:54:00:00:00:02")).await;
    cluster.eventually(2, "wakes shop/db").await;
    for by_code in [false, true] {
        cluster.server.set(|s| s.expired_by_code = by_code);
        let broken = When::path(VMS).watches();
        let broken = cluster.server.faults().add(broken, Fault::Cut);
        cluster.server.faults().end_watches(WatchEnd::Reset);
        cluster.delete(ResourceKind::Vm, "web").await;
        // The version to resume from is forgotten too: only a new list can tell.
        cluster.server.expire_history();
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(cluster.look_up(1), "wakes shop/web", "it cannot be known");
        cluster.server.faults().remove(broken);
        cluster.eventually(1, "not found").await;
        assert_eq!(cluster.told().last().unwrap(), "deleted shop/web");
        cluster.create(vm("web", "52:54:00:00:00:01")).await;
        cluster.eventually(1, "wakes shop/web").await;
    }
    assert_eq!(cluster.look_up(2), "wakes shop/db");
}

#[tokio::test]
async fn a_vm_that_took_a_deleted_ones_name_unseen_is_another_one() {
    let cluster = Cluster::with_everything().await;
    cluster.create(vm("web", "52:54:00:00:00:01")).await;
    cluster.eventually(1, "wakes shop/web").await;
    let broken = cluster.server.faults();
    let broken = broken.add(When::path(VMS).watches(), Fault::Cut);
    cluster.server.faults().end_watches(WatchEnd::Reset);
    cluster.delete(ResourceKind::Vm, "web").await;
    cluster.create(vm("web", "52:54:00:00:00:02")).await;
    cluster.server.expire_history();
    cluster.server.faults().remove(broken);
    cluster.eventually(2, "wakes shop/web").await;
    let told = cluster.told();
    assert_eq!(
        told,
        ["changed shop/web", "deleted shop/web", "changed shop/web"]
    );
}

#[tokio::test]
async fn agents_hear_of_settings_that_are_the_default_ones() {
    let mut cluster = Cluster::new().await;
    cluster.windows = Windows {
        dedup: Settings::default().dedup_window,
        event_ttl: Settings::default().event_ttl,
        rates: Rates::default(),
    };
    cluster.watch();
    cluster.ready().await;
    assert_eq!(cluster.settings(), (1, Settings::default().into()));
}

#[tokio::test]
async fn an_outage_changes_nothing_and_ends_by_itself() {
    let cluster = Cluster::with_everything().await;
    cluster.create(vm("web", "52:54:00:00:00:01")).await;
    cluster.eventually(1, "wakes shop/web").await;
    cluster.server.faults().away(true);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(cluster.look_up(1), "wakes shop/web");
    assert!(cluster.is_ready());
    cluster.server.faults().away(false);
    cluster.create(vm("db", "52:54:00:00:00:02")).await;
    cluster.eventually(2, "wakes shop/db").await;
    let told = cluster.told();
    assert_eq!(told, ["changed shop/web", "changed shop/db"]);
}

#[tokio::test]
async fn the_api_server_may_come_after_the_manager() {
    let mut cluster = Cluster::new().await;
    cluster.install(ResourceKind::Vm).await;
    cluster.install(ResourceKind::Config).await;
    cluster.create(vm("web", "52:54:00:00:00:01")).await;
    cluster.create(config("default", &json!({}))).await;
    cluster.server.faults().away(true);
    cluster.watch();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!cluster.is_ready(), "nothing can be known yet");
    cluster.server.faults().away(false);
    cluster.eventually(1, "wakes shop/web").await;
    assert!(cluster.is_ready());
}

#[tokio::test]
async fn a_manager_without_the_crds_is_ready_and_notices_when_they_come() {
    let mut cluster = Cluster::new().await;
    cluster.watch();
    cluster.ready().await;
    assert_eq!(cluster.look_up(1), "not found");
    cluster.install(ResourceKind::Config).await;
    cluster
        .create(config("default", &json!({"wolPort": 4000})))
        .await;
    cluster.install(ResourceKind::Vm).await;
    cluster.create(vm("web", "52:54:00:00:00:01")).await;
    cluster.eventually(1, "wakes shop/web").await;
    assert_eq!(cluster.settings().1.udp_ports, [4000].into());
    assert!(cluster.has("watch_errors_total{resource=\"virtual-machines\",reason=\"absent\"}"));
}

#[tokio::test]
async fn a_crd_may_go_and_come_back() {
    let cluster = Cluster::with_everything().await;
    cluster.create(vm("web", "52:54:00:00:00:01")).await;
    cluster.eventually(1, "wakes shop/web").await;
    cluster.uninstall(ResourceKind::Vm).await;
    cluster.eventually(1, "not found").await;
    cluster
        .until("nothing is left of it", || {
            cluster.directory.size().macs == 0
        })
        .await;
    cluster.install(ResourceKind::Vm).await;
    cluster.create(vm("db", "52:54:00:00:00:02")).await;
    cluster.eventually(2, "wakes shop/db").await;
    cluster.uninstall(ResourceKind::Config).await;
    cluster.eventually(2, "shop/db: NoConfig").await;
}

#[tokio::test]
async fn a_resource_that_is_missing_for_a_moment_loses_nothing() {
    let cluster = Cluster::with_everything().await;
    cluster.create(vm("web", "52:54:00:00:00:01")).await;
    cluster.eventually(1, "wakes shop/web").await;
    let faults = cluster.server.faults();
    for failure in [Failure::page_not_found(), Failure::no_such_resource()] {
        // As an API server answers that has yet to learn what it serves.
        for path in [VMS, CONFIGS] {
            faults.add(When::path(path).times(3), Fault::Answer(failure.clone()));
        }
        faults.end_watches(WatchEnd::Reset);
        cluster.out_of_contact().await;
        cluster.in_contact().await;
        assert_eq!(cluster.look_up(1), "wakes shop/web");
    }
    assert_eq!(cluster.told(), ["changed shop/web"]);
    // One that stays away is gone, although no deletion was seen.
    faults.add(When::path(VMS), Fault::Answer(Failure::page_not_found()));
    faults.end_watches(WatchEnd::Reset);
    cluster.eventually(1, "not found").await;
    assert_eq!(cluster.told(), ["changed shop/web", "deleted shop/web"]);
}

#[tokio::test]
async fn a_list_that_breaks_off_loses_nothing() {
    let mut cluster = Cluster::new().await;
    cluster.install(ResourceKind::Vm).await;
    cluster.install(ResourceKind::Config).await;
    cluster.create(config("default", &json!({}))).await;
    for number in 0..300_u32 {
        let mac = format!("52:54:00:00:{:02x}:{:02x}", number >> 8, number & 0xff);
        cluster.create(vm(&format!("vm-{number:03}"), &mac)).await;
    }
    let second_page = When::matching(|request| {
        let query = request.uri.query().unwrap_or_default();
        request.uri.path() == VMS && query.contains("continue=")
    });
    let faults = cluster.server.faults();
    faults.add(second_page.times(2), Fault::internal_error());
    faults.add(When::path(CONFIGS).times(3), Fault::internal_error());
    cluster.watch();
    cluster.ready().await;
    assert_eq!(cluster.directory.size().vms, 300);
    assert_eq!(cluster.look_up(1), "wakes shop/vm-001");
    assert_eq!(cluster.told().len(), 300, "each VM is news once");
}

#[tokio::test]
async fn the_agents_times_are_those_of_the_command_line() {
    let windows = Windows {
        dedup: Duration::from_secs(1),
        event_ttl: Duration::from_secs(7),
        rates: Rates::default(),
    };
    let cluster = Cluster::with_everything().await;
    let (generation, settings) = cluster.settings();
    assert_eq!(cluster.windows, windows);
    assert_eq!(settings.dedup_window, windows.dedup);
    assert_eq!(settings.event_ttl, windows.event_ttl);
    assert!(generation > 0);
}

fn config(name: &str, spec: &serde_json::Value) -> serde_json::Value {
    json!({
        "apiVersion": "wol.pillon.org/v1beta1",
        "kind": "WolConfig",
        "metadata": {"name": name},
        "spec": spec,
    })
}
