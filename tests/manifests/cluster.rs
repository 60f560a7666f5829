//! A real API server takes the manifests, and says what pods would be allowed.

use std::{env, path::PathBuf, process::Command};

use k8s_openapi::api::{
    apps::v1::{DaemonSet, Deployment},
    core::v1::{Namespace, Pod},
};
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use super::{
    BASE,
    pod::{NAMESPACE, agent_pod, manager_pod},
};
use crate::common::{cluster::Cluster, envtest::Envtest, kubectl::Kubectl, skip::skipped};

const PROGRAM: &str = env!("CARGO_BIN_EXE_kubevirt-wol");

/// A namespace where pods have to keep a Pod Security Standard.
async fn namespace(c: &Cluster, standard: &str) -> String {
    let name = format!("keeps-{standard}");
    let namespace = json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": name, "labels": {"pod-security.kubernetes.io/enforce": standard}},
    });
    let api = Api::<Namespace>::all(c.client.clone());
    let params = PatchParams::apply("test").force();
    api.patch(&name, &params, &Patch::Apply(namespace))
        .await
        .unwrap();
    name
}

/// Whether a pod may be made there; otherwise what it breaks.
async fn may_run(c: &Cluster, pod: &Value, standard: &str) -> Result<(), String> {
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": "trial"}, "spec": pod,
    }))
    .unwrap();
    let api = Api::<Pod>::namespaced(c.client.clone(), &namespace(c, standard).await);
    let params = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let result = api.create(&params, &pod).await;
    result.map(drop).map_err(|error| error.to_string())
}

/// How often the desired state of managers and agents has changed.
async fn generations(c: &Cluster) -> [Option<i64>; 2] {
    let managers = Api::<Deployment>::namespaced(c.client.clone(), NAMESPACE);
    let managers = managers
        .get("kubevirt-wol-controller-manager")
        .await
        .unwrap();
    let agents = Api::<DaemonSet>::namespaced(c.client.clone(), NAMESPACE);
    let agents = agents.get("kubevirt-wol-agent").await.unwrap();
    [managers.metadata.generation, agents.metadata.generation]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_takes_all_of_it_again_and_again() {
    let Some(kubectl) = Kubectl::find() else {
        return;
    };
    let Some(c) = Cluster::real(PROGRAM.as_ref()).await else {
        return;
    };
    kubectl.run(&c, &["apply", "-k", BASE]);
    let first = generations(&c).await;
    let again = kubectl.run(&c, &["apply", "-k", BASE]);
    let changed: Vec<_> = again
        .lines()
        .filter(|l| !l.ends_with(" unchanged"))
        .collect();
    assert_eq!(changed, Vec::<&str>::new());
    assert_eq!((generations(&c).await, first), (first, [Some(1); 2]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn managers_keep_the_strictest_standard_and_agents_need_what_the_namespace_allows() {
    let Some(c) = Cluster::real(PROGRAM.as_ref()).await else {
        return;
    };
    assert_eq!(may_run(&c, &manager_pod(), "restricted").await, Ok(()));
    let agent = agent_pod();
    let labels = &super::object("Namespace", NAMESPACE)["metadata"]["labels"];
    let enforced = labels["pod-security.kubernetes.io/enforce"].as_str();
    assert_eq!(may_run(&c, &agent, enforced.unwrap()).await, Ok(()));
    // Nothing is broken but what an agent is for.
    let broken = may_run(&c, &agent, "restricted").await.unwrap_err();
    for word in ["hostNetwork=true", "NET_RAW", "runAsNonRoot", "runAsUser=0"] {
        assert!(broken.contains(word), "{word}: {broken}");
    }
    for word in [
        "hostPort",
        "allowPrivilegeEscalation",
        "seccompProfile",
        "hostPath",
    ] {
        assert!(!broken.contains(word), "{word}: {broken}");
    }
}

/// A recipe of the justfile, run against an API server.
fn just(envtest: &Envtest, recipe: &str, image: Option<&str>) -> String {
    let assets = PathBuf::from(env::var_os("KUBEBUILDER_ASSETS").unwrap());
    let path = env::var_os("PATH").unwrap_or_default();
    let path = [assets].into_iter().chain(env::split_paths(&path));
    let mut command = Command::new("just");
    command
        .arg(recipe)
        .env("PATH", env::join_paths(path).unwrap())
        .env("KUBECONFIG", envtest.kubeconfig_path())
        .env_remove("IMG")
        .current_dir(env!("CARGO_MANIFEST_DIR"));
    if let Some(image) = image {
        command.env("IMG", image);
    }
    let output = command.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "just {recipe}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

fn image(pod: Option<k8s_openapi::api::core::v1::PodSpec>) -> String {
    pod.unwrap().containers[0].image.clone().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_recipes_deploy_the_image_that_img_names() {
    if Command::new("just").arg("--version").output().is_err() {
        return skipped("there is no just on the PATH");
    }
    // Its own, to see what a recipe leaves out.
    let Some(envtest) = Envtest::start() else {
        return;
    };
    let client = envtest.client().await;
    let managers = Api::<Deployment>::namespaced(client.clone(), NAMESPACE);
    let agents = Api::<DaemonSet>::namespaced(client, NAMESPACE);
    let ours = concat!("kubevirt-wol:", env!("CARGO_PKG_VERSION"));
    let manager = async || {
        let found = managers.get_opt("kubevirt-wol-controller-manager").await;
        found.unwrap().map(|d| image(d.spec.unwrap().template.spec))
    };
    let agent = async || {
        let found = agents.get_opt("kubevirt-wol-agent").await;
        found.unwrap().map(|d| image(d.spec.unwrap().template.spec))
    };
    just(&envtest, "deploy-agent", None);
    assert_eq!((manager().await, agent().await), (None, Some(ours.into())));
    let first = "registry.example.org:5000/wol/kubevirt-wol:1.2";
    just(&envtest, "deploy", Some(first));
    assert_eq!(
        (manager().await.as_deref(), agent().await.as_deref()),
        (Some(first), Some(ours))
    );
    let second = "registry.example.org/kubevirt-wol@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    just(&envtest, "deploy-all", Some(second));
    assert_eq!(
        (manager().await.as_deref(), agent().await.as_deref()),
        (Some(second), Some(second))
    );
}
