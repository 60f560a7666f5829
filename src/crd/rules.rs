//! Owns what the API server refuses in a `WolConfig`, and with which words: bounds that keep CEL
//! cheap, CEL rules, and the last touches that make the generated schema one it takes without a
//! warning. `isCIDR` needs Kubernetes 1.31.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSON, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

/// What each mode cannot do without. The mode has a default, but the API server also judges the
/// default of the whole spec, which has none yet.
pub(super) fn spec(schema: &mut Schema) {
    refuse_unless(
        schema,
        json!({
            "rule": "!has(self.discoveryMode) || self.discoveryMode != 'Explicit' || (has(self.explicitMappings) && size(self.explicitMappings) > 0)",
            "message": "discoveryMode Explicit needs explicitMappings",
            "fieldPath": ".explicitMappings",
            "reason": "FieldValueRequired",
        }),
    );
    refuse_unless(
        schema,
        json!({
            "rule": "!has(self.discoveryMode) || self.discoveryMode != 'LabelSelector' || (has(self.vmSelector) && ((has(self.vmSelector.matchLabels) && size(self.vmSelector.matchLabels) > 0) || (has(self.vmSelector.matchExpressions) && size(self.vmSelector.matchExpressions) > 0)))",
            "message": "discoveryMode LabelSelector needs a vmSelector with matchLabels or matchExpressions; to make every VM wakeable, say discoveryMode All",
            "fieldPath": ".vmSelector",
            "reason": "FieldValueRequired",
        }),
    );
}

/// Namespaces are plain names.
pub(super) fn namespaces(schema: &mut Schema) {
    refuse_items_unless(
        schema,
        "self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",
        "a namespace is given by its whole name, without wildcards; for all namespaces leave the list empty",
    );
}

/// A selector that means something: the built-in type says nothing about operators.
pub(super) fn selector(schema: &mut Schema) {
    let Some(expressions) = schema.pointer_mut("/properties/matchExpressions") else {
        return;
    };
    expressions["maxItems"] = json!(64);
    expressions["items"]["properties"]["operator"]["enum"] =
        json!(["In", "NotIn", "Exists", "DoesNotExist"]);
    expressions["items"]["x-kubernetes-validations"] = json!([{
        "rule": "(self.operator in ['In', 'NotIn']) == (has(self.values) && size(self.values) > 0)",
        "message": "operators In and NotIn need values, Exists and DoesNotExist take none",
    }]);
}

/// One entry for each address, so that several owners can each apply theirs.
pub(super) fn keyed_by_mac(schema: &mut Schema) {
    schema.insert("x-kubernetes-list-type".into(), json!("map"));
    schema.insert("x-kubernetes-list-map-keys".into(), json!(["macAddress"]));
}

/// The address of one station. Longer texts than addresses are let through to the rule, whose words
/// say more than those of a length limit.
pub(super) fn mac(schema: &mut Schema) {
    let notation = "^([0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}|[0-9A-Fa-f]{2}(-[0-9A-Fa-f]{2}){5}|[0-9A-Fa-f]{4}([.][0-9A-Fa-f]{4}){2}|[0-9A-Fa-f]{12})$";
    let rules = [
        (
            format!("self.matches('{notation}')"),
            "a MAC address is written like 52:54:00:12:34:56, 52-54-00-12-34-56, 5254.0012.3456 or 525400123456",
        ),
        (
            "!self.matches('^.[13579BbDdFf]')".into(),
            "a multicast or broadcast address belongs to no VM: the first octet must be even",
        ),
        (
            "self.matches('[^0:.-]')".into(),
            "the zero address belongs to no VM",
        ),
    ];
    for (rule, message) in rules {
        refuse_unless(schema, json!({"rule": rule, "message": message}));
    }
}

/// Networks in CIDR notation.
pub(super) fn networks(schema: &mut Schema) {
    refuse_items_unless(
        schema,
        "isCIDR(self)",
        "a source range is a network such as 10.0.0.0/24 or fd00::/8; a single address ends in /32 or /128",
    );
}

/// Shell patterns that the agents' matcher takes too.
pub(super) fn interfaces(schema: &mut Schema) {
    refuse_items_unless(
        schema,
        r"self.matches('^!?([^!/\\s\\[\\]]|\\[!?[^!/\\s\\[\\]]+\\])+$')",
        "an interface pattern is a name in which *, ? and [..] stand for other characters, such as eth* or !veth*",
    );
    refuse_items_unless(
        schema,
        "!self.contains('**')",
        "in an interface pattern one * stands for any number of characters",
    );
}

/// The name of a Secret.
pub(super) fn object_name(schema: &mut Schema) {
    refuse_unless(
        schema,
        json!({
            "rule": "self.matches('^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$')",
            "message": "secretName is the name of a Secret in the manager's namespace",
        }),
    );
}

/// Lists whose entries belong to the key given.
pub(super) fn keyed_by_type(schema: &mut Schema) {
    schema.insert("x-kubernetes-list-type".into(), json!("map"));
    schema.insert("x-kubernetes-list-map-keys".into(), json!(["type"]));
}

/// Status tells what is; nothing is made up where it is silent.
pub(super) fn no_default(schema: &mut Schema) {
    schema.remove("default");
}

/// An object of which nothing is asked.
pub(super) fn any_object(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

/// A list of objects of which nothing is asked.
pub(super) fn any_objects(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "array", "items": any_object(generator)})
}

/// Adds a CEL rule to what `schema` describes.
fn refuse_unless(schema: &mut Schema, rule: Value) {
    let rules = schema
        .ensure_object()
        .entry("x-kubernetes-validations")
        .or_insert_with(|| json!([]));
    if let Value::Array(rules) = rules {
        rules.push(rule);
    }
}

/// Adds a CEL rule to each item of a list, so that the refusal names the item.
fn refuse_items_unless(list: &mut Schema, rule: &str, message: &str) {
    if let Some(items) = list.get_mut("items")
        && let Ok(items) = <&mut Schema>::try_from(items)
    {
        refuse_unless(items, json!({"rule": rule, "message": message}));
    }
}

/// Takes out what Rust's source puts in and the API server has no use for: line breaks, `nullable` (it drops a
/// null where that is not allowed, and then the default holds) and formats that it does not know.
pub(super) fn plain(schema: &mut JSONSchemaProps) {
    schema.nullable = None;
    // Where the source breaks a line, `kubectl explain` would break it, too.
    schema.description = schema.description.take().map(|text| {
        let paragraphs = text
            .split("\n\n")
            .map(|paragraph| paragraph.replace('\n', " "));
        paragraphs.collect::<Vec<_>>().join("\n\n")
    });
    if schema
        .format
        .as_deref()
        .is_some_and(|f| f.starts_with("uint"))
    {
        schema.format = None;
    }
    schema
        .properties
        .iter_mut()
        .flatten()
        .for_each(|(_, s)| plain(s));
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        plain(items);
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &mut schema.additional_properties {
        plain(values);
    }
}

/// A `WolConfig` without a spec means the defaults.
pub(super) fn spec_may_be_absent(root: &mut JSONSchemaProps) {
    if let Some(required) = &mut root.required {
        required.retain(|name| name != "spec");
    }
    root.required.take_if(|required| required.is_empty());
    if let Some(spec) = root.properties.as_mut().and_then(|p| p.get_mut("spec")) {
        spec.default = Some(JSON(json!({})));
    }
}
