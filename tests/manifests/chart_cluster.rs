//! A real API server takes what the chart renders, and lets `helm test` look at all that it looks at.

use std::{
    fs,
    io::Write as _,
    process::{Command, Stdio},
};

use k8s_openapi::api::{authentication::v1::TokenRequest, core::v1::ServiceAccount};
use kube::{Api, api::PostParams};
use serde_json::{Value, json};

use super::{
    cluster::{may_run, with_kubectl},
    pod,
    rendered::{Objects, chart},
};
use crate::common::{
    envtest::{Envtest, make_namespace},
    installation::json_of,
};

/// Groups that only clusters with other projects serve.
const OF_OTHERS: [&str; 3] = [
    "cert-manager.io",
    "security.openshift.io",
    "monitoring.coreos.com",
];

/// What of it every cluster serves.
fn served(mut objects: Objects) -> Objects {
    objects.0.retain(|object| {
        let version = object["apiVersion"].as_str().unwrap();
        !OF_OTHERS.iter().any(|group| version.starts_with(group))
    });
    objects
}

/// Applies objects, and panics at anything that kubectl says against them.
fn apply(envtest: &Envtest, objects: &Objects, flags: &[&str]) {
    let mut kubectl = with_kubectl(envtest, "kubectl");
    let kubectl = kubectl
        .args(["apply", "--server-side", "--validate=strict", "-f", "-"])
        .args(flags)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut kubectl = kubectl.spawn().unwrap();
    let list = json!({"apiVersion": "v1", "kind": "List", "items": objects.0});
    let mut input = kubectl.stdin.take().unwrap();
    input.write_all(list.to_string().as_bytes()).unwrap();
    drop(input);
    let output = kubectl.wait_with_output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    assert_eq!(errors, "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_server_takes_the_chart_without_a_warning() {
    let Some(envtest) = Envtest::shared() else {
        return;
    };
    let client = envtest.client().await;
    make_namespace(&client, "taken").await;
    for values in [
        "{}",
        "tls: {mode: cert-manager, agentAuth: certificate}\nnetworkPolicy: {enabled: true, agentCIDRs: [10.0.0.0/8]}",
        "metrics: {serviceMonitor: {enabled: true}, agents: {enabled: true}}\nmanager: {legacyPlaintextPort: 9091}",
    ] {
        let Some(rendered) = chart(["lan", "taken"], values) else {
            return;
        };
        apply(envtest, &served(rendered.unwrap()), &["--dry-run=server"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn managers_and_the_test_of_the_chart_keep_the_strictest_standard() {
    let (Some(envtest), Some(rendered)) = (
        Envtest::shared(),
        chart(["lan", "strict"], "networkPolicy: {enabled: true}"),
    ) else {
        return;
    };
    let (client, rendered) = (envtest.client().await, rendered.unwrap());
    let manager = &rendered.only("Deployment")["spec"]["template"]["spec"];
    let check = &rendered.only("Pod")["spec"];
    for pod in [manager, check] {
        assert_eq!(may_run(&client, pod, "restricted").await, Ok(()));
    }
}

/// A kubeconfig by which a program is a service account.
async fn kubeconfig_of(envtest: &Envtest, namespace: &str, account: &str) -> String {
    let api = Api::<ServiceAccount>::namespaced(envtest.client().await, namespace);
    let (params, request) = (PostParams::default(), TokenRequest::default());
    let answer = api.create_token_request(account, &params, &request).await;
    let mut config: Value = serde_yaml::from_str(&envtest.kubeconfig()).unwrap();
    config["users"][0]["user"] = json!({"token": answer.unwrap().status.unwrap().token});
    config.to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn helm_test_may_look_at_everything_but_the_authoritys_secret() {
    let (Some(envtest), Some(rendered)) = (Envtest::shared(), chart(["lan", "tested"], "{}"))
    else {
        return;
    };
    let rendered = rendered.unwrap();
    make_namespace(&envtest.client().await, "tested").await;
    apply(envtest, &served(rendered.clone()), &["--force-conflicts"]);
    let pod = &rendered.only("Pod")["spec"];
    let account = pod["serviceAccountName"].as_str().unwrap();
    let kubeconfig = tempfile::NamedTempFile::new().unwrap();
    let text = kubeconfig_of(envtest, "tested", account).await;
    fs::write(kubeconfig.path(), text).unwrap();
    let mut check = Command::new(env!("CARGO_BIN_EXE_kubevirt-wol"));
    check
        .args(pod::arguments(pod))
        .args(["--manager", "127.0.0.1:1"])
        .env("KUBECONFIG", kubeconfig.path());
    for variable in pod["containers"][0]["env"].as_array().unwrap() {
        let value = variable["value"].as_str().unwrap_or("tested");
        check.env(variable["name"].as_str().unwrap(), value);
    }
    let (report, _) = json_of(check);
    let findings = report["checks"].as_array().unwrap();
    let unseen: Vec<&str> = findings
        .iter()
        .filter(|finding| finding["cause"] == "may-not-look")
        .map(|finding| finding["check"].as_str().unwrap())
        .collect();
    assert_eq!(unseen, ["ca-secret"], "{report:#}");
    // The managers' rights that the chart gives are all that they need.
    for right in ["start", "rights"] {
        let found = findings.iter().find(|finding| finding["check"] == right);
        assert_eq!(found.unwrap()["status"], "ok", "{report:#}");
    }
}
