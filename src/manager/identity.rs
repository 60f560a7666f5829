//! Owns who an agent is: [`Authenticator`] decides whom the manager serves, and by which name.
//!
//! The node of an agent is what its proof says, never what its messages say. The proof is a service
//! account token, which the API server reviews, or a client certificate; `--insecure` alone believes
//! the agent's own word.

mod banned;
mod bans;
mod cache;
mod callers;
mod metrics;
mod refusal;
mod reviewer;
mod standing;
mod token;

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use kube::Client;
use rustls::pki_types::CertificateDer;
use tokio::time::Instant;
use tonic::Request;

pub use self::{
    banned::Banned,
    bans::Bans,
    metrics::Metrics,
    refusal::{Refusal, Refused},
    standing::Standing,
    token::{MAX_TOKEN, Token},
};
use self::{callers::Caller, reviewer::Reviewer, reviewer::Verified};
use crate::{telemetry::Word, throttle::Throttle};

use super::{
    peer::{Peer, Transport},
    sessions::is_node_name,
};

/// Log lines about refusals: one per second, after a few. The rest are counted.
const TOLD: (u32, u32) = (1, 10);

/// Longer than any session lasts.
const FAR: Duration = Duration::from_secs(365 * 24 * 3_600);

/// Which tokens are those of agents.
#[derive(Debug, Clone)]
pub struct TokenRules {
    /// The namespace of the agents.
    pub namespace: String,
    /// Their service account.
    pub account: String,
    /// For whom their tokens are.
    pub audience: String,
    /// For how long the answer of a review holds for further calls.
    pub cache: Duration,
    /// How often an open session is reviewed.
    pub interval: Duration,
}

