//! Owns the definitions of the custom resources that both servers get, and what is tried on them.

use serde_json::{Value, json};

fn definition(kind: &str, scope: &str, versions: &Value) -> Value {
    let plural = format!("{}s", kind.to_lowercase());
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.conf.test")},
        "spec": {
            "group": "conf.test", "scope": scope, "versions": versions,
            "names": {"kind": kind, "plural": plural},
        },
    })
}

/// A namespaced resource with a status, columns, defaults, lists of all types and a rule.
pub(crate) fn thing() -> Value {
    let spec = json!({
        "type": "object", "required": ["mode"],
        "x-kubernetes-validations": [{"rule": "self.mode != 'B' || has(self.n)", "message": "B needs n"}],
        "properties": {
            "mode": {"type": "string", "enum": ["A", "B"]},
            "n": {"type": "integer", "minimum": 1, "maximum": 65535},
            "name": {"type": "string", "pattern": "^[a-z]+$", "minLength": 2, "maxLength": 4},
            "ports": {"type": "array", "maxItems": 2, "items": {"type": "integer", "format": "int32"}},
            "d": {"type": "string", "default": "x"},
            "o": {"type": "object", "required": ["a"], "properties": {"a": {"type": "boolean"}}},
            "any": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
            "list": {
                "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
                "items": {
                    "type": "object", "required": ["k"],
                    "properties": {"k": {"type": "string"}, "v": {"type": "string"}},
                },
            },
            "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
            "m": {"type": "object", "additionalProperties": {"type": "string"}},
            "nul": {"type": "string", "nullable": true},
        },
    });
    let status = json!({
        "type": "object",
        "properties": {
            "printableStatus": {"type": "string", "default": "Stopped"},
            "ready": {"type": "boolean"},
            "when": {"type": "string", "format": "date-time"},
        },
    });
    let schema = json!({
        "type": "object", "required": ["spec"], "properties": {"spec": spec, "status": status},
    });
    let versions = json!([
        {
            "name": "v1", "served": true, "storage": true, "subresources": {"status": {}},
            "additionalPrinterColumns": columns(), "schema": {"openAPIV3Schema": schema},
        },
        {
            "name": "v1alpha1", "served": true, "storage": false, "deprecated": true,
            "schema": {"openAPIV3Schema": {
                "type": "object", "x-kubernetes-preserve-unknown-fields": true,
            }},
        },
    ]);
    let mut definition = definition("Thing", "Namespaced", &versions);
    definition["spec"]["names"]["shortNames"] = json!(["th"]);
    definition["spec"]["names"]["categories"] = json!(["all"]);
    definition
}

fn columns() -> Value {
    json!([
        {"name": "Mode", "type": "string", "jsonPath": ".spec.mode", "description": "how"},
        {"name": "Ports", "type": "string", "jsonPath": ".spec.ports"},
        {"name": "When", "type": "date", "jsonPath": ".status.when"},
        {"name": "Ready", "type": "boolean", "jsonPath": ".status.ready"},
        {"name": "First", "type": "integer", "jsonPath": ".spec.list[0].v", "priority": 1},
        {"name": "Picked", "type": "string", "jsonPath": ".spec.list[?(@.k==\"1\")].v"},
        {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
    ])
}

/// A cluster-wide resource without a status, with one field for each check.
pub(crate) fn value() -> Value {
    let n = json!([
        {"rule": "self != 3", "message": "not three"},
        {"rule": "self != 4", "reason": "FieldValueForbidden", "message": "no four"},
        {"rule": "self != 2"},
    ]);
    let alternatives = json!([{"required": ["a"]}, {"required": ["b"]}]);
    let ab = json!({"a": {"type": "string"}, "b": {"type": "string"}});
    let spec = json!({
        "type": "object",
        "properties": {
            "n": {"type": "integer", "minimum": 1, "maximum": 5, "x-kubernetes-validations": n},
            "x": {"type": "number", "minimum": 1, "exclusiveMinimum": true, "multipleOf": 2},
            "s": {
                "type": "string", "pattern": "^[a-z]+$",
                "x-kubernetes-validations": [{"rule": "self != 'bad'", "messageExpression": "'is ' + self"}],
            },
            "l": {
                "type": "array", "minItems": 1, "items": {"type": "string", "minLength": 2},
                "x-kubernetes-validations": [{"rule": "self.size() < 3"}],
            },
            "o": {
                "type": "object", "minProperties": 1, "maxProperties": 2,
                "additionalProperties": {"type": "integer"},
            },
            "io": {"x-kubernetes-int-or-string": true},
            "dt": {"type": "string", "format": "date-time"},
            "b": {"type": "boolean"},
            "i32": {"type": "integer", "format": "int32"},
            "any": {"type": "string", "anyOf": [{"minLength": 3}, {"pattern": "^a"}]},
            "one": {"type": "object", "properties": ab, "oneOf": alternatives},
            "not": {"type": "string", "not": {"enum": ["no"]}},
            "req": {
                "type": "object", "properties": {"a": {"type": "string"}},
                "x-kubernetes-validations": [{
                    "rule": "has(self.a)", "fieldPath": ".a", "reason": "FieldValueRequired",
                    "message": "a it is",
                }],
            },
        },
    });
    let schema = json!({"type": "object", "properties": {"spec": spec}});
    let version = json!({
        "name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema},
    });
    definition("Val", "Cluster", &json!([version]))
}

/// The specs of the latter that are tried.
pub(crate) fn specs() -> Vec<Value> {
    let Value::Array(specs) = json!([
        {"n": 1}, {"n": 3}, {"n": 4}, {"n": 2}, {"n": 9}, {"n": 1.5}, {"n": true}, {"n": null},
        {"x": 1}, {"x": 3}, {"x": 4},
        {"s": "bad"}, {"s": "BAD"}, {"s": ["a"]}, {"s": {"a": 1}},
        {"l": []}, {"l": ["a"]}, {"l": ["aa", "bb", "cc"]},
        {"o": {}}, {"o": {"a": 1, "b": 2, "c": 3}}, {"o": {"a": "b"}},
        {"io": true}, {"io": 1}, {"io": "1"}, {"dt": "x"}, {"dt": "2026-01-01T00:00:00Z"}, {"b": "x"},
        {"i32": 99_999_999_999_i64},
        {"any": "b"}, {"any": "ab"}, {"one": {}}, {"one": {"a": "1", "b": "2"}}, {"one": {"b": "2"}},
        {"not": "no"}, {"not": "yes"}, {"req": {}}, [], "x",
    ]) else {
        return Vec::new();
    };
    specs
}
