//! Owns the calls that start a VM and unpause one, and what their answers mean.
//!
//! The answer alone never decides: the losers of a race are told "internal error", a VM that is
//! stopping is "already running", and an accepted start may come to nothing. So most answers mean
//! "look at the VM again".

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, Request, StatusCode, header};
use kube::{Api, Client, client::Body};
use serde::Deserialize;

use crate::{
    cluster::chain,
    kubevirt::VirtualMachine,
    manager::{
        metrics::{Found, Meaning},
        vm::{Vm, VmKey},
    },
};

/// What an answer to a start, or to an unpausing, means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answered {
    /// The request is recorded; the VM will show what comes of it.
    Accepted,
    /// Only the VM can tell.
    Recheck {
        /// Why the call may have come to nothing, for people.
        why: String,
        /// Whether this call may have started the VM nevertheless.
        effective: bool,
    },
    /// The VM does not exist any more.
    Gone,
    /// We may not start it; only a change of rights helps.
    Forbidden(String),
    /// This VM cannot be started by a wake, whatever is done.
    Unsupported(String),
    /// KubeVirt refuses to start the VM until somebody changes something.
    Refused(String),
    /// Nothing wrong with the VM: ask again.
    Retry {
        /// No sooner than the server says.
        after: Option<Duration>,
        /// What was in the way, for people.
        why: String,
        /// Whether this call may have started the VM nevertheless.
        effective: bool,
    },
    /// Nobody serves KubeVirt's API: it is not installed, or is going or coming. Ask again.
    ApiMissing {
        /// No sooner than after this time.
        after: Duration,
        /// What the server says, for people.
        why: String,
    },
    /// The server does not understand the call.
    Bug(String),
}

impl Answered {
    /// Whether the VM may be starting because of this call.
    #[must_use]
    pub fn may_have_started(&self) -> bool {
        match self {
            Self::Accepted => true,
            Self::Recheck { effective, .. } | Self::Retry { effective, .. } => *effective,
            _ => false,
        }
    }

    /// What it means where changes of the cluster have not reached us for so long: an API server that
    /// has just come back knows no roles, and no tokens, for a moment, and refuses the watches, too.
    #[must_use]
    pub fn doubted(self, unreached: Duration) -> Self {
        match self {
            Self::Forbidden(why) if !unreached.is_zero() => Self::Retry {
                after: None,
                why,
                effective: false,
            },
            answer => answer,
        }
    }

    /// Its kind, for metrics.
    #[must_use]
    pub fn meaning(&self) -> Meaning {
        match self {
            Self::Accepted => Meaning::Accepted,
            Self::Recheck { .. } => Meaning::Recheck,
            Self::Gone => Meaning::Gone,
            Self::Forbidden(_) => Meaning::Forbidden,
            Self::Unsupported(_) => Meaning::Unsupported,
            Self::Refused(_) => Meaning::Refused,
            Self::Retry { .. } => Meaning::Unavailable,
            Self::ApiMissing { .. } => Meaning::ApiMissing,
            Self::Bug(_) => Meaning::NotUnderstood,
        }
    }
}

/// What reading a VM brought.
#[derive(Debug, Clone)]
pub enum Reread {
    /// The VM as it is now.
    Vm(Arc<Vm>),
    /// It does not exist any more.
    Gone,
    /// It could not be read, for the reason given.
    Failed(String),
}

impl Reread {
    /// Its kind, for metrics.
    #[must_use]
    pub fn found(&self) -> Found {
        match self {
            Self::Vm(_) => Found::Vm,
            Self::Gone => Found::Gone,
            Self::Failed(_) => Found::Failed,
        }
    }
}

/// Where KubeVirt's API is missing, it is not worth asking more often than this.
const API_MISSING_PAUSE: Duration = Duration::from_secs(10);
/// A server that asks for a longer pause is asked again after this one.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);
/// Characters of a server's text that are passed on.
const MAX_TEXT: usize = 300;

/// Makes the calls.
#[derive(Clone)]
pub struct Starter {
    client: Client,
    timeout: Duration,
}

impl Starter {
    /// Calls by `client` take at most `timeout`. The client must not retry by itself, or one wake
    /// would become many calls.
    #[must_use]
    pub fn new(client: Client, timeout: Duration) -> Self {
        Self { client, timeout }
    }

    /// Asks KubeVirt to start a VM: one request, whatever comes of it.
    pub async fn start(&self, key: &VmKey) -> Answered {
        self.put("virtualmachines", key, "start", classify).await
    }

    /// Asks KubeVirt to have a paused guest go on: one request, whatever comes of it.
    pub async fn unpause(&self, key: &VmKey) -> Answered {
        let instances = "virtualmachineinstances";
        self.put(instances, key, "unpause", classify_unpause).await
    }

    async fn put(
        &self,
        resource: &str,
        VmKey { namespace, name }: &VmKey,
        subresource: &str,
        meaning: fn(StatusCode, &str, Option<Duration>) -> Answered,
    ) -> Answered {
        let path = format!(
            "/apis/subresources.kubevirt.io/v1/namespaces/{namespace}/{resource}/{name}/{subresource}"
        );
        match tokio::time::timeout(self.timeout, self.send(path)).await {
            Ok(Ok((status, body, after))) => meaning(status, &body, after),
            Ok(Err(error)) => Answered::Retry {
                after: None,
                why: format!("the API server cannot be reached: {}", chain(&error)),
                effective: true,
            },
            Err(_) => Answered::Recheck {
                why: format!("KubeVirt did not answer within {:?}", self.timeout),
                effective: true,
            },
        }
    }

