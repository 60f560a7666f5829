//! A cluster to test in: an API server, the stand-in or the real one, with KubeVirt simulated on
//! it, and the real program's manager and agents as processes on loopback.

mod programs;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use k8s_openapi::{
    api::core::v1::{Event, Namespace},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
    runtime::{conditions, wait::await_condition},
};
use kubevirt_wol::crd::{self, WolConfig};
use serde_json::{Value, json};

use super::{
    apiserver::ApiServer,
    envtest::Envtest,
    kubevirt::{KubeVirt, Speed},
    line::Line,
    rights,
    trust::{Security, Trust},
};
pub use programs::{Agent, INSECURE, Manager, get, send};

/// The group of virt-api, and its versions.
const SUBRESOURCES: (&str, [&str; 2]) = ("subresources.kubevirt.io", ["v1", "v1alpha3"]);

/// How long anything may take that is expected to happen: far more than it needs.
pub const SOON: Duration = Duration::from_secs(20);

/// Who answers for the API.
pub enum ApiBackend {
    /// The stand-in, in this process.
    StandIn(ApiServer),
    /// A real kube-apiserver, shared by all tests of this process.
    Real(&'static Envtest),
}

/// An API server with KubeVirt, and where the program is.
pub struct Cluster {
    pub api: ApiBackend,
    pub client: Client,
    pub kubevirt: KubeVirt,
    /// How managers and agents know each other.
    pub security: Security,
    program: PathBuf,
    kubeconfig: PathBuf,
    _file: Option<tempfile::NamedTempFile>,
    /// What managers reach the API server by, and their kubeconfig.
    line: Line,
    by_line: tempfile::NamedTempFile,
}

impl Cluster {
    /// A new cluster on the stand-in.
    pub async fn stand_in(program: &Path) -> Self {
        let server = ApiServer::start().await;
        let client = server.client();
        let kubevirt = KubeVirt::start(client.clone(), Speed::default()).await;
        for version in SUBRESOURCES.1 {
            server.aggregate(SUBRESOURCES.0, version, kubevirt.router());
        }
        let file = server.kubeconfig_file();
        let (line, by_line) = line_to(server.address(), &server.kubeconfig()).await;
        let api = ApiBackend::StandIn(server);
        Self {
            line,
            by_line,
            security: Security::Own(Trust::install(&api, &client).await),
            client,
            kubevirt,
            program: program.to_owned(),
            kubeconfig: file.path().to_owned(),
            _file: Some(file),
            api,
        }
    }

    /// The real API server, where managers have no more than their rights; none, told loudly, where
    /// there is no program for it.
    pub async fn real(program: &Path) -> Option<Self> {
        Some(Self::on(Envtest::shared()?, program).await)
    }

    /// A real API server of the caller's own, as [`Cluster::real`], and what kills and restarts it.
    pub async fn own(program: &Path) -> Option<(Self, &'static Envtest)> {
        let envtest = Envtest::own()?;
        Some((Self::on(envtest, program).await, envtest))
    }

    async fn on(envtest: &'static Envtest, program: &Path) -> Self {
        let client = envtest.client().await;
        let kubevirt = KubeVirt::start(client.clone(), Speed::default()).await;
        kubevirt.register().await;
        let kubeconfig = rights::of_manager(&client, &envtest.kubeconfig()).await;
        let (line, by_line) = line_to(envtest.address(), &kubeconfig).await;
        let api = ApiBackend::Real(envtest);
        Self {
            line,
            by_line,
            security: Security::Own(Trust::install(&api, &client).await),
            client,
            kubevirt,
            program: program.to_owned(),
            kubeconfig: envtest.kubeconfig_path().to_owned(),
            _file: None,
            api,
        }
    }

    /// The stand-in, where the cluster is on it: for what only a stand-in can be told to do.
    pub fn server(&self) -> Option<&ApiServer> {
        match &self.api {
            ApiBackend::StandIn(server) => Some(server),
            ApiBackend::Real(_) => None,
        }
    }

    /// The real API server, where the cluster is on it.
    pub fn envtest(&self) -> Option<&'static Envtest> {
        match &self.api {
            ApiBackend::StandIn(_) => None,
            ApiBackend::Real(envtest) => Some(envtest),
        }
    }

    /// Where managers reach the API server, and with what kubeconfig.
    pub fn way_of_managers(&self) -> (SocketAddr, String) {
        match &self.api {
            ApiBackend::StandIn(server) => (server.address(), server.kubeconfig()),
            ApiBackend::Real(_) => {
                let kubeconfig = std::fs::read_to_string(self.by_line.path());
                (self.line.address(), kubeconfig.expect("it can be read"))
            }
        }
    }

    /// The program that is tested.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// The kubeconfig file of an administrator.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Removes what an earlier test left.
    pub async fn fresh(&self) {
        if let ApiBackend::Real(envtest) = &self.api {
            envtest.fresh().await;
            self.kubevirt.forget();
        }
    }

    /// Installs the definition of `WolConfig` and waits until it is served.
    pub async fn install_crd(&self) {
        let api = Api::<CustomResourceDefinition>::all(self.client.clone());
        let name = "wolconfigs.wol.pillon.org";
        let params = PatchParams::apply("test").force();
        let result = api
            .patch(name, &params, &Patch::Apply(crd::definition()))
            .await;
        result.expect("the definition is taken");
        let served = await_condition(api, name, conditions::is_crd_established());
        tokio::time::timeout(SOON, served)
            .await
            .expect("in time")
            .expect("it is served");
    }

