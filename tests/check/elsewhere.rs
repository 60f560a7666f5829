//! What only the stand-in can be told to do, and what needs no cluster.

use std::path::Path;

use kubevirt_wol::manager::authority::ca::{Ca, to_pem};
use serde_json::{Value, json};

use crate::common::{
    apiserver::{Fault, When},
    cluster::Cluster,
    installation::{SERVICE, command, json_of, run},
    process::free_tcp,
    trust::NAMESPACE,
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_kubevirt-wol");

fn cause(report: &Value) -> &str {
    let checks = report["checks"].as_array().unwrap();
    assert_eq!(checks.len(), 1, "nothing else can be looked at: {report:#}");
    checks[0]["cause"].as_str().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_server_that_cannot_be_asked_is_told_with_what_to_do() {
    let c = Cluster::stand_in(Path::new(PROGRAM)).await;
    let mut nowhere = command(&c, "check", &[]);
    nowhere.env("KUBECONFIG", "/nonexistent/kubeconfig");
    let (report, code) = json_of(nowhere);
    assert_eq!((cause(&report), code), ("no-cluster", Some(1)));
    let server = c.server().unwrap();
    let fault = server.faults().add(When::any(), Fault::unauthorized());
    let (report, code) = json_of(command(&c, "check", &[]));
    assert_eq!((cause(&report), code), ("not-logged-in", Some(1)));
    server.faults().remove(fault);
    server.kill().await;
    let (report, code) = json_of(command(&c, "check", &[]));
    assert_eq!((cause(&report), code), ("no-answer", Some(1)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn that_pods_cannot_be_reached_from_outside_is_no_problem() {
    let c = Cluster::stand_in(Path::new(PROGRAM)).await;
    c.install_crd().await;
    // A real API server takes no endpoint on loopback.
    let nobody = free_tcp();
    let bundle = Ca::generate(
        std::time::SystemTime::now(),
        std::time::Duration::from_secs(86_400),
    );
    let pem = to_pem([&bundle.unwrap().certificate]);
    c.server().unwrap().seed([
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"namespace": NAMESPACE, "name": SERVICE,
                "labels": {"kubernetes.io/service-name": SERVICE}},
            "addressType": "IPv4", "ports": [{"port": nobody.port()}],
            "endpoints": [{"addresses": [nobody.ip()], "conditions": {"ready": true}}],
        }),
        json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"namespace": NAMESPACE, "name": "kubevirt-wol-ca-bundle"},
            "data": {"ca.crt": pem},
        }),
    ]);
    let (report, _) = json_of(command(&c, "check", &[]));
    let checks = report["checks"].as_array().unwrap().iter();
    let connection: Vec<_> = checks.filter(|one| one["check"] == "connection").collect();
    assert_eq!(connection.len(), 1, "{report:#}");
    assert_eq!(connection[0]["cause"], "not-reachable");
    assert_eq!(connection[0]["status"], "unknown");
    let remedy = connection[0]["remedy"].as_str().unwrap();
    assert!(
        remedy.contains("kubectl -n default port-forward"),
        "{remedy}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_that_are_none_are_wrong_usage() {
    let c = Cluster::stand_in(Path::new(PROGRAM)).await;
    let output = run(command(&c, "check", &["--service", "../secrets"]));
    assert_eq!(output.status.code(), Some(2));
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(
        told.contains("--service") && told.contains("lower-case"),
        "{told}"
    );
}
