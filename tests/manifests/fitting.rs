//! The chart fits together whatever its values are: what one object says of another is so.

use std::collections::BTreeSet;

use kubevirt_wol::{
    cli::{AgentArgs, Command, ManagerArgs},
    manager::options::{Options, Protection},
};
use serde_json::{Value, json};

use super::{
    pod,
    rendered::{AS_DOCUMENTED, Objects, chart},
};

/// Values that people may set, each of which changes what has to fit together.
const VALUES: &[&str] = &[
    "{}",
    "fullnameOverride: wol",
    "nameOverride: wake",
    "image: {repository: 'registry.example.org:5000/wol', tag: v1}",
    "manager: {replicas: 1, legacyPlaintextPort: 9091, extraArgs: [--start-rate=5]}",
    "manager: {extraEnv: [{name: WOL_START_BURST, value: '5'}], podLabels: {team: lan}}",
    "manager: {serviceAccount: {name: wakers}}\nagent: {serviceAccount: {name: ears}}",
    "agent: {raw: {enabled: false}, extraArgs: [--wol-port=40009]}",
    "agent: {updateStrategy: {type: OnDelete}}",
    "agent: {updateStrategy: {rollingUpdate: {maxSurge: 0, maxUnavailable: 20%}}}",
    "secureOn: {secrets: [home, office]}",
    "clusterDomain: example.org",
    "commonLabels: {team: lan}",
    "tls: {mode: cert-manager}",
    "tls: {mode: cert-manager, agentAuth: certificate}\nfullnameOverride: wol",
    "tls: {mode: cert-manager, certManager: {issuerRef: {name: corp, kind: ClusterIssuer}}}",
    "tls: {mode: existing-secret, existingSecret: served, caConfigMap: corp-ca}",
    "tls: {mode: existing-secret, agentAuth: certificate, existingSecret: served, caConfigMap: corp-ca, agentSecret: shown}",
    "metrics: {serviceMonitor: {enabled: true}, agents: {enabled: true}}",
    "networkPolicy: {enabled: true, agentCIDRs: [10.0.0.0/8, 'fd00::/8'], apiServerCIDRs: [10.0.0.1/32]}",
    "openshift: {scc: {create: true}}\nfullnameOverride: wol",
];

#[test]
fn whatever_its_values_are_agents_and_managers_find_and_know_each_other() {
    for place in [AS_DOCUMENTED, ["lan", "elsewhere"]] {
        for values in VALUES {
            let Some(rendered) = chart(place, values) else {
                return;
            };
            // Shown where it fails.
            eprintln!("{place:?} {values}");
            fits(&rendered.unwrap(), place[1]);
        }
    }
}

/// An installation and what its programs make of their pods.
struct Installed<'a> {
    objects: &'a Objects,
    namespace: &'a str,
    manager: Value,
    agent: Value,
    agent_args: AgentArgs,
    options: Options,
}

fn fits(objects: &Objects, namespace: &str) {
    let pod = |kind| place(&objects.only(kind)["spec"]["template"]["spec"], namespace);
    let (manager, agent) = (pod("Deployment"), pod("DaemonSet"));
    let installed = Installed {
        options: Options::try_from(manager_args(&manager)).unwrap(),
        agent_args: agent_args(&agent),
        objects,
        namespace,
        manager,
        agent,
    };
    installed.expect_everything_in_its_namespace();
    installed.expect_names_that_managers_know();
    installed.expect_trust();
    installed.expect_rights();
    installed.expect_a_test_of_the_same_installation();
}

