//! What is deployed: that the program takes it, that it fits together, and that a cluster accepts it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that breaks has to fail"
)]

#[path = "manifests/chart.rs"]
mod chart;
#[path = "manifests/chart_cluster.rs"]
mod chart_cluster;
#[path = "manifests/cluster.rs"]
mod cluster;
mod common;
#[path = "manifests/fitting.rs"]
mod fitting;
#[path = "manifests/overlays.rs"]
mod overlays;
#[path = "manifests/pod.rs"]
mod pod;
#[path = "manifests/rendered.rs"]
mod rendered;

use std::{collections::BTreeSet, fs, path::Path, time::Duration};

use kubevirt_wol::{
    cli::{AgentArgs, Command, ManagerArgs, ProbeArgs, Question},
    manager::options::{Options, Protection},
    shutdown,
};
use serde::Deserialize as _;
use serde_json::{Value, json};

use pod::{NAMESPACE, agent_pod, manager_pod};

const BASE: &str = "deploy/base";

/// The documents of a file of the base.
fn file(name: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(BASE).join(name);
    let text = fs::read_to_string(path).unwrap();
    let documents = serde_yaml::Deserializer::from_str(&text);
    documents
        .map(|document| Value::deserialize(document).unwrap())
        .collect()
}

/// All that the base names.
fn documents() -> Vec<Value> {
    let [kustomization] = &*file("kustomization.yaml") else {
        panic!("it is one document");
    };
    let files = kustomization["resources"].as_array().unwrap();
    files
        .iter()
        .flat_map(|name| file(name.as_str().unwrap()))
        .collect()
}

/// The one object of a kind with a name.
fn object(kind: &str, name: &str) -> Value {
    let all = documents();
    let is = |o: &&Value| o["kind"] == kind && o["metadata"]["name"] == name;
    let found: Vec<_> = all.iter().filter(is).collect();
    let [one] = *found else {
        panic!("{} {kind} {name}", found.len());
    };
    one.clone()
}

fn agents() -> Value {
    object("DaemonSet", "kubevirt-wol-agent")
}

fn managers() -> Value {
    object("Deployment", "kubevirt-wol-controller-manager")
}

fn agent_args() -> AgentArgs {
    match pod::command(&agent_pod(), &pod::arguments(&agent_pod())) {
        Command::Agent(args) => args,
        other => panic!("{other:?}"),
    }
}

fn manager_args() -> ManagerArgs {
    match pod::command(&manager_pod(), &pod::arguments(&manager_pod())) {
        Command::Manager(args) => *args,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_base_names_every_file_that_is_there() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(BASE);
    let files = fs::read_dir(folder).unwrap().map(|file| file.unwrap());
    let mut there: BTreeSet<_> = files
        .map(|file| file.file_name().into_string().unwrap())
        .collect();
    assert!(there.remove("kustomization.yaml"));
    let resources = &file("kustomization.yaml")[0]["resources"];
    let resources: BTreeSet<String> = serde_json::from_value(resources.clone()).unwrap();
    assert_eq!(resources, there);
}

#[test]
fn the_image_is_of_this_version() {
    let images = &file("kustomization.yaml")[0]["images"];
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(
        *images,
        json!([{"name": "kubevirt-wol", "newTag": version}])
    );
    for pod in [agent_pod(), manager_pod()] {
        assert_eq!(pod["containers"][0]["image"], "kubevirt-wol");
    }
}

#[test]
fn kubelet_asks_the_agent_where_it_serves_and_waits_for_the_answer() {
    let (agent, pod) = (agent_args(), agent_pod());
    for (probe, question) in [
        ("readinessProbe", Question::Ready),
        ("livenessProbe", Question::Live),
    ] {
        let probe = &pod["containers"][0][probe];
        let words: Vec<String> = serde_json::from_value(probe["exec"]["command"].clone()).unwrap();
        let (program, words) = words.split_first().unwrap();
        assert_eq!(program, "/kubevirt-wol", "where the image has it");
        let Command::Probe(asked) = pod::command(&pod, words) else {
            panic!("{words:?}");
        };
        let ProbeArgs {
            what,
            health_socket,
        } = asked;
        assert_eq!(
            (what, Some(health_socket)),
            (question, agent.health_socket.clone())
        );
        assert!(
            probe["timeoutSeconds"].as_u64() > Some(3),
            "what a probe itself waits"
        );
    }
    let socket = agent.health_socket.unwrap();
    let volume = pod::volume(&pod, socket.parent().unwrap());
    assert!(
        volume.get("emptyDir").is_some(),
        "each pod has its own: {volume}"
    );
}

#[test]
fn the_old_and_the_new_agent_of_a_node_can_run_at_the_same_time() {
    let strategy = &agents()["spec"]["updateStrategy"];
    let rolling = json!({"maxSurge": "10%", "maxUnavailable": 0});
    assert_eq!(
        *strategy,
        json!({"type": "RollingUpdate", "rollingUpdate": rolling})
    );
    let pod = agent_pod();
    assert_eq!(pod["hostNetwork"], true);
    // Ports of a pod on the node's network are the node's.
    assert_eq!(pod["containers"][0].get("ports"), None);
    assert_eq!(agent_args().admin_bind, None);
    for probe in ["readinessProbe", "livenessProbe"] {
        assert_eq!(pod["containers"][0][probe].get("httpGet"), None);
    }
}

#[test]
fn both_get_the_time_that_they_need_to_end() {
    assert!(shutdown::DRAIN < shutdown::WITHIN && shutdown::WITHIN < shutdown::GRACE);
    for pod in [agent_pod(), manager_pod()] {
        let given = pod["terminationGracePeriodSeconds"].as_u64().unwrap();
        assert!(Duration::from_secs(given) >= shutdown::GRACE, "{given} s");
        // What runs before SIGTERM would take of that time.
        assert_eq!(pod["containers"][0].get("lifecycle"), None);
    }
}

#[test]
fn agents_have_two_capabilities_and_can_change_nothing() {
    let pod = agent_pod();
    let expected = json!({
        "runAsUser": 0, "runAsGroup": 0,
        "allowPrivilegeEscalation": false,
        "readOnlyRootFilesystem": true,
        "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE", "NET_RAW"]},
    });
    assert_eq!(pod["containers"][0]["securityContext"], expected);
    assert_eq!(
        pod["securityContext"]["seccompProfile"]["type"],
        "RuntimeDefault"
    );
    assert_eq!(pod["automountServiceAccountToken"], false);
    for volume in pod["volumes"].as_array().unwrap() {
        assert_eq!(volume.get("hostPath"), None);
    }
    assert_eq!(pod["containers"][0]["resources"]["limits"].get("cpu"), None);
}

