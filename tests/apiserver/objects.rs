//! Objects: what is written is read, by all verbs and patches.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        authentication::v1::{TokenReview, TokenReviewSpec},
        coordination::v1::Lease,
        core::v1::Namespace,
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use kubevirt_wol::crd::{WolConfig, WolConfigSpec};
use serde_json::{Value, json};

use crate::{
    code,
    common::apiserver::{ApiServer, TokenUser},
    config_map, config_maps, install_crd, make,
};

#[tokio::test]
async fn an_object_can_be_created_read_changed_and_deleted() {
    let server = ApiServer::start().await;
    let api = config_maps(&server.client());
    let made = make(&server.client(), "x").await;
    assert_eq!(api.get("x").await.unwrap(), made);
    let again = api.create(&PostParams::default(), &config_map("x")).await;
    assert_eq!(code(again), 409);
    let params = PatchParams::default();
    let merge = Patch::Merge(json!({"data": {"b": "2"}}));
    let patched = api.patch("x", &params, &merge).await.unwrap();
    let expected = BTreeMap::from([("a".into(), "1".into()), ("b".into(), "2".into())]);
    assert_eq!(patched.data, Some(expected));
    assert_ne!(
        patched.metadata.resource_version,
        made.metadata.resource_version
    );
    let unchanged = api.patch("x", &params, &merge).await.unwrap();
    assert_eq!(
        unchanged, patched,
        "what changes nothing makes no new version"
    );
    api.delete("x", &DeleteParams::default()).await.unwrap();
    assert_eq!(api.get_opt("x").await.unwrap(), None);
}

#[tokio::test]
async fn a_json_patch_applies_as_a_whole_or_not_at_all() {
    let server = ApiServer::start().await;
    let api = config_maps(&server.client());
    make(&server.client(), "x").await;
    let patch = |expected: &str| {
        let steps = json!([
            {"op": "replace", "path": "/data/a", "value": "2"},
            {"op": "test", "path": "/data/a", "value": expected},
        ]);
        Patch::Json::<()>(serde_json::from_value(steps).unwrap())
    };
    let params = PatchParams::default();
    assert_eq!(code(api.patch("x", &params, &patch("3")).await), 422);
    assert_eq!(api.get("x").await.unwrap().data.unwrap()["a"], "1");
    api.patch("x", &params, &patch("2")).await.unwrap();
    assert_eq!(api.get("x").await.unwrap().data.unwrap()["a"], "2");
}

#[tokio::test]
async fn an_applied_field_belongs_to_who_applied_it() {
    let server = ApiServer::start().await;
    let api = config_maps(&server.client());
    let apply = async |manager: &str, data: Value, force: bool| {
        let object = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "data": data,
        });
        let params = PatchParams {
            force,
            ..PatchParams::apply(manager)
        };
        api.patch("x", &params, &Patch::Apply(object)).await
    };
    apply("one", json!({"a": "1", "b": "1"}), false)
        .await
        .unwrap();
    assert_eq!(code(apply("two", json!({"a": "2"}), false).await), 409);
    apply("two", json!({"a": "2"}), true).await.unwrap();
    // One no longer applies `b`, and `a` is no longer its own.
    let left = apply("one", json!({}), false).await.unwrap();
    assert_eq!(left.data, Some(BTreeMap::from([("a".into(), "2".into())])));
}

#[tokio::test]
async fn two_candidates_cannot_both_take_a_lease() {
    let server = ApiServer::start().await;
    let api: Api<Lease> = Api::default_namespaced(server.client());
    let lease = json!({"metadata": {"name": "x"}, "spec": {}});
    let lease = serde_json::from_value(lease).unwrap();
    let free: Lease = api.create(&PostParams::default(), &lease).await.unwrap();
    let take = |holder: &str| {
        let mut mine = free.clone();
        mine.spec.as_mut().unwrap().holder_identity = Some(holder.to_owned());
        let api = api.clone();
        async move { api.replace("x", &PostParams::default(), &mine).await }
    };
    let (one, two) = tokio::join!(take("one"), take("two"));
    let (winner, loser) = if one.is_ok() { (one, two) } else { (two, one) };
    assert_eq!(code(loser), 409);
    assert_eq!(api.get("x").await.unwrap(), winner.unwrap());
}

