//! The same on a real API server.

use std::time::{Duration, Instant};

use http::Request;
use kube::{
    Api, Client,
    api::{DynamicObject, ListParams, Patch, PatchParams, PostParams},
    core::ApiResource,
};
use kubevirt_wol::crd::WolConfig;
use serde_json::{Value, json};

use crate::{
    SAMPLES,
    cases::{accepted, original, refused_by_bounds, refused_by_rules},
    common::envtest::Envtest,
    printed, sample, wolconfig,
};

/// Sends a request that must succeed and returns the warnings in its answer.
async fn warnings(client: &Client, request: Request<Vec<u8>>) -> Vec<String> {
    let answer = client.send(request.map(Into::into)).await.unwrap();
    let status = answer.status();
    let warnings = answer.headers().get_all("warning").iter();
    let warnings = warnings
        .map(|w| w.to_str().unwrap_or("?").to_owned())
        .collect();
    let body = answer.into_body().collect_bytes().await.unwrap();
    assert!(status.is_success(), "{}", String::from_utf8_lossy(&body));
    warnings
}

fn apply(path: &str, body: &str) -> Request<Vec<u8>> {
    Request::patch(format!("{path}?fieldManager=test&fieldValidation=Strict"))
        .header("content-type", "application/apply-patch+yaml")
        .body(body.into())
        .unwrap()
}

