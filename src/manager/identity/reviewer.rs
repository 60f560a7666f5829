//! Owns [`Reviewer`]: asks the API server whose a token is, and no more often than it must.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use k8s_openapi::api::{
    authentication::v1::{TokenReview, TokenReviewSpec, UserInfo},
    core::v1::Pod,
};
use kube::{
    Api, Client,
    api::PostParams,
    core::{ApiResource, NotUsed, Object, ObjectMeta},
};
use prometheus_client::metrics::gauge::Gauge;
use serde::Deserialize;
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout},
};

use super::{
    TokenRules,
    cache::Cache,
    callers::{Caller, Callers},
    metrics::{Metrics, Reviewed},
    refusal::Refusal,
    token::{Digest, Token},
};
use crate::{cluster::chain, manager::sessions::is_node_name};

/// Reviews under way at once: agents that all come back together must not take the API server down.
const CONCURRENCY: usize = 50;
/// Callers that wait for a review at once, as many as there may be sessions.
const MAX_WAITING: usize = 16_384;
/// A caller waits for so long.
const PATIENCE: Duration = Duration::from_secs(10);
/// Tokens of agents that are remembered, for twice the nodes of the largest cluster …
const MAX_ACCEPTED: usize = 16_384;
/// … and others, apart, so that garbage does not push out what is good …
const MAX_REFUSED: usize = 4_096;
/// … for so long at most.
const REFUSED_LIFE: Duration = Duration::from_secs(10);

/// An address is known for a good token for so many intervals of reviews, so that an agent's session
/// keeps its own known.
const TRUSTED: u32 = 2;

/// What a token says beside its account.
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";
const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";

/// Who somebody has proven to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Verified {
    /// The node that the agent runs on.
    pub(super) node: Arc<str>,
    /// When the proof ends, where it says so.
    pub(super) expires: Option<SystemTime>,
}

/// Where a pod runs; the rest of it is not read.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Placed {
    node_name: Option<String>,
}

/// Asks whose tokens are.
pub(super) struct Reviewer {
    reviews: Api<TokenReview>,
    pods: Api<Object<Placed, NotUsed>>,
    audience: String,
    account: String,
    accepted: Mutex<Cache<Digest, Verified>>,
    refused: Mutex<Cache<Digest, Refusal>>,
    callers: Mutex<Callers>,
    places: Semaphore,
    waiting: Semaphore,
    metrics: Metrics,
}

/// Counts a call for as long as it runs, however it ends.
struct UnderWay(Gauge);

