//! Owns [`Standing`]: that who was admitted may stay, for as long as a session or a call lasts.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures::future::BoxFuture;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use super::{
    Authenticator, Evidence, bans::Names, callers::Caller, refusal::Refusal, reviewer::Verified,
    token::Token,
};

/// Clocks may be set, and machines sleep: it is looked at the time this often at least.
const LOOK: Duration = Duration::from_secs(30);
/// A review that could not be made is tried again after this time.
const AGAIN: Duration = Duration::from_secs(5);
/// A review has an answer, be it that nobody answers, within this time.
const OVERDUE: Duration = Duration::from_secs(15);

/// A review under way: of what, and what becomes of it.
type Review = (
    Evidence,
    BoxFuture<'static, Result<Option<Verified>, Refusal>>,
);

/// Who was admitted, and by what.
pub struct Standing {
    authenticator: Arc<Authenticator>,
    evidence: Evidence,
    from: Caller,
    /// The node; none where the agent's own word is believed and has not been heard yet.
    node: Option<Arc<str>>,
    expires: Option<SystemTime>,
    review_at: Instant,
    reviewing: Option<Review>,
    /// What came to take the place of the evidence, and waits to be reviewed.
    offered: Option<Token>,
    bans: watch::Receiver<Option<Names>>,
}

impl Standing {
    pub(super) fn new(
        authenticator: Arc<Authenticator>,
        evidence: Evidence,
        from: Caller,
        verified: Option<Verified>,
    ) -> Self {
        let (node, expires) = verified.map_or((None, None), |verified| {
            (Some(verified.node), verified.expires)
        });
        Self {
            bans: authenticator.bans.subscribe(),
            review_at: Instant::now() + authenticator.next_review(),
            authenticator,
            evidence,
            from,
            node,
            expires,
            reviewing: None,
            offered: None,
        }
    }

    /// The node that was proven; none where nothing was.
    #[must_use]
    pub fn node(&self) -> Option<&Arc<str>> {
        self.node.as_ref()
    }

    /// Believes who somebody says to be, where that is allowed: where a proof is needed, the proof
    /// goes before.
    ///
    /// # Errors
    ///
    /// The node is banned.
    pub fn believe(&mut self, node: &str) -> Result<Arc<str>, Refusal> {
        let node = self.node.get_or_insert_with(|| node.into()).clone();
        self.authenticator
            .unbanned(&node)
            .inspect_err(|refusal| self.authenticator.refused(refusal, Some(&node)))?;
        Ok(node)
    }

    /// Takes a newer proof. It is reviewed meanwhile, by [`ended`](Self::ended).
    pub fn renew(&mut self, token: &str) {
        if !matches!(self.evidence, Evidence::Token(_)) {
            return;
        }
        match Token::new(token) {
            Some(token) if self.evidence == Evidence::Token(token.clone()) => {}
            Some(token) => self.offered = Some(token),
            None => tracing::debug!(node = self.node.as_deref(), "the new proof is no token"),
        }
    }

    /// Waits until it is over, and says why. Can be dropped and called again: nothing is lost by
    /// it, a review under way included.
    pub async fn ended(&mut self) -> Refusal {
        let refusal = self.over().await;
        self.authenticator.refused(&refusal, self.node.as_deref());
        refusal
    }

    async fn over(&mut self) -> Refusal {
        loop {
            if let Some(refusal) = self.lost() {
                return refusal;
            }
            self.begin_review();
            let look = self.next_look();
            tokio::select! {
                biased;
                // The sender is as old as the authenticator.
                Ok(()) = self.bans.changed() => {}
                result = answer(&mut self.reviewing) => {
                    if let Err(refusal) = self.reviewed(result) {
                        return refusal;
                    }
                }
                () = sleep_until(look) => {}
            }
        }
    }

    /// Whether the answer of a review is late: then nothing more is to be taken until it has come.
    #[must_use]
    pub fn is_overdue(&self) -> bool {
        self.is_reviewable() && Instant::now() > self.review_at + crate::pace::of(OVERDUE)
    }

