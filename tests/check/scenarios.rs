//! What an admin is told, each as: given an installation, when it is checked, then this is found.

use k8s_openapi::{
    api::rbac::v1::ClusterRole,
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use kubevirt_wol::manager::rights::MANAGER;
use serde_json::{Value, json};

use crate::{
    common::{
        apiserver::{Failure, Fault, When},
        cluster::{ApiBackend, Cluster, eventually},
        installation::{self, command, json_of},
        kubevirt::vm::{RunStrategy, vm},
        process::free_udp,
        rights,
        trust::BUNDLE,
    },
    found::Found,
};

pub(crate) use crate::parts::*;

const NS: &str = "home";
const MAC: &str = "52:54:00:00:00:01";

/// Definitions, a namespace and a config.
pub(crate) async fn prepared(c: &Cluster) {
    c.install_crd().await;
    c.namespace(NS).await;
    c.config("default", json!({})).await;
}

pub(crate) async fn where_everything_is_as_it_should_be_no_problem_is_found(c: &Cluster) {
    prepared(c).await;
    c.kubevirt.add(&vm(NS, "desktop").mac(MAC)).await;
    let manager = c.manager(&[]).await;
    installation::install(c, 1).await;
    let port = free_udp();
    c.config("default", json!({"wolPort": port})).await;
    let _agent = c.agent("node-1", &manager, port);
    eventually("nothing is wrong", async || {
        let found = Found::with(c, &manager);
        found.code == Some(0) && found.report["warnings"] == 0
    })
    .await;
    let found = Found::with(c, &manager);
    assert_eq!(found.code, Some(0), "{:#}", found.report);
    for check in kubevirt_wol::check::Check::ALL {
        let word = kubevirt_wol::telemetry::Word(check).to_string();
        let about = found.about(&word);
        assert!(
            !about.is_empty(),
            "{word} was not looked at: {:#}",
            found.report
        );
        for one in about {
            assert_eq!(one["status"], "ok", "{one:#}");
        }
    }
    let address = manager.grpc.to_string();
    let connection = found.about("connection")[0]["seen"].as_str().unwrap();
    assert!(
        connection.contains(&address) && connection.contains("6 d"),
        "{connection}"
    );
    // For people, the same in lines.
    let mut text = command(c, "check", &["--manager", &address]);
    text.arg("--ca-bundle").arg(BUNDLE);
    let output = installation::run(text);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.starts_with("ok       api"), "{text}");
    assert!(
        text.ends_with("0 problems, 0 warnings, 0 could not be looked at\n"),
        "{text}"
    );
    // What is worth a look and stops nobody is no failure.
    installation::deployment(c, 1).await;
    let found = Found::with(c, &manager);
    assert_eq!(found.of("managers-not-ready")["status"], "warning");
    assert_eq!(
        (found.code, &found.report["warnings"]),
        (Some(0), &json!(1))
    );
}

pub(crate) async fn a_missing_definition_is_a_problem_and_a_differing_one_a_warning(c: &Cluster) {
    c.remove_crd().await;
    Found::by(c, &[]).is_problem("crd-missing", &["kubevirt-wol crd | kubectl apply -f -"]);
    c.install_crd().await;
    let api = Api::<CustomResourceDefinition>::all(c.client.clone());
    let mut older = json!(kubevirt_wol::crd::definition());
    let name = older["metadata"]["name"].as_str().unwrap().to_owned();
    let spec = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties";
    let fields = older.pointer_mut(spec).unwrap().as_object_mut().unwrap();
    fields.remove("wakePaused").expect("it has this field");
    older["apiVersion"] = "apiextensions.k8s.io/v1".into();
    older["kind"] = "CustomResourceDefinition".into();
    let params = PatchParams::apply("test").force();
    let applied = api.patch(&name, &params, &Patch::Apply(&older)).await;
    applied.expect("the definition is taken");
    let found = Found::by(c, &[]);
    let finding = found.of("crd-differs");
    assert_eq!(finding["status"], "warning", "{finding:#}");
    let seen = finding["seen"].as_str().unwrap();
    assert!(
        seen.ends_with("properties.spec.properties.wakePaused"),
        "{seen}"
    );
    c.install_crd().await;
    let found = Found::by(c, &[]);
    assert_eq!(found.about("crd")[0]["status"], "ok", "{:#}", found.report);
}

pub(crate) async fn without_kubevirt_nothing_can_start(c: &Cluster) {
    prepared(c).await;
    c.virt_api_absent(true).await;
    eventually("virt-api is gone", async || {
        Found::by(c, &[]).has("start-api-missing")
    })
    .await;
    Found::by(c, &[]).is_problem("start-api-missing", &["virt-api"]);
    c.kubevirt.uninstall().await;
    eventually("KubeVirt is gone", async || {
        Found::by(c, &[]).has("kubevirt-missing")
    })
    .await;
    Found::by(c, &[]).is_problem("kubevirt-missing", &["install KubeVirt"]);
    c.kubevirt.install().await;
    c.virt_api_absent(false).await;
    eventually("KubeVirt is back", async || {
        Found::by(c, &[]).about("kubevirt")[0]["status"] == "ok"
    })
    .await;
}