impl UnderWay {
    fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Reviewer {
    pub(super) fn new(client: Client, rules: &TokenRules, metrics: Metrics) -> Self {
        let pods = ApiResource::erase::<Pod>(&());
        let (namespace, account) = (&rules.namespace, &rules.account);
        Self {
            reviews: Api::all(client.clone()),
            pods: Api::namespaced_with(client, namespace, &pods),
            audience: rules.audience.clone(),
            account: format!("system:serviceaccount:{namespace}:{account}"),
            accepted: Mutex::new(Cache::new(rules.cache, MAX_ACCEPTED)),
            refused: Mutex::new(Cache::new(
                rules.cache.min(crate::pace::of(REFUSED_LIFE)),
                MAX_REFUSED,
            )),
            callers: Mutex::new(Callers::new(rules.interval * TRUSTED)),
            places: Semaphore::new(CONCURRENCY),
            waiting: Semaphore::new(MAX_WAITING),
            metrics,
        }
    }

    /// Whose a token from there is; `anew` where what is known from moments ago does not do, as that
    /// of an open session is.
    pub(super) async fn review(
        &self,
        token: &Token,
        from: Caller,
        anew: bool,
    ) -> Result<Verified, Refusal> {
        let digest = token.digest();
        if let Some(known) = self.known(&digest, anew) {
            return known;
        }
        let now = Instant::now().into_std();
        if !anew && !held(&self.callers).admit(from, now) {
            return Err(Refusal::TooMany);
        }
        let unavailable = |why: &str| Refusal::Unavailable(why.into());
        let Ok(_waits) = self.waiting.try_acquire() else {
            return Err(unavailable("too many are waiting to be told apart already"));
        };
        let asked = async {
            // Fails only for a closed semaphore, and nobody closes it.
            let _place = self.places.acquire().await;
            // Another call with the same token may have been answered meanwhile.
            match self.known(&digest, anew) {
                Some(known) => known,
                None => self.ask(token, digest).await,
            }
        };
        let late = |_| Err(unavailable("the API server does not answer in time"));
        timeout(crate::pace::of(PATIENCE), asked)
            .await
            .unwrap_or_else(late)
    }

    /// Who calls from there has proven to be an agent that is served.
    pub(super) fn trust(&self, from: Caller) {
        held(&self.callers).trust(from, Instant::now().into_std());
    }

    fn known(&self, digest: &Digest, anew: bool) -> Option<Result<Verified, Refusal>> {
        if anew {
            return None;
        }
        let now = Instant::now().into_std();
        let accepted = held(&self.accepted).get(digest, now).map(Ok);
        let known = accepted.or_else(|| held(&self.refused).get(digest, now).map(Err))?;
        self.metrics.cache_hits.inc();
        Some(known)
    }

    async fn ask(&self, token: &Token, digest: Digest) -> Result<Verified, Refusal> {
        let under_way = UnderWay::new(&self.metrics.under_way);
        let result = self.ask_server(token).await;
        drop(under_way);
        let now = Instant::now().into_std();
        self.metrics.reviewed(match &result {
            Ok(verified) => {
                held(&self.accepted).put(digest, verified.clone(), now);
                held(&self.refused).remove(&digest);
                Reviewed::Accepted
            }
            Err(refusal) if refusal.is_outage() => Reviewed::Unavailable,
            Err(refusal) => {
                held(&self.accepted).remove(&digest);
                held(&self.refused).put(digest, refusal.clone(), now);
                Reviewed::Refused
            }
        });
        result
    }

    async fn ask_server(&self, token: &Token) -> Result<Verified, Refusal> {
        let review = TokenReview {
            metadata: ObjectMeta::default(),
            spec: TokenReviewSpec {
                token: Some(token.secret().to_owned()),
                audiences: Some(vec![self.audience.clone()]),
            },
            status: None,
        };
        let answer = self.reviews.create(&PostParams::default(), &review).await;
        let status = answer
            .map_err(|error| away("review a token", &error))?
            .status;
        let status = status.unwrap_or_default();
        if !status.authenticated.unwrap_or_default() {
            let why = status.error.unwrap_or_else(|| "it does not say why".into());
            return Err(Refusal::Token(why));
        }
        // A server that knows nothing of audiences returns none, and has not looked at ours.
        if !status
            .audiences
            .iter()
            .flatten()
            .any(|a| *a == self.audience)
        {
            return Err(Refusal::Audience(self.audience.clone()));
        }
        let user = status.user.unwrap_or_default();
        if user.username.as_deref() != Some(&*self.account) {
            return Err(Refusal::Account {
                is: user.username.unwrap_or_default(),
                wanted: self.account.clone(),
            });
        }
        let node = self.node(&user).await?;
        if !is_node_name(&node) {
            return Err(Refusal::Unbound);
        }
        Ok(Verified {
            node: node.into(),
            expires: token.expires(),
        })
    }

    /// The node of a token: as it says itself, or that of its pod, where the API server is of an
    /// age at which it leaves it out.
    async fn node(&self, user: &UserInfo) -> Result<String, Refusal> {
        let extra = user.extra.as_ref();
        let said = |key: &str| first(extra?, key);
        if let Some(node) = said(NODE_NAME) {
            return Ok(node);
        }
        let (Some(pod), Some(uid)) = (said(POD_NAME), said(POD_UID)) else {
            return Err(Refusal::Unbound);
        };
        let found = self.pods.get_opt(&pod).await;
        let found = found.map_err(|error| away("read the pod of a token", &error))?;
        let refused = |why| Refusal::Pod {
            pod: pod.clone(),
            why,
        };
        let found = found.ok_or_else(|| refused("which does not exist any more"))?;
        if found.metadata.uid != Some(uid) {
            return Err(refused("in whose place there is another of its name"));
        }
        let node = found.spec.node_name;
        node.ok_or_else(|| refused("which is on no node"))
    }
}

fn first(extra: &BTreeMap<String, Vec<String>>, key: &str) -> Option<String> {
    extra.get(key)?.first().cloned()
}

/// The API server said nothing of the token.
fn away(what: &str, error: &kube::Error) -> Refusal {
    let remedy = match error {
        kube::Error::Api(status) if status.code == 403 => {
            "; the manager's rights are not those of its manifests"
        }
        _ => "",
    };
    let cause = match error {
        // Its own words may show what it could not read, and so the token.
        kube::Error::SerdeError(_) => "the answer makes no sense".into(),
        error => chain(error),
    };
    Refusal::Unavailable(format!("cannot {what}: {cause}{remedy}"))
}

fn held<T>(cache: &Mutex<T>) -> MutexGuard<'_, T> {
    cache.lock().unwrap_or_else(PoisonError::into_inner)
}
