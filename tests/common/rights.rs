//! The rights of managers: given on a real API server, and looked up in the record of the stand-in,
//! where everybody is an administrator.

use std::time::Instant;

use http::{HeaderValue, Method, header};
use k8s_openapi::api::{
    authentication::v1::TokenRequest,
    authorization::v1::{ResourceAttributes, SelfSubjectAccessReview},
    core::v1::ServiceAccount,
};
use kube::{
    Api, Client, Config,
    api::{DynamicObject, Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
    core::{ApiResource, GroupVersionKind},
};
use kubevirt_wol::manager::rights::{MANAGER, RIGHTS, Right, Scope, Verb, manifest};
use serde::Deserialize as _;
use serde_json::{Value, json};

use super::{
    apiserver::{ApiServer, Request},
    cluster::SOON,
    trust::NAMESPACE,
};

/// Where one test's manager believes to be, a namespace that does not exist.
const NOWHERE: &str = "nowhere";

/// The documents of the manifest for the tests' namespace.
pub fn documents() -> Vec<Value> {
    let text = manifest(NAMESPACE);
    let documents = serde_yaml::Deserializer::from_str(&text);
    documents
        .map(|document| Value::deserialize(document).expect("the manifest is YAML"))
        .collect()
}

/// Gives managers their rights, and makes a kubeconfig by which a program is one of them, of that of
/// an administrator.
pub async fn of_manager(admin: &Client, kubeconfig: &str) -> String {
    for document in documents() {
        apply(admin, &document).await;
    }
    let kubeconfig = by_account(admin, kubeconfig, MANAGER).await;
    let client = client(&kubeconfig).await;
    // The API server hears of new roles by a watch of its own.
    let deadline = Instant::now() + SOON;
    for (right, verb) in all() {
        while !allows(&client, &attributes(right, verb)).await {
            assert!(Instant::now() < deadline, "{verb} {right:?} is not given");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }
    kubeconfig
}

/// Every verb of every right.
pub fn all() -> impl Iterator<Item = (&'static Right, Verb)> {
    let verbs = |right: &'static Right| right.verbs.iter().map(move |verb| (right, *verb));
    RIGHTS.iter().flat_map(verbs)
}

async fn apply(admin: &Client, document: &Value) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (version, kind) = (text(&document["apiVersion"]), text(&document["kind"]));
    let (group, version) = version.split_once('/').unwrap_or(("", &version));
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, &kind));
    let metadata = &document["metadata"];
    let api = match metadata["namespace"].as_str() {
        Some(namespace) => Api::<DynamicObject>::namespaced_with(admin.clone(), namespace, &kind),
        None => Api::all_with(admin.clone(), &kind),
    };
    let params = PatchParams::apply("test").force();
    let (name, patch) = (text(&metadata["name"]), Patch::Apply(document));
    let applied = api.patch(&name, &params, &patch).await;
    applied.expect("the manifest is taken");
}

/// A kubeconfig by which a program is a service account.
pub async fn by_account(admin: &Client, kubeconfig: &str, account: &str) -> String {
    let api = Api::<ServiceAccount>::namespaced(admin.clone(), NAMESPACE);
    let request = TokenRequest::default();
    let params = PostParams::default();
    let answer = api.create_token_request(account, &params, &request).await;
    let status = answer.expect("a token is given").status;
    let mut config: Value = serde_yaml::from_str(kubeconfig).expect("the kubeconfig is YAML");
    config["users"][0]["user"] = json!({"token": status.expect("it is told").token});
    config.to_string()
}

/// A client by a kubeconfig, which in records looks like the program.
pub async fn client(kubeconfig: &str) -> Client {
    let kubeconfig = Kubeconfig::from_yaml(kubeconfig).expect("the kubeconfig is YAML");
    let options = KubeConfigOptions::default();
    let config = Config::from_custom_kubeconfig(kubeconfig, &options).await;
    let mut config = config.expect("the kubeconfig is complete");
    let agent = HeaderValue::from_static("kubevirt-wol/test");
    config.headers.push((header::USER_AGENT, agent));
    Client::try_from(config).expect("a client can be made")
}

fn attributes(right: &Right, verb: Verb) -> ResourceAttributes {
    let (resource, subresource) = match right.resource.split_once('/') {
        Some((resource, part)) => (resource, Some(part.to_owned())),
        None => (right.resource, None),
    };
    ResourceAttributes {
        group: Some(right.group.into()),
        resource: Some(resource.into()),
        subresource,
        name: right.name.map(str::to_owned),
        namespace: (right.scope == Scope::Namespace).then(|| NAMESPACE.into()),
        verb: Some(verb.to_string()),
        ..ResourceAttributes::default()
    }
}

