//! What the overlays and components change, and that it is enough and not too much.

use std::{collections::BTreeSet, fs};

use serde_json::{Value, json};

use super::{
    documents, pod,
    rendered::{Objects, kustomized, project},
};

fn names(value: &Value) -> BTreeSet<String> {
    serde_json::from_value(value.clone()).unwrap()
}

#[test]
fn one_file_has_all_of_the_base() {
    let text = fs::read_to_string(project().join("deploy/install.yaml")).unwrap();
    let mut base = documents();
    let image = json!(concat!("kubevirt-wol:", env!("CARGO_PKG_VERSION")));
    for object in &mut base {
        if let Some(container) = object.pointer_mut("/spec/template/spec/containers/0") {
            container["image"] = image.clone();
        }
    }
    assert_eq!(
        Objects::read(&text).0,
        base,
        "run `just manifests` to make deploy/install.yaml anew"
    );
}

#[test]
fn the_image_has_the_version_and_the_user_that_the_manifests_name() {
    let text = fs::read_to_string(project().join("Containerfile")).unwrap();
    let version = concat!("ARG VERSION=", env!("CARGO_PKG_VERSION"), "\n");
    assert!(text.contains(version), "{version}");
    let user = &pod::manager_pod()["securityContext"];
    let user = format!("USER {}:{}\n", user["runAsUser"], user["runAsGroup"]);
    assert!(text.contains(&user), "{user}");
}

#[test]
fn openshift_lets_the_agents_in_and_nothing_that_is_privileged() {
    let Some(objects) = kustomized("deploy/overlays/openshift") else {
        return;
    };
    let scc = objects.only("SecurityContextConstraints");
    for no in [
        "allowPrivilegedContainer",
        "allowPrivilegeEscalation",
        "allowHostDirVolumePlugin",
        "allowHostIPC",
        "allowHostPID",
        "allowHostPorts",
    ] {
        assert_eq!(scc[no], false, "{no}");
    }
    // What the constraints have to let in.
    let pod = pod::agent_pod();
    let security = &pod["containers"][0]["securityContext"];
    assert_eq!(scc["allowHostNetwork"], pod["hostNetwork"]);
    let (allowed, added) = (
        names(&scc["allowedCapabilities"]),
        names(&security["capabilities"]["add"]),
    );
    assert_eq!(allowed, added);
    assert_eq!(scc["runAsUser"]["uid"], security["runAsUser"]);
    assert_eq!(
        scc["readOnlyRootFilesystem"],
        security["readOnlyRootFilesystem"]
    );
    let volumes = names(&scc["volumes"]);
    for volume in pod["volumes"].as_array().unwrap() {
        let kinds = volume.as_object().unwrap().keys();
        let kind: Vec<_> = kinds.filter(|key| *key != "name").collect();
        assert!(volumes.contains(kind[0]), "{volume}");
    }
    // By the one account.
    assert_eq!(scc["users"], json!([]));
    let role = objects.get("Role", "kubevirt-wol-agent-scc");
    assert_eq!(
        role["rules"][0]["resourceNames"],
        json!([scc["metadata"]["name"]])
    );
    let binding = objects.get("RoleBinding", "kubevirt-wol-agent-scc");
    assert_eq!(
        binding["subjects"][0]["name"],
        *pod["serviceAccountName"].as_str().unwrap()
    );
    assert_eq!(
        binding["roleRef"]["name"],
        *role["metadata"]["name"].as_str().unwrap()
    );
}

