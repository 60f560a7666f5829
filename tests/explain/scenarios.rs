//! What a person is told, each as: given a cluster, when it is asked about a packet, then this is the
//! answer.

use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};

use crate::common::{
    cluster::{Agent, Cluster, Manager, eventually},
    installation::{command, json_of, run},
    kubevirt::vm::{RunStrategy, vm},
    process::free_udp,
    trust::NAMESPACE,
};

const NS: &str = "home";
const MAC: &str = "52:54:00:00:00:01";
const OTHER: &str = "52:54:00:00:00:02";

/// Definitions, a namespace, a config, a manager, and an agent of which the status speaks.
async fn ready(c: &Cluster, spec: Value) -> (Manager, Agent) {
    c.install_crd().await;
    c.namespace(NS).await;
    c.config("default", spec).await;
    let manager = c.manager(&[]).await;
    let agent = c.agent("node-1", &manager, free_udp());
    eventually("the status speaks of the agent", async || {
        explained(c, &[MAC])["connected"] == 1
    })
    .await;
    (manager, agent)
}

/// The explanation; its exit code has to agree with it.
fn explained(c: &Cluster, args: &[&str]) -> Value {
    let (report, code) = json_of(command(c, "explain", args));
    let expected = i32::from(report["wakes"] == false);
    assert_eq!(code, Some(expected), "{report:#}");
    report
}

/// Expects the answer to be no, with this outcome and these words.
fn refused(c: &Cluster, args: &[&str], outcome: &str, words: &[&str]) -> Value {
    let report = explained(c, args);
    assert_eq!(report["wakes"], false, "{report:#}");
    assert_eq!(report["outcome"], outcome, "{report:#}");
    for word in words {
        assert!(
            report["why"].as_str().unwrap().contains(word),
            "{word}: {report:#}"
        );
    }
    report
}

/// Expects the answer to be yes.
fn wakes(c: &Cluster, args: &[&str]) -> Value {
    let report = explained(c, args);
    assert_eq!(report["wakes"], true, "{report:#}");
    report
}

/// What a config makes of the packet for the first VM.
fn opinion<'a>(report: &'a Value, config: &str) -> &'a Value {
    let mut all = report["vms"][0]["configs"].as_array().unwrap().iter();
    all.find(|one| one["config"] == config)
        .expect("the config is told of")
}

pub(crate) async fn a_vm_that_is_off_would_start_and_one_that_is_on_is_on(c: &Cluster) {
    let (_manager, agent) = ready(c, json!({})).await;
    c.kubevirt.add(&vm(NS, "desktop").mac(MAC).mac(OTHER)).await;
    for subject in [MAC, "5254.0000.0001", "home/desktop", "vm/home/desktop"] {
        let report = wakes(c, &[subject]);
        assert_eq!(report["outcome"], "started", "{subject}: {report:#}");
        assert_eq!(report["why"], "home/desktop is off, and would be started");
        assert_eq!(report["manager"], true);
        assert_eq!(opinion(&report, "default")["letsIn"], true, "{report:#}");
    }
    let report = wakes(c, &["home/desktop"]);
    assert_eq!(
        report["addresses"].as_array().unwrap().len(),
        2,
        "{report:#}"
    );
    let text = run(command(c, "explain", &[MAC]));
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(
        text.starts_with("yes: home/desktop is off, and would be started\n"),
        "{text}"
    );
    assert!(
        text.contains("\n  config    default selects it, and lets the packet in\n"),
        "{text}"
    );
    // Nothing was started by asking.
    assert_eq!(c.kubevirt.codes(NS, "desktop"), [0_u16; 0]);
    agent.hears(MAC);
    c.kubevirt.wait_for_status(NS, "desktop", "Running").await;
    let report = wakes(c, &[MAC]);
    assert_eq!(report["outcome"], "already-on", "{report:#}");
}