    /// Makes a call, and brings the code, the body of a refusal, and the pause that it asks for.
    async fn send(&self, path: String) -> kube::Result<(StatusCode, String, Option<Duration>)> {
        // Without an Accept header: the route produces nothing, and refuses to produce JSON.
        let request = Request::put(path)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::from(b"{}".to_vec()))
            .map_err(kube::Error::HttpError)?;
        let response = self.client.send(request).await?;
        let (status, after) = (response.status(), retry_after(response.headers()));
        // A success says nothing, and was one whether or not its end arrives.
        if status.is_success() {
            return Ok((status, String::new(), after));
        }
        let body = response.into_body().collect_bytes().await?;
        Ok((status, String::from_utf8_lossy(&body).into_owned(), after))
    }

    /// Reads a VM.
    pub async fn read(&self, key: &VmKey) -> Reread {
        let api = Api::<VirtualMachine>::namespaced(self.client.clone(), &key.namespace);
        match tokio::time::timeout(self.timeout, api.get(&key.name)).await {
            Ok(Ok(vm)) => Reread::Vm(Arc::new(vm.into())),
            Ok(Err(kube::Error::Api(status))) if status.code == 404 && names(&status.message) => {
                Reread::Gone
            }
            Ok(Err(error)) => Reread::Failed(format!(
                "the virtual machine cannot be read: {}",
                chain(&error)
            )),
            Err(_) => Reread::Failed("the API server does not answer".into()),
        }
    }
}

/// Whether the text of a 404 says that the VM is missing, and not that nobody serves VMs: so is it,
/// too, while an API server starts up.
fn names(text: &str) -> bool {
    text.contains("\" not found")
}

/// Reads the pause that a server asks for.
#[must_use]
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers
        .get(header::RETRY_AFTER)?
        .to_str()
        .ok()?
        .parse()
        .ok()?;
    Some(Duration::from_secs(seconds).min(crate::pace::of(MAX_RETRY_AFTER)))
}

/// The part of a `Status` object that says something.
#[derive(Deserialize)]
struct StatusBody {
    kind: String,
    #[serde(default)]
    message: String,
}

/// Says what an answer to a start means, by its status code, its body, and the pause that it asks for. The
/// texts are KubeVirt's (`pkg/virt-api/rest`) and the API server's.
#[must_use]
pub fn classify(status: StatusCode, body: &str, after: Option<Duration>) -> Answered {
    let (text, is_object) = text(body);
    let (why, text) = (why(status, &text), &*text);
    match status.as_u16() {
        200..=299 => Answered::Accepted,
        // The plain one is virt-api's own word for a refusal. The API server's means that our token is
        // not good: it is read anew from its file, where a fresh one may be on its way.
        401 if !is_object => Answered::Forbidden(why),
        403 => Answered::Forbidden(why),
        404 if is_object && names(text) => Answered::Gone,
        // Names no VM, in plain text most often: nobody serves this group.
        404 => Answered::ApiMissing {
            after: after.unwrap_or(crate::pace::of(API_MISSING_PAUSE)),
            why: format!("KubeVirt's API is not there: {why}"),
        },
        409 => conflict(text, why),
        401 | 408 | 429 | 503 => Answered::Retry {
            after,
            why,
            effective: false,
        },
        500 => internal_error(text, why),
        501..=599 => Answered::Recheck {
            why,
            effective: true,
        },
        _ => Answered::Bug(why),
    }
}

/// As [`classify`], of an answer to an unpausing. What is missing or not paused is the instance, of
/// which the VM tells more; and nothing that KubeVirt says here is the last word on the VM.
#[must_use]
pub fn classify_unpause(status: StatusCode, body: &str, after: Option<Duration>) -> Answered {
    let recheck = |effective| Answered::Recheck {
        why: why(status, &text(body).0),
        effective,
    };
    match (status.as_u16(), classify(status, body, after)) {
        (_, Answered::Gone) | (409, _) => recheck(false),
        (500, _) => recheck(true),
        (_, answer) => answer,
    }
}

/// What an answer says, and whether it is a `Status` object.
fn text(body: &str) -> (String, bool) {
    match serde_json::from_str::<StatusBody>(body) {
        Ok(object) if object.kind == "Status" => (object.message, true),
        _ => (body.trim().to_owned(), false),
    }
}

/// An answer for people.
fn why(status: StatusCode, text: &str) -> String {
    let shown: String = text.chars().take(MAX_TEXT).collect();
    format!("KubeVirt answered {}: {shown}", status.as_u16())
}

fn conflict(text: &str, why: String) -> Answered {
    if text.contains("Once does not support manual start") {
        Answered::Unsupported(why)
    } else if text.contains("recovery required") {
        Answered::Refused(why)
    } else {
        // Already running (or stopping!), kept on by KubeVirt, or being restarted by it.
        Answered::Recheck {
            why,
            effective: false,
        }
    }
}

fn internal_error(text: &str, why: String) -> Answered {
    let passing = text.contains("until snapshot") || text.contains("until restore");
    if text.contains("failed calling webhook") {
        Answered::Retry {
            after: None,
            why,
            effective: false,
        }
    } else if passing {
        Answered::Recheck {
            why,
            effective: false,
        }
    } else if text.contains("denied the request") {
        Answered::Refused(why)
    } else {
        // A lost race, a change under way, or something unknown.
        Answered::Recheck {
            why,
            effective: true,
        }
    }
}
