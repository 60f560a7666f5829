//! How virt-api becomes part of a real API server: TLS, and an `APIService` whose Service is another
//! name for localhost, or has the pods behind it that run this very program.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::Router;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use k8s_openapi::{ByteString, kube_aggregator::pkg::apis::apiregistration::v1::APIService};
use kube::{
    Api, Client, ResourceExt as _,
    api::{ApiResource, DeleteParams, DynamicObject, GroupVersionKind, Patch, PatchParams},
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_rustls::TlsAcceptor;

use super::super::pki::{Authority, Leaf};

const NAMESPACE: &str = "kubevirt";
const SERVICE: &str = "virt-api";
const HOST: &str = "virt-api.kubevirt.svc";
const VERSIONS: [&str; 2] = ["v1", "v1alpha3"];

/// Where the API server reaches virt-api.
#[derive(Debug, Clone, Copy)]
pub enum Exposure {
    /// On a free port of the machine that both run on.
    Loopback,
    /// On this port of the pods with the label `app: virt-api`, of which this program is the only one.
    Pods(u16),
}

impl Exposure {
    fn bind(self) -> SocketAddr {
        match self {
            Self::Loopback => SocketAddr::from(([127, 0, 0, 1], 0)),
            Self::Pods(port) => SocketAddr::from(([0, 0, 0, 0], port)),
        }
    }

    fn service(self, port: u16) -> Value {
        match self {
            Self::Loopback => {
                json!({"type": "ExternalName", "externalName": "localhost", "ports": [{"port": port}]})
            }
            Self::Pods(_) => json!({"selector": {"app": SERVICE}, "ports": [{"port": port}]}),
        }
    }
}

/// Serves `router` and registers it; returns when the API server says that it is available. The
/// returned set holds the server.
pub async fn register(client: &Client, router: Router, exposure: Exposure) -> JoinSet<()> {
    let authority = Authority::new("virt-api");
    let listener = TcpListener::bind(exposure.bind())
        .await
        .expect("the port is free");
    let port = listener
        .local_addr()
        .expect("it is bound to an address")
        .port();
    let mut server = JoinSet::new();
    server.spawn(serve(
        listener,
        acceptor(&authority.server(&[HOST])),
        router,
    ));
    let namespace =
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
    apply(client, namespace).await;
    let service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"namespace": NAMESPACE, "name": SERVICE},
        "spec": exposure.service(port),
    });
    apply(client, service).await;
    for (version, priority) in VERSIONS.into_iter().zip([15, 10]) {
        let service = json!({
            "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
            "metadata": {"name": name(version)},
            "spec": {
                "group": "subresources.kubevirt.io", "version": version,
                "groupPriorityMinimum": 1000, "versionPriority": priority,
                "service": {"namespace": NAMESPACE, "name": SERVICE, "port": port},
                "caBundle": ByteString(authority.pem.clone().into_bytes()),
            },
        });
        apply(client, service).await;
    }
    let available = async {
        for version in VERSIONS {
            while !is_available(client, version).await {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), available)
        .await
        .expect("the APIService is available");
    server
}

/// Takes every `APIService` away, as uninstalling KubeVirt does.
pub async fn unregister(client: &Client) {
    let api = Api::<APIService>::all(client.clone());
    for version in VERSIONS {
        api.delete(&name(version), &DeleteParams::default())
            .await
            .expect("the APIService can be deleted");
    }
}

fn name(version: &str) -> String {
    format!("{version}.subresources.kubevirt.io")
}

async fn is_available(client: &Client, version: &str) -> bool {
    let service = Api::<APIService>::all(client.clone())
        .get(&name(version))
        .await;
    let conditions = service
        .ok()
        .and_then(|s| s.status)
        .and_then(|s| s.conditions);
    let mut conditions = conditions.into_iter().flatten();
    conditions.any(|c| c.type_ == "Available" && c.status == "True")
}

/// Applies a manifest.
async fn apply(client: &Client, manifest: Value) {
    let object: DynamicObject = serde_json::from_value(manifest).expect("this is a manifest");
    let types = object.types.as_ref().expect("a manifest has a type");
    let kind = GroupVersionKind::try_from(types).expect("a manifest has a type");
    let resource = ApiResource::from_gvk(&kind);
    let api = match object.namespace() {
        Some(namespace) => Api::namespaced_with(client.clone(), &namespace, &resource),
        None => Api::<DynamicObject>::all_with(client.clone(), &resource),
    };
    let name = object.name_any();
    let params = PatchParams::apply("virt-operator").force();
    api.patch(&name, &params, &Patch::Apply(&object))
        .await
        .unwrap_or_else(|error| panic!("cannot apply {} {name}: {error}", kind.kind));
}

fn acceptor(leaf: &Leaf) -> TlsAcceptor {
    let certificate =
        CertificateDer::from_pem_slice(leaf.pem.as_bytes()).expect("the certificate is PEM");
    let key = PrivateKeyDer::from_pem_slice(leaf.key_pem.as_bytes()).expect("the key is PEM");
    let mut config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .expect("certificate and key belong together");
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    TlsAcceptor::from(Arc::new(config))
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, router: Router) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        let (acceptor, router) = (acceptor.clone(), router.clone());
        connections.spawn(async move {
            // Whoever does not speak TLS, or goes away, is no concern of the server's.
            if let Ok(stream) = acceptor.accept(stream).await {
                let service = TowerToHyperService::new(router);
                let _ = auto::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            }
        });
    }
}
