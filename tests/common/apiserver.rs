//! Owns the API stand-in: a Kubernetes API server in the test's own process, with its state,
//! behind real HTTP on loopback. It answers as the real one does, codes and texts included;
//! `tests/conformance.rs` compares the two. Everybody is an administrator.
//!
//! Simplified: no admission, no garbage collection; namespaces and CRDs take their objects with
//! them at once; what a client sends for a built-in kind is kept as it is.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::watch as channel, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::jwt::Signer;

mod admit;
mod aggregate;
mod apply;
mod built_in;
mod clock;
mod crds;
mod discovery;
mod failure;
mod faults;
mod fields;
mod form;
mod jsonpath;
mod kinds;
mod list;
mod log;
mod managed;
mod openapi;
mod patch;
mod reviews;
mod route;
mod schema;
mod selector;
mod serve;
mod store;
mod table;
mod tokens;
mod validate;
mod watch;
mod write;

pub use aggregate::Backend;
pub use failure::Failure;
pub use faults::{Fault, Faults, WatchEnd, When};
pub use log::Request;
pub use reviews::TokenUser;
pub use tokens::{Claims, node_claim};

/// What all connections share. It outlives a stop and a restart.
struct State {
    store: Mutex<store::Store>,
    /// Changes after each write.
    revision: channel::Sender<u64>,
    log: log::Log,
    faults: Faults,
    backends: aggregate::Aggregated,
    /// Tokens that only tests know of.
    tokens: Mutex<std::collections::HashMap<String, TokenUser>>,
    signer: Signer,
    settings: Mutex<Settings>,
    address: SocketAddr,
}

/// What tests set.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How often a watch that wants them gets a bookmark; the real server's 1 min at first.
    pub bookmark_interval: Duration,
    /// Whether a watch from a forgotten version is refused by the code of the answer, 410, or by an
    /// error in the stream, as servers of today do. kube's watcher never recovers from the former:
    /// it asks for the same version again and again.
    pub expired_by_code: bool,
    /// What reviews say that nobody may: verbs and resources.
    pub denied: Vec<(String, String)>,
}

impl State {
    fn store(&self) -> MutexGuard<'_, store::Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn settings(&self) -> Settings {
        self.settings
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Wakes the watches.
    fn announce(&self) {
        let revision = self.store().revision();
        self.revision.send_replace(revision);
    }

    fn token(&self, token: &str) -> Option<TokenUser> {
        let tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.get(token).cloned()
    }

    fn aggregated(&self) -> Vec<(String, String)> {
        self.backends.names()
    }

    fn address(&self) -> String {
        self.address.to_string()
    }
}

/// The stand-in. Dropping it cuts all connections.
pub struct ApiServer {
    state: Arc<State>,
    running: Mutex<Option<Running>>,
}

struct Running {
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl ApiServer {
    /// Starts on a free port of 127.0.0.1.
    pub async fn start() -> Self {
        Self::bind(([127, 0, 0, 1], 0).into()).await
    }

    /// Starts on an address.
    pub async fn bind(address: SocketAddr) -> Self {
        Self::serve(TcpListener::bind(address).await.expect("cannot listen"))
    }

    /// Starts on a socket that listens already, perhaps in another network namespace.
    pub fn serve(listener: TcpListener) -> Self {
        let address = listener
            .local_addr()
            .expect("cannot read the local address");
        let store = store::Store::with_namespaces();
        let server = Self {
            state: Arc::new(State {
                revision: channel::Sender::new(store.revision()),
                store: Mutex::new(store),
                log: log::Log::default(),
                faults: Faults::default(),
                backends: aggregate::Aggregated::default(),
                tokens: Mutex::default(),
                signer: Signer::new(),
                settings: Mutex::new(Settings {
                    bookmark_interval: Duration::from_secs(60),
                    expired_by_code: false,
                    denied: Vec::new(),
                }),
                address,
            }),
            running: Mutex::new(None),
        };
        server.run(listener);
        server
    }

    fn run(&self, listener: TcpListener) {
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(serve::run(self.state.clone(), listener, stop.clone()));
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(Running { stop, tasks });
    }

    /// Stops listening, ends watches, lets requests finish for up to a second, cuts the rest.
    pub async fn stop(&self) {
        let running = self
            .running
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(mut running) = running {
            running.stop.cancel();
            running.tasks.join_next().await;
        }
    }

    /// Cuts all connections and stops listening, as by a kill.
    pub async fn kill(&self) {
        let running = self
            .running
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(mut running) = running {
            running.tasks.shutdown().await;
        }
    }

    /// Listens again on the same address, with the same objects.
    pub async fn restart(&self) {
        self.kill().await;
        let listener = TcpListener::bind(self.state.address).await;
        self.run(listener.expect("cannot listen again"));
    }

    /// `http://<address>`, without a slash at the end.
    pub fn url(&self) -> String {
        format!("http://{}", self.state.address)
    }

    pub fn address(&self) -> SocketAddr {
        self.state.address
    }

    /// A kubeconfig for this server, as YAML.
    pub fn kubeconfig(&self) -> String {
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": {"server": self.url()}}],
            "users": [{"name": "test", "user": {}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        });
        serde_yaml::to_string(&config).expect("a kubeconfig can be printed")
    }

    /// The kubeconfig as a file, which goes when it is dropped.
    pub fn kubeconfig_file(&self) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().expect("cannot create a file");
        std::fs::write(file.path(), self.kubeconfig()).expect("cannot write the kubeconfig");
        file
    }

