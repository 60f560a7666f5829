//! What a cluster takes and refuses as a WolConfig: by the rules alone, and by a real API server.

mod common;

use std::{
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use common::envtest::Envtest;
use http::Request;
use kube::{
    Api, Client,
    api::{DynamicObject, ListParams, Patch, PatchParams, PostParams},
    core::{ApiResource, cel::Validator},
};
use kubevirt_wol::{
    crd::{self, WolConfig},
    filter::SourceFilter,
    mac::MacAddr,
};
use serde_json::{Value, json};

const SAMPLES: [&str; 4] = [
    "wol_v1beta1_wolconfig",
    "labelselector",
    "explicit",
    "everything",
];

/// Specs that are refused by a CEL rule, and words of the refusal.
fn refused_by_rules() -> Vec<(Value, &'static str)> {
    let mapping = |mac: &str| json!({"explicitMappings": [{"macAddress": mac, "vmName": "vm", "namespace": "ns"}]});
    let expression = |expression: Value| json!({"vmSelector": {"matchExpressions": [expression]}});
    let mut refused = vec![
        (
            json!({"discoveryMode": "Explicit"}),
            "Explicit needs explicitMappings",
        ),
        (
            json!({"discoveryMode": "Explicit", "explicitMappings": []}),
            "Explicit needs explicitMappings",
        ),
        (
            json!({"discoveryMode": "LabelSelector"}),
            "LabelSelector needs a vmSelector",
        ),
        (
            json!({"discoveryMode": "LabelSelector", "vmSelector": {}}),
            "LabelSelector needs a vmSelector",
        ),
        (
            json!({"discoveryMode": "LabelSelector", "vmSelector": {"matchLabels": {}, "matchExpressions": []}}),
            "LabelSelector needs a vmSelector",
        ),
        (
            expression(json!({"key": "wol", "operator": "In"})),
            "In and NotIn need values",
        ),
        (
            expression(json!({"key": "wol", "operator": "Exists", "values": ["yes"]})),
            "Exists and DoesNotExist take none",
        ),
        (
            json!({"secureOn": {"secretName": ""}}),
            "secretName is the name of a Secret",
        ),
    ];
    for mac in [
        "",
        "52:54:00:12:34",
        "52:54:00:12:34:56:78",
        "52:54-00:12:34:56",
        "52:54:0:12:34:56",
        "52:54:00:12:34:5g",
        "525400-123456",
        " 52:54:00:12:34:56",
        "desktop",
    ] {
        refused.push((mapping(mac), "a MAC address is written like"));
    }
    for mac in [
        "ff:ff:ff:ff:ff:ff",
        "01:00:5e:00:00:01",
        "33-33-00-00-00-01",
        "0f0000000001",
    ] {
        refused.push((mapping(mac), "multicast or broadcast"));
    }
    for mac in ["00:00:00:00:00:00", "0000.0000.0000", "000000000000"] {
        refused.push((mapping(mac), "zero address"));
    }
    for range in [
        "",
        "10.0.0.0/64",
        "10.0.0.0",
        "10.0.0/24",
        "300.0.0.0/8",
        "fd00::/129",
        "lan",
    ] {
        refused.push((
            json!({"sourceRanges": ["10.0.0.0/8", range]}),
            "a source range is a network",
        ));
    }
    for pattern in [
        "", "!", "!!eth0", "eth 0", "eth0/1", "eth[0", "eth]", "eth[]", "eth[!]",
    ] {
        refused.push((
            json!({"interfaces": [pattern]}),
            "an interface pattern is a name",
        ));
    }
    refused.push((json!({"interfaces": ["eth**"]}), "one * stands for any"));
    for namespace in ["", "Prod", "team-*", "a.b", "-a"] {
        refused.push((
            json!({"namespaceSelectors": [namespace]}),
            "a namespace is given by its whole name",
        ));
    }
    refused
}

/// Specs that are refused by bounds and types, which only an API server checks.
fn refused_by_bounds() -> Vec<(Value, &'static str)> {
    let mapping = |vm: &str, namespace: &str| json!({"explicitMappings": [{"macAddress": "52:54:00:12:34:56", "vmName": vm, "namespace": namespace}]});
    vec![
        (
            json!({"discoveryMode": "Magic"}),
            "supported values: \"All\", \"LabelSelector\", \"Explicit\"",
        ),
        (
            json!({"wolPort": 0}),
            "spec.wolPort in body should be greater than or equal to 1",
        ),
        (
            json!({"wolPort": 70000}),
            "spec.wolPort in body should be less than or equal to 65535",
        ),
        (
            json!({"wolPorts": [9, 0]}),
            "spec.wolPorts[1] in body should be greater than or equal to 1",
        ),
        (
            json!({"wolPorts": [70000]}),
            "spec.wolPorts[0] in body should be less than or equal to 65535",
        ),
        (
            json!({"wolPorts": [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]}),
            "spec.wolPorts: Too many: 11: must have at most 10 items",
        ),
        (
            json!({"cacheTTL": -1}),
            "spec.cacheTTL in body should be greater than or equal to 0",
        ),
        (
            mapping("", "ns"),
            "spec.explicitMappings[0].vmName in body should be at least 1 chars long",
        ),
        (
            mapping("vm", ""),
            "spec.explicitMappings[0].namespace in body should be at least 1 chars long",
        ),
        (
            json!({"explicitMappings": [{"macAddress": "52:54:00:12:34:56", "vmName": "vm"}]}),
            "spec.explicitMappings[0].namespace: Required value",
        ),
        (
            json!({"explicitMappings": [
                {"macAddress": "52:54:00:12:34:56", "vmName": "a", "namespace": "ns"},
                {"macAddress": "52:54:00:12:34:56", "vmName": "b", "namespace": "ns"},
            ]}),
            "spec.explicitMappings[1]: Duplicate value",
        ),
        (
            json!({"vmSelector": {"matchExpressions": [{"key": "wol", "operator": "Is"}]}}),
            "supported values: \"In\", \"NotIn\", \"Exists\", \"DoesNotExist\"",
        ),
        (
            json!({"secureOn": {}}),
            "spec.secureOn.secretName: Required value",
        ),
    ]
}

fn accepted() -> Vec<Value> {
    let macs = [
        "52:54:00:12:34:56",
        "52:54:00:AB:cd:EF",
        "52-54-00-12-34-56",
        "5254.0012.3457",
        "525400123458",
        "00:00:00:00:00:01",
        "fe:ff:ff:ff:ff:ff",
    ];
    let mappings = macs.map(|mac| json!({"macAddress": mac, "vmName": "vm", "namespace": "ns"}));
    vec![
        json!({}),
        json!({"discoveryMode": "Explicit", "explicitMappings": mappings}),
        json!({"discoveryMode": "LabelSelector", "vmSelector": {"matchLabels": {"wol": "true"}}}),
        json!({"discoveryMode": "LabelSelector", "vmSelector": {"matchExpressions": [{"key": "wol", "operator": "Exists"}]}}),
        json!({"sourceRanges": ["0.0.0.0/0", "10.0.0.7/32", "::/0", "fd00::/8", "2001:db8::1/128"]}),
        json!({"interfaces": ["eth0", "en*", "!veth*", "eth?", "eth[0-3]", "eth[!0]", "br-lan", "eth0.100", "cilium_*", "wlan0@if3"]}),
        json!({"wolPort": 65535, "wolPorts": [1, 2, 3, 4, 5, 6, 7, 8, 9, 10], "cacheTTL": 0, "wakePaused": true}),
        json!({"secureOn": {"secretName": "kubevirt-wol-secureon"}, "namespaceSelectors": ["default", "a", "team-1"]}),
        original(),
    ]
}

/// A spec with every field that the original Go implementation had.
fn original() -> Value {
    json!({
        "discoveryMode": "Explicit",
        "namespaceSelectors": ["default"],
        "vmSelector": {"matchLabels": {"wol": "true"}},
        "explicitMappings": [{"macAddress": "52:54:00:12:34:56", "vmName": "vm", "namespace": "default"}],
        "wolPorts": [9],
        "cacheTTL": 300,
        "agent": {
            "nodeSelector": {"kubernetes.io/os": "linux"},
            "tolerations": [{"key": "dedicated", "operator": "Exists", "effect": "NoSchedule", "tolerationSeconds": 3}],
            "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "128Mi"}},
            "image": "registry.example.com/agent:v2",
            "imagePullPolicy": "IfNotPresent",
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "10%"}},
            "priorityClassName": "system-node-critical",
        },
    })
}