/// Takes the right to start VMs from the managers.
async fn take_start(c: &Cluster) {
    let server = match &c.api {
        ApiBackend::StandIn(server) => server,
        ApiBackend::Real(_) => {
            let api = Api::<ClusterRole>::all(c.client.clone());
            let mut role = api.get("kubevirt-wol-manager").await.unwrap();
            let rules = role.rules.as_mut().unwrap();
            rules.retain(|rule| {
                let resources = rule.resources.iter().flatten();
                !resources
                    .into_iter()
                    .any(|it| it == "virtualmachines/start")
            });
            api.replace(
                "kubevirt-wol-manager",
                &kube::api::PostParams::default(),
                &role,
            )
            .await
            .unwrap();
            return;
        }
    };
    let start = ("update".to_owned(), "virtualmachines/start".to_owned());
    server.set(|settings| settings.denied.push(start));
}

pub(crate) async fn a_right_that_managers_lack_is_named(c: &Cluster) {
    prepared(c).await;
    installation::install(c, 1).await;
    take_start(c).await;
    eventually("it is noticed", async || {
        Found::by(c, &[]).has("start-forbidden")
    })
    .await;
    let found = Found::by(c, &[]);
    let seen = "update virtualmachines/start.subresources.kubevirt.io";
    found.is_problem("start-forbidden", &[seen, "deploy/base/rbac.yaml"]);
    assert_eq!(found.about("rights").len(), 1, "{:#}", found.report);
    if let ApiBackend::Real(envtest) = &c.api {
        assert_eq!(
            found.about("rights")[0]["status"],
            "ok",
            "{:#}",
            found.report
        );
        rights::of_manager(&c.client, &envtest.kubeconfig()).await;
    }
}

pub(crate) async fn what_one_may_not_look_at_is_told_and_the_rest_is_looked_at(c: &Cluster) {
    prepared(c).await;
    installation::install(c, 1).await;
    let manager = c.manager(&[]).await;
    eventually("the CA is there", async || {
        Found::by(c, &[]).about("ca-bundle")[0]["status"] == "ok"
    })
    .await;
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut faults = Vec::new();
    let mut command = command(c, "check", &["--manager", &manager.grpc.to_string()]);
    match &c.api {
        // As in the pod of a manager, which may do no more than managers may.
        ApiBackend::Real(envtest) => {
            let account = rights::by_account(&c.client, &envtest.kubeconfig(), MANAGER).await;
            std::fs::write(file.path(), account).unwrap();
            command.env("KUBECONFIG", file.path());
        }
        ApiBackend::StandIn(server) => {
            for kind in [
                "deployments",
                "services/",
                "endpointslices",
                "customresourcedefinitions",
            ] {
                let forbidden = Failure::new(403, "Forbidden", "no", Value::Null);
                let fault = Fault::Answer(forbidden);
                faults.push(server.faults().add(When::path(kind), fault));
            }
        }
    }
    let (report, code) = json_of(command);
    let found = Found { report, code };
    for (check, right) in [
        ("crd", "get customresourcedefinitions.apiextensions.k8s.io"),
        ("managers", "get deployments.apps in namespace default"),
        ("service", "get services in namespace default"),
    ] {
        let finding = found.about(check)[0];
        assert_eq!(finding["status"], "unknown", "{finding:#}");
        assert_eq!(finding["cause"], "may-not-look", "{finding:#}");
        assert!(
            finding["seen"].as_str().unwrap().contains(right),
            "{finding:#}"
        );
    }
    for check in [
        "kubevirt",
        "start",
        "rights",
        "ca-bundle",
        "ca-secret",
        "connection",
        "configs",
    ] {
        let finding = found.about(check)[0];
        assert_eq!(finding["status"], "ok", "{finding:#}");
    }
}

pub(crate) async fn without_a_config_nothing_is_wakeable(c: &Cluster) {
    c.install_crd().await;
    let found = Found::by(c, &[]);
    found.is_problem("no-config", &["deploy/samples/wol_v1beta1_wolconfig.yaml"]);
    c.config("default", json!({})).await;
    let found = Found::by(c, &[]);
    assert_eq!(found.of("status-outdated")["status"], "warning");
    assert!(!found.has("no-config"));
}

pub(crate) async fn what_a_status_says_is_told_with_what_helps(c: &Cluster) {
    prepared(c).await;
    c.kubevirt.add(&vm(NS, "desktop").mac(MAC)).await;
    c.kubevirt.add(&vm(NS, "twin").mac(MAC)).await;
    let always = vm(NS, "server").mac("52:54:00:00:00:02");
    c.kubevirt
        .add(&always.run_strategy(RunStrategy::Always))
        .await;
    c.config("locked", json!({"secureOn": {"secretName": "nobodys"}}))
        .await;
    let manager = c.manager(&[]).await;
    let _agent = c.agent("node-1", &manager, free_udp());
    eventually("all is told", async || {
        let found = Found::with(c, &manager);
        ["shared-address", "no-packet-starts", "not-ready"]
            .iter()
            .all(|it| found.has(it))
    })
    .await;
    let found = Found::with(c, &manager);
    found.is_problem(
        "shared-address",
        &[MAC, "home/desktop and home/twin", "explicitMappings"],
    );
    found.is_problem(
        "not-ready",
        &["locked: SecureOnSecretNotAllowed", "nobodys"],
    );
    let finding = found.of("no-packet-starts");
    assert_eq!(finding["status"], "warning", "{finding:#}");
    assert!(
        finding["seen"]
            .as_str()
            .unwrap()
            .contains("home/server: runStrategy Always")
    );
}
