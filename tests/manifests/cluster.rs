//! A real API server takes the manifests, and says what pods would be allowed.

use std::{
    env,
    path::PathBuf,
    process::{Command, Stdio},
    thread,
};

use k8s_openapi::{
    api::{
        apps::v1::{DaemonSet, Deployment},
        core::v1::{Namespace, Pod, PodSpec},
        rbac::v1::ClusterRole,
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use super::pod::{NAMESPACE, agent_pod, manager_pod};
use crate::common::{cluster::eventually, envtest::Envtest, skip::skipped};

/// A namespace where pods have to keep a Pod Security Standard.
async fn namespace(client: &Client, standard: &str) -> String {
    let name = format!("keeps-{standard}");
    let namespace = json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": name, "labels": {"pod-security.kubernetes.io/enforce": standard}},
    });
    let api = Api::<Namespace>::all(client.clone());
    let params = PatchParams::apply("test").force();
    api.patch(&name, &params, &Patch::Apply(namespace))
        .await
        .unwrap();
    name
}

/// Whether a pod may be made there; otherwise what it breaks.
pub(crate) async fn may_run(client: &Client, pod: &Value, standard: &str) -> Result<(), String> {
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": "trial"}, "spec": pod,
    }))
    .unwrap();
    let api = Api::<Pod>::namespaced(client.clone(), &namespace(client, standard).await);
    let params = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let result = api.create(&params, &pod).await;
    result.map(drop).map_err(|error| error.to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn managers_keep_the_strictest_standard_and_agents_need_what_the_namespace_allows() {
    let Some(envtest) = Envtest::shared() else {
        return;
    };
    let c = envtest.client().await;
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

/// A program for an API server, with kubectl on its path.
pub(crate) fn with_kubectl(envtest: &Envtest, program: &str) -> Command {
    let assets = PathBuf::from(env::var_os("KUBEBUILDER_ASSETS").unwrap());
    let path = env::var_os("PATH").unwrap_or_default();
    let path = [assets].into_iter().chain(env::split_paths(&path));
    let path = env::join_paths(path).unwrap();
    // The program itself is looked up by the path of this process.
    let mut found = env::split_paths(&path).map(|folder| folder.join(program));
    let found = found.find(|file| file.is_file());
    let mut command = Command::new(found.unwrap_or_else(|| program.into()));
    command
        .env("PATH", path)
        .env("KUBECONFIG", envtest.kubeconfig_path())
        .env_remove("IMG")
        .current_dir(env!("CARGO_MANIFEST_DIR"));
    command
}

/// A recipe of the justfile, for an API server.
fn just(envtest: &Envtest, recipe: &str, image: Option<&str>) -> Command {
    let mut command = with_kubectl(envtest, "just");
    command.arg(recipe);
    if let Some(image) = image {
        command.env("IMG", image);
    }
    command
}

/// What it prints.
fn run(mut recipe: Command) -> String {
    let output = recipe.stdin(Stdio::null()).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{recipe:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// The images of managers and agents, where they are deployed.
async fn images(client: &Client) -> [Option<String>; 2] {
    let image = |pod: Option<PodSpec>| pod.unwrap().containers[0].image.clone().unwrap();
    let managers = Api::<Deployment>::namespaced(client.clone(), NAMESPACE);
    let managers = managers.get_opt("kubevirt-wol-controller-manager").await;
    let agents = Api::<DaemonSet>::namespaced(client.clone(), NAMESPACE);
    let agents = agents.get_opt("kubevirt-wol-agent").await;
    [
        managers
            .unwrap()
            .map(|set| image(set.spec.unwrap().template.spec)),
        agents
            .unwrap()
            .map(|set| image(set.spec.unwrap().template.spec)),
    ]
}

/// Does what a controller does that is not here: lets a namespace go once it is to be deleted.
async fn finalize(client: &Client) {
    let api = Api::<Namespace>::all(client.clone());
    eventually("the namespace is to be deleted", async || {
        let namespace = api.get(NAMESPACE).await.unwrap();
        namespace.metadata.deletion_timestamp.is_some()
    })
    .await;
    let nothing = json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": NAMESPACE}, "spec": {"finalizers": []},
    });
    let request = http::Request::put(format!("/api/v1/namespaces/{NAMESPACE}/finalize"))
        .header("content-type", "application/json")
        .body(nothing.to_string().into_bytes());
    client.request_text(request.unwrap()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_recipes_deploy_the_image_that_img_names_and_remove_it_again() {
    if Command::new("just").arg("--version").output().is_err() {
        return skipped("there is no just on the PATH");
    }
    let Some(envtest) = Envtest::shared() else {
        return;
    };
    let client = envtest.client().await;
    let ours = concat!("kubevirt-wol:", env!("CARGO_PKG_VERSION"));
    run(just(envtest, "deploy-agent", None));
    assert_eq!(images(&client).await, [None, Some(ours.into())]);
    let first = "registry.example.org:5000/wol/kubevirt-wol:1.2";
    run(just(envtest, "deploy", Some(first)));
    assert_eq!(
        images(&client).await,
        [first, ours].map(|image| Some(image.into()))
    );
    let second = format!(
        "registry.example.org/kubevirt-wol@sha256:{}",
        "01".repeat(32)
    );
    run(just(envtest, "deploy-all", Some(&second)));
    assert_eq!(
        images(&client).await,
        [&second; 2].map(|image| Some(image.clone()))
    );
    let again = run(just(envtest, "deploy-all", Some(&second)));
    // Of a budget kubectl always says so, as it replaces selectors whole.
    let changed = again.lines().filter(|line| {
        !line.ends_with(" unchanged") && !line.starts_with("poddisruptionbudget.policy/")
    });
    let changed: Vec<_> = changed.collect();
    assert_eq!(changed, Vec::<&str>::new());

    let undeploy = just(envtest, "undeploy", None);
    let undeploy = thread::spawn(move || run(undeploy));
    finalize(&client).await;
    undeploy.join().unwrap();
    assert_eq!(images(&client).await, [None, None]);
    let roles = Api::<ClusterRole>::all(client.clone());
    assert!(
        roles
            .get_opt("kubevirt-wol-manager")
            .await
            .unwrap()
            .is_none()
    );
    let definitions = Api::<CustomResourceDefinition>::all(client);
    let kept = definitions
        .get_opt("wolconfigs.wol.pillon.org")
        .await
        .unwrap();
    assert!(kept.is_some(), "the WolConfigs stay");
}