#[test]
fn agents_find_the_managers_and_know_and_prove_themselves_to_them() {
    let (agent, pod) = (agent_args(), agent_pod());
    let options = Options::try_from(manager_args()).unwrap();
    assert_eq!(options.protection, Protection::OwnCa);
    assert!(!agent.insecure);

    let service = object("Service", "kubevirt-wol-grpc");
    assert_eq!(service["spec"]["clusterIP"], "None");
    let name = format!("kubevirt-wol-grpc.{NAMESPACE}.svc");
    assert_eq!(
        agent.managers,
        [format!("{name}:{}", service["spec"]["ports"][0]["port"])]
    );
    assert!(
        options.authority.servers.contains(&name),
        "{:?}",
        options.authority.servers
    );

    let token = pod::volume(&pod, agent.token_file.parent().unwrap());
    let token = &token["projected"]["sources"][0]["serviceAccountToken"];
    assert_eq!(token["audience"], *options.tokens.audience);
    assert_eq!(
        Some(token["path"].as_str().unwrap()),
        agent.token_file.file_name().unwrap().to_str()
    );
    assert_eq!(pod["serviceAccountName"], *options.tokens.account);

    let bundle = pod::volume(&pod, agent.ca_file.parent().unwrap());
    let expected = json!({"name": options.authority.names.bundle, "optional": true});
    assert_eq!(bundle["configMap"], expected);
    assert_eq!(
        agent.ca_file.file_name().unwrap(),
        "ca.crt",
        "the key of the bundle"
    );
}

#[test]
fn managers_find_what_is_installed_with_them() {
    let options = Options::try_from(manager_args()).unwrap();
    object("Secret", &options.authority.names.secret);
    object("ConfigMap", &options.authority.names.bundle);
    object("DaemonSet", &options.daemon_set.name);
    for (pod, account) in [
        (manager_pod(), "kubevirt-wol-controller-manager"),
        (agent_pod(), "kubevirt-wol-agent"),
    ] {
        assert_eq!(pod["serviceAccountName"], account);
        object("ServiceAccount", account);
    }
    for document in documents() {
        let namespace = &document["metadata"]["namespace"];
        assert!(namespace.is_null() || namespace == NAMESPACE, "{document}");
    }
    assert_eq!(options.daemon_set.namespace, NAMESPACE);
}

#[test]
fn managers_serve_where_service_and_probes_look() {
    let (args, pod) = (manager_args(), manager_pod());
    let ports = &pod["containers"][0]["ports"];
    let expected = json!([
        {"name": "grpc", "containerPort": args.grpc_bind.port()},
        {"name": "admin", "containerPort": args.admin_bind.port()},
    ]);
    assert_eq!(*ports, expected);
    for (probe, path) in [
        ("startupProbe", "/livez"),
        ("livenessProbe", "/livez"),
        ("readinessProbe", "/readyz"),
    ] {
        let asked = &pod["containers"][0][probe]["httpGet"];
        assert_eq!(*asked, json!({"path": path, "port": "admin"}));
    }
    let labels = &managers()["spec"]["template"]["metadata"]["labels"];
    let service = object("Service", "kubevirt-wol-grpc");
    assert_eq!(service["spec"]["ports"][0]["targetPort"], "grpc");
    let budget = object("PodDisruptionBudget", "kubevirt-wol-controller-manager");
    for selector in [
        &service["spec"]["selector"],
        &budget["spec"]["selector"]["matchLabels"],
    ] {
        assert_eq!(*selector, json!({"app": labels["app"]}));
    }
    let agents = &agents()["spec"]["template"]["metadata"]["labels"];
    assert_eq!(agents["app"], "wol-agent");
    assert_ne!(labels["app"], agents["app"]);
}

#[test]
fn new_managers_are_ready_before_old_ones_end() {
    let spec = &managers()["spec"];
    let rolling = json!({"maxSurge": "100%", "maxUnavailable": 0});
    let expected = json!({"type": "RollingUpdate", "rollingUpdate": rolling});
    assert_eq!(spec["strategy"], expected);
    assert_eq!(spec["replicas"], 2);
}
