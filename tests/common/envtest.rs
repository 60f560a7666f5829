//! A real API server with etcd, as `KUBEBUILDER_ASSETS` provides them.

mod leash;

use std::{
    ffi::OsString,
    fs,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use k8s_openapi::{
    api::core::v1::Namespace,
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client, Config, ResourceExt as _,
    api::{DeleteParams, DynamicObject, ListParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
    core::{ApiResource, GroupVersionKind},
};
use nix::sys::signal::Signal;

use super::jwt::Signer;
use super::pki::{Authority, Leaf, new_key};
use leash::Leashed;

/// How long the API server may take to become ready; on a busy machine it takes half a minute.
const START: Duration = Duration::from_secs(120);

/// A running API server; ends with this value, or with the test process, however that ends.
pub struct Envtest {
    address: SocketAddr,
    kubeconfig: PathBuf,
    programs: PathBuf,
    /// None while they are dead.
    servers: Mutex<Option<Servers>>,
    /// Removed last.
    directory: tempfile::TempDir,
}

/// The processes.
struct Servers {
    apiserver: Leashed,
    etcd: Leashed,
}

/// Whose tokens an API server takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tokens {
    /// Those that it has given.
    Own,
    /// None: the key that they are checked with is another one.
    Foreign,
}

impl Envtest {
    /// Starts an API server of the caller's own. None, told loudly, where there is no program.
    ///
    /// # Panics
    ///
    /// It does not become ready; the panic shows the end of its log.
    pub fn start() -> Option<Self> {
        let programs = programs()?;
        let directory = tempfile::Builder::new()
            .prefix("wol-api")
            .tempdir()
            .expect("a directory can be made");
        let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr());
        let address = port.expect("a loopback port is free");
        let kubeconfig = write_credentials(directory.path(), address);
        let envtest = Self {
            address,
            kubeconfig,
            programs,
            servers: Mutex::default(),
            directory,
        };
        envtest.restart(Tokens::Own);
        envtest.wait_until_ready();
        Some(envtest)
    }

    /// The one API server that all tests of this process share, started by the first of them.
    /// Tests that need a clean one call [`Envtest::fresh`] and keep others out meanwhile.
    pub fn shared() -> Option<&'static Self> {
        static SHARED: OnceLock<Option<Envtest>> = OnceLock::new();
        SHARED.get_or_init(Self::start).as_ref()
    }

    /// One that a single test has for itself, and may kill. It ends with the test process; a test
    /// that is done with it kills it.
    pub fn own() -> Option<&'static Self> {
        Some(Box::leak(Box::new(Self::start()?)))
    }

    /// Kills API server and etcd at once, as a machine does that loses its power. What they have
    /// stored stays.
    pub fn kill(&self) {
        if let Some(servers) = self.servers().take() {
            servers.etcd.signal(Signal::SIGKILL);
            servers.apiserver.signal(Signal::SIGKILL);
        }
    }

    /// Starts them again, with what is stored and where they listened, and does not wait until they
    /// serve.
    pub fn restart(&self, tokens: Tokens) {
        let directory = self.directory.path();
        let etcd = Leashed::start(
            &self.programs.join("etcd"),
            etcd_flags(directory),
            directory,
        );
        let mut flags = apiserver_flags(directory, self.address);
        let key = match tokens {
            Tokens::Own => "service-account.pub",
            Tokens::Foreign => "foreign.pub",
        };
        let key = directory.join(key);
        flags.push(format!("--service-account-key-file={}", key.display()).into());
        let program = self.programs.join("kube-apiserver");
        let apiserver = Leashed::start(&program, flags, directory);
        *self.servers() = Some(Servers { apiserver, etcd });
    }

    fn servers(&self) -> MutexGuard<'_, Option<Servers>> {
        self.servers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// An administrator's kubeconfig; it names files that live as long as this value.
    pub fn kubeconfig(&self) -> String {
        fs::read_to_string(&self.kubeconfig).expect("the kubeconfig can be read")
    }

    /// The file with the administrator's kubeconfig, for `KUBECONFIG`.
    pub fn kubeconfig_path(&self) -> &Path {
        &self.kubeconfig
    }

    /// What signs the tokens of service accounts.
    pub fn signer(&self) -> Signer {
        let key = fs::read_to_string(self.kubeconfig.with_file_name("service-account.key"));
        Signer::from_pem(&key.expect("the key can be read"))
    }

    /// A client with an administrator's rights, for the async runtime of the caller. It tells what
    /// the server said: nothing is tried again.
    pub async fn client(&self) -> Client {
        // Whichever test comes first: an error means that one is installed.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let kubeconfig = Kubeconfig::from_yaml(&self.kubeconfig()).expect("the kubeconfig is YAML");
        let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
            .await
            .expect("the kubeconfig is complete");
        config.default_retry = false;
        Client::try_from(config).expect("a client can be made")
    }

    /// Removes every object of a custom resource, and the Events and Leases, so that a test starts
    /// with what its definitions are. Definitions and namespaces stay.
    pub async fn fresh(&self) {
        let client = self.client().await;
        let definitions = Api::<CustomResourceDefinition>::all(client.clone())
            .list(&ListParams::default())
            .await
            .expect("definitions can be listed");
        for definition in definitions {
            let version = definition.spec.versions.iter().find(|v| v.storage);
            let version = version.expect("one version is stored").name.as_str();
            let kind =
                GroupVersionKind::gvk(&definition.spec.group, version, &definition.spec.names.kind);
            let plural = &definition.spec.names.plural;
            remove_all(&client, &ApiResource::from_gvk_with_plural(&kind, plural)).await;
        }
        for (group, version, kind, plural) in [
            ("", "v1", "Event", "events"),
            ("coordination.k8s.io", "v1", "Lease", "leases"),
        ] {
            let kind = GroupVersionKind::gvk(group, version, kind);
            remove_all(&client, &ApiResource::from_gvk_with_plural(&kind, plural)).await;
        }
    }

    /// Stops the API server's clock, as a hung machine does: connections stay and nobody answers.
    pub fn freeze(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// Undoes [`Envtest::freeze`].
    pub fn thaw(&self) {
        self.signal(Signal::SIGCONT);
    }

    fn log_end(&self) -> String {
        let servers = self.servers();
        let log = servers.as_ref().map(|servers| servers.apiserver.log_end());
        log.unwrap_or_else(|| "it was killed".into())
    }

    fn signal(&self, signal: Signal) {
        if let Some(servers) = &*self.servers() {
            servers.apiserver.signal(signal);
        }
    }

    /// Waits until it serves.
    ///
    /// # Panics
    ///
    /// It does not; the panic shows the end of its log.
    pub fn wait_until_ready(&self) {
        let deadline = Instant::now() + START;
        // Callers may be inside a runtime, where nothing may block on another.
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .expect("a runtime can be made");
                runtime.block_on(async {
                    let client = self.client().await;
                    while !is_ready(&client).await {
                        assert!(
                            Instant::now() < deadline,
                            "the API server is not ready:\n{}",
                            self.log_end()
                        );
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                });
            });
        });
    }
}