async fn created(api: &Api<DynamicObject>, object: &Value) -> Result<DynamicObject, String> {
    let object = serde_json::from_value(object.clone()).unwrap();
    let params = PostParams {
        dry_run: true,
        ..Default::default()
    };
    match api.create(&params, &object).await {
        Ok(object) => Ok(object),
        Err(kube::Error::Api(status)) => Err(status.message),
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn a_real_api_server_agrees() {
    let Some(envtest) = Envtest::shared() else {
        return;
    };
    let client = envtest.client().await;
    let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/wolconfigs.wol.pillon.org";
    let none = Vec::<String>::new();
    assert_eq!(
        warnings(&client, apply(path, &printed())).await,
        none,
        "applying it warns of nothing"
    );
    let kind = ApiResource::erase::<WolConfig>(&());
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &kind);
    let deadline = Instant::now() + Duration::from_secs(30);
    while let Err(error) = api.list(&ListParams::default()).await {
        assert!(Instant::now() < deadline, "not served: {error}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    let refused = refused_by_rules().into_iter().chain(refused_by_bounds());
    for (spec, words) in refused {
        let refusal = created(&api, &wolconfig("x", &spec))
            .await
            .expect_err(&spec.to_string());
        assert!(refusal.contains(words), "{spec}: {refusal}");
    }
    for spec in accepted() {
        created(&api, &wolconfig("x", &spec))
            .await
            .unwrap_or_else(|refusal| panic!("{spec}: {refusal}"));
    }
    for name in SAMPLES {
        let object = sample(name);
        let path = format!(
            "/apis/wol.pillon.org/v1beta1/wolconfigs/{}",
            object["metadata"]["name"].as_str().unwrap()
        );
        assert_eq!(
            warnings(&client, apply(&path, &object.to_string())).await,
            none,
            "{name}"
        );
    }
    defaults_hold(&api).await;
    ten_thousand_mappings_fit(&api).await;
    status_is_kept_apart(&client).await;
}

async fn defaults_hold(api: &Api<DynamicObject>) {
    let defaults = json!({"discoveryMode": "All", "cacheTTL": 300});
    let mut bare = wolconfig("x", &json!({}));
    bare.as_object_mut().unwrap().remove("spec");
    for object in [bare, wolconfig("x", &json!({}))] {
        let stored = created(api, &object).await.unwrap();
        assert_eq!(stored.data["spec"], defaults);
    }
    let nulls = json!({"vmSelector": null, "wolPort": null, "agent": null, "discoveryMode": null});
    let stored = created(api, &wolconfig("x", &nulls)).await.unwrap();
    assert_eq!(stored.data["spec"], defaults);
    // A field that pruning took away would be missing here.
    let stored = created(api, &wolconfig("x", &original())).await.unwrap();
    assert_eq!(stored.data["spec"], original());
}

/// The rules must not run into the API server's cost limit.
async fn ten_thousand_mappings_fit(api: &Api<DynamicObject>) {
    let mappings: Vec<Value> = (0..10_000)
        .map(|n: u32| {
            let [_, _, a, b] = n.to_be_bytes();
            json!({"macAddress": format!("52:54:00:00:{a:02x}:{b:02x}"), "vmName": format!("vm-{n}"), "namespace": "ns"})
        })
        .collect();
    let spec = json!({"discoveryMode": "Explicit", "explicitMappings": mappings});
    let stored = created(api, &wolconfig("many", &spec)).await.unwrap();
    assert_eq!(
        stored.data["spec"]["explicitMappings"][9_999],
        mappings[9_999]
    );
}

/// Two writers of status, each with fields of its own, and the spec out of reach of both.
async fn status_is_kept_apart(client: &Client) {
    let api: Api<WolConfig> = Api::all(client.clone());
    let spec = api.get("default").await.unwrap().spec;
    let apply = async |manager: &str, status: Value| {
        let patch = json!({
            "apiVersion": "wol.pillon.org/v1beta1", "kind": "WolConfig",
            "spec": {"wolPort": 4343}, "status": status,
        });
        let params = PatchParams::apply(manager).force();
        api.patch_status("default", &params, &Patch::Apply(patch))
            .await
            .unwrap()
    };
    let time = "2026-11-23T12:00:00Z";
    let ready = json!({"type": "Ready", "status": "True", "reason": "Serving", "message": "", "lastTransitionTime": time});
    apply(
        "status",
        json!({
            "observedGeneration": 1, "managedVMs": 2, "lastSync": time, "conditions": [ready], "ports": [9],
            "agentStatus": {"connected": 3, "configured": 2, "troubled": [{"node": "n1", "reason": "port 9 is taken"}]},
            "mappings": [{"macAddress": "52:54:00:12:34:56", "vmName": "vm", "namespace": "ns"}], "mappingsTotal": 2,
            "conflicts": [{"macAddress": "52:54:00:12:34:57", "vms": ["a/x", "b/y"]}], "conflictsTotal": 1,
            "unwakeable": [{"vmName": "z", "namespace": "ns", "reason": "no macAddress"}], "unwakeableTotal": 1,
        }),
    )
    .await;
    let woken = json!({"time": time, "macAddress": "52:54:00:12:34:56", "vmName": "vm", "namespace": "ns",
        "node": "n1", "origin": "10.0.0.7 on eth0", "outcome": "started"});
    let config = apply("wake", json!({"lastWake": woken})).await;
    let status = config.status.unwrap();
    assert_eq!(config.spec, spec, "status writers do not reach the spec");
    assert_eq!(status.managed_vms, 2);
    assert_eq!(status.last_wake.unwrap().outcome, "started");
    assert_eq!(
        printed_columns(client).await,
        ["default", "All", "[9]", "2", "3", "True", "1",]
    );
}

/// What kubectl get -o wide shows of the sample, without the ages.
async fn printed_columns(client: &Client) -> Vec<String> {
    let request = Request::get("/apis/wol.pillon.org/v1beta1/wolconfigs/default")
        .header("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")
        .body(Vec::new())
        .unwrap();
    let table: Value = client.request(request).await.unwrap();
    let names = table["columnDefinitions"].as_array().unwrap();
    let cells = table["rows"][0]["cells"].as_array().unwrap();
    let columns = names.iter().zip(cells);
    let lasting = columns
        .filter(|(column, _)| !["Age", "Last Wake"].contains(&column["name"].as_str().unwrap()));
    lasting
        .map(|(_, cell)| cell.as_str().map_or_else(|| cell.to_string(), Into::into))
        .collect()
}
