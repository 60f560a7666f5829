//! The parts of an installation, each missing or broken.

use std::time::{Duration, SystemTime};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Patch, PatchParams};
use kubevirt_wol::manager::authority::ca::{Ca, to_pem};
use serde_json::json;

use crate::{
    common::{
        cluster::{Cluster, INSECURE, eventually},
        installation::{self, DAEMON_SET, DEPLOYMENT, SERVICE},
        process::{free_tcp, free_udp},
        trust::{BUNDLE, NAMESPACE, Security},
    },
    found::Found,
    scenarios::prepared,
};

pub(crate) async fn managers_that_are_missing_or_not_ready_are_told(c: &Cluster) {
    prepared(c).await;
    installation::install(c, 1).await;
    for (ready, status, cause) in [
        (1, "warning", "managers-not-ready"),
        (0, "problem", "no-manager-ready"),
    ] {
        installation::deployment(c, ready).await;
        let found = Found::by(c, &[]);
        assert_eq!(found.of(cause)["status"], status, "{:#}", found.report);
        let seen = found.of(cause)["seen"].as_str().unwrap();
        assert_eq!(seen, format!("{ready} of 2 managers are ready"));
    }
    installation::remove(c, "apps/v1", "Deployment", DEPLOYMENT).await;
    Found::by(c, &[]).is_problem("deployment-missing", &[NAMESPACE, "--namespace"]);
    assert!(Found::by(c, &[]).has("no-leader"));
}

pub(crate) async fn a_service_that_leads_nowhere_is_told(c: &Cluster) {
    prepared(c).await;
    installation::service(c, false).await;
    Found::by(c, &[]).is_problem("no-endpoint-ready", &["describe service kubevirt-wol-grpc"]);
    installation::remove(c, "v1", "Service", SERVICE).await;
    Found::by(c, &[]).is_problem("service-missing", &[SERVICE, "--service"]);
}

pub(crate) async fn certificates_that_are_missing_or_expired_are_told(c: &Cluster) {
    prepared(c).await;
    let Security::Own(trust) = &c.security else {
        unreachable!("the tests' managers keep a CA");
    };
    let bundles = trust.api::<ConfigMap>();
    let put = async |pem: Option<&str>| {
        let patch = json!({"data": {"ca.crt": pem}});
        let (params, patch) = (PatchParams::default(), Patch::Merge(&patch));
        let patched = bundles.patch(BUNDLE, &params, &patch).await;
        patched.expect("the bundle is taken");
    };
    trust.remove_ca().await;
    let found = Found::by(c, &[]);
    found.is_problem("bundle-missing", &["deploy/base/trust.yaml"]);
    found.is_problem("secret-missing", &["deploy/base/trust.yaml"]);
    trust.install_ca().await;
    Found::by(c, &[]).is_problem(
        "bundle-empty",
        &["logs deploy/kubevirt-wol-controller-manager"],
    );
    put(Some("nonsense")).await;
    Found::by(c, &[]).is_problem("bundle-unreadable", &[]);
    let day = Duration::from_secs(86_400);
    let old = |ago: u32| Ca::generate(SystemTime::now() - day * ago, day * 365).unwrap();
    put(Some(&to_pem([&old(400).certificate]))).await;
    Found::by(c, &[]).is_problem("bundle-expired", &["have expired"]);
    put(Some(&to_pem([
        &old(400).certificate,
        &old(355).certificate,
    ])))
    .await;
    let found = Found::by(c, &[]);
    assert_eq!(found.of("bundle-expiring")["status"], "warning");
    let seen = found.of("bundle-expiring")["seen"].as_str().unwrap();
    assert!(seen.ends_with("holds for 9 days"), "{seen}");
    put(None).await;
}

pub(crate) async fn a_manager_that_agents_would_not_trust_is_told(c: &Cluster) {
    prepared(c).await;
    let nobody = free_tcp();
    let manager = c.manager(&[]).await;
    eventually("the CA is there", async || {
        Found::with(c, &manager).about("connection")[0]["status"] == "ok"
    })
    .await;
    // One that speaks no TLS.
    let plain = c.manager(&[INSECURE, "--namespace", "nowhere"]).await;
    let found = Found::with(c, &plain);
    found.is_problem("not-trusted", &[&plain.grpc.to_string()]);
    // One whose CA is another.
    let file = tempfile::NamedTempFile::new().unwrap();
    let other = Ca::generate(SystemTime::now(), Duration::from_secs(86_400)).unwrap();
    std::fs::write(file.path(), to_pem([&other.certificate])).unwrap();
    let (address, ca) = (manager.grpc.to_string(), file.path().to_str().unwrap());
    let found = Found::by(c, &["--manager", &address, "--ca-file", ca]);
    found.is_problem("not-trusted", &["invalid peer certificate"]);
    assert!(found.about("ca-bundle").is_empty(), "{:#}", found.report);
    // One that is not there.
    let found = Found::by(c, &["--manager", &nobody.to_string()]);
    found.is_problem("not-reached", &[&nobody.to_string(), "NetworkPolicy"]);
}

pub(crate) async fn agents_that_are_missing_are_told(c: &Cluster) {
    prepared(c).await;
    let manager = c.manager(&[]).await;
    for (desired, ready, status, cause) in [
        (0, 0, "problem", "no-nodes"),
        (3, 0, "problem", "no-agent-ready"),
        (3, 2, "warning", "agents-not-ready"),
    ] {
        installation::daemon_set(c, desired, ready).await;
        let found = Found::with(c, &manager);
        assert_eq!(found.of(cause)["status"], status, "{:#}", found.report);
    }
    let _agent = c.agent("node-1", &manager, free_udp());
    eventually("it is told how many have a session", async || {
        let found = Found::with(c, &manager);
        let seen = "the agents of 1 of 3 nodes have a session";
        found.has("sessions-missing") && found.of("sessions-missing")["seen"] == seen
    })
    .await;
    installation::remove(c, "apps/v1", "DaemonSet", DAEMON_SET).await;
    Found::with(c, &manager).is_problem("daemon-set-missing", &["--agent-daemon-set"]);
}
