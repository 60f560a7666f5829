//! The definition of `VirtualMachine`: what matters here of the real one, which has 675 kB.

use std::time::Duration;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, Client,
    api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};

const NAME: &str = "virtualmachines.kubevirt.io";

/// The resource, for dynamic clients.
pub fn resource() -> ApiResource {
    ApiResource {
        group: "kubevirt.io".into(),
        version: "v1".into(),
        api_version: "kubevirt.io/v1".into(),
        kind: "VirtualMachine".into(),
        plural: "virtualmachines".into(),
    }
}

/// The definition: both versions, status as a subresource, pruning, what is required, and the
/// default of `printableStatus`. Like the real one it says nothing about MAC addresses.
#[allow(clippy::too_many_lines, reason = "one manifest")]
pub fn definition() -> Value {
    let open = |mut schema: Value| {
        schema["type"] = "object".into();
        schema["x-kubernetes-preserve-unknown-fields"] = true.into();
        schema
    };
    let text = json!({"type": "string"});
    let interface = open(json!({
        "required": ["name"],
        "properties": {"name": text, "macAddress": text, "state": text},
    }));
    let interfaces = json!({"type": "array", "maxItems": 256, "items": interface});
    let devices = open(json!({"properties": {"interfaces": interfaces}}));
    let domain = open(json!({"required": ["devices"], "properties": {"devices": devices}}));
    let instance = open(json!({"required": ["domain"], "properties": {"domain": domain}}));
    let template = json!({
        "type": "object",
        "properties": {"metadata": open(json!({"nullable": true})), "spec": instance},
    });
    let spec = json!({
        "type": "object",
        "required": ["template"],
        "properties": {"running": {"type": "boolean"}, "runStrategy": text, "template": template},
    });
    let data = json!({"type": "object", "additionalProperties": text});
    let change = json!({
        "type": "object",
        "required": ["action"],
        "properties": {"action": text, "uid": text, "data": data},
    });
    let status = open(json!({"properties": {
        "created": {"type": "boolean"},
        "ready": {"type": "boolean"},
        "runStrategy": text,
        "printableStatus": {"type": "string", "default": "Stopped"},
        "snapshotInProgress": text,
        "restoreInProgress": text,
        "stateChangeRequests": {"type": "array", "items": change},
    }}));
    let schema = json!({
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": text, "kind": text, "metadata": {"type": "object"},
            "spec": spec, "status": status,
        },
    });
    let version = |name: &str, current: bool| {
        let mut version = json!({
            "name": name, "served": true, "storage": current,
            "subresources": {"status": {}},
            "schema": {"openAPIV3Schema": schema},
            "additionalPrinterColumns": [
                {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
                {"name": "Status", "type": "string", "jsonPath": ".status.printableStatus"},
            ],
        });
        if !current {
            version["deprecated"] = true.into();
        }
        version
    };
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": NAME, "labels": {"kubevirt.io": ""}},
        "spec": {
            "group": "kubevirt.io",
            "scope": "Namespaced",
            "names": {
                "kind": "VirtualMachine", "listKind": "VirtualMachineList",
                "plural": "virtualmachines", "singular": "virtualmachine",
                "shortNames": ["vm", "vms"], "categories": ["all"],
            },
            "versions": [version("v1", true), version("v1alpha3", false)],
        },
    })
}

/// Installs the definition and waits until VMs are served.
pub async fn install(client: &Client) {
    let api = Api::<CustomResourceDefinition>::all(client.clone());
    let params = PatchParams::apply("virt-operator").force();
    api.patch(NAME, &params, &Patch::Apply(definition()))
        .await
        .expect("the definition is taken");
    let vms = Api::<DynamicObject>::all_with(client.clone(), &resource());
    let served = async {
        while vms.list(&ListParams::default().limit(1)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), served)
        .await
        .expect("VirtualMachines are served");
}

/// Takes the definition away, and every VM with it, as uninstalling KubeVirt does.
pub async fn uninstall(client: &Client) {
    let api = Api::<CustomResourceDefinition>::all(client.clone());
    api.delete(NAME, &DeleteParams::default())
        .await
        .expect("the definition can be deleted");
}