#[test]
fn openshift_chooses_the_managers_user_and_keeps_no_node_from_agents() {
    let Some(objects) = kustomized("deploy/overlays/openshift") else {
        return;
    };
    let pod = &objects.only("Deployment")["spec"]["template"]["spec"]["securityContext"];
    assert_eq!(
        *pod,
        json!({"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}})
    );
    let namespace = &objects.only("Namespace")["metadata"];
    assert_eq!(namespace["annotations"]["openshift.io/node-selector"], "");
    let label = &namespace["labels"]["pod-security.kubernetes.io/enforce"];
    assert_eq!(*label, "privileged");
}

#[test]
fn cert_manager_takes_the_place_of_the_managers_own_authority() {
    let Some(objects) = kustomized("deploy/overlays/cert-manager") else {
        return;
    };
    assert_eq!(objects.of("Secret"), Vec::<&Value>::new());
    assert_eq!(objects.of("ConfigMap"), Vec::<&Value>::new());
    // Who signs is there, and its own certificate is an authority's.
    let serving = objects.get("Certificate", "kubevirt-wol-manager");
    let issuer = serving["spec"]["issuerRef"]["name"].as_str().unwrap();
    let secret = &objects.get("Issuer", issuer)["spec"]["ca"]["secretName"];
    let all = objects.of("Certificate");
    let authority = all.iter().find(|it| it["spec"]["secretName"] == *secret);
    assert_eq!(authority.unwrap()["spec"]["isCA"], true);
    let above = authority.unwrap()["spec"]["issuerRef"]["name"].as_str();
    let above = objects.get("Issuer", above.unwrap());
    assert_eq!(above["spec"], json!({"selfSigned": {}}));
}

#[test]
fn the_network_policy_lets_in_what_managers_serve() {
    let file = "deploy/components/network-policy/network-policy.yaml";
    let policy = Objects::read(&fs::read_to_string(project().join(file)).unwrap());
    let policy = &policy.only("NetworkPolicy")["spec"];
    let labels = &super::managers()["spec"]["template"]["metadata"]["labels"];
    assert_eq!(
        policy["podSelector"]["matchLabels"],
        json!({"app": labels["app"]})
    );
    let ports = |rule: &Value| -> BTreeSet<i64> {
        let ports = rule["ports"].as_array().unwrap().iter();
        ports.map(|port| port["port"].as_i64().unwrap()).collect()
    };
    let rules = policy["ingress"].as_array().unwrap();
    let open: BTreeSet<i64> = rules.iter().flat_map(ports).collect();
    let served = pod::manager_pod()["containers"][0]["ports"].clone();
    let served = served.as_array().unwrap().iter();
    let served: BTreeSet<i64> = served
        .map(|port| port["containerPort"].as_i64().unwrap())
        .collect();
    assert_eq!(open, served);
    // Agents come from their nodes' addresses, which no selector of pods stands for.
    let of_agents = rules.iter().find(|rule| ports(rule).contains(&9090));
    assert_eq!(of_agents.unwrap().get("from"), None);
    // `check` in a manager's pod asks the others, also where agents' networks are filled in.
    let managers = json!({"podSelector": policy["podSelector"]});
    let to_managers = |rule: &&Value| rule["to"] == json!([managers]);
    let out = policy["egress"].as_array().unwrap().iter();
    assert!(
        out.filter(to_managers)
            .any(|rule| ports(rule).contains(&9090))
    );
    let from_managers = |rule: &&Value| rule["from"][0] == managers;
    assert!(
        rules
            .iter()
            .filter(from_managers)
            .any(|rule| ports(rule).contains(&9090))
    );
}

#[test]
fn prometheus_asks_where_managers_serve_metrics() {
    let file = "deploy/components/prometheus/pod-monitor.yaml";
    let monitor = Objects::read(&fs::read_to_string(project().join(file)).unwrap());
    let monitor = &monitor.only("PodMonitor")["spec"];
    let labels = &super::managers()["spec"]["template"]["metadata"]["labels"];
    assert_eq!(
        monitor["selector"]["matchLabels"],
        json!({"app": labels["app"]})
    );
    assert_eq!(
        monitor["podMetricsEndpoints"],
        json!([{"port": "admin", "path": "/metrics"}])
    );
    let ports = pod::manager_pod()["containers"][0]["ports"].clone();
    let mut ports = ports.as_array().unwrap().iter();
    assert!(ports.any(|port| port["name"] == "admin"));
}