    /// Removes the definition of `WolConfig` and waits until it is gone.
    pub async fn remove_crd(&self) {
        let api = Api::<CustomResourceDefinition>::all(self.client.clone());
        let name = "wolconfigs.wol.pillon.org";
        // Absent is as good.
        let _ = api.delete(name, &DeleteParams::default()).await;
        eventually("the definition is gone", async || {
            api.get_opt(name).await.expect("the API answers").is_none()
        })
        .await;
    }

    /// Makes a namespace, where it is not there yet.
    pub async fn namespace(&self, name: &str) {
        let namespace: Namespace =
            serde_json::from_value(json!({"metadata": {"name": name}})).expect("a namespace");
        let api = Api::<Namespace>::all(self.client.clone());
        match api.create(&PostParams::default(), &namespace).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.is_already_exists() => {}
            Err(error) => panic!("cannot make namespace {name}: {error}"),
        }
    }

    /// Creates or replaces a `WolConfig`.
    pub async fn config(&self, name: &str, spec: Value) {
        let object = json!({
            "apiVersion": "wol.pillon.org/v1beta1", "kind": "WolConfig",
            "metadata": {"name": name}, "spec": spec,
        });
        let params = PatchParams::apply("test").force();
        let api = Api::<WolConfig>::all(self.client.clone());
        let result = api.patch(name, &params, &Patch::Apply(&object)).await;
        result.expect("the WolConfig is taken");
    }

    /// Creates a `WolConfig` of thousands of entries. The stand-in takes it unseen: its rules, in a
    /// test's build, would take a minute for it.
    pub async fn large_config(&self, name: &str, spec: Value) {
        let object = json!({
            "apiVersion": "wol.pillon.org/v1beta1", "kind": "WolConfig",
            "metadata": {"name": name}, "spec": spec,
        });
        if let ApiBackend::StandIn(server) = &self.api {
            return server.seed([object]);
        }
        let object = serde_json::from_value(object).expect("a WolConfig");
        let api = Api::<WolConfig>::all(self.client.clone());
        let result = api.create(&PostParams::default(), &object).await;
        result.expect("the WolConfig is taken");
    }

    /// Deletes a `WolConfig`.
    pub async fn delete_config(&self, name: &str) {
        let api = Api::<WolConfig>::all(self.client.clone());
        let result = api.delete(name, &DeleteParams::default()).await;
        result.expect("the WolConfig can be deleted");
    }

    /// The Events of a VM, as "reason: message".
    pub async fn events(&self, namespace: &str, vm: &str) -> Vec<String> {
        let api = Api::<Event>::namespaced(self.client.clone(), namespace);
        let params = ListParams::default().fields(&format!("involvedObject.name={vm}"));
        let events = api.list(&params).await.expect("Events can be listed");
        let line = |event: Event| {
            let (reason, message) = (event.reason, event.message);
            format!(
                "{}: {}",
                reason.unwrap_or_default(),
                message.unwrap_or_default()
            )
        };
        events.into_iter().map(line).collect()
    }

    /// Cuts the managers off from the API server, or lets them reach it again. For everybody else
    /// it goes on.
    pub fn cut_off(&self, cut: bool) {
        self.line.cut(cut);
    }

    /// Has the line from the managers to the API server fall silent, without breaking, or mends it.
    pub fn silence(&self, silent: bool) {
        self.line.silence(silent);
    }

    /// The API away and back again: nobody answers meanwhile.
    pub fn api_away(&self, away: bool) {
        match (&self.api, away) {
            (ApiBackend::StandIn(server), away) => server.faults().away(away),
            (ApiBackend::Real(envtest), true) => envtest.freeze(),
            (ApiBackend::Real(envtest), false) => envtest.thaw(),
        }
    }

    /// virt-api's group known to nobody, as where KubeVirt is being removed, and there again.
    pub async fn virt_api_absent(&self, absent: bool) {
        match (&self.api, absent) {
            (ApiBackend::Real(_), true) => self.kubevirt.unregister().await,
            (ApiBackend::Real(_), false) => self.kubevirt.register().await,
            (ApiBackend::StandIn(server), absent) => {
                let (group, versions) = SUBRESOURCES;
                for version in versions {
                    if absent {
                        server.remove_aggregate(group, version);
                    } else {
                        server.aggregate(group, version, self.kubevirt.router());
                    }
                }
            }
        }
    }
}

/// A line to a server, and the kubeconfig that leads over it.
async fn line_to(server: SocketAddr, kubeconfig: &str) -> (Line, tempfile::NamedTempFile) {
    let line = Line::to(server).await;
    let file = tempfile::NamedTempFile::new().expect("a file can be made");
    let text = kubeconfig.replace(&server.to_string(), &line.address().to_string());
    std::fs::write(file.path(), text).expect("the kubeconfig can be written");
    (line, file)
}

/// Waits until `holds`.
pub async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !holds().await {
        assert!(Instant::now() < deadline, "not within {SOON:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