fn wolconfig(name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "wol.pillon.org/v1beta1", "kind": "WolConfig", "metadata": {"name": name}, "spec": spec})
}

fn sample(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("deploy/samples")
        .join(name)
        .with_extension("yaml");
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_yaml::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// What the released program prints.
fn printed() -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_kubevirt-wol"))
        .arg("crd")
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The refusals of the CEL rules alone.
fn judge(object: &Value) -> Result<(), String> {
    let definition = serde_json::to_value(crd::definition()).unwrap();
    let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    Validator::new()
        .validate(schema, object, None)
        .map_err(|errors| errors.to_string())
}

#[test]
fn the_manifest_in_the_repository_is_what_the_program_prints() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/base/crd.yaml");
    let printed = printed();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, &printed).unwrap();
    }
    let kept = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        kept == printed,
        "deploy/base/crd.yaml is not what `kubevirt-wol crd` prints: run `just manifests` or `UPDATE_GOLDEN=1 cargo test --test crd`"
    );
}

#[test]
fn every_field_is_explained() {
    fn walk(path: &str, schema: &Value, bare: &mut Vec<String>) {
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}.{name}");
            if field["description"].as_str().is_none_or(str::is_empty) {
                bare.push(path.clone());
            }
            walk(&path, field, bare);
            walk(&path, &field["items"], bare);
        }
    }
    let definition = serde_json::to_value(crd::definition()).unwrap();
    let root = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    let mut bare = Vec::new();
    walk("", root, &mut bare);
    assert_eq!(bare, Vec::<String>::new());
    let text = root["description"].as_str().unwrap();
    assert!(
        text.contains("Manual or RerunOnFailure"),
        "kubectl explain warns of Halted: {text}"
    );
}

