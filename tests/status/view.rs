//! Owns how the tests look at a config: its status as JSON, waited for.

use kube::Api;
use kubevirt_wol::crd::WolConfig;
use serde_json::{Value, json};

use crate::common::cluster::{Cluster, eventually};

pub(crate) const NS: &str = "home";
pub(crate) const MAC: &str = "52:54:00:00:00:01";
pub(crate) const OTHER: &str = "52:54:00:00:00:02";

/// The definitions, a namespace, and a config that makes every VM wakeable.
pub(crate) async fn prepared(c: &Cluster, spec: Value) {
    c.install_crd().await;
    c.namespace(NS).await;
    c.config("default", spec).await;
}

/// The config as it is stored.
pub(crate) async fn config(c: &Cluster, name: &str) -> Value {
    let api = Api::<WolConfig>::all(c.client.clone());
    let config = api.get(name).await.expect("the WolConfig is there");
    serde_json::to_value(config).expect("objects are JSON")
}

/// Waits until the status of a config is as `holds` wants it.
pub(crate) async fn status(
    c: &Cluster,
    name: &str,
    what: &str,
    holds: impl Fn(&Value) -> bool,
) -> Value {
    let mut status = Value::Null;
    eventually(&format!("the status of {name} says {what}"), async || {
        let found = config(c, name).await["status"].take();
        if status != found {
            eprintln!("status of {name}: {found}");
            status = found;
        }
        holds(&status)
    })
    .await;
    status
}

/// The condition of this type.
pub(crate) fn condition<'a>(status: &'a Value, kind: &str) -> &'a Value {
    let conditions = status["conditions"].as_array().into_iter().flatten();
    let mut own = conditions.filter(|condition| condition["type"] == kind);
    own.next().unwrap_or(&Value::Null)
}

/// Whether a condition has this status, such as `"True"`.
pub(crate) fn is(status: &Value, kind: &str, wanted: &str) -> bool {
    condition(status, kind)["status"] == wanted
}

/// A mapping as a status shows it.
pub(crate) fn mapping(mac: &str, vm: &str) -> Value {
    json!({"macAddress": mac, "vmName": vm, "namespace": NS})
}

/// The reason why a VM cannot be woken, as a status shows it.
pub(crate) fn obstacle<'a>(status: &'a Value, vm: &str) -> &'a str {
    let all = status["unwakeable"].as_array().into_iter().flatten();
    let mut own = all.filter(|entry| entry["vmName"] == vm);
    own.next()
        .and_then(|entry| entry["reason"].as_str())
        .unwrap_or_default()
}