/// Makes a namespace on any API server, where it is not there yet.
pub async fn make_namespace(client: &Client, name: &str) {
    let mut namespace = Namespace::default();
    namespace.metadata.name = Some(name.into());
    let api = Api::<Namespace>::all(client.clone());
    match api.create(&PostParams::default(), &namespace).await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.is_already_exists() => {}
        Err(error) => panic!("cannot make namespace {name}: {error}"),
    }
}

async fn is_ready(client: &Client) -> bool {
    let readyz = http::Request::get("/readyz").body(Vec::new());
    let call = client.request_text(readyz.expect("the request is well formed"));
    tokio::time::timeout(Duration::from_secs(5), call)
        .await
        .is_ok_and(|answer| answer.is_ok())
}

async fn remove_all(client: &Client, kind: &ApiResource) {
    let all = Api::<DynamicObject>::all_with(client.clone(), kind);
    let objects = match all.list(&ListParams::default()).await {
        Ok(objects) => objects,
        // Its definition has just gone.
        Err(kube::Error::Api(status)) if status.is_not_found() => return,
        Err(error) => panic!("cannot list {}: {error}", kind.plural),
    };
    for object in objects {
        let api = match object.namespace() {
            Some(namespace) => {
                Api::<DynamicObject>::namespaced_with(client.clone(), &namespace, kind)
            }
            None => all.clone(),
        };
        match api
            .delete(&object.name_any(), &DeleteParams::default())
            .await
        {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.is_not_found() => {}
            Err(error) => panic!("cannot delete {}: {error}", object.name_any()),
        }
    }
}