    /// Whether it was proven by a token.
    #[must_use]
    pub fn is_by_token(&self) -> bool {
        matches!(self.evidence, Evidence::Token(_))
    }

    /// Whether it is over already, whatever a review would say.
    fn lost(&self) -> Option<Refusal> {
        if self.expires.is_some_and(|at| at <= SystemTime::now()) {
            return Some(Refusal::Expired);
        }
        let node = self.node.as_deref()?;
        self.authenticator.unbanned(node).err()
    }

    fn begin_review(&mut self) {
        if self.reviewing.is_some() {
            return;
        }
        let authenticator = self.authenticator.clone();
        let evidence = match self.offered.take() {
            Some(token) => Evidence::Token(token),
            None if self.is_reviewable() && Instant::now() >= self.review_at => {
                self.evidence.clone()
            }
            None => return,
        };
        let (asked, from) = (evidence.clone(), self.from);
        let anew = evidence == self.evidence;
        let review = async move { authenticator.prove(&asked, from, anew).await };
        self.reviewing = Some((evidence, Box::pin(review)));
    }

    fn is_reviewable(&self) -> bool {
        self.evidence != Evidence::Nothing
    }

    fn next_look(&self) -> Instant {
        let now = Instant::now();
        let mut look = now + crate::pace::of(LOOK);
        if self.reviewing.is_none() && self.is_reviewable() {
            look = look.min(self.review_at);
        }
        let left = self.expires.map(|at| at.duration_since(SystemTime::now()));
        let end = left.and_then(|left| now.checked_add(left.unwrap_or_default()));
        end.map_or(look, |end| look.min(end))
    }

    /// Puts the result of a review into force.
    fn reviewed(
        &mut self,
        (evidence, result): (Evidence, Result<Option<Verified>, Refusal>),
    ) -> Result<(), Refusal> {
        let verified = match result {
            Ok(verified) => verified,
            // It says nothing of the agent, which stays up to the end of the proof that it has.
            Err(refusal) if refusal.is_outage() => {
                tracing::debug!(node = self.node.as_deref(), "not reviewed: {refusal}");
                self.review_at =
                    Instant::now() + self.authenticator.interval.min(crate::pace::of(AGAIN));
                if let Evidence::Token(token) = evidence
                    && self.evidence != Evidence::Token(token.clone())
                {
                    // At once would be without a pause.
                    self.postpone(token);
                }
                return Ok(());
            }
            Err(refusal) => return Err(refusal),
        };
        let Some(verified) = verified else {
            return Ok(());
        };
        if let Some(was) = self.node.as_ref().filter(|was| **was != verified.node) {
            return Err(Refusal::OtherNode {
                was: was.to_string(),
                is: verified.node.to_string(),
            });
        }
        self.evidence = evidence;
        self.expires = verified.expires;
        self.review_at = Instant::now() + self.authenticator.next_review();
        Ok(())
    }

    /// Reviews what was offered after a while, unless something newer has come.
    fn postpone(&mut self, token: Token) {
        if self.offered.is_some() {
            return;
        }
        let authenticator = self.authenticator.clone();
        let (evidence, at) = (Evidence::Token(token), self.review_at);
        let (asked, from) = (evidence.clone(), self.from);
        let review = async move {
            sleep_until(at).await;
            authenticator.prove(&asked, from, false).await
        };
        self.reviewing = Some((evidence, Box::pin(review)));
    }
}

/// The end of the review under way; never, where there is none.
async fn answer(reviewing: &mut Option<Review>) -> (Evidence, Result<Option<Verified>, Refusal>) {
    let result = match reviewing {
        Some((_, review)) => review.await,
        None => std::future::pending().await,
    };
    let evidence = reviewing
        .take()
        .map_or(Evidence::Nothing, |(evidence, _)| evidence);
    (evidence, result)
}