/// What the manager takes client certificates for.
pub trait ClientCertificates: Send + Sync {
    /// The node that a certificate names.
    ///
    /// # Errors
    ///
    /// It names none.
    fn name(&self, own: &CertificateDer<'_>) -> Result<String, String>;

    /// Checks a chain, the client's own certificate first, as it would be at the beginning of a
    /// connection.
    ///
    /// # Errors
    ///
    /// It proves nothing at that time.
    fn verify(&self, chain: &[CertificateDer<'static>], at: SystemTime) -> Result<(), String>;
}

/// By what agents prove who they are.
enum Means {
    /// By nothing.
    Word,
    Tokens(Box<Reviewer>),
    Certificates(Arc<dyn ClientCertificates>),
}

/// What somebody proves by who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Evidence {
    Nothing,
    Token(Token),
    Certificates(Arc<[CertificateDer<'static>]>),
}

/// Decides whom the manager serves, and by which name.
pub struct Authenticator {
    means: Means,
    bans: Bans,
    interval: Duration,
    metrics: Metrics,
    told: Mutex<Throttle>,
}

impl fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let means = match self.means {
            Means::Word => "word",
            Means::Tokens(_) => "tokens",
            Means::Certificates(_) => "certificates",
        };
        let mut text = f.debug_struct("Authenticator");
        text.field("means", &means).finish_non_exhaustive()
    }
}

impl Authenticator {
    /// Believes everybody's word, as `--insecure` and the plaintext listener for a migration do. A
    /// ban holds for who says to be of that node.
    #[must_use]
    pub fn believing(bans: Bans, metrics: Metrics) -> Self {
        Self::new(Means::Word, bans, FAR, metrics)
    }

    /// Has the API server review tokens.
    #[must_use]
    pub fn tokens(client: Client, rules: &TokenRules, bans: Bans, metrics: Metrics) -> Self {
        let reviewer = Box::new(Reviewer::new(client, rules, metrics.clone()));
        Self::new(Means::Tokens(reviewer), bans, rules.interval, metrics)
    }

    /// Goes by the client certificates of the connections.
    #[must_use]
    pub fn certificates(
        certificates: Arc<dyn ClientCertificates>,
        interval: Duration,
        bans: Bans,
        metrics: Metrics,
    ) -> Self {
        Self::new(Means::Certificates(certificates), bans, interval, metrics)
    }

    fn new(means: Means, bans: Bans, interval: Duration, metrics: Metrics) -> Self {
        Self {
            means,
            bans,
            interval: interval.min(FAR),
            metrics,
            told: Mutex::new(Throttle::new(TOLD.0, TOLD.1)),
        }
    }

    /// Lets somebody in, or says why not. Who is refused takes no place of a session.
    ///
    /// # Errors
    ///
    /// It is not proven who calls, or whoever it is may not.
    pub fn admit<T>(
        self: &Arc<Self>,
        request: &Request<T>,
    ) -> impl Future<Output = Result<Standing, Refusal>> + Send + use<T> {
        let evidence = self.evidence(request);
        let peer = request.extensions().get::<Peer>().map(|peer| peer.address);
        let this = self.clone();
        async move {
            let admitted = async {
                let evidence = evidence?;
                let from = peer.map(|address| address.ip().to_canonical());
                let verified = this.prove(&evidence, from, false).await?;
                Ok(Standing::new(this.clone(), evidence, from, verified))
            };
            admitted.await.inspect_err(|refusal| {
                let peer = peer.map(|address| address.to_string());
                this.refused(refusal, peer.as_deref());
            })
        }
    }

    fn evidence<T>(&self, request: &Request<T>) -> Result<Evidence, Refusal> {
        match &self.means {
            Means::Word => Ok(Evidence::Nothing),
            Means::Tokens(_) => {
                let header = request.metadata().get("authorization");
                let header = header.and_then(|value| value.to_str().ok());
                let token = header.and_then(Token::from_header);
                token.map(Evidence::Token).ok_or(Refusal::NoToken)
            }
            Means::Certificates(_) => match request.extensions().get::<Peer>() {
                Some(Peer {
                    transport: Transport::Tls(Some(chain)),
                    ..
                }) => Ok(Evidence::Certificates(chain.clone())),
                _ => Err(Refusal::NoCertificate),
            },
        }
    }

    /// Who proves to be whom by that; nobody where nothing has to be proven.
    async fn prove(
        &self,
        evidence: &Evidence,
        from: Caller,
        anew: bool,
    ) -> Result<Option<Verified>, Refusal> {
        let verified = match (&self.means, evidence) {
            (Means::Word, _) => return Ok(None),
            (Means::Tokens(reviewer), Evidence::Token(token)) => {
                reviewer.review(token, from, anew).await?
            }
            (Means::Tokens(_), _) => return Err(Refusal::NoToken),
            (Means::Certificates(means), Evidence::Certificates(chain)) => {
                certified(&**means, chain)?
            }
            (Means::Certificates(_), _) => return Err(Refusal::NoCertificate),
        };
        // The API server allows for clocks that differ, and a cached answer may be older.
        if verified.expires.is_some_and(|at| at <= SystemTime::now()) {
            return Err(Refusal::Expired);
        }
        self.unbanned(&verified.node)?;
        if let Means::Tokens(reviewer) = &self.means {
            reviewer.trust(from);
        }
        Ok(Some(verified))
    }

    /// Whether a node may be served.
    fn unbanned(&self, node: &str) -> Result<(), Refusal> {
        match (self.bans.contains(node), &self.means) {
            (Some(true), _) => Err(Refusal::Banned(node.to_owned())),
            (None, Means::Tokens(_) | Means::Certificates(_)) => Err(Refusal::Unavailable(
                "the list of banned nodes is not read yet".into(),
            )),
            (Some(false), _) | (None, Means::Word) => Ok(()),
        }
    }

    /// The time until the next review of a session: less than the interval, and not the same for
    /// all that came together.
    fn next_review(&self) -> Duration {
        self.interval.mul_f64(0.6 + 0.3 * fastrand::f64())
    }

    /// Counts a refusal, and tells of it, but not so often that it fills the log.
    fn refused(&self, refusal: &Refusal, who: Option<&str>) {
        self.metrics.refused(refusal.kind());
        let now = Instant::now().into_std();
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let reason = Word(refusal.kind());
        if told.admit(now) {
            tracing::warn!(who, %reason, "an agent is refused: {refusal}");
        } else {
            tracing::debug!(who, %reason, "an agent is refused: {refusal}");
        }
    }
}

fn certified(
    means: &dyn ClientCertificates,
    chain: &[CertificateDer<'static>],
) -> Result<Verified, Refusal> {
    let own = chain.first().ok_or(Refusal::NoCertificate)?;
    means
        .verify(chain, SystemTime::now())
        .map_err(Refusal::Certificate)?;
    let node = means.name(own).map_err(Refusal::Certificate)?;
    if !is_node_name(&node) {
        let why = format!("{node:?}, which it names, is no name of a node");
        return Err(Refusal::Certificate(why));
    }
    Ok(Verified {
        node: node.into(),
        expires: None,
    })
}
