//! What KubeVirt reads of a `VirtualMachine`.

use kube::{ResourceExt as _, api::DynamicObject};
use serde_json::Value;

use super::world::Key;

/// A VM as it is stored.
#[derive(Debug, Clone)]
pub struct View(pub DynamicObject);

impl View {
    pub fn key(&self) -> Key {
        Key::new(&self.0.namespace().unwrap_or_default(), &self.0.name_any())
    }

    /// How new this is, where API servers count; 0 where they do not.
    pub fn version(&self) -> u64 {
        let version = self.0.metadata.resource_version.as_deref();
        version.and_then(|v| v.parse().ok()).unwrap_or_default()
    }

    pub fn is_deleting(&self) -> bool {
        self.0.metadata.deletion_timestamp.is_some()
    }

    pub fn running(&self) -> Option<bool> {
        self.0.data["spec"]["running"].as_bool()
    }

    /// How the VM is kept on; the deprecated `running` is another way to say it.
    pub fn strategy(&self) -> Result<&str, &'static str> {
        let strategy = self.0.data["spec"]["runStrategy"].as_str();
        match (strategy, self.running()) {
            (Some(_), Some(_)) => Err("running and runStrategy are mutually exclusive"),
            (Some(strategy), None) => Ok(strategy),
            (None, Some(true)) => Ok("Always"),
            (None, _) => Ok("Halted"),
        }
    }

    pub fn status(&self) -> &Value {
        &self.0.data["status"]
    }

    pub fn has_status(&self) -> bool {
        self.status().is_object()
    }

    pub fn status_text(&self, field: &str) -> Option<&str> {
        self.status()[field].as_str()
    }

    /// The requests that the controller has not acted on.
    pub fn requests(&self) -> impl Iterator<Item = &Value> {
        self.status()["stateChangeRequests"]
            .as_array()
            .into_iter()
            .flatten()
    }

    pub fn has_condition(&self, name: &str) -> bool {
        let conditions = self.status()["conditions"].as_array();
        conditions
            .into_iter()
            .flatten()
            .any(|c| c["type"] == name && c["status"] == "True")
    }
}
