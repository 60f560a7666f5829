//! Owns [`SessionError`]: why a session ends, in the words of metrics, of gRPC and of people.

use std::time::Duration;

use tonic::Status;

use crate::manager::{identity::Refusal, metrics::SessionEnd};

/// The agent says hello within this time.
pub(super) const HELLO_WITHIN: Duration = Duration::from_secs(10);

/// Why a session ended or was refused.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// Another message came before the hello.
    #[error("the first message of a session must be a hello")]
    NoHello,
    /// The hello did not come in time.
    #[error("no hello came within {:?}", crate::pace::of(HELLO_WITHIN))]
    HelloLate,
    /// The hello names no node.
    #[error("{0:?} is not the name of a Kubernetes node")]
    Node(String),
    /// There is no place for another session.
    #[error("this manager has as many sessions as it can hold; try another replica")]
    Full,
    /// The node has as many sessions as one may have.
    #[error("this node has as many sessions with this manager as a node may have")]
    NodeFull,
    /// The manager shuts down.
    #[error("this manager is shutting down; try another replica")]
    ShuttingDown,
    /// The process stood still; what it reads may be older than it says.
    #[error("this manager stood still for a while; connect again and repeat what is unanswered")]
    Frozen,
    /// The connection broke, or a message could not be read.
    #[error("the session broke: {0}")]
    Broken(Status),
    /// The agent is not, or not any longer, who may have one.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

impl SessionError {
    /// Its kind, for metrics and logs.
    #[must_use]
    pub fn end(&self) -> SessionEnd {
        match self {
            Self::NoHello => SessionEnd::NoHello,
            Self::HelloLate => SessionEnd::HelloLate,
            Self::Node(_) => SessionEnd::BadNodeName,
            Self::Full => SessionEnd::Full,
            Self::NodeFull => SessionEnd::NodeFull,
            Self::ShuttingDown => SessionEnd::ShuttingDown,
            Self::Frozen => SessionEnd::Frozen,
            Self::Broken(_) => SessionEnd::Broken,
            Self::Refused(refusal) => refusal.end(),
        }
    }
}

impl From<SessionError> for Status {
    fn from(error: SessionError) -> Self {
        let text = error.to_string();
        match error {
            SessionError::NoHello | SessionError::Node(_) => Self::invalid_argument(text),
            SessionError::HelloLate => Self::deadline_exceeded(text),
            SessionError::Full | SessionError::NodeFull => Self::resource_exhausted(text),
            SessionError::ShuttingDown | SessionError::Frozen => Self::unavailable(text),
            SessionError::Broken(status) => status,
            SessionError::Refused(refusal) => refusal.into(),
        }
    }
}
