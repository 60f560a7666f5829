//! What only the stand-in can be told to do, and what needs no cluster.

use std::path::Path;

use serde_json::{Value, json};

use crate::common::{
    apiserver::{Failure, Fault, When},
    cluster::Cluster,
    installation::{command, json_of, run},
    kubevirt::vm::vm,
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_kubevirt-wol");
const MAC: &str = "52:54:00:00:00:01";

fn forbidden() -> Fault {
    Fault::Answer(Failure::new(403, "Forbidden", "no", Value::Null))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_not_read_the_passwords_is_told_that_nobody_can_know() {
    let c = Cluster::stand_in(Path::new(PROGRAM)).await;
    c.install_crd().await;
    c.namespace("home").await;
    let secret = "kubevirt-wol-secureon";
    c.config("default", json!({"secureOn": {"secretName": secret}}))
        .await;
    c.kubevirt.add(&vm("home", "desktop").mac(MAC)).await;
    let server = c.server().unwrap();
    server.faults().add(When::path("secrets"), forbidden());
    let (report, code) = json_of(command(&c, "explain", &[MAC, "--password", "10.0.0.1"]));
    assert_eq!(code, Some(1), "{report:#}");
    assert_eq!(
        (&report["wakes"], &report["outcome"]),
        (&json!(false), &Value::Null)
    );
    let notes = report["notes"].to_string();
    assert!(
        notes.contains("needs the right to list secrets in namespace default"),
        "{notes}"
    );
    let config = &report["vms"][0]["configs"][0];
    assert_eq!(
        (&config["selects"], &config["letsIn"]),
        (&json!(true), &Value::Null)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_look_at_the_vms_there_is_no_answer() {
    let c = Cluster::stand_in(Path::new(PROGRAM)).await;
    c.install_crd().await;
    let server = c.server().unwrap();
    server
        .faults()
        .add(When::path("virtualmachines"), forbidden());
    let output = run(command(&c, "explain", &[MAC]));
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(
        told.contains("needs the right to list virtualmachines.kubevirt.io"),
        "{told}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_names_nothing_is_wrong_usage() {
    let c = Cluster::stand_in(Path::new(PROGRAM)).await;
    for (args, named) in [
        (&["desktop"][..], "NAMESPACE/NAME"),
        (&[MAC, "--source", "here"], "--source"),
        (&[MAC, "--port", "0"], "--port"),
        (&[MAC, "--password", "secret"], "192.168.1.1"),
    ] {
        let output = run(command(&c, "explain", args));
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(told.contains(named), "{told}");
    }
}