/// The pod, where kubelet has told its containers their namespace.
fn place(pod: &Value, namespace: &str) -> Value {
    let mut pod = pod.clone();
    let variables = pod["containers"][0]["env"].as_array_mut().unwrap();
    for variable in variables {
        if variable["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.namespace" {
            *variable = json!({"name": variable["name"], "value": namespace});
        }
    }
    pod
}

fn manager_args(pod: &Value) -> ManagerArgs {
    match pod::command(pod, &pod::arguments(pod)) {
        Command::Manager(args) => *args,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn agent_args(pod: &Value) -> AgentArgs {
    match pod::command(pod, &pod::arguments(pod)) {
        Command::Agent(args) => args,
        other => panic!("{other:?}"),
    }
}

impl Installed<'_> {
    fn expect_everything_in_its_namespace(&self) {
        for object in &self.objects.0 {
            let namespace = &object["metadata"]["namespace"];
            assert!(namespace.is_null() || namespace == self.namespace);
            let labels = &object["metadata"]["labels"];
            assert!(labels["app.kubernetes.io/instance"].is_string());
        }
        let labels =
            |kind: &str| &self.objects.only(kind)["spec"]["template"]["metadata"]["labels"];
        for (kind, app) in [("Deployment", "wol-manager"), ("DaemonSet", "wol-agent")] {
            assert_eq!(labels(kind)["app"], app, "by which everything finds them");
            let selector = &self.objects.only(kind)["spec"]["selector"];
            assert_eq!(*selector, json!({"matchLabels": {"app": app}}));
        }
    }

    fn expect_names_that_managers_know(&self) {
        let daemon_set = &self.options.daemon_set;
        self.objects.get("DaemonSet", &daemon_set.name);
        assert_eq!(daemon_set.namespace, self.namespace);
        assert_eq!(
            self.agent["serviceAccountName"],
            *self.options.tokens.account
        );
        for pod in [&self.manager, &self.agent] {
            let account = pod["serviceAccountName"].as_str().unwrap();
            self.objects.get("ServiceAccount", account);
        }
        let [manager] = &*self.agent_args.managers else {
            panic!("{:?}", self.agent_args.managers);
        };
        let (host, port) = manager.split_once(':').unwrap();
        assert_eq!(port, "9090");
        assert!(self.options.authority.servers.iter().any(|it| it == host));
        let service = host.split('.').next().unwrap();
        let service = self.objects.get("Service", service);
        assert_eq!(service["spec"]["selector"], json!({"app": "wol-manager"}));
    }

    /// The Secret or `ConfigMap` that is mounted where the agent reads `ca.crt`.
    fn authority(&self) -> Value {
        let file = &self.agent_args.ca_file;
        pod::volume(&self.agent, file.parent().unwrap())
    }

    fn expect_trust(&self) {
        let authority = self.authority();
        match &self.options.protection {
            Protection::Insecure => panic!("no value makes it insecure"),
            Protection::OwnCa => {
                let names = &self.options.authority.names;
                self.objects.get("Secret", &names.secret);
                self.objects.get("ConfigMap", &names.bundle);
                assert_eq!(authority["configMap"]["name"], *names.bundle);
            }
            Protection::Directory(files) => {
                let served = pod::volume(&self.manager, &files.directory);
                let served = served["secret"]["secretName"].as_str().unwrap();
                // Its key would come to every node.
                let mounted = self.agent["volumes"].to_string();
                assert!(!mounted.contains(&format!("\"{served}\"")), "{mounted}");
                self.expect_certificates(served);
                assert!(self.objects.find("Secret", "kubevirt-wol-ca").is_none());
            }
        }
        if let Some(directory) = &self.agent_args.client_tls_dir {
            let shown = pod::volume(&self.agent, directory);
            assert!(shown["secret"]["secretName"].is_string(), "{shown}");
        } else {
            let token = self.agent_args.token_file.parent().unwrap();
            let token = pod::volume(&self.agent, token);
            let token = &token["projected"]["sources"][0]["serviceAccountToken"];
            assert_eq!(token["audience"], *self.options.tokens.audience);
        }
    }

    /// Of cert-manager, where it is to make any.
    fn expect_certificates(&self, served: &str) {
        let all = self.objects.of("Certificate");
        let Some(serving) = all.iter().find(|it| it["spec"]["secretName"] == served) else {
            assert_eq!(all, Vec::<&Value>::new());
            assert_eq!(self.authority()["configMap"]["name"], "corp-ca");
            return;
        };
        let names: Vec<String> =
            serde_json::from_value(serving["spec"]["dnsNames"].clone()).unwrap();
        assert_eq!(names, self.options.authority.servers);
        let trusted = self.authority();
        let trusted = &trusted["secret"];
        assert_eq!(
            trusted["items"],
            json!([{"key": "ca.crt", "path": "ca.crt"}])
        );
        let mut shown = all
            .iter()
            .filter(|it| it["spec"]["secretName"] == trusted["secretName"]);
        let shown = shown
            .next()
            .expect("a certificate whose authority agents trust");
        assert_eq!(shown["spec"]["issuerRef"], serving["spec"]["issuerRef"]);
    }

    /// Every name in the managers' Role is one of this installation, and none stands for all.
    fn expect_rights(&self) {
        let role = self.objects.0.iter().find(|object| {
            let name = object["metadata"]["name"].as_str().unwrap_or_default();
            object["kind"] == "Role" && name.ends_with("-manager")
        });
        let mut given = BTreeSet::new();
        for rule in role.unwrap()["rules"].as_array().unwrap() {
            let Some(names) = rule.get("resourceNames") else {
                assert_ne!(rule["resources"], json!(["secrets"]), "all Secrets");
                continue;
            };
            let names: BTreeSet<String> = serde_json::from_value(names.clone()).unwrap();
            assert!(!names.is_empty(), "which means all: {rule}");
            given.extend(names);
        }
        let args = manager_args(&self.manager);
        let mut expected: BTreeSet<String> = args.secure_on_secrets.into_iter().collect();
        expected.extend([
            args.agent_daemon_set,
            args.authority.ca_secret,
            args.authority.ca_bundle,
            args.banned_nodes,
            "kubevirt-wol-manager".into(),
        ]);
        assert_eq!(given, expected);
    }

    fn expect_a_test_of_the_same_installation(&self) {
        let pod = place(&self.objects.only("Pod")["spec"], self.namespace);
        let Command::Check(check) = pod::command(&pod, &pod::arguments(&pod)) else {
            panic!("{pod}");
        };
        let (names, args) = (check.installation, manager_args(&self.manager));
        assert_eq!(names.namespace, self.namespace);
        self.objects.get("Deployment", &names.deployment);
        self.objects.get("Service", &names.service);
        assert_eq!(names.agent_daemon_set, args.agent_daemon_set);
        assert_eq!(names.ca_secret, args.authority.ca_secret);
        assert_eq!(names.ca_bundle, args.authority.ca_bundle);
        assert_eq!(names.secure_on_secrets, args.secure_on_secrets);
        let own = self.options.protection == Protection::OwnCa;
        assert_eq!(check.ca_file.is_none(), own);
        // So has `check` in a manager's pod, by kubectl exec.
        let environment = self.manager["containers"][0]["env"].to_string();
        assert_eq!(!environment.contains("\"WOL_CA_FILE\""), own);
        self.objects.get(
            "ServiceAccount",
            pod["serviceAccountName"].as_str().unwrap(),
        );
    }
}
