//! Specs that are refused, each with words of the refusal, and specs that are accepted.

use serde_json::{Value, json};

/// Specs that are refused by a CEL rule, and words of the refusal.
#[allow(clippy::too_many_lines, reason = "one table")]
pub(crate) fn refused_by_rules() -> Vec<(Value, &'static str)> {
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
pub(crate) fn refused_by_bounds() -> Vec<(Value, &'static str)> {
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

/// Specs that make sense.
pub(crate) fn accepted() -> Vec<Value> {
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
pub(crate) fn original() -> Value {
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
