//! Owns how the CA is kept: in one Secret and one ConfigMap, which are made by whoever installs the
//! program and only ever replaced here, each time in the version that was read.

use futures::{Stream, StreamExt as _, stream};
use k8s_openapi::{
    ByteString, NamespaceResourceScope,
    api::core::v1::{ConfigMap, Secret},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Api, Client, Resource,
    api::PostParams,
    core::PartialObjectMeta,
    runtime::{WatchStreamExt as _, watcher::watch_object},
};
use serde::{Serialize, de::DeserializeOwned};
use tokio::time::timeout;

use super::{
    Names,
    metrics::Trouble,
    state::{BUNDLE_KEY, Bundle, COMPLETE_SINCE, Data, PREVIOUS_UNTIL, SECRET_KEYS, Trust},
};
use crate::cluster::{PATIENCE, chain};

/// Who wrote it, in the objects' managed fields.
const FIELD_MANAGER: &str = "kubevirt-wol-manager";

/// What failed, and the words for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) trouble: Trouble,
    pub(super) words: String,
}

/// The two objects.
pub(super) struct Store {
    client: Client,
    names: Names,
}

impl Store {
    pub(super) fn new(client: Client, names: Names) -> Self {
        Self { client, names }
    }

    /// Reads the Secret.
    pub(super) async fn secret(&self) -> Result<Secret, Failure> {
        self.get(&self.names.secret).await
    }

    /// Reads the ConfigMap.
    pub(super) async fn map(&self) -> Result<ConfigMap, Failure> {
        self.get(&self.names.bundle).await
    }

    /// Puts `trust` into the Secret as it was read. What else it holds stays.
    pub(super) async fn write_secret(
        &self,
        mut secret: Secret,
        trust: &Trust,
    ) -> Result<(), Failure> {
        let (new, until) = trust.write();
        let data = secret.data.get_or_insert_default();
        data.retain(|key, _| !SECRET_KEYS.contains(&&**key));
        data.extend(new.into_iter().map(|(key, value)| (key, ByteString(value))));
        annotate(&mut secret.metadata, PREVIOUS_UNTIL, until);
        self.replace(&self.names.secret, &secret).await
    }

    /// Puts `bundle` into the ConfigMap as it was read. What else it holds stays.
    pub(super) async fn write_map(
        &self,
        mut map: ConfigMap,
        bundle: &Bundle,
    ) -> Result<(), Failure> {
        let (pem, since) = bundle.write();
        map.data
            .get_or_insert_default()
            .insert(BUNDLE_KEY.to_owned(), pem);
        annotate(&mut map.metadata, COMPLETE_SINCE, since);
        self.replace(&self.names.bundle, &map).await
    }

    /// Something may have changed, or why that cannot be told. The objects themselves are read when
    /// they are needed, so that no decision is made on an old one.
    pub(super) fn changes(&self) -> impl Stream<Item = Result<(), String>> + Send + use<> {
        stream::select(
            self.watch::<Secret>(&self.names.secret),
            self.watch::<ConfigMap>(&self.names.bundle),
        )
    }

    /// Reads no data: no key is in memory without need.
    fn watch<K>(&self, name: &str) -> stream::BoxStream<'static, Result<(), String>>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + Send
            + Sync
            + 'static,
    {
        let namespace = &self.names.namespace;
        let api = Api::<PartialObjectMeta<K>>::namespaced(self.client.clone(), namespace);
        let changes = watch_object(api, name).default_backoff();
        let changes = changes.map(|change| change.map(drop).map_err(|error| chain(&error)));
        changes.boxed()
    }

    async fn get<K>(&self, name: &str) -> Result<K, Failure>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + DeserializeOwned
            + std::fmt::Debug,
    {
        let api = Api::<K>::namespaced(self.client.clone(), &self.names.namespace);
        answered(api.get(name)).await
    }

    async fn replace<K>(&self, name: &str, object: &K) -> Result<(), Failure>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + DeserializeOwned
            + Serialize
            + std::fmt::Debug,
    {
        let api = Api::<K>::namespaced(self.client.clone(), &self.names.namespace);
        let params = PostParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PostParams::default()
        };
        answered(api.replace(name, &params, object)).await.map(drop)
    }
}

/// The content of a Secret and its annotation, as [`Trust::read`] takes them.
pub(super) fn content(secret: &Secret) -> (Data, Option<&str>) {
    let data = secret.data.iter().flatten();
    let data = data.map(|(key, value)| (key.clone(), value.0.clone()));
    (data.collect(), annotation(&secret.metadata, PREVIOUS_UNTIL))
}

/// The bundle of a ConfigMap.
pub(super) fn bundle(map: &ConfigMap) -> Bundle {
    let pem = map.data.as_ref().and_then(|data| data.get(BUNDLE_KEY));
    Bundle::read(
        pem.map(String::as_str),
        annotation(&map.metadata, COMPLETE_SINCE),
    )
}

fn annotation<'a>(metadata: &'a ObjectMeta, name: &str) -> Option<&'a str> {
    metadata.annotations.as_ref()?.get(name).map(String::as_str)
}

fn annotate(metadata: &mut ObjectMeta, name: &str, value: Option<String>) {
    let annotations = metadata.annotations.get_or_insert_default();
    match value {
        Some(value) => drop(annotations.insert(name.to_owned(), value)),
        None => drop(annotations.remove(name)),
    }
}

async fn answered<T>(request: impl Future<Output = kube::Result<T>>) -> Result<T, Failure> {
    let error = match timeout(crate::pace::of(PATIENCE), request).await {
        Ok(Ok(answer)) => return Ok(answer),
        Ok(Err(error)) => error,
        Err(_) => {
            return Err(Failure {
                trouble: Trouble::Unavailable,
                words: "the API server does not answer".to_owned(),
            });
        }
    };
    let trouble = match &error {
        kube::Error::Api(status) => match status.code {
            404 => Trouble::Absent,
            409 => Trouble::Conflict,
            403 => Trouble::Forbidden,
            // Such an object is not one that we wrote.
            422 => Trouble::Unreadable,
            _ => Trouble::Unavailable,
        },
        kube::Error::SerdeError(_) => Trouble::Unreadable,
        _ => Trouble::Unavailable,
    };
    let words = match trouble {
        // The parser's words could show what it could not parse.
        Trouble::Unreadable => "the object makes no sense".to_owned(),
        _ => chain(&error),
    };
    Err(Failure { trouble, words })
}
