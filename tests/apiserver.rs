//! The API stand-in keeps its promises towards real clients. What it answers to the letter is
//! compared with a real server by `tests/conformance.rs`.

#![allow(
    clippy::unwrap_used,
    reason = "a fixture that breaks has to fail the test"
)]

mod common;
#[path = "apiserver/faults.rs"]
mod faults;
#[path = "apiserver/objects.rs"]
mod objects;
#[path = "apiserver/watches.rs"]
mod watches;

use k8s_openapi::{
    api::core::v1::ConfigMap,
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{Api, Client, CustomResourceExt as _, api::PostParams};
use kubevirt_wol::crd::WolConfig;
use serde_json::json;

fn config_maps(client: &Client) -> Api<ConfigMap> {
    Api::default_namespaced(client.clone())
}

fn config_map(name: &str) -> ConfigMap {
    let object = json!({"metadata": {"name": name, "labels": {"is": name}}, "data": {"a": "1"}});
    serde_json::from_value(object).unwrap()
}

async fn make(client: &Client, name: &str) -> ConfigMap {
    let api = config_maps(client);
    api.create(&PostParams::default(), &config_map(name))
        .await
        .unwrap()
}

async fn install_crd(client: &Client) {
    let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
    let crd = WolConfig::crd();
    crds.create(&PostParams::default(), &crd).await.unwrap();
}

/// The code of an error answer.
fn code<T: std::fmt::Debug>(result: kube::Result<T>) -> u16 {
    match result {
        Err(kube::Error::Api(status)) => status.code,
        other => panic!("not an error answer: {other:?}"),
    }
}
