//! The chart installs what the kustomizations do, and refuses values that cannot work, in words.

use std::fs;

use serde_json::{Value, json};

use super::{
    fitting::agent_args,
    rendered::{AS_DOCUMENTED, Objects, chart, kustomized, project},
};

/// What values make of the chart in a release as documented.
fn rendered(values: &str) -> Option<Objects> {
    Some(chart(AS_DOCUMENTED, values)?.unwrap())
}

/// Compares object by object, so that a difference can be read.
fn expect_same(theirs: Objects, ours: Objects) {
    let (theirs, ours) = (theirs.normalised(), ours.without_hooks().normalised());
    let name = |o: &Value| format!("{} {}", o["kind"], o["metadata"]["name"]);
    let names = |all: &Objects| all.0.iter().map(name).collect::<Vec<_>>();
    assert_eq!(names(&ours), names(&theirs));
    for (ours, theirs) in ours.0.iter().zip(&theirs.0) {
        assert_eq!(ours, theirs, "{}", name(theirs));
    }
}

#[test]
fn without_values_it_installs_what_the_base_does() {
    if let (Some(base), Some(chart)) = (kustomized("deploy/base"), rendered("{}")) {
        expect_same(base, chart);
    }
}

#[test]
fn by_its_values_it_installs_what_the_overlays_do() {
    for (folder, values) in [
        (
            "deploy/overlays/openshift",
            "openshift: {scc: {create: true}}",
        ),
        ("deploy/overlays/cert-manager", "tls: {mode: cert-manager}"),
    ] {
        if let (Some(overlay), Some(chart)) = (kustomized(folder), rendered(values)) {
            expect_same(overlay, chart);
        }
    }
}

#[test]
fn by_its_values_it_installs_what_the_components_add() {
    for (file, values) in [
        (
            "network-policy/network-policy.yaml",
            "networkPolicy: {enabled: true}",
        ),
        (
            "prometheus/pod-monitor.yaml",
            "metrics: {podMonitor: {enabled: true}}",
        ),
    ] {
        let text = fs::read_to_string(project().join("deploy/components").join(file)).unwrap();
        if let (Some(mut base), Some(chart)) = (kustomized("deploy/base"), rendered(values)) {
            base.0.extend(Objects::read(&text).0);
            expect_same(base, chart);
        }
    }
}

#[test]
fn its_alerts_are_those_of_the_component() {
    let path = project().join("deploy/components/prometheus/rules.yaml");
    let rules = Objects::read(&fs::read_to_string(path).unwrap());
    let Some(chart) = rendered("metrics: {prometheusRule: {enabled: true}}") else {
        return;
    };
    assert_eq!(chart.only("PrometheusRule")["spec"], rules.0[0]["spec"]);
}

