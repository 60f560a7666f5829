//! Owns the surroundings of a manager that asks for tokens: an API server of either kind with the
//! accounts and pods of agents, and a line to it that can be cut.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::Request;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, ServiceAccount};
use kube::{
    Api as Objects, Client, Error, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams, PostParams},
    client::Body,
};
use kubevirt_wol::{
    admin::Heartbeat,
    manager::identity::{Authenticator, Bans, TokenRules},
};
use serde_json::json;
use tonic::Status;
use tower::service_fn;

use crate::{
    bed::{self, Agent, Bed},
    common::{
        apiserver::{ApiServer, TokenUser},
        envtest::Envtest,
    },
    real,
};

pub(crate) const ACCOUNT: &str = "kubevirt-wol-agent";

/// What a token is to say.
pub(crate) struct Wanted<'a> {
    pub(crate) account: &'a str,
    pub(crate) audience: &'a str,
    /// Name and UID of the pod that it is bound to.
    pub(crate) pod: Option<(&'a str, &'a str)>,
}

/// An API server, and the namespace that the test has for itself.
pub(crate) struct Api {
    server: Option<ApiServer>,
    client: Client,
    pub(crate) namespace: String,
    /// Nodes of pods, and the tokens bound to them: the stand-in is told both.
    pods: Mutex<BTreeMap<String, (String, Vec<String>)>>,
    away: Arc<AtomicBool>,
}

impl Api {
    pub(crate) async fn stand_in() -> Self {
        let server = ApiServer::start().await;
        let client = server.client();
        Self::new(client, Some(server), "kubevirt-wol-system".into()).await
    }

    pub(crate) async fn real(name: &str) -> Option<Self> {
        let client = Envtest::shared()?.client().await;
        let name: String = name.replace('_', "-").chars().take(40).collect();
        let namespace = format!("i-{}", name.trim_end_matches('-'));
        Some(Self::new(client, None, namespace).await)
    }

    async fn new(client: Client, server: Option<ApiServer>, namespace: String) -> Self {
        let api = Self {
            server,
            client: client.clone(),
            namespace: namespace.clone(),
            pods: Mutex::default(),
            away: Arc::default(),
        };
        create::<Namespace>(&Objects::all(client.clone()), &namespace, json!({})).await;
        for account in [ACCOUNT, "other"] {
            let accounts = Objects::<ServiceAccount>::namespaced(client.clone(), &namespace);
            create(&accounts, account, json!({})).await;
        }
        api
    }

    /// The stand-in; only where the test is on it.
    pub(crate) fn server(&self) -> &ApiServer {
        self.server.as_ref().unwrap()
    }

    pub(crate) fn audience(&self) -> String {
        format!("kubevirt-wol.{}", self.namespace)
    }

    /// Makes a pod on a node; tells its UID.
    pub(crate) async fn pod(&self, name: &str, node: &str) -> String {
        let pods = Objects::<Pod>::namespaced(self.client.clone(), &self.namespace);
        let spec = json!({"spec": {
            "serviceAccountName": ACCOUNT, "nodeName": node,
            "containers": [{"name": "agent", "image": "agent"}],
        }});
        let pod = create(&pods, name, spec).await;
        let known = (node.to_owned(), Vec::new());
        self.pods.lock().unwrap().insert(name.to_owned(), known);
        pod.uid().unwrap()
    }

    pub(crate) async fn delete_pod(&self, name: &str) {
        let pods = Objects::<Pod>::namespaced(self.client.clone(), &self.namespace);
        let now = DeleteParams::default().grace_period(0);
        pods.delete(name, &now).await.unwrap();
        let known = self.pods.lock().unwrap().remove(name);
        for token in known.into_iter().flat_map(|(_, tokens)| tokens) {
            if let Some(server) = &self.server {
                server.remove_token(&token);
            }
        }
    }

    pub(crate) async fn token(&self, wanted: Wanted<'_>) -> String {
        let Some(server) = &self.server else {
            return real::token(self.client.clone(), &self.namespace, &wanted).await;
        };
        let mut extra = BTreeMap::new();
        let token = jwt(Duration::from_secs(600));
        if let Some((pod, uid)) = wanted.pod {
            let mut pods = self.pods.lock().unwrap();
            let (node, tokens) = pods.get_mut(pod).unwrap();
            tokens.push(token.clone());
            extra = extras(&[("node-name", node), ("pod-name", pod), ("pod-uid", uid)]);
        }
        let user = TokenUser {
            extra,
            ..self.user(wanted.account, wanted.audience)
        };
        server.add_token(&token, user);
        token
    }

