//! The simulated KubeVirt answers and acts as the real one does, which the other tests rely on.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod common;

use std::time::Duration;

use common::{
    apiserver::ApiServer,
    envtest::{Envtest, make_namespace},
    kubevirt::{
        Fault, KubeVirt, Phase, Speed,
        vm::{RunStrategy, vm},
    },
};
use http::Request;
use kube::Client;
use serde_json::{Value, json};

/// An answer as it came over the wire.
#[derive(Debug)]
struct Wire {
    code: u16,
    media_type: Option<String>,
    body: String,
}

impl Wire {
    fn message(&self) -> String {
        let status: Value = serde_json::from_str(&self.body).unwrap_or_default();
        status["message"].as_str().unwrap_or(&self.body).to_owned()
    }
}

async fn call(client: &Client, method: &str, name: &str, accept: Option<&str>, body: &str) -> Wire {
    let uri =
        format!("/apis/subresources.kubevirt.io/v1/namespaces/sim/virtualmachines/{name}/start");
    let mut request = Request::builder().method(method).uri(uri);
    if let Some(accept) = accept {
        request = request.header("accept", accept);
    }
    let request = request.body(body.as_bytes().to_vec().into()).unwrap();
    let answer = client.send(request).await.unwrap();
    let media_type = answer.headers().get("content-type");
    Wire {
        code: answer.status().as_u16(),
        media_type: media_type.map(|v| v.to_str().unwrap().to_owned()),
        body: String::from_utf8_lossy(&answer.into_body().collect_bytes().await.unwrap())
            .into_owned(),
    }
}

async fn start(client: &Client, name: &str) -> Wire {
    call(client, "PUT", name, None, "").await
}

async fn refused(client: &Client, name: &str, code: u16, words: &str) {
    let answer = start(client, name).await;
    assert_eq!(answer.code, code, "{name}: {answer:?}");
    assert!(answer.message().contains(words), "{name}: {answer:?}");
    assert_eq!(answer.media_type.as_deref(), Some("application/json"));
}

async fn accepted(client: &Client, name: &str) {
    let answer = start(client, name).await;
    assert_eq!(answer.code, 202, "{name}: {answer:?}");
    assert_eq!(
        (answer.media_type, answer.body.as_str()),
        (None, ""),
        "{name}"
    );
}

#[tokio::test]
async fn on_a_real_api_server() {
    let Some(envtest) = Envtest::shared() else {
        return;
    };
    let client = envtest.client().await;
    let kubevirt = KubeVirt::start(client.clone(), Speed::default()).await;
    envtest.fresh().await;
    unknown_group(&client).await;
    kubevirt.register().await;
    behaves(&kubevirt, &client).await;
    let start = kubevirt.starts().pop().unwrap();
    assert_eq!(start.user.as_deref(), Some("admin"));
    kubevirt.unregister().await;
    kubevirt.uninstall().await;
}

#[tokio::test]
async fn on_the_stand_in() {
    let server = ApiServer::start().await;
    let mut config = kube::Config::new(server.url().parse().unwrap());
    // What the server says is what is looked at.
    config.default_retry = false;
    let client = Client::try_from(config).unwrap();
    let kubevirt = KubeVirt::start(client.clone(), Speed::default()).await;
    unknown_group(&client).await;
    server.aggregate("subresources.kubevirt.io", "v1", kubevirt.router());
    behaves(&kubevirt, &client).await;
}

/// Before virt-api is registered.
async fn unknown_group(client: &Client) {
    let answer = start(client, "absent").await;
    assert_eq!(
        (answer.code, answer.body.as_str()),
        (404, "404 page not found\n")
    );
}

async fn behaves(kubevirt: &KubeVirt, client: &Client) {
    make_namespace(client, "sim").await;
    each_strategy(kubevirt, client).await;
    wire_oddities(kubevirt, client).await;
    refusals(kubevirt, client).await;
    power_off(kubevirt, client).await;
    stopping(kubevirt, client).await;
    race(kubevirt, client).await;
    faults(kubevirt, client).await;
}

