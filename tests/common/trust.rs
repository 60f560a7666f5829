//! What an installation's managers and agents know each other by: the service accounts, the objects
//! of the managers' CA, and pods with what their kubelet gives them. The same on both API servers.

use std::{path::PathBuf, sync::Arc, time::Duration};

use k8s_openapi::{
    api::core::v1::{self as core, ConfigMap, Node, Secret, ServiceAccount},
    jiff::Timestamp,
};
use kube::{
    Api, Client, Resource,
    api::{DeleteParams, PostParams},
    core::NamespaceResourceScope,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{
    apiserver::{Claims, node_claim},
    cluster::{ApiBackend, eventually},
    jwt::Signer,
    volume::Volume,
};

/// Where tests install the program.
pub const NAMESPACE: &str = "default";
/// The agents' service account, and one that managers are to refuse.
pub const AGENT: &str = "kubevirt-wol-agent";
pub const STRANGER: &str = "stranger";
/// The objects of the managers' CA, which are installed empty.
pub const SECRET: &str = "kubevirt-wol-ca";
pub const BUNDLE: &str = "kubevirt-wol-ca-bundle";

/// How often the kubelet looks whether the bundle has changed.
const LOOK: Duration = Duration::from_millis(100);

/// How managers and agents of a cluster know each other.
pub enum Security {
    /// Not at all.
    Insecure,
    /// By the managers' own CA, and by tokens.
    Own(Trust),
}

impl Security {
    /// The flags of a manager.
    pub fn of_manager(&self) -> Vec<String> {
        match self {
            Self::Insecure => vec!["--insecure".into()],
            // What a manager does where it is not told otherwise.
            Self::Own(_) => Vec::new(),
        }
    }

    /// The flags of a node's agent, and its new pod. Needs a runtime of several threads.
    pub fn of_agent(&self, node: &str) -> (Option<Pod>, Vec<String>) {
        let Self::Own(trust) = self else {
            return (None, vec!["--insecure".into()]);
        };
        let runtime = tokio::runtime::Handle::current();
        let pod = tokio::task::block_in_place(|| runtime.block_on(trust.pod(node, AGENT)));
        let flags = pod.flags();
        (Some(pod), flags)
    }
}

/// The objects of an installation.
pub struct Trust {
    client: Client,
    signer: Signer,
}

impl Trust {
    /// Makes the objects anew: the CA is empty whatever an earlier test has left.
    pub async fn install(api: &ApiBackend, client: &Client) -> Self {
        let signer = match api {
            ApiBackend::StandIn(server) => server.signer().clone(),
            ApiBackend::Real(envtest) => envtest.signer(),
        };
        let trust = Self {
            client: client.clone(),
            signer,
        };
        for name in [AGENT, STRANGER] {
            ensure::<ServiceAccount>(&trust.api(), name).await;
        }
        trust.remove_ca().await;
        trust.install_ca().await;
        trust
    }

    /// Makes the objects of the CA, empty as the manifests ship them, where they are not there.
    pub async fn install_ca(&self) {
        ensure::<Secret>(&self.api(), SECRET).await;
        ensure::<ConfigMap>(&self.api(), BUNDLE).await;
    }

    /// Deletes the objects of the CA.
    pub async fn remove_ca(&self) {
        let params = DeleteParams::default();
        // Absent is as good.
        let _ = self.api::<Secret>().delete(SECRET, &params).await;
        let _ = self.api::<ConfigMap>().delete(BUNDLE, &params).await;
    }

    /// Objects of the installation's namespace.
    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    /// For whom the agents' tokens are.
    pub fn audience() -> String {
        format!("kubevirt-wol.{NAMESPACE}")
    }

    /// A new pod of an account on a node, with a token for the managers, and the bundle once there
    /// is one.
    pub async fn pod(&self, node: &str, account: &str) -> Pod {
        let nodes = Api::<Node>::all(self.client.clone());
        ensure(&nodes, node).await;
        let name = format!("{account}-{:08x}", fastrand::u32(..));
        let object = object(json!({
            "metadata": {"name": name},
            "spec": {
                "nodeName": node, "serviceAccountName": account,
                "containers": [{"name": "agent", "image": "agent"}],
            },
        }));
        let pods = self.api::<core::Pod>();
        let made = pods.create(&PostParams::default(), &object).await;
        made.expect("the pod is taken");
        let volume = Arc::new(Volume::new());
        let mut tasks = JoinSet::new();
        tasks.spawn(mirror(self.api(), volume.clone()));
        let pod = Pod {
            name,
            account: account.to_owned(),
            volume,
            client: self.client.clone(),
            _tasks: tasks,
        };
        pod.refresh().await;
        pod
    }

    /// A token of a pod that ends so many seconds from now, or ended before. API servers, whose
    /// clocks may be apart from others', take it for a minute longer; so -61 has ended for sure.
    pub async fn token_for(&self, pod: &Pod, audience: &str, seconds: i64) -> String {
        let account = self.api::<ServiceAccount>().get(&pod.account).await;
        let account = json!(account.expect("the account is there"));
        let found = self.api::<core::Pod>().get(&pod.name).await;
        let found = json!(found.expect("the pod is there"));
        let nodes = Api::<Node>::all(self.client.clone());
        let name = found["spec"]["nodeName"].as_str().expect("it has a node");
        let node = json!(nodes.get(name).await.expect("the node is there"));
        let life = 3600;
        let claims = Claims {
            namespace: NAMESPACE,
            account: &account,
            audiences: &json!([audience]),
            pod: Some((&found, node_claim(&found, Some(&node)))),
            from: Timestamp::now().as_second() + seconds - life,
            life,
        };
        self.signer.sign(&claims.json())
    }
}

/// A pod, and what its kubelet gives it. The object stays when this is dropped, the files go.
pub struct Pod {
    pub name: String,
    account: String,
    /// The files `token` and `ca.crt`, to be broken at will; the latter is mended within moments.
    pub volume: Arc<Volume>,
    client: Client,
    _tasks: JoinSet<()>,
}

impl Pod {
    /// The flags of an agent in it.
    pub fn flags(&self) -> Vec<String> {
        flags(&self.ca_file(), &self.token_file())
    }

    pub fn token_file(&self) -> PathBuf {
        self.volume.path("token")
    }

    pub fn ca_file(&self) -> PathBuf {
        self.volume.path("ca.crt")
    }

    /// Gives it a fresh token, as a kubelet does in good time.
    pub async fn refresh(&self) {
        let token = self.token(&Trust::audience()).await;
        self.volume.set("token", Some(&token));
    }

    /// A token of its own for somebody.
    pub async fn token(&self, audience: &str) -> String {
        let request = object(json!({
            "metadata": {},
            "spec": {
                "audiences": [audience],
                "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": self.name},
            },
        }));
        let accounts = Api::<ServiceAccount>::namespaced(self.client.clone(), NAMESPACE);
        let (name, params) = (&self.account, PostParams::default());
        let answer = accounts.create_token_request(name, &params, &request).await;
        let status = answer.expect("a token is given").status;
        status.expect("a token is told").token
    }

    /// Deletes it, as a kubelet does once its containers have ended. The real API server may take
    /// its tokens for 10 s more.
    pub async fn end(&self) {
        let pods = Api::<core::Pod>::namespaced(self.client.clone(), NAMESPACE);
        let params = DeleteParams::default().grace_period(0);
        let ended = pods.delete(&self.name, &params).await;
        ended.expect("the pod can be deleted");
        eventually("the pod is gone", async || {
            let found = pods.get_opt(&self.name).await;
            found.expect("the API answers").is_none()
        })
        .await;
    }
}