    /// Whose a token of the stand-in is.
    pub(crate) fn user(&self, account: &str, audience: &str) -> TokenUser {
        TokenUser {
            username: format!("system:serviceaccount:{}:{account}", self.namespace),
            audiences: vec![audience.to_owned()],
            ..TokenUser::default()
        }
    }

    /// A new pod on a node, and its token.
    pub(crate) async fn agent_token(&self, pod: &str, node: &str) -> String {
        let uid = self.pod(pod, node).await;
        self.token_of(pod, &uid).await
    }

    /// One more token of a pod.
    pub(crate) async fn token_of(&self, pod: &str, uid: &str) -> String {
        let wanted = Wanted {
            account: ACCOUNT,
            audience: &self.audience(),
            pod: Some((pod, uid)),
        };
        self.token(wanted).await
    }

    /// Writes the list of banned nodes.
    pub(crate) async fn ban(&self, nodes: &str) {
        let maps = Objects::<ConfigMap>::namespaced(self.client.clone(), &self.namespace);
        let map = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "banned"},
            "data": {"nodes": nodes},
        });
        let params = PatchParams::apply("test").force();
        maps.patch("banned", &params, &Patch::Apply(map))
            .await
            .unwrap();
    }

    /// What the manager asks for is not answered for as long as that holds; watches that run do.
    pub(crate) fn away(&self, away: bool) {
        self.away.store(away, Ordering::SeqCst);
    }

    /// A manager whose times are short: it caches for a second and reviews every second.
    pub(crate) async fn manager(&self) -> Bed {
        self.manager_with(Duration::from_secs(1), Duration::from_secs(1))
            .await
    }

    pub(crate) async fn manager_with(&self, cache: Duration, interval: Duration) -> Bed {
        let rules = TokenRules {
            namespace: self.namespace.clone(),
            account: ACCOUNT.into(),
            audience: self.audience(),
            cache,
            interval,
        };
        let (bans, client) = (Bans::default(), self.cuttable());
        let (theirs, watching) = (bans.clone(), client.clone());
        let (mut bed, metrics) = {
            let mut kept = None;
            let bed = Bed::with(|metrics| {
                kept = Some(metrics.clone());
                Authenticator::tokens(client, &rules, theirs, metrics)
            });
            (bed.await, kept.unwrap())
        };
        let banned = (watching, self.namespace.clone(), "banned".to_owned());
        let heart = Heartbeat::default();
        let watch = bans
            .clone()
            .watch(banned, metrics, bed.token.clone(), heart);
        bed.tasks.spawn(watch);
        while bans.contains("any").is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        bed
    }

    fn cuttable(&self) -> Client {
        let (client, away) = (self.client.clone(), self.away.clone());
        let service = service_fn(move |request: Request<Body>| {
            let (client, away) = (client.clone(), away.clone());
            async move {
                if away.load(Ordering::SeqCst) {
                    return Err(Error::Service("the line is cut".into()));
                }
                client.send(request).await
            }
        });
        Client::new(service, self.namespace.clone())
    }
}

/// What a token says beside its account.
pub(crate) fn extras(said: &[(&str, &str)]) -> BTreeMap<String, Vec<String>> {
    let key = |name: &str| format!("authentication.kubernetes.io/{name}");
    let said = said
        .iter()
        .map(|(name, value)| (key(name), vec![(*value).to_owned()]));
    said.collect()
}

/// A token of the stand-in that expires after `life`.
pub(crate) fn jwt(life: Duration) -> String {
    let exp = SystemTime::now() + life;
    let exp = exp.duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let claims = json!({"exp": exp.as_secs(), "jti": fastrand::u64(..)}).to_string();
    format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims))
}

/// Opens a session by the value of an `authorization` header.
pub(crate) async fn calling(bed: &Bed, authorization: Option<&str>) -> Result<Agent, Status> {
    bed::open(bed.channel(), authorization).await
}

/// A session with a token, past its welcome; the agent says to be of `node`.
pub(crate) async fn session(bed: &Bed, token: &str, node: &str) -> Agent {
    let agent = calling(bed, Some(&format!("Bearer {token}"))).await;
    agent.unwrap().welcomed(node).await
}

async fn create<K>(api: &Objects<K>, name: &str, mut object: serde_json::Value) -> K
where
    K: Clone + std::fmt::Debug + serde::de::DeserializeOwned + serde::Serialize,
{
    object["metadata"]["name"] = name.into();
    let object = serde_json::from_value(object).unwrap();
    api.create(&PostParams::default(), &object).await.unwrap()
}