async fn each_strategy(kubevirt: &KubeVirt, client: &Client) {
    use RunStrategy::{Halted, Manual, Once, RerunOnFailure, WaitAsReceiver};
    for strategy in [Halted, Manual, RerunOnFailure] {
        let name = strategy.to_string().to_lowercase();
        kubevirt
            .add(
                &vm("sim", &name)
                    .mac("52:54:00:00:00:01")
                    .run_strategy(strategy),
            )
            .await;
        let off = kubevirt.get("sim", &name).await;
        assert_eq!(off["status"]["printableStatus"], "Stopped", "{off}");
        assert_eq!(kubevirt.boots("sim", &name), 0);
        accepted(client, &name).await;
        let on = kubevirt.wait_for_status("sim", &name, "Running").await;
        let expected = if strategy == Halted {
            "Always".into()
        } else {
            strategy.to_string()
        };
        assert_eq!(on["spec"]["runStrategy"], expected);
        assert_eq!(on["status"].get("stateChangeRequests"), None, "{on}");
        assert_eq!(kubevirt.boots("sim", &name), 1);
        refused(client, &name, 409, "VM is already running").await;
    }
    kubevirt.add(&vm("sim", "running").running(false)).await;
    accepted(client, "running").await;
    let on = kubevirt.wait_for_status("sim", "running", "Running").await;
    assert_eq!(on["spec"]["running"], true);

    kubevirt.add(&vm("sim", "once").run_strategy(Once)).await;
    refused(
        client,
        "once",
        409,
        "Once does not support manual start requests",
    )
    .await;
    kubevirt
        .add(&vm("sim", "receiver").run_strategy(WaitAsReceiver))
        .await;
    accepted(client, "receiver").await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(
        kubevirt.boots("sim", "receiver"),
        0,
        "accepted without effect"
    );

    kubevirt
        .create(&vm("sim", "auto").run_strategy(RerunOnFailure))
        .await;
    kubevirt.wait_for_status("sim", "auto", "Running").await;
}

async fn wire_oddities(kubevirt: &KubeVirt, client: &Client) {
    kubevirt.add(&vm("sim", "wire")).await;
    for body in ["", "{}", "null", "unknown: field", "{\"paused\": false}"] {
        let answer = call(client, "PUT", "nobody", Some("*/*"), body).await;
        assert_eq!(answer.code, 404, "{body}: {answer:?}");
        assert_eq!(
            answer.message(),
            "virtualmachine.kubevirt.io \"nobody\" not found"
        );
    }
    let answer = call(client, "POST", "wire", None, "").await;
    assert_eq!(answer.code, 405, "{answer:?}");
    let answer = call(client, "PUT", "wire", Some("application/json"), "").await;
    assert_eq!(answer.code, 406, "{answer:?}");
    let answer = call(client, "PUT", "wire", None, "[}").await;
    assert_eq!(answer.code, 400, "{answer:?}");
    assert!(
        answer
            .message()
            .contains("Can not unmarshal Request body to struct")
    );
    let answer = call(client, "PUT", "wire", Some("application/json, */*"), "{}").await;
    assert_eq!(answer.code, 202, "{answer:?}");
    assert_eq!(kubevirt.starts().pop().unwrap().vm.name, "wire");
}

#[allow(clippy::too_many_lines, reason = "one table")]
async fn refusals(kubevirt: &KubeVirt, client: &Client) {
    use RunStrategy::{Halted, Manual};
    for (name, field, words) in [
        (
            "snap",
            "snapshotInProgress",
            "Cannot update vm running state until snapshot \"s\" completes",
        ),
        (
            "rest",
            "restoreInProgress",
            "Cannot update VM runStrategy until restore \"s\" completes",
        ),
    ] {
        kubevirt.add(&vm("sim", name).run_strategy(Halted)).await;
        kubevirt.edit_status("sim", name, json!({field: "s"})).await;
        refused(client, name, 500, words).await;
        kubevirt
            .edit_status("sim", name, json!({field: null}))
            .await;
        accepted(client, name).await;
    }
    kubevirt
        .add(&vm("sim", "repair").run_strategy(Manual))
        .await;
    let broken = json!([{"type": "ManualRecoveryRequired", "status": "True"}]);
    kubevirt
        .edit_status("sim", "repair", json!({"conditions": broken}))
        .await;
    refused(client, "repair", 409, "VM recovery required").await;
    second_starts(kubevirt, client).await;
    deleted(kubevirt, client).await;
}

/// What a second start is answered before the controller has acted on the first.
async fn second_starts(kubevirt: &KubeVirt, client: &Client) {
    use RunStrategy::{Halted, Manual};
    kubevirt.stop_controller(true);
    let name = "twice";
    kubevirt.create(&vm("sim", name).run_strategy(Manual)).await;
    accepted(client, name).await;
    refused(
        client,
        name,
        500,
        "unable to complete request: stop/start already underway",
    )
    .await;
    let name = "again";
    kubevirt.create(&vm("sim", name).run_strategy(Halted)).await;
    accepted(client, name).await;
    refused(
        client,
        name,
        409,
        "Always does not support manual start requests",
    )
    .await;
    kubevirt.stop_controller(false);
}

