//! The real kubectl, as a visitor of the demo uses it with the API stand-in, and as the pages say.

#![allow(clippy::unwrap_used, reason = "a test that breaks has to fail")]

mod common;
#[path = "kubectl/docs.rs"]
mod docs;

use std::path::Path;

use common::{
    cluster::Cluster,
    kubectl::Kubectl,
    kubevirt::vm::{RunStrategy, vm},
};

#[allow(clippy::too_many_lines, reason = "one session of a person at a shell")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_gets_describes_and_applies() {
    let Some(kubectl) = Kubectl::find() else {
        return;
    };
    let cluster = Cluster::stand_in(Path::new(env!("CARGO_BIN_EXE_kubevirt-wol"))).await;
    cluster.namespace("home").await;
    cluster
        .kubevirt
        .add(&vm("home", "desktop").mac("52:54:00:00:00:01"))
        .await;
    let run = |args: &[&str]| kubectl.run(&cluster, args);
    let has = |text: &str, words: &[&str]| {
        for word in words {
            assert!(text.contains(word), "{word} is not in:\n{text}");
        }
    };

    has(
        &run(&["apply", "--validate=false", "-f", "deploy/base/crd.yaml"]),
        &["created"],
    );
    let sample = "deploy/samples/wol_v1beta1_wolconfig.yaml";
    has(
        &run(&["apply", "--validate=false", "-f", sample]),
        &["wolconfig.wol.pillon.org/default created"],
    );
    has(
        &run(&["apply", "--validate=false", "-f", sample]),
        &["wolconfig.wol.pillon.org/default unchanged"],
    );
    has(
        &run(&["get", "wolcfg"]),
        &["NAME", "MODE", "PORTS", "default", "All"],
    );
    has(
        &run(&["get", "wolconfig", "default", "-o", "yaml"]),
        &["discoveryMode: All", "wolPort: 9"],
    );
    has(
        &run(&["get", "vm", "-A"]),
        &["NAMESPACE", "STATUS", "desktop", "Stopped"],
    );

    let file = kubectl.folder().join("vm.json");
    let manifest = vm("home", "laptop")
        .mac("52:54:00:00:00:02")
        .run_strategy(RunStrategy::Halted)
        .manifest();
    std::fs::write(&file, manifest.to_string()).unwrap();
    has(
        &run(&["apply", "--validate=false", "-f", file.to_str().unwrap()]),
        &["laptop created"],
    );
    let wanted = cluster
        .kubevirt
        .wait_for_status("home", "laptop", "Stopped")
        .await;
    assert_eq!(wanted["spec"]["runStrategy"], "Halted");

    let manager = cluster.manager(&[]).await;
    let agent = cluster.agent("node-1", &manager, common::process::free_udp());
    agent.hears("52:54:00:00:00:01");
    cluster
        .kubevirt
        .wait_for_status("home", "desktop", "Running")
        .await;
    common::cluster::eventually("the Event is there", async || {
        !cluster.events("home", "desktop").await.is_empty()
    })
    .await;
    has(
        &run(&["describe", "vm", "-n", "home", "desktop"]),
        &["Run Strategy", "Events:", "WakeOnLanStarted", "node-1"],
    );
    has(
        &run(&["describe", "wolcfg", "default"]),
        &["Discovery Mode"],
    );
    has(
        &run(&["get", "events", "-n", "home"]),
        &["WakeOnLanStarted", "virtualmachine/desktop"],
    );
    has(&run(&["delete", "wolcfg", "default"]), &["deleted"]);
}
