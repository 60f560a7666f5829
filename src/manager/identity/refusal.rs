//! Owns [`Refusal`]: why somebody is not served, in the words of people, of metrics and of gRPC.

use tonic::Status;

use crate::manager::metrics::SessionEnd;

/// Characters of what a caller is told: a part of it may be the API server's words.
const MAX_TEXT: usize = 500;

/// Why somebody is not served, or not any longer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There was no token.
    #[error(
        "no token came with the call; an agent of this version sends the one that its pod mounts \
         (--token-file), and only over TLS"
    )]
    NoToken,
    /// The API server does not know the token.
    #[error("the API server does not accept the token: {0}")]
    Token(String),
    /// It is for somebody else.
    #[error(
        "the token is not for the audience {0}; mount a projected token with exactly this audience \
         in the agents' pods"
    )]
    Audience(String),
    /// It belongs to another account.
    #[error("the token belongs to {is:?}; agents are {wanted:?} (--agent-service-account)")]
    Account {
        /// Whose it is.
        is: String,
        /// Whose it has to be.
        wanted: String,
    },
    /// It says nothing of a node.
    #[error(
        "the token is bound neither to a node nor to a pod, so that nothing says where its bearer \
         runs; agents use the projected token of their pod"
    )]
    Unbound,
    /// The pod that it is bound to is not there, or not on a node.
    #[error("the token is bound to pod {pod}, {why}; a new pod gets a new token")]
    Pod {
        /// Its name.
        pod: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// There was no client certificate.
    #[error(
        "no client certificate came with the connection; give the agents one by --client-tls-dir"
    )]
    NoCertificate,
    /// The client certificate proves nothing.
    #[error("the client certificate is refused: {0}")]
    Certificate(String),
    /// The node is on the list.
    #[error("node {0} is banned; take it off the ConfigMap of banned nodes to admit it again")]
    Banned(String),
    /// The proof has ended.
    #[error(
        "the proof of who this agent is has expired; a new one is needed (if it is new, compare the \
         clocks of the machines)"
    )]
    Expired,
    /// A newer proof is another node's.
    #[error("the session is that of node {was}, and the new proof that of node {is}")]
    OtherNode {
        /// Whose session it is.
        was: String,
        /// Whom the new proof names.
        is: String,
    },
    /// Nobody could be asked. Why is for the log, as the caller may be anybody.
    #[error("who is calling cannot be found out at the moment: {0}")]
    Unavailable(String),
    /// Too many tokens came from there that had to be reviewed.
    #[error(
        "too many tokens that no agent is known by came from this address; try again in a second"
    )]
    TooMany,
}

/// The kind of a [`Refusal`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refused {
    /// There was no token.
    NoToken,
    /// The API server does not accept the token.
    Token,
    /// It is for another audience.
    Audience,
    /// It belongs to another account.
    Account,
    /// It is bound to no node.
    Unbound,
    /// The pod that it is bound to is gone.
    Pod,
    /// There was no client certificate.
    NoCertificate,
    /// The client certificate proves nothing.
    Certificate,
    /// The node is banned.
    Banned,
    /// The proof has expired.
    Expired,
    /// The new proof names another node.
    OtherNode,
    /// The API server could not be asked.
    Unavailable,
    /// Too many tokens came from the same address.
    TooMany,
}

impl Refused {
    pub(super) const ALL: [Self; 13] = [
        Self::NoToken,
        Self::Token,
        Self::Audience,
        Self::Account,
        Self::Unbound,
        Self::Pod,
        Self::NoCertificate,
        Self::Certificate,
        Self::Banned,
        Self::Expired,
        Self::OtherNode,
        Self::Unavailable,
        Self::TooMany,
    ];
}

impl Refusal {
    /// Its kind, for metrics and logs.
    #[must_use]
    pub const fn kind(&self) -> Refused {
        match self {
            Self::NoToken => Refused::NoToken,
            Self::Token(_) => Refused::Token,
            Self::Audience(_) => Refused::Audience,
            Self::Account { .. } => Refused::Account,
            Self::Unbound => Refused::Unbound,
            Self::Pod { .. } => Refused::Pod,
            Self::NoCertificate => Refused::NoCertificate,
            Self::Certificate(_) => Refused::Certificate,
            Self::Banned(_) => Refused::Banned,
            Self::Expired => Refused::Expired,
            Self::OtherNode { .. } => Refused::OtherNode,
            Self::Unavailable(_) => Refused::Unavailable,
            Self::TooMany => Refused::TooMany,
        }
    }

    /// How a session ends by it.
    #[must_use]
    pub const fn end(&self) -> SessionEnd {
        match self {
            Self::Banned(_) => SessionEnd::Banned,
            Self::Expired => SessionEnd::ProofExpired,
            Self::Unavailable(_) | Self::TooMany => SessionEnd::Unreviewed,
            _ => SessionEnd::Unauthenticated,
        }
    }

    /// Whether it says nothing of the caller.
    pub(super) const fn is_outage(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::TooMany)
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let text = refusal
            .to_string()
            .chars()
            .take(MAX_TEXT)
            .collect::<String>();
        match refusal {
            Refusal::Banned(_) | Refusal::Account { .. } | Refusal::OtherNode { .. } => {
                Self::permission_denied(text)
            }
            Refusal::Unavailable(_) => Self::unavailable(
                "this manager cannot find out at the moment who is calling, and its log says why; \
                 try again, or another replica",
            ),
            Refusal::TooMany => Self::resource_exhausted(text),
            _ => Self::unauthenticated(text),
        }
    }
}
