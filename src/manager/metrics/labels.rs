//! Owns the words by which the manager counts: what they mean, and that there are no others.

/// What became of an Event that people should see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Told {
    /// It was written.
    Written,
    /// The Event that told of it before was brought up to date.
    Updated,
    /// It was there: by another replica, or from before a restart.
    Known,
    /// The API server refused it or was away.
    Failed,
    /// One like it was written moments ago; it is counted there the next time.
    Suppressed,
    /// There were too many at once.
    RateLimited,
    /// Too many waited to be written.
    QueueFull,
}

impl Told {
    pub(super) const ALL: [Self; 7] = [
        Self::Written,
        Self::Updated,
        Self::Known,
        Self::Failed,
        Self::Suppressed,
        Self::RateLimited,
        Self::QueueFull,
    ];
}

/// What the answer to a start meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Meaning {
    /// The request is recorded.
    Accepted,
    /// Only the VM can tell.
    Recheck,
    /// The VM does not exist any more.
    Gone,
    /// We may not start it.
    Forbidden,
    /// It cannot be started by a wake.
    Unsupported,
    /// KubeVirt refuses to start it.
    Refused,
    /// The API server or KubeVirt is away or busy.
    Unavailable,
    /// Nobody serves KubeVirt's API.
    ApiMissing,
    /// The server does not understand the call.
    NotUnderstood,
}

impl Meaning {
    pub(super) const ALL: [Self; 9] = [
        Self::Accepted,
        Self::Recheck,
        Self::Gone,
        Self::Forbidden,
        Self::Unsupported,
        Self::Refused,
        Self::Unavailable,
        Self::ApiMissing,
        Self::NotUnderstood,
    ];
}

/// What reading a VM brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Found {
    /// The VM.
    Vm,
    /// It does not exist any more.
    Gone,
    /// It could not be read.
    Failed,
}

impl Found {
    pub(super) const ALL: [Self; 3] = [Self::Vm, Self::Gone, Self::Failed];
}

/// Why a session of an agent ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SessionEnd {
    /// The agent closed it, or was sent away.
    Closed,
    /// The agent went without a word.
    Lost,
    /// The first message was no hello.
    NoHello,
    /// The hello did not come in time.
    HelloLate,
    /// The hello named no node.
    BadNodeName,
    /// There was no place.
    Full,
    /// The node has as many sessions as one may have.
    NodeFull,
    /// The manager was shutting down.
    ShuttingDown,
    /// The manager had stood still.
    Frozen,
    /// The agent did not take what it was sent.
    Unread,
    /// The connection broke, or a message could not be read.
    Broken,
    /// The agent did not prove who it is, or a review took the proof back.
    Unauthenticated,
    /// Its node is banned.
    Banned,
    /// Its proof expired, and no newer one came.
    ProofExpired,
    /// The API server could not be asked who it is, or was not.
    Unreviewed,
}

impl SessionEnd {
    pub(super) const ALL: [Self; 15] = [
        Self::Closed,
        Self::Lost,
        Self::NoHello,
        Self::HelloLate,
        Self::BadNodeName,
        Self::Full,
        Self::NodeFull,
        Self::ShuttingDown,
        Self::Frozen,
        Self::Unread,
        Self::Broken,
        Self::Unauthenticated,
        Self::Banned,
        Self::ProofExpired,
        Self::Unreviewed,
    ];
}