#[test]
fn rules_refuse_with_words_that_help() {
    for (spec, words) in refused_by_rules() {
        let refusal = judge(&wolconfig("x", &spec)).expect_err(&spec.to_string());
        assert!(refusal.contains(words), "{spec}: {refusal}");
    }
}

#[test]
fn rules_accept_what_makes_sense_and_so_does_the_program() {
    for spec in accepted() {
        let object = wolconfig("x", &spec);
        judge(&object).unwrap_or_else(|refusal| panic!("{spec}: {refusal}"));
        let config: WolConfig = serde_json::from_value(object).unwrap();
        SourceFilter::new(&config.spec.interfaces, &config.spec.source_ranges).unwrap();
        for mapping in config.spec.explicit_mappings {
            let mac: MacAddr = mapping.mac_address.parse().unwrap();
            assert!(!mac.is_group() && !mac.is_zero(), "{mac}");
        }
    }
}

#[test]
fn a_config_goes_through_the_program_unchanged() {
    for object in SAMPLES.map(sample) {
        judge(&object).unwrap_or_else(|refusal| panic!("{object}: {refusal}"));
        let config: WolConfig = serde_json::from_value(object).unwrap();
        let again: WolConfig =
            serde_json::from_value(serde_json::to_value(&config).unwrap()).unwrap();
        assert_eq!(config, again);
    }
}

/// Sends a request and returns the warnings in its answer.
async fn warnings(client: &Client, request: Request<Vec<u8>>) -> Vec<String> {
    let answer = client.send(request.map(Into::into)).await.unwrap();
    let warnings = answer.headers().get_all("warning").iter();
    let warnings = warnings
        .map(|w| w.to_str().unwrap_or("?").to_owned())
        .collect();
    assert!(answer.status().is_success(), "{answer:?}");
    warnings
}

fn apply(path: &str, body: &str) -> Request<Vec<u8>> {
    Request::patch(format!("{path}?fieldManager=test&fieldValidation=Strict"))
        .header("content-type", "application/apply-patch+yaml")
        .body(body.into())
        .unwrap()
}