pub(crate) async fn what_is_explained_is_what_the_manager_does(c: &Cluster) {
    let (manager, agent) = ready(c, json!({"namespaceSelectors": [NS]})).await;
    c.namespace("lab").await;
    let address = |number: u8| format!("52:54:00:00:01:{number:02x}");
    let add = async |namespace: &str, name: &str, number: u8, strategy: RunStrategy| {
        let vm = vm(namespace, name)
            .mac(&address(number))
            .run_strategy(strategy);
        c.kubevirt.add(&vm).await;
    };
    add(NS, "off", 1, RunStrategy::Manual).await;
    add(NS, "always", 2, RunStrategy::Always).await;
    add(NS, "once", 3, RunStrategy::Once).await;
    add(NS, "twin-1", 4, RunStrategy::Manual).await;
    add(NS, "twin-2", 4, RunStrategy::Manual).await;
    add("lab", "bench", 5, RunStrategy::Manual).await;
    add(NS, "receiver", 6, RunStrategy::WaitAsReceiver).await;
    c.kubevirt.wait_for_status(NS, "always", "Running").await;
    let mut seen = Vec::new();
    for number in 1..=7 {
        let mac = address(number);
        let report = explained(c, &[&mac, "--source", "127.0.0.1", "--interface", "lo"]);
        let outcome = report["outcome"].as_str().unwrap().to_owned();
        let series = format!(r#"kubevirt_wol_wakes_total{{outcome="{outcome}"}}"#);
        let before = manager.metric(&series);
        agent.hears(&mac);
        eventually(&format!("{mac} is answered {outcome}"), async || {
            tokio::time::sleep(Duration::from_millis(20)).await;
            manager.metric(&series) > before
        })
        .await;
        seen.push(outcome);
    }
    let expected = [
        "started",
        "already-on",
        "unsupported",
        "ambiguous",
        "not-selected",
        "unsupported",
        "not-found",
    ];
    assert_eq!(seen, expected);
}

pub(crate) async fn without_a_manager_or_an_agent_nothing_would_wake(c: &Cluster) {
    c.install_crd().await;
    c.namespace(NS).await;
    c.config("default", json!({})).await;
    c.kubevirt.add(&vm(NS, "desktop").mac(MAC)).await;
    crate::common::installation::service(c, false).await;
    let report = explained(c, &[MAC]);
    assert_eq!(
        (&report["wakes"], &report["manager"]),
        (&json!(false), &json!(false))
    );
    let why =
        "no manager is there to take the wake; else: home/desktop is off, and would be started";
    assert_eq!(report["why"], why);
    let _manager = c.manager(&[]).await;
    eventually("only an agent is missing", async || {
        let report = explained(c, &[MAC]);
        report["why"]
            .as_str()
            .unwrap()
            .starts_with("no agent has a session")
    })
    .await;
}

pub(crate) async fn two_vms_with_one_address_are_both_named(c: &Cluster) {
    let _running = ready(c, json!({})).await;
    c.kubevirt.add(&vm(NS, "desktop").mac(MAC)).await;
    c.kubevirt.add(&vm(NS, "twin").mac(MAC)).await;
    let report = refused(c, &[MAC], "ambiguous", &["home/desktop", "home/twin"]);
    assert_eq!(report["vms"].as_array().unwrap().len(), 2, "{report:#}");
    refused(
        c,
        &["home/twin"],
        "ambiguous",
        &["home/desktop", "home/twin"],
    );
    // Naming the one that is meant helps it, and not the other.
    let mapping = json!([{"macAddress": MAC, "vmName": "twin", "namespace": NS}]);
    c.config("default", json!({"explicitMappings": mapping}))
        .await;
    wakes(c, &["home/twin"]);
    let report = explained(c, &["home/desktop"]);
    assert_eq!(report["wakes"], false, "{report:#}");
    assert_eq!(report["addresses"][0]["vm"], "home/twin", "{report:#}");
}

pub(crate) async fn it_is_told_which_config_lets_a_packet_in_and_why_others_do_not(c: &Cluster) {
    let _running = ready(c, json!({"namespaceSelectors": ["elsewhere"]})).await;
    c.kubevirt.add(&vm(NS, "desktop").mac(MAC)).await;
    refused(c, &[MAC], "not-selected", &["no WolConfig selects it"]);
    c.config(
        "lab",
        json!({"sourceRanges": ["10.20.0.0/16"], "interfaces": ["br*"]}),
    )
    .await;
    let report = wakes(c, &[MAC]);
    assert_eq!(opinion(&report, "default")["selects"], false, "{report:#}");
    for (args, lets_in) in [
        (["--source", "10.20.0.7", "--interface", "br0"], true),
        (["--source", "10.21.0.7", "--interface", "br0"], false),
        (["--source", "10.20.0.7", "--interface", "eth0"], false),
    ] {
        let report = explained(c, &[&[MAC][..], &args].concat());
        assert_eq!(report["wakes"], lets_in, "{report:#}");
        assert_eq!(opinion(&report, "lab")["letsIn"], lets_in, "{report:#}");
        assert_eq!(opinion(&report, "lab")["selects"], true, "{report:#}");
        let told = opinion(&report, "lab")["why"].as_str().unwrap();
        assert_eq!(told.contains("sourceRanges"), !lets_in, "{told}");
    }
}

pub(crate) async fn the_password_in_the_packet_has_to_be_the_vms(c: &Cluster) {
    let secret = "kubevirt-wol-secureon";
    let passwords = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": secret},
        "stringData": {"home.desktop": "10.0.0.1"},
    });
    let secrets = Api::<Secret>::namespaced(c.client.clone(), NAMESPACE);
    let params = PatchParams::apply("test").force();
    let applied = secrets
        .patch(secret, &params, &Patch::Apply(&passwords))
        .await;
    applied.expect("the Secret is taken");
    let _running = ready(c, json!({"secureOn": {"secretName": secret}})).await;
    c.kubevirt.add(&vm(NS, "desktop").mac(MAC)).await;
    c.kubevirt.add(&vm(NS, "other").mac(OTHER)).await;
    refused(c, &[MAC], "wrong-password", &["the packet has none"]);
    refused(
        c,
        &[MAC, "--password", "10.0.0.2"],
        "wrong-password",
        &["is wrong"],
    );
    refused(
        c,
        &[OTHER, "--password", "10.0.0.1"],
        "wrong-password",
        &["has none for it"],
    );
    let report = wakes(c, &[MAC, "--password", "10.0.0.1"]);
    assert!(
        !report.to_string().contains("10.0.0.1"),
        "passwords are not shown: {report:#}"
    );
}