/// Whether the API server lets this client do that.
pub async fn allows(client: &Client, what: &ResourceAttributes) -> bool {
    let mut review = SelfSubjectAccessReview::default();
    review.spec.resource_attributes = Some(what.clone());
    let api = Api::<SelfSubjectAccessReview>::all(client.clone());
    let answer = api.create(&PostParams::default(), &review).await;
    let status = answer.expect("everybody may ask").status;
    status.expect("it is told").allowed
}

/// What managers have asked the stand-in for, each with the right to it, if they have one.
pub fn uses(server: &ApiServer) -> Vec<(String, Option<(&'static Right, Verb)>)> {
    let requests = server.requests().into_iter();
    let ours = requests.filter(|request| request.user_agent.starts_with("kubevirt-wol/"));
    let uses = ours.filter_map(|request| {
        let wanted = Wanted::read(&request)?;
        if wanted.name.as_deref() == Some(OTHER_PASSWORDS) {
            return None;
        }
        let found = all().find(|(right, verb)| wanted.is_given_by(right, *verb));
        Some((format!("{} {}", request.method, request.path), found))
    });
    uses.collect()
}

/// A Secret that tests let managers read beside those of the manifest.
pub const OTHER_PASSWORDS: &str = "other-passwords";

/// Lets managers read it, by what an administrator adds to the Role for such a Secret.
pub async fn give_other_passwords(admin: &Client) {
    let name = "kubevirt-wol-other-passwords";
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "rules": [{
            "apiGroups": [""], "resources": ["secrets"],
            "resourceNames": [OTHER_PASSWORDS], "verbs": ["list", "watch"],
        }],
    });
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": MANAGER, "namespace": NAMESPACE}],
    });
    for document in [role, binding] {
        apply(admin, &document).await;
    }
}

/// Fails where a manager has asked the stand-in for something that it has no right to.
pub fn expect_kept(server: &ApiServer) {
    let without = uses(server)
        .into_iter()
        .filter(|(_, right)| right.is_none());
    let without: Vec<_> = without.map(|(request, _)| request).collect();
    assert!(
        without.is_empty(),
        "no right of src/manager/rights.rs covers: {without:#?}"
    );
}

/// What a request needs, in the words of RBAC.
struct Wanted {
    group: String,
    resource: String,
    namespace: Option<String>,
    name: Option<String>,
    verb: Option<Verb>,
}

impl Wanted {
    /// None where the request is for no resource, but for what resources there are; that is
    /// everybody's right.
    fn read(request: &Request) -> Option<Self> {
        let mut parts = request
            .path
            .split('/')
            .skip(1)
            .map(str::to_owned)
            .peekable();
        let group = match parts.next()?.as_str() {
            "api" => String::new(),
            "apis" => parts.next()?,
            _ => return None,
        };
        let _version = parts.next()?;
        let namespace = parts.next_if(|part| part == "namespaces");
        let namespace = namespace.and_then(|_| parts.next());
        let (resource, name) = (parts.next()?, parts.next());
        let resource = match parts.next() {
            Some(part) => format!("{resource}/{part}"),
            None => resource,
        };
        Some(Self {
            group,
            resource,
            namespace,
            verb: verb(request, name.is_some()),
            name: name.or_else(|| selected(&request.query)),
        })
    }

    fn is_given_by(&self, right: &Right, verb: Verb) -> bool {
        let place = match right.scope {
            Scope::Cluster => true,
            Scope::Namespace => {
                [Some(NAMESPACE), Some(NOWHERE)].contains(&self.namespace.as_deref())
            }
        };
        let name = right.name.is_none() || right.name == self.name.as_deref();
        let resource = (right.group, right.resource) == (&*self.group, &*self.resource);
        place && name && resource && self.verb == Some(verb)
    }
}

fn verb(request: &Request, named: bool) -> Option<Verb> {
    match request.method {
        Method::GET if request.is_watch() => Some(Verb::Watch),
        Method::GET if named => Some(Verb::Get),
        Method::GET => Some(Verb::List),
        Method::POST => Some(Verb::Create),
        Method::PUT => Some(Verb::Update),
        Method::PATCH => Some(Verb::Patch),
        _ => None,
    }
}

/// The name of the only object that a list or a watch is about; RBAC takes it for the name.
fn selected(query: &str) -> Option<String> {
    let mut fields = query.split('&');
    let selector = fields.find_map(|field| field.strip_prefix("fieldSelector="))?;
    let name = selector.strip_prefix("metadata.name%3D")?;
    Some(name.to_owned())
}