#[tokio::test]
async fn status_and_spec_are_written_apart() {
    let server = ApiServer::start().await;
    let client = server.client();
    install_crd(&client).await;
    let api: Api<WolConfig> = Api::all(client);
    let config = WolConfig::new("default", WolConfigSpec::default());
    let made = api.create(&PostParams::default(), &config).await.unwrap();
    assert_eq!(made.metadata.generation, Some(1));
    let both = json!({"spec": {"wolPorts": [9]}, "status": {"managedVMs": 3}});
    let params = PatchParams::default();
    let spec = api.patch("default", &params, &Patch::Merge(&both)).await;
    let spec = spec.unwrap();
    assert_eq!(
        (spec.metadata.generation, spec.status.is_some()),
        (Some(2), false)
    );
    let both = json!({"spec": {"wolPorts": [7]}, "status": {"managedVMs": 3}});
    let patch = Patch::Merge(&both);
    let status = api.patch_status("default", &params, &patch).await.unwrap();
    assert_eq!(status.metadata.generation, Some(2));
    assert_eq!(status.spec, spec.spec);
    assert!(status.status.is_some());
}

#[tokio::test]
async fn a_crd_is_served_from_its_creation_to_its_deletion() {
    let server = ApiServer::start().await;
    let client = server.client();
    let configs: Api<WolConfig> = Api::all(client.clone());
    let all = ListParams::default();
    assert_eq!(code(configs.list(&all).await), 404);
    install_crd(&client).await;
    let config = WolConfig::new("default", WolConfigSpec::default());
    configs
        .create(&PostParams::default(), &config)
        .await
        .unwrap();
    assert_eq!(configs.list(&all).await.unwrap().items.len(), 1);
    let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
    let name = "wolconfigs.wol.pillon.org";
    crds.delete(name, &DeleteParams::default()).await.unwrap();
    assert_eq!(code(configs.list(&all).await), 404);
    install_crd(&client).await;
    assert_eq!(configs.list(&all).await.unwrap().items.len(), 0);
}

#[tokio::test]
async fn pages_are_of_one_version() {
    let server = ApiServer::start().await;
    let client = server.client();
    let api = config_maps(&client);
    for name in ["a", "b", "c"] {
        make(&client, name).await;
    }
    let first = api.list(&ListParams::default().limit(2)).await.unwrap();
    make(&client, "bb").await;
    make(&client, "d").await;
    api.delete("c", &DeleteParams::default()).await.unwrap();
    let token = first.metadata.continue_.unwrap();
    let next = ListParams::default().limit(2).continue_token(&token);
    let names = |items: Vec<k8s_openapi::api::core::v1::ConfigMap>| -> Vec<String> {
        let names = items.into_iter().map(|item| item.metadata.name.unwrap());
        names.collect()
    };
    assert_eq!(names(first.items), ["a", "b"]);
    assert_eq!(names(api.list(&next).await.unwrap().items), ["c"]);
    server.expire_history();
    assert_eq!(code(api.list(&next).await), 410);
}

#[tokio::test]
async fn a_token_is_whose_and_for_whom_the_test_says() {
    let server = ApiServer::start().await;
    let node = ("authentication.kubernetes.io/node-name", "node-1");
    let user = TokenUser {
        username: "system:serviceaccount:wol:agent".into(),
        extra: BTreeMap::from([(node.0.into(), vec![node.1.into()])]),
        audiences: vec!["wol".into(), "other".into()],
        ..TokenUser::default()
    };
    server.add_token("secret", user);
    let api: Api<TokenReview> = Api::all(server.client());
    let review = async |token: &str, audience: &str| {
        let spec = TokenReviewSpec {
            token: Some(token.to_owned()),
            audiences: Some(vec![audience.to_owned()]),
        };
        let review = TokenReview {
            spec,
            ..TokenReview::default()
        };
        let answer = api.create(&PostParams::default(), &review).await.unwrap();
        answer.status.unwrap()
    };
    let known = review("secret", "wol").await;
    assert_eq!(known.authenticated, Some(true));
    assert_eq!(known.audiences, Some(vec!["wol".to_owned()]));
    assert_eq!(known.user.unwrap().extra.unwrap()[node.0], [node.1]);
    assert_eq!(review("secret", "strange").await.authenticated, None);
    server.remove_token("secret");
    let unknown = review("secret", "wol").await;
    assert_eq!(unknown.error.as_deref(), Some("invalid bearer token"));
}

#[tokio::test]
async fn a_namespace_takes_what_is_in_it_with_it() {
    let server = ApiServer::start().await;
    let client = server.client();
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let inside = Api::namespaced(client, "home");
    let params = PostParams::default();
    let missing = inside.create(&params, &config_map("x")).await;
    assert_eq!(code(missing), 404);
    let home = serde_json::from_value(json!({"metadata": {"name": "home"}})).unwrap();
    namespaces.create(&params, &home).await.unwrap();
    inside.create(&params, &config_map("x")).await.unwrap();
    let delete = DeleteParams::default();
    namespaces.delete("home", &delete).await.unwrap();
    assert_eq!(inside.get_opt("x").await.unwrap(), None);
}
