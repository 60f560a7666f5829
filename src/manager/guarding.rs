//! Owns [`Guarding`]: what decides, beside the server, whom agents and managers take each other for,
//! while the manager runs.

use tokio_util::sync::CancellationToken;

use super::{authority::Authority, identity::Banned, transport::Keeping};
use crate::{admin::Heartbeat, shutdown::Tasks};

/// The parts that guard the port for agents.
pub(super) struct Guarding {
    /// Where somebody else keeps the certificates, and the plaintext listener.
    transport: Keeping,
    /// Where the managers make their certificates themselves.
    authority: Option<Authority>,
    /// The nodes that are shut out.
    banned: Banned,
}

impl Guarding {
    /// Puts them together.
    pub(super) fn new(transport: Keeping, authority: Option<Authority>, banned: Banned) -> Self {
        Self {
            transport,
            authority,
            banned,
        }
    }

    /// Starts them.
    pub(super) fn spawn(
        self,
        tasks: &mut Tasks,
        token: &CancellationToken,
        heart: impl Fn(&'static str) -> Heartbeat,
    ) {
        let banned = self.banned.run(token.clone(), heart("banned nodes"));
        tasks.spawn("banned nodes", banned);
        if let Some(authority) = self.authority {
            let authority = authority.run(token.clone(), heart("authority"));
            tasks.spawn("authority", authority);
        }
        self.transport.spawn(tasks, token, heart);
    }
}