#[test]
fn it_is_of_this_version() {
    let text = fs::read_to_string(project().join("deploy/chart/Chart.yaml")).unwrap();
    let chart: Value = serde_yaml::from_str(&text).unwrap();
    assert_eq!(chart["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(chart["appVersion"], env!("CARGO_PKG_VERSION"));
}

#[test]
fn values_that_cannot_work_are_refused_in_words() {
    for (values, words) in [
        (
            "metrics: {podMonitor: {enabled: true}, serviceMonitor: {enabled: true}}",
            "enable one of them",
        ),
        ("tls: {agentAuth: certificate}", "set tls.mode"),
        ("tls: {mode: existing-secret}", "needs tls.existingSecret"),
        (
            "tls: {mode: existing-secret, existingSecret: a}",
            "needs tls.caConfigMap",
        ),
        (
            "tls: {mode: existing-secret, agentAuth: certificate, existingSecret: a, caConfigMap: b}",
            "needs tls.agentSecret",
        ),
        (
            "agent: {updateStrategy: {rollingUpdate: {maxUnavailable: 1}}}",
            "exactly one has to be 0",
        ),
        ("tls: {mode: plain}", "/tls/mode"),
        ("agents: {}", "additional properties 'agents' not allowed"),
        ("manager: {replica: 3}", "'replica' not allowed"),
        (
            "manager: {legacyPlaintextPort: 9090}",
            "legacyPlaintextPort",
        ),
        ("image: {digest: latest}", "/image/digest"),
        ("secureOn: {secrets: ['']}", "/secureOn/secrets"),
        (
            "networkPolicy: {agentCIDRs: [lan]}",
            "/networkPolicy/agentCIDRs",
        ),
        ("agent: {extraArgs: [no-raw]}", "/agent/extraArgs"),
        // Labels and names that only the API server would refuse.
        ("commonLabels: {app: lan}", "/commonLabels/app"),
        ("agent: {podLabels: {app: lan}}", "/agent/podLabels/app"),
        ("fullnameOverride: wol.lan", "/fullnameOverride"),
        (
            "tls: {mode: cert-manager, certManager: {issuerRef: {kind: ClusterIssuer}}}",
            "/tls/certManager/issuerRef",
        ),
    ] {
        let Some(rendered) = chart(AS_DOCUMENTED, values) else {
            return;
        };
        let refusal = rendered.expect_err(values);
        assert!(refusal.contains(words), "{values}: {refusal}");
    }
}

/// Every part of a schema.
fn parts(schema: &Value) -> Vec<&Value> {
    let mut parts = vec![schema];
    if let Some(fields) = schema.as_object() {
        parts.extend(fields.values().flat_map(self::parts));
    }
    if let Some(items) = schema.as_array() {
        parts.extend(items.iter().flat_map(self::parts));
    }
    parts
}

#[test]
fn no_object_of_its_values_takes_a_field_that_it_does_not_know() {
    let text = fs::read_to_string(project().join("deploy/chart/values.schema.json")).unwrap();
    let schema: Value = serde_json::from_str(&text).unwrap();
    let mut known = 0;
    for part in parts(&schema) {
        if part["type"] == "object" && part["properties"].is_object() {
            assert_eq!(part["additionalProperties"], false, "{part}");
            known += 1;
        }
    }
    assert!(known > 20, "{known}");
}

#[test]
fn wol_configs_stay_when_it_is_uninstalled_unless_they_are_not_to() {
    let keep = |values| {
        let crd = rendered(values)?.only("CustomResourceDefinition").clone();
        Some(crd["metadata"]["annotations"]["helm.sh/resource-policy"].clone())
    };
    if let (Some(kept), Some(lost)) = (keep("{}"), keep("crds: {keep: false}")) {
        assert_eq!(kept, "keep");
        assert_eq!(lost, Value::Null);
    }
    if let Some(without) = rendered("crds: {install: false}") {
        assert_eq!(without.of("CustomResourceDefinition"), Vec::<&Value>::new());
    }
}

#[test]
fn what_is_asked_for_arrives_in_the_pods() {
    let values = "
        image: {repository: registry.example.org/wol, digest: 'sha256:0101010101010101010101010101010101010101010101010101010101010101'}
        imagePullSecrets: [{name: pull}]
        commonLabels: {team: lan}
        agent:
          raw: {enabled: false}
          nodeSelector: {wol: 'yes'}
          podAnnotations: {note: here}
          updateStrategy: {rollingUpdate: {maxSurge: 3}}
        manager: {priorityClassName: '', tolerations: [{key: infra, operator: Exists}]}
        metrics: {agents: {enabled: true, port: 9200}}
    ";
    let Some(objects) = rendered(values) else {
        return;
    };
    let (set, deployment) = (objects.only("DaemonSet"), objects.only("Deployment"));
    for object in [set, deployment] {
        let template = &object["spec"]["template"];
        assert_eq!(template["metadata"]["labels"]["team"], "lan");
        let pod = &template["spec"];
        assert_eq!(pod["imagePullSecrets"], json!([{"name": "pull"}]));
        let image = format!("registry.example.org/wol@sha256:{}", "01".repeat(32));
        assert_eq!(pod["containers"][0]["image"], *image);
    }
    assert_eq!(
        set["spec"]["updateStrategy"]["rollingUpdate"]["maxSurge"],
        3
    );
    let agent = &set["spec"]["template"]["spec"];
    assert_eq!(agent["nodeSelector"]["wol"], "yes");
    let capabilities = &agent["containers"][0]["securityContext"]["capabilities"];
    assert_eq!(
        *capabilities,
        json!({"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]})
    );
    let args = agent_args(agent);
    assert!(args.no_raw);
    assert_eq!(args.admin_bind.unwrap().port(), 9200);
    let annotations = &set["spec"]["template"]["metadata"]["annotations"];
    assert_eq!(*annotations, json!({"note": "here"}));
    let manager = &deployment["spec"]["template"]["spec"];
    assert_eq!(manager["priorityClassName"], Value::Null);
    assert_eq!(manager["tolerations"][0]["key"], "infra");
}
