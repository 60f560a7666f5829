//! Owns tokens of a real API server, bound to pods as kubelet has them bound.

use k8s_openapi::api::{
    authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec},
    core::v1::ServiceAccount,
};
use kube::{Api, Client, api::PostParams};

use crate::world::Wanted;

/// The shortest life that the server allows.
const LIFE: i64 = 600;

/// A token; of nobody's pod where no pod is named.
pub(crate) async fn token(client: Client, namespace: &str, wanted: &Wanted<'_>) -> String {
    let bound = wanted.pod.map(|(name, uid)| BoundObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Pod".into()),
        name: Some(name.into()),
        uid: Some(uid.into()),
    });
    let request = TokenRequest {
        spec: TokenRequestSpec {
            audiences: vec![wanted.audience.into()],
            bound_object_ref: bound,
            expiration_seconds: Some(LIFE),
        },
        ..TokenRequest::default()
    };
    let accounts = Api::<ServiceAccount>::namespaced(client, namespace);
    let made: TokenRequest = accounts
        .create_subresource("token", wanted.account, &PostParams::default(), &request)
        .await
        .unwrap();
    made.status.unwrap().token
}