    /// A client of this server.
    pub fn client(&self) -> kube::Client {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let url = self.url().parse().expect("the URL is one");
        let mut config = kube::Config::new(url);
        // A test does not care that a connection was cut off between two of its requests.
        let close = http::HeaderValue::from_static("close");
        config.headers.push((http::header::CONNECTION, close));
        kube::Client::try_from(config).expect("cannot make a client")
    }

    /// Lets `router` serve a group's version, as an `APIService` does. It gets requests with their
    /// whole paths, and its answers go to the clients as they are.
    pub fn aggregate(&self, group: &str, version: &str, router: axum::Router) {
        self.aggregate_to(group, version, Backend::Router(router));
    }

    /// Lets something else than a router serve a group's version.
    pub fn aggregate_to(&self, group: &str, version: &str, backend: Backend) {
        self.state.backends.set(group, version, backend);
        let name = format!("{version}.{group}");
        let available = if matches!(
            backend_of(&self.state, group, version),
            Some(Backend::Router(_))
        ) {
            "True"
        } else {
            "False"
        };
        let service = json!({
            "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
            "metadata": {"name": name, "uid": clock::uid(), "creationTimestamp": clock::now()},
            "spec": {"group": group, "version": version, "groupPriorityMinimum": 1000, "versionPriority": 15,
                "service": {"namespace": "kubevirt", "name": "virt-api", "port": 443}},
            "status": {"conditions": [{"type": "Available", "status": available}]},
        });
        let key = store::Key {
            namespace: String::new(),
            name,
        };
        self.state.store().put(APISERVICES, &key, service);
        self.state.announce();
    }

    /// Lets nobody serve a group's version any more.
    pub fn remove_aggregate(&self, group: &str, version: &str) {
        self.state.backends.remove(group, version);
        let key = store::Key {
            namespace: String::new(),
            name: format!("{version}.{group}"),
        };
        self.state.store().remove(APISERVICES, &key);
        self.state.announce();
    }

    /// Puts objects where they belong at once, as they are: nothing is checked or logged, and what
    /// they lack of the server's own fields is added.
    pub fn seed(&self, objects: impl IntoIterator<Item = Value>) {
        let mut store = self.state.store();
        let resources = kinds::all(&store);
        for mut object in objects {
            let is = |resource: &&Arc<kinds::Resource>| {
                object["kind"] == resource.kind && object["apiVersion"] == resource.api_version()
            };
            let resource = resources.iter().find(is).expect("nobody serves this kind");
            let metadata = &mut object["metadata"];
            for (field, value) in [
                ("uid", clock::uid().into()),
                ("creationTimestamp", clock::now().into()),
                ("generation", json!(1)),
            ] {
                if metadata[field].is_null() {
                    metadata[field] = value;
                }
            }
            let text = |field: &str| metadata[field].as_str().unwrap_or_default().to_owned();
            let key = store::Key {
                namespace: text("namespace"),
                name: text("name"),
            };
            store.put(&resource.table(), &key, object);
        }
        drop(store);
        self.state.announce();
    }

    /// All requests since the start, or since [`Self::clear_requests`].
    pub fn requests(&self) -> Vec<Request> {
        self.state.log.all()
    }

    pub fn clear_requests(&self) {
        self.state.log.clear();
    }

    /// What goes wrong on purpose.
    pub fn faults(&self) -> &Faults {
        &self.state.faults
    }

    /// Changes settings.
    pub fn set(&self, change: impl FnOnce(&mut Settings)) {
        change(
            &mut self
                .state
                .settings
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        );
    }

    /// What signs the tokens that this server gives and takes.
    pub fn signer(&self) -> &Signer {
        &self.state.signer
    }

    /// Makes a token known to `TokenReview`.
    pub fn add_token(&self, token: &str, user: TokenUser) {
        let mut tokens = self
            .state
            .tokens
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        tokens.insert(token.to_owned(), user);
    }

    /// Makes a token unknown.
    pub fn remove_token(&self, token: &str) {
        self.state
            .tokens
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(token);
    }

    /// Forgets the history: watches and pages from versions known by now get 410; running watches
    /// go on.
    pub fn expire_history(&self) {
        self.state.store().expire();
        self.state.announce();
    }

    /// Sets how many changes are remembered.
    pub fn keep_changes(&self, changes: usize) {
        self.state.store().set_capacity(changes);
    }

    /// The newest version of anything.
    pub fn revision(&self) -> u64 {
        self.state.store().revision()
    }
}

const APISERVICES: &str = "apiservices.apiregistration.k8s.io";

fn backend_of(state: &State, group: &str, version: &str) -> Option<Backend> {
    state.backends.find(&format!("/apis/{group}/{version}"))
}
