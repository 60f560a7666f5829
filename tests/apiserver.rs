//! The API stand-in keeps its promises towards real clients.

mod common;

use std::collections::BTreeMap;

use common::apiserver::ApiServer;
use futures::TryStreamExt as _;
use k8s_openapi::{
    api::core::v1::ConfigMap,
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
    runtime::{WatchStreamExt as _, watcher},
};
use kubevirt_wol::crd::WolConfig;
use serde_json::json;

fn config_maps(client: &Client) -> Api<ConfigMap> {
    Api::default_namespaced(client.clone())
}

fn config_map(name: &str) -> ConfigMap {
    serde_json::from_value(json!({"metadata": {"name": name}, "data": {"a": "1"}})).unwrap()
}

async fn install_crd(client: &Client) {
    let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
    let crd = <WolConfig as kube::CustomResourceExt>::crd();
    crds.create(&PostParams::default(), &crd).await.unwrap();
}

#[tokio::test]
async fn an_object_can_be_created_read_changed_and_deleted() {
    let server = ApiServer::start().await;
    let api = config_maps(&server.client());
    let made = api
        .create(&PostParams::default(), &config_map("x"))
        .await
        .unwrap();
    assert_eq!(api.get("x").await.unwrap(), made);
    let patch = json!({"data": {"b": "2"}});
    let params = PatchParams::default();
    let patched = api
        .patch("x", &params, &Patch::Merge(&patch))
        .await
        .unwrap();
    let expected = BTreeMap::from([("a".into(), "1".into()), ("b".into(), "2".into())]);
    assert_eq!(patched.data, Some(expected));
    assert_ne!(
        patched.metadata.resource_version,
        made.metadata.resource_version
    );
    api.delete("x", &Default::default()).await.unwrap();
    assert_eq!(api.get_opt("x").await.unwrap(), None);
}

#[tokio::test]
async fn a_watcher_sees_what_happens() {
    let server = ApiServer::start().await;
    let api = config_maps(&server.client());
    api.create(&PostParams::default(), &config_map("x"))
        .await
        .unwrap();
    for config in [
        watcher::Config::default(),
        watcher::Config::default().streaming_lists(),
    ] {
        let stream = watcher(api.clone(), config).applied_objects();
        let mut stream = std::pin::pin!(stream);
        let first = stream.try_next().await.unwrap().unwrap();
        assert_eq!(first.metadata.name.as_deref(), Some("x"));
        let name = format!("y{}", server.revision());
        api.create(&PostParams::default(), &config_map(&name))
            .await
            .unwrap();
        loop {
            let next = stream.try_next().await.unwrap().unwrap();
            if next.metadata.name.as_deref() == Some(&name) {
                break;
            }
        }
    }
}

#[tokio::test]
async fn a_crd_is_served_from_its_creation_to_its_deletion() {
    let server = ApiServer::start().await;
    let client = server.client();
    let configs: Api<WolConfig> = Api::all(client.clone());
    let absent = configs.list(&Default::default()).await.unwrap_err();
    assert!(matches!(absent, kube::Error::Api(status) if status.code == 404));
    install_crd(&client).await;
    configs
        .create(
            &PostParams::default(),
            &WolConfig::new("default", Default::default()),
        )
        .await
        .unwrap();
    assert_eq!(
        configs.list(&Default::default()).await.unwrap().items.len(),
        1
    );
    let crds: Api<CustomResourceDefinition> = Api::all(client);
    crds.delete("wolconfigs.wol.pillon.org", &Default::default())
        .await
        .unwrap();
    let absent = configs.list(&Default::default()).await.unwrap_err();
    assert!(matches!(absent, kube::Error::Api(status) if status.code == 404));
}

#[tokio::test]
async fn an_aggregated_group_answers_for_itself() {
    let server = ApiServer::start().await;
    let client = server.client();
    let path = "/apis/subresources.kubevirt.io/v1/namespaces/default/virtualmachines/x/start";
    let request = || http::Request::put(path).body(Vec::new()).unwrap();
    let absent = client.request_text(request()).await.unwrap_err();
    assert!(matches!(absent, kube::Error::Api(status) if status.code == 404));
    let router = axum::Router::new().route(
        path,
        axum::routing::put(|| async { http::StatusCode::ACCEPTED }),
    );
    server.aggregate("subresources.kubevirt.io", "v1", router);
    assert_eq!(client.request_text(request()).await.unwrap(), "");
    let starts = server
        .requests()
        .into_iter()
        .filter(|request| request.path == path);
    assert_eq!(
        starts.map(|request| request.status).collect::<Vec<_>>(),
        [Some(404), Some(202)]
    );
}

#[tokio::test]
async fn an_outage_loses_nothing() {
    let server = ApiServer::start().await;
    let api = config_maps(&server.client());
    let made = api
        .create(&PostParams::default(), &config_map("x"))
        .await
        .unwrap();
    server.kill().await;
    assert!(std::net::TcpStream::connect(server.address()).is_err());
    server.restart().await;
    assert_eq!(api.get("x").await.unwrap(), made);
}