/// The flags of an agent that has these files.
fn flags(ca: &std::path::Path, token: &std::path::Path) -> Vec<String> {
    let server = format!("kubevirt-wol-grpc.{NAMESPACE}.svc");
    let (ca, token) = (ca.display().to_string(), token.display().to_string());
    let flags = [
        ("--ca-file", ca),
        ("--token-file", token),
        ("--server-name", server),
    ];
    let flat = flags.into_iter();
    flat.flat_map(|(flag, value)| [flag.to_owned(), value])
        .collect()
}

/// Keeps a pod's bundle as the `ConfigMap` has it.
async fn mirror(bundles: Api<ConfigMap>, volume: Arc<Volume>) {
    loop {
        // While the API is away, or the object deleted, a kubelet leaves the files as they are.
        if let Ok(Some(bundle)) = bundles.get_opt(BUNDLE).await {
            let data = bundle.data.unwrap_or_default();
            volume.set("ca.crt", data.get("ca.crt").map(String::as_str));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Makes an object that has nothing but a name, where it is not there.
async fn ensure<K>(api: &Api<K>, name: &str)
where
    K: Resource + Clone + std::fmt::Debug + Serialize + DeserializeOwned,
{
    let object = object(json!({"metadata": {"name": name}}));
    match api.create(&PostParams::default(), &object).await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.is_already_exists() => {}
        Err(error) => panic!("cannot make {name}: {error}"),
    }
}

fn object<K: DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).expect("a well-formed object")
}