/// The directory with the programs. None, told loudly, where there are none.
pub fn programs() -> Option<PathBuf> {
    let directory = std::env::var_os("KUBEBUILDER_ASSETS").map(PathBuf::from);
    let directory = directory.filter(|directory| {
        let mut programs = ["etcd", "kube-apiserver"].iter();
        programs.all(|program| directory.join(program).is_file())
    });
    if directory.is_none() {
        super::skip::skipped("KUBEBUILDER_ASSETS names no directory with kube-apiserver and etcd");
    }
    directory
}

/// Writes keys, certificates and the kubeconfig, whose path is returned.
fn write_credentials(directory: &Path, address: SocketAddr) -> PathBuf {
    let write = |name: &str, content: &str| {
        let path = directory.join(name);
        fs::write(&path, content).expect("the directory can be written");
        path
    };
    let write_leaf = |name: &str, leaf: &Leaf| {
        write(&format!("{name}.crt"), &leaf.pem);
        write(&format!("{name}.key"), &leaf.key_pem);
    };
    let authority = Authority::new("cluster");
    write("ca.crt", &authority.pem);
    let names = ["127.0.0.1", "localhost", "kubernetes.default.svc"];
    write_leaf("server", &authority.server(&names));
    write_leaf("admin", &authority.client("admin", Some("system:masters")));
    // The authority by which aggregated APIs know the API server.
    let front = Authority::new("front-proxy");
    write("front-proxy-ca.crt", &front.pem);
    write_leaf("front-proxy", &front.client("front-proxy-client", None));
    let accounts = new_key();
    write("service-account.key", &accounts.serialize_pem());
    write("service-account.pub", &accounts.public_key_pem());
    write("foreign.pub", &new_key().public_key_pem());
    let kubeconfig = serde_json::json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "clusters": [{"name": "test", "cluster": {
            "server": format!("https://{address}"),
            "certificate-authority": directory.join("ca.crt"),
        }}],
        "users": [{"name": "admin", "user": {
            "client-certificate": directory.join("admin.crt"),
            "client-key": directory.join("admin.key"),
        }}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "admin"}}],
    });
    write("kubeconfig", &kubeconfig.to_string())
}

fn etcd_flags(directory: &Path) -> Vec<OsString> {
    let directory = directory.display();
    [
        format!("--data-dir={directory}/etcd"),
        format!("--listen-client-urls=unix://{directory}/etcd.sock"),
        "--advertise-client-urls=http://localhost:2379".into(),
        format!("--listen-peer-urls=unix://{directory}/peer.sock"),
        "--initial-advertise-peer-urls=http://localhost:2380".into(),
        "--initial-cluster=default=http://localhost:2380".into(),
        "--unsafe-no-fsync=true".into(),
        "--log-level=warn".into(),
    ]
    .map(OsString::from)
    .to_vec()
}

fn apiserver_flags(directory: &Path, address: SocketAddr) -> Vec<OsString> {
    let file = |name: &str| directory.join(name).display().to_string();
    let issuer = "https://kubernetes.default.svc.cluster.local";
    [
        format!("--etcd-servers=unix://{}", file("etcd.sock")),
        format!("--bind-address={}", address.ip()),
        format!("--secure-port={}", address.port()),
        format!("--advertise-address={}", address.ip()),
        "--endpoint-reconciler-type=none".into(),
        format!("--cert-dir={}", file("certs")),
        format!("--tls-cert-file={}", file("server.crt")),
        format!("--tls-private-key-file={}", file("server.key")),
        format!("--client-ca-file={}", file("ca.crt")),
        "--authorization-mode=RBAC".into(),
        "--disable-admission-plugins=ServiceAccount".into(),
        "--allow-privileged=true".into(),
        "--service-cluster-ip-range=10.0.0.0/24".into(),
        format!("--service-account-issuer={issuer}"),
        format!("--api-audiences={issuer}"),
        format!(
            "--service-account-signing-key-file={}",
            file("service-account.key")
        ),
        format!(
            "--requestheader-client-ca-file={}",
            file("front-proxy-ca.crt")
        ),
        "--requestheader-allowed-names=front-proxy-client".into(),
        "--requestheader-username-headers=X-Remote-User".into(),
        "--requestheader-group-headers=X-Remote-Group".into(),
        "--requestheader-extra-headers-prefix=X-Remote-Extra-".into(),
        format!("--proxy-client-cert-file={}", file("front-proxy.crt")),
        format!("--proxy-client-key-file={}", file("front-proxy.key")),
    ]
    .map(OsString::from)
    .to_vec()
}
