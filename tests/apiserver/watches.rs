//! Watches: clients see every change, whatever happens to history and connections.

use std::time::Duration;

use futures::{Stream, StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams},
    runtime::{WatchStreamExt as _, watcher},
};
use serde_json::json;

use crate::{
    common::apiserver::{ApiServer, Failure, WatchEnd, When},
    config_maps, install_crd, make,
};

/// Reads until an object of this name comes.
async fn see(stream: &mut (impl Stream<Item = watcher::Result<ConfigMap>> + Unpin), name: &str) {
    let all = async {
        loop {
            let next = stream.next().await.unwrap();
            // Errors are what the watcher recovers from.
            if next.is_ok_and(|object| object.metadata.name.as_deref() == Some(name)) {
                return;
            }
        }
    };
    let seen = tokio::time::timeout(Duration::from_secs(20), all).await;
    assert!(seen.is_ok(), "{name} is never seen");
}

#[tokio::test]
async fn a_watcher_survives_all_that_can_happen_to_its_watch() {
    let server = ApiServer::start().await;
    let client = server.client();
    make(&client, "first").await;
    for config in [
        watcher::Config::default(),
        watcher::Config::default().streaming_lists(),
    ] {
        let stream = watcher(config_maps(&client), config).applied_objects();
        let mut stream = std::pin::pin!(stream);
        see(&mut stream, "first").await;
        let gone = Failure::expired(1, 2);
        for (number, end) in [WatchEnd::Clean, WatchEnd::Reset, WatchEnd::Error(gone)]
            .into_iter()
            .enumerate()
        {
            for expired in [false, true] {
                server.faults().end_watches(end.clone());
                if expired {
                    server.expire_history();
                }
                let name = format!("x{}-{number}", server.revision());
                make(&client, &name).await;
                see(&mut stream, &name).await;
            }
        }
    }
}

#[tokio::test]
async fn a_forgotten_version_can_be_refused_by_code_too() {
    let server = ApiServer::start().await;
    server.set(|settings| settings.expired_by_code = true);
    let api = config_maps(&server.client());
    let known = server.revision().to_string();
    server.expire_history();
    let watch = api.watch(&WatchParams::default(), &known).await;
    assert_eq!(crate::code(watch.map(|_| ())), 410);
}

/// The next events of a watch: a letter and the object's name each.
async fn events(
    stream: &mut (impl Stream<Item = kube::Result<WatchEvent<ConfigMap>>> + Unpin),
    count: usize,
) -> Vec<String> {
    let text = |event| match event {
        WatchEvent::Added(object) => format!("+{}", name(&object)),
        WatchEvent::Modified(object) => format!("~{}", name(&object)),
        WatchEvent::Deleted(object) => format!("-{}", name(&object)),
        WatchEvent::Bookmark(_) => "bookmark".to_owned(),
        WatchEvent::Error(status) => format!("error {}", status.code),
    };
    let events = stream.by_ref().take(count).map_ok(text);
    events.try_collect().await.unwrap()
}

fn name(object: &ConfigMap) -> String {
    object.metadata.name.clone().unwrap_or_default()
}

#[tokio::test]
async fn an_object_that_begins_or_ceases_to_match_comes_or_goes() {
    let server = ApiServer::start().await;
    let client = server.client();
    let api = config_maps(&client);
    let start = server.revision().to_string();
    let params = WatchParams::default().labels("is=x");
    let mut stream = Box::pin(api.watch(&params, &start).await.unwrap());
    make(&client, "y").await;
    let relabel = async |value: &str| {
        let patch = json!({"metadata": {"labels": {"is": value}}});
        let params = PatchParams::default();
        api.patch("y", &params, &Patch::Merge(&patch))
            .await
            .unwrap();
    };
    relabel("x").await;
    relabel("z").await;
    make(&client, "x").await;
    api.delete("x", &DeleteParams::default()).await.unwrap();
    assert_eq!(events(&mut stream, 4).await, ["+y", "-y", "+x", "-x"]);
}

#[tokio::test]
async fn bookmarks_come_as_often_as_set() {
    let server = ApiServer::start().await;
    server.set(|settings| settings.bookmark_interval = Duration::from_millis(10));
    let api = config_maps(&server.client());
    let params = WatchParams::default();
    let mut stream = Box::pin(api.watch(&params, "0").await.unwrap());
    assert_eq!(events(&mut stream, 2).await, ["bookmark", "bookmark"]);
}

#[tokio::test]
async fn a_slow_reader_of_a_short_history_is_told() {
    let server = ApiServer::start().await;
    let client = server.client();
    let api = config_maps(&client);
    let start = server.revision().to_string();
    server.keep_changes(1);
    make(&client, "x").await;
    make(&client, "y").await;
    let params = WatchParams::default();
    let mut stream = Box::pin(api.watch(&params, &start).await.unwrap());
    assert_eq!(events(&mut stream, 1).await, ["error 410"]);
    let error = stream.next().await;
    assert!(error.is_none(), "and that is the end: {error:?}");
}

#[tokio::test]
async fn a_watch_ends_with_the_definition_of_what_it_watches() {
    use kubevirt_wol::crd::{WolConfig, WolConfigSpec};
    let server = ApiServer::start().await;
    let client = server.client();
    install_crd(&client).await;
    let configs: Api<WolConfig> = Api::all(client.clone());
    let config = WolConfig::new("default", WolConfigSpec::default());
    let params = PostParams::default();
    configs.create(&params, &config).await.unwrap();
    let mut stream = Box::pin(configs.watch(&WatchParams::default(), "0").await.unwrap());
    let first = stream.try_next().await.unwrap();
    assert!(matches!(first, Some(WatchEvent::Added(_))));
    let crds: Api<k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition> =
        Api::all(client);
    let delete = DeleteParams::default();
    crds.delete("wolconfigs.wol.pillon.org", &delete)
        .await
        .unwrap();
    let last = stream.try_next().await.unwrap();
    assert!(matches!(last, Some(WatchEvent::Deleted(_))));
    assert!(stream.try_next().await.unwrap().is_none());
}

#[tokio::test]
async fn watches_can_fail_where_lists_do_not() {
    use crate::common::apiserver::Fault;
    let server = ApiServer::start().await;
    let client = server.client();
    let refused = Fault::Answer(Failure::internal("injected"));
    server.faults().add(When::any().watches(), refused);
    let api = config_maps(&client);
    api.list(&ListParams::default()).await.unwrap();
    let watch = api.watch(&WatchParams::default(), "0").await;
    assert_eq!(crate::code(watch.map(|_| ())), 500);
}