/// A VM that is being deleted is started all the same.
async fn deleted(kubevirt: &KubeVirt, client: &Client) {
    kubevirt
        .add(&vm("sim", "going").finalizer("example.com/wait"))
        .await;
    kubevirt.delete("sim", "going").await;
    kubevirt
        .wait_for_status("sim", "going", "Terminating")
        .await;
    accepted(client, "going").await;
    kubevirt
        .edit("sim", "going", json!({"metadata": {"finalizers": null}}))
        .await;
}

/// What the guest's own power-off leads to.
async fn power_off(kubevirt: &KubeVirt, client: &Client) {
    for (name, then) in [
        ("halted", "Running"),
        ("manual", "Stopped"),
        ("rerunonfailure", "Stopped"),
    ] {
        kubevirt.guest_ends("sim", name, Phase::Succeeded);
        let boots = if then == "Running" { 2 } else { 1 };
        let settled = kubevirt
            .wait_for("sim", name, then, |vm| {
                vm["status"]["printableStatus"] == then && kubevirt.boots("sim", name) == boots
            })
            .await;
        if name == "manual" {
            assert_eq!(
                settled["status"]["created"], true,
                "the finished instance is kept"
            );
        }
    }
    kubevirt
        .wait_for("sim", "rerunonfailure", "no instance", |vm| {
            vm["status"]["created"] == false
        })
        .await;
    for name in ["manual", "rerunonfailure"] {
        accepted(client, name).await;
        kubevirt.wait_for_status("sim", name, "Running").await;
        assert_eq!(kubevirt.boots("sim", name), 2);
    }
    kubevirt.guest_ends("sim", "rerunonfailure", Phase::Failed);
    kubevirt
        .wait_for("sim", "rerunonfailure", "a restart", |_| {
            kubevirt.boots("sim", "rerunonfailure") == 3
        })
        .await;
}

async fn stopping(kubevirt: &KubeVirt, client: &Client) {
    for name in ["manual", "halted"] {
        kubevirt.wait_for_status("sim", name, "Running").await;
        kubevirt.hold_at("sim", name, "Stopping");
        kubevirt.stop("sim", name).await;
        kubevirt.wait_for_status("sim", name, "Stopping").await;
        refused(client, name, 409, "VM is already running").await;
        kubevirt.release("sim", name);
        kubevirt
            .wait_for("sim", name, "no instance", |vm| {
                vm["status"]["created"] == false
            })
            .await;
        accepted(client, name).await;
        kubevirt.wait_for_status("sim", name, "Running").await;
    }
}

/// Of many at once one gets through, and the VM starts once.
async fn race(kubevirt: &KubeVirt, client: &Client) {
    kubevirt
        .add(&vm("sim", "race").run_strategy(RunStrategy::Halted))
        .await;
    let answers = futures::future::join_all((0..8).map(|_| start(client, "race"))).await;
    let codes: Vec<u16> = answers.iter().map(|answer| answer.code).collect();
    assert_eq!(
        codes.iter().filter(|code| **code == 202).count(),
        1,
        "{answers:?}"
    );
    assert!(
        codes.iter().all(|code| matches!(code, 202 | 409 | 500)),
        "{answers:?}"
    );
    kubevirt.wait_for_status("sim", "race", "Running").await;
    assert_eq!(kubevirt.boots("sim", "race"), 1);
}

async fn faults(kubevirt: &KubeVirt, client: &Client) {
    kubevirt.add(&vm("sim", "faulty")).await;
    kubevirt.fault_once(Fault::Refuse(429, "slow down".into()));
    refused(client, "faulty", 429, "slow down").await;
    kubevirt.fault_once(Fault::Denied);
    assert_eq!(start(client, "faulty").await.code, 401);
    kubevirt.fault(Some(Fault::Away));
    let answer = start(client, "faulty").await;
    assert_eq!(answer.code, 503, "{answer:?}");
    assert!(answer.body.starts_with("error trying to reach service:"));
    assert_eq!(kubevirt.boots("sim", "faulty"), 0);
    // The caller gives up, and the VM starts all the same.
    kubevirt.fault(Some(Fault::Hang));
    let patience = Duration::from_millis(200);
    let answer = tokio::time::timeout(patience, start(client, "faulty")).await;
    assert!(answer.is_err(), "{answer:?}");
    kubevirt.fault(None);
    kubevirt.wait_for_status("sim", "faulty", "Running").await;

    kubevirt.add(&vm("sim", "silent")).await;
    kubevirt.fault(Some(Fault::Swallow));
    let answer = tokio::time::timeout(patience, start(client, "silent")).await;
    assert!(answer.is_err(), "{answer:?}");
    kubevirt.wait_for_status("sim", "silent", "Running").await;
    assert_eq!(kubevirt.codes("sim", "silent"), [202]);
    kubevirt.fault(None);
}