pub(crate) async fn why_no_packet_can_name_a_vm_is_told(c: &Cluster) {
    let _running = ready(c, json!({})).await;
    c.kubevirt
        .add(&vm(NS, "bare").interface_without_mac())
        .await;
    c.kubevirt
        .add(&vm(NS, "group").mac("01:00:5e:00:00:01"))
        .await;
    refused(
        c,
        &["home/nope"],
        "not-found",
        &["there is no virtual machine home/nope"],
    );
    refused(
        c,
        &["home/bare"],
        "not-found",
        &["no MAC address in its spec"],
    );
    refused(c, &["home/group"], "not-found", &["01:00:5e:00:00:01"]);
    let mapping = json!([{"macAddress": OTHER, "vmName": "nope", "namespace": NS}]);
    c.config("default", json!({"explicitMappings": mapping}))
        .await;
    refused(
        c,
        &["home/nope"],
        "not-found",
        &[OTHER, "home/nope, which does not exist"],
    );
    c.delete_config("default").await;
    let report = explained(c, &[MAC]);
    let notes = report["notes"].to_string();
    assert!(notes.contains("there is no WolConfig"), "{notes}");
}

pub(crate) async fn a_port_where_no_agent_listens_is_noted(c: &Cluster) {
    let _running = ready(c, json!({"wolPorts": [9, 4009]})).await;
    c.kubevirt.add(&vm(NS, "desktop").mac(MAC)).await;
    let report = wakes(c, &[MAC, "--port", "4009"]);
    assert_eq!(
        (&report["ports"], &report["notes"]),
        (&json!([9, 4009]), &json!([]))
    );
    let report = wakes(c, &[MAC, "--port", "7"]);
    let notes = report["notes"].to_string();
    assert!(
        notes.contains("UDP port 7") && notes.contains("packet socket"),
        "{notes}"
    );
}