async fn created(api: &Api<DynamicObject>, object: &Value) -> Result<DynamicObject, String> {
    let object = serde_json::from_value(object.clone()).unwrap();
    let params = PostParams {
        dry_run: true,
        ..Default::default()
    };
    match api.create(&params, &object).await {
        Ok(object) => Ok(object),
        Err(kube::Error::Api(status)) => Err(status.message),
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn a_real_api_server_agrees() {
    let Some(envtest) = Envtest::shared() else {
        return;
    };
    let client = envtest.client().await;
    let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/wolconfigs.wol.pillon.org";
    let none = Vec::<String>::new();
    assert_eq!(
        warnings(&client, apply(path, &printed())).await,
        none,
        "applying it warns of nothing"
    );
    let kind = ApiResource::erase::<WolConfig>(&());
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &kind);
    let deadline = Instant::now() + Duration::from_secs(30);
    while let Err(error) = api.list(&ListParams::default()).await {
        assert!(Instant::now() < deadline, "not served: {error}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    let refused = refused_by_rules().into_iter().chain(refused_by_bounds());
    for (spec, words) in refused {
        let refusal = created(&api, &wolconfig("x", &spec))
            .await
            .expect_err(&spec.to_string());
        assert!(refusal.contains(words), "{spec}: {refusal}");
    }
    for spec in accepted() {
        created(&api, &wolconfig("x", &spec))
            .await
            .unwrap_or_else(|refusal| panic!("{spec}: {refusal}"));
    }
    for name in SAMPLES {
        let object = sample(name);
        let path = format!(
            "/apis/wol.pillon.org/v1beta1/wolconfigs/{}",
            object["metadata"]["name"].as_str().unwrap()
        );
        assert_eq!(
            warnings(&client, apply(&path, &object.to_string())).await,
            none,
            "{name}"
        );
    }
    defaults_hold(&api).await;
    ten_thousand_mappings_fit(&api).await;
    status_is_kept_apart(&client).await;
}

async fn defaults_hold(api: &Api<DynamicObject>) {
    let defaults = json!({"discoveryMode": "All", "cacheTTL": 300});
    let mut bare = wolconfig("x", &json!({}));
    bare.as_object_mut().unwrap().remove("spec");
    for object in [bare, wolconfig("x", &json!({}))] {
        let stored = created(api, &object).await.unwrap();
        assert_eq!(stored.data["spec"], defaults);
    }
    let nulls = json!({"vmSelector": null, "wolPort": null, "agent": null, "discoveryMode": null});
    let stored = created(api, &wolconfig("x", &nulls)).await.unwrap();
    assert_eq!(stored.data["spec"], defaults);
    // A field that pruning took away would be missing here.
    let stored = created(api, &wolconfig("x", &original())).await.unwrap();
    assert_eq!(stored.data["spec"], original());
}

/// The rules must not run into the API server's cost limit.
async fn ten_thousand_mappings_fit(api: &Api<DynamicObject>) {
    let mappings: Vec<Value> = (0..10_000)
        .map(|n: u32| {
            let [_, _, a, b] = n.to_be_bytes();
            json!({"macAddress": format!("52:54:00:00:{a:02x}:{b:02x}"), "vmName": format!("vm-{n}"), "namespace": "ns"})
        })
        .collect();
    let spec = json!({"discoveryMode": "Explicit", "explicitMappings": mappings});
    let stored = created(api, &wolconfig("many", &spec)).await.unwrap();
    assert_eq!(
        stored.data["spec"]["explicitMappings"][9_999],
        mappings[9_999]
    );
}

/// Two writers of status, each with fields of its own, and the spec out of reach of both.
async fn status_is_kept_apart(client: &Client) {
    let api: Api<WolConfig> = Api::all(client.clone());
    let spec = api.get("default").await.unwrap().spec;
    let apply = async |manager: &str, status: Value| {
        let patch = json!({
            "apiVersion": "wol.pillon.org/v1beta1", "kind": "WolConfig",
            "spec": {"wolPort": 4343}, "status": status,
        });
        let params = PatchParams::apply(manager).force();
        api.patch_status("default", &params, &Patch::Apply(patch))
            .await
            .unwrap()
    };
    let time = "2026-11-23T12:00:00Z";
    let ready = json!({"type": "Ready", "status": "True", "reason": "Serving", "message": "", "lastTransitionTime": time});
    apply(
        "status",
        json!({
            "observedGeneration": 1, "managedVMs": 2, "lastSync": time, "conditions": [ready], "ports": [9],
            "agentStatus": {"connected": 3, "configured": 2, "troubled": [{"node": "n1", "reason": "port 9 is taken"}]},
            "mappings": [{"macAddress": "52:54:00:12:34:56", "vmName": "vm", "namespace": "ns"}], "mappingsTotal": 2,
            "conflicts": [{"macAddress": "52:54:00:12:34:57", "vms": ["a/x", "b/y"]}], "conflictsTotal": 1,
            "unwakeable": [{"vmName": "z", "namespace": "ns", "reason": "no macAddress"}], "unwakeableTotal": 1,
        }),
    )
    .await;
    let woken = json!({"time": time, "macAddress": "52:54:00:12:34:56", "vmName": "vm", "namespace": "ns",
        "node": "n1", "origin": "10.0.0.7 on eth0", "outcome": "started"});
    let config = apply("wake", json!({"lastWake": woken})).await;
    let status = config.status.unwrap();
    assert_eq!(config.spec, spec, "status writers do not reach the spec");
    assert_eq!(status.managed_vms, 2);
    assert_eq!(status.last_wake.unwrap().outcome, "started");
    assert_eq!(
        printed_columns(client).await,
        ["default", "All", "[9]", "2", "3", "True", "1",]
    );
}

/// What kubectl get -o wide shows of the sample, without the ages.
async fn printed_columns(client: &Client) -> Vec<String> {
    let request = Request::get("/apis/wol.pillon.org/v1beta1/wolconfigs/default")
        .header("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")
        .body(Vec::new())
        .unwrap();
    let table: Value = client.request(request).await.unwrap();
    let names = table["columnDefinitions"].as_array().unwrap();
    let cells = table["rows"][0]["cells"].as_array().unwrap();
    let columns = names.iter().zip(cells);
    let lasting = columns
        .filter(|(column, _)| !["Age", "Last Wake"].contains(&column["name"].as_str().unwrap()));
    lasting
        .map(|(_, cell)| cell.as_str().map_or_else(|| cell.to_string(), Into::into))
        .collect()
}
