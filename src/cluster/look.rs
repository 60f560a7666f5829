//! Owns [`Look`]: reading objects of the cluster for people, and in their words why one cannot be
//! read. Nothing is ever changed by it.

use std::fmt;

use http::{HeaderValue, Request, Uri, header};
use kube::Client;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::timeout;

use super::{PATIENCE, chain, client, config};

/// Objects that one page of a list has at most.
const PAGE: usize = 500;

/// A way to look at the cluster.
#[derive(Clone)]
pub struct Look {
    client: Client,
    /// Where the API server is.
    pub server: Uri,
}

/// Why something could not be looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unseen {
    /// There is no such object.
    Absent,
    /// The API server does not know such objects.
    NotServed,
    /// This right is needed.
    Forbidden(String),
    /// The API server does not accept the credentials.
    Unauthorized,
    /// The API server cannot be asked, or could not answer, for this reason.
    Failed(String),
}

/// Where objects are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place<'a> {
    /// The group; empty for the core.
    pub group: &'a str,
    /// The version.
    pub version: &'a str,
    /// The resource.
    pub plural: &'a str,
    /// The namespace, where the objects have one and not those of all are meant.
    pub namespace: Option<&'a str>,
}

impl fmt::Display for Place<'_> {
    /// As people name it who give rights: `deployments.apps in namespace shop`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.plural)?;
        if !self.group.is_empty() {
            write!(f, ".{}", self.group)?;
        }
        match self.namespace {
            Some(namespace) => write!(f, " in namespace {namespace}"),
            None => Ok(()),
        }
    }
}

impl Place<'_> {
    fn path(&self) -> String {
        let root = match self.group {
            "" => format!("/api/{}", self.version),
            group => format!("/apis/{group}/{}", self.version),
        };
        match self.namespace {
            Some(namespace) => format!("{root}/namespaces/{namespace}/{}", self.plural),
            None => format!("{root}/{}", self.plural),
        }
    }
}

impl Look {
    /// Makes a client by the kubeconfig, or by the service account of the pod.
    ///
    /// # Errors
    ///
    /// There is neither, or what there is cannot be used.
    pub async fn new() -> anyhow::Result<Self> {
        let mut config = config().await?;
        // In the audit log of the API server nobody shall take what a person reads for a manager's.
        let agent =
            HeaderValue::from_static(concat!("kubevirt-wol-look/", env!("CARGO_PKG_VERSION")));
        config
            .headers
            .retain(|(name, _)| name != header::USER_AGENT);
        config.headers.push((header::USER_AGENT, agent));
        let server = config.cluster_url.clone();
        let client = client(config)?;
        Ok(Self { client, server })
    }

    /// Reads what is at a path.
    ///
    /// # Errors
    ///
    /// See [`Unseen`].
    pub async fn path<T: DeserializeOwned>(&self, path: &str) -> Result<T, Unseen> {
        self.ask(Request::get(path).body(Vec::new()), path).await
    }

    /// Reads one object.
    ///
    /// # Errors
    ///
    /// See [`Unseen`].
    pub async fn get<T: DeserializeOwned>(
        &self,
        place: &Place<'_>,
        name: &str,
    ) -> Result<T, Unseen> {
        let path = format!("{}/{name}", place.path());
        self.path(&path)
            .await
            .map_err(|why| needs(why, "get", place))
    }

    /// Reads the metadata of one object, and nothing that it holds.
    ///
    /// # Errors
    ///
    /// See [`Unseen`].
    pub async fn metadata(&self, place: &Place<'_>, name: &str) -> Result<Value, Unseen> {
        let path = format!("{}/{name}", place.path());
        let accept = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
        let request = Request::get(&path).header(header::ACCEPT, accept);
        let answer = self.ask(request.body(Vec::new()), &path).await;
        answer.map_err(|why| needs(why, "get", place))
    }

    /// Reads one object by the right to list those of its name, which is all that some accounts
    /// have.
    ///
    /// # Errors
    ///
    /// See [`Unseen`].
    pub async fn find(&self, place: &Place<'_>, name: &str) -> Result<Value, Unseen> {
        let query = format!("fieldSelector=metadata.name%3D{name}");
        let found = self.list::<Value>(place, &query).await?;
        found.into_iter().next().ok_or(Unseen::Absent)
    }

    /// Reads all objects that a query selects; an empty one selects all.
    ///
    /// # Errors
    ///
    /// See [`Unseen`].
    pub async fn list<T: DeserializeOwned>(
        &self,
        place: &Place<'_>,
        query: &str,
    ) -> Result<Vec<T>, Unseen> {
        #[derive(serde::Deserialize)]
        struct Page<T> {
            #[serde(default)]
            metadata: Metadata,
            items: Vec<T>,
        }
        #[derive(Default, serde::Deserialize)]
        struct Metadata {
            #[serde(default, rename = "continue")]
            token: String,
        }
        let (mut found, mut token) = (Vec::new(), String::new());
        loop {
            // A token is made of characters that need no escaping, but for those at its end.
            let from = token.replace('=', "%3D");
            let path = format!("{}?limit={PAGE}&continue={from}&{query}", place.path());
            let page: Result<Page<T>, Unseen> = self.path(path.trim_end_matches('&')).await;
            let page = page.map_err(|why| needs(why, "list", place))?;
            found.extend(page.items);
            token = page.metadata.token;
            if token.is_empty() {
                return Ok(found);
            }
        }
    }

    /// Asks a question that is no object: what is made of `review` is stored nowhere.
    ///
    /// # Errors
    ///
    /// See [`Unseen`].
    pub async fn review(&self, place: &Place<'_>, review: &Value) -> Result<Value, Unseen> {
        let path = place.path();
        let request = Request::post(&path).header(header::CONTENT_TYPE, "application/json");
        let answer = self.ask(request.body(review.to_string().into_bytes()), &path);
        answer.await.map_err(|why| needs(why, "create", place))
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        request: http::Result<Request<Vec<u8>>>,
        path: &str,
    ) -> Result<T, Unseen> {
        let request = request.map_err(|error| Unseen::Failed(format!("{path}: {error}")))?;
        match timeout(PATIENCE, self.client.request(request)).await {
            Ok(answer) => answer.map_err(|error| unseen(&error)),
            Err(_) => Err(Unseen::Failed(format!("no answer within {PATIENCE:?}"))),
        }
    }
}

fn unseen(error: &kube::Error) -> Unseen {
    let kube::Error::Api(status) = error else {
        return Unseen::Failed(chain(error));
    };
    let of_an_object = status
        .details
        .as_ref()
        .is_some_and(|it| !it.name.is_empty());
    match status.code {
        404 if of_an_object => Unseen::Absent,
        404 => Unseen::NotServed,
        401 => Unseen::Unauthorized,
        403 => Unseen::Forbidden(status.message.clone()),
        _ => Unseen::Failed(chain(error)),
    }
}

/// Names the right that is missing.
fn needs(why: Unseen, verb: &str, place: &Place<'_>) -> Unseen {
    match why {
        Unseen::Forbidden(_) => Unseen::Forbidden(format!("{verb} {place}")),
        other => other,
    }
}

impl fmt::Display for Unseen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("it does not exist"),
            Self::NotServed => f.write_str("the API server does not know such objects"),
            Self::Forbidden(right) => {
                write!(f, "could not be looked at: needs the right to {right}")
            }
            Self::Unauthorized => f.write_str("the API server does not accept the credentials"),
            Self::Failed(why) => write!(f, "could not be looked at: {why}"),
        }
    }
}
