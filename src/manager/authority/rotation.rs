//! Owns when the CAs change: create, publish the next, sign with it, drop the old. Pure; the caller
//! brings the clock, which may jump, and what it has just read, which may be anything.
//!
//! The order in which the next CA comes into use is kept by what is in the Secret and in the
//! ConfigMap, and by nothing in memory: any replica goes on where another one ended.

use std::time::{Duration, SystemTime};

use super::{
    ca::{Ca, Unusable},
    state::{Bundle, Previous, Trust},
};

/// The longest time between two looks at the clock and the objects.
const LOOK: Duration = Duration::from_secs(60);
/// While agents trust a CA that is not in the Secret, a replica that knows it has so long to put it
/// back. It sees at once that it is missing.
const REFILL_WAIT: Duration = Duration::from_secs(30);
/// The shortest.
const SHORTEST_LOOK: Duration = Duration::from_millis(200);

/// How long everything lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// A CA holds for so long; the next one is made when two thirds of it have passed.
    pub ca_life: Duration,
    /// The next CA signs no sooner than so long after it was published.
    pub publish_wait: Duration,
    /// A serving certificate holds for so long.
    pub leaf_life: Duration,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// Make the first CA.
    Create,
    /// Put the CA that is known back into the emptied Secret.
    Refill,
    /// Make the CA that will sign next.
    Prepare,
    /// Sign with the next CA from now on.
    Switch,
    /// Forget the previous CA.
    Drop,
    /// Put CAs into the bundle.
    Publish,
    /// Take CAs out of the bundle.
    Withdraw,
}

impl Step {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Create,
        Self::Refill,
        Self::Prepare,
        Self::Switch,
        Self::Drop,
        Self::Publish,
        Self::Withdraw,
    ];
}

/// What is known at the moment.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// What the Secret holds; none where it is empty.
    pub found: Option<&'a Trust>,
    /// For how long it has been seen empty.
    pub empty_for: Duration,
    /// What this replica knows that it held.
    pub held: Option<&'a Trust>,
    /// What the ConfigMap holds; none where it could not be read.
    pub bundle: Option<&'a Bundle>,
    /// Whether this replica leads.
    pub leads: bool,
}

impl Times {
    /// How long to wait between two looks: short beside everything that is to be in time.
    #[must_use]
    pub fn look(&self) -> Duration {
        let shortest = self.ca_life.min(self.leaf_life).min(self.publish_wait) / 6;
        shortest.clamp(crate::pace::of(SHORTEST_LOOK), crate::pace::of(LOOK))
    }

    /// How long a replica that knows no CA still waits for another one to fill the empty Secret: until
    /// then, one may be there that serves agents with what was in it. None where nobody waits.
    #[must_use]
    pub fn wait(&self, seen: Seen<'_>) -> Option<Duration> {
        let may_be_known = seen.bundle.is_none_or(|map| !map.certificates.is_empty());
        let wait = crate::pace::of(REFILL_WAIT).min(self.publish_wait);
        let left = wait
            .checked_sub(seen.empty_for)
            .filter(|left| !left.is_zero());
        left.filter(|_| seen.found.is_none() && seen.held.is_none() && may_be_known)
    }

    /// What is to be written into the Secret now, and why. An empty one is filled by any replica;
    /// the rest is for the leader.
    ///
    /// # Errors
    ///
    /// A CA cannot be made.
    pub fn secret(
        &self,
        now: SystemTime,
        seen: Seen<'_>,
    ) -> Result<Option<(Step, Trust)>, Unusable> {
        let Some(trust) = seen.found else {
            if self.wait(seen).is_some() {
                return Ok(None);
            }
            return Ok(Some(match seen.held {
                Some(held) => (Step::Refill, held.clone()),
                None => (Step::Create, Trust::new(Ca::generate(now, self.ca_life)?)),
            }));
        };
        if !seen.leads {
            return Ok(None);
        }
        if trust
            .previous
            .as_ref()
            .is_some_and(|previous| now >= previous.until)
        {
            let previous = None;
            return Ok(Some((
                Step::Drop,
                Trust {
                    previous,
                    ..trust.clone()
                },
            )));
        }
        let Some(next) = &trust.next else {
            if now < Self::prepare_at(trust) && trust.signer.certificate.holds(now) {
                return Ok(None);
            }
            let next = Some(Ca::generate(now, self.ca_life)?);
            return Ok(Some((
                Step::Prepare,
                Trust {
                    next,
                    ..trust.clone()
                },
            )));
        };
        let may_sign = seen
            .bundle
            .is_some_and(|bundle| self.may_sign(now, trust, next, bundle));
        Ok(may_sign.then(|| (Step::Switch, self.switched(now, trust, next))))
    }

    /// What is to be written into the ConfigMap now, and why. Any replica adds what is missing; only
    /// the leader takes something away.
    #[must_use]
    pub fn bundle(
        &self,
        now: SystemTime,
        trust: &Trust,
        bundle: &Bundle,
        leads: bool,
    ) -> Option<(Step, Bundle)> {
        let missing: Vec<_> = trust
            .trusted()
            .filter(|ca| !bundle.has(ca))
            .cloned()
            .collect();
        // A time that is still to come was written by a clock that was wrong, or ours was. Clocks
        // always differ a little, which then takes the wait longer, and that no longer than twice.
        let known = bundle
            .since
            .is_some_and(|since| since <= now + self.publish_wait);
        if !missing.is_empty() || (leads && trust.next.is_some() && !known) {
            let mut certificates = bundle.certificates.clone();
            certificates.extend(missing);
            let since = Some(now);
            return Some((
                Step::Publish,
                Bundle {
                    certificates,
                    since,
                },
            ));
        }
        let wanted: Vec<_> = trust.trusted().cloned().collect();
        let surplus = bundle.certificates.iter().any(|ca| !wanted.contains(ca));
        let withdrawn = Bundle {
            certificates: wanted,
            since: bundle.since,
        };
        (leads && surplus).then_some((Step::Withdraw, withdrawn))
    }

    /// When the next CA is to be made: at two thirds of the life of the one that signs, whatever
    /// `--ca-lifetime` says by now.
    fn prepare_at(trust: &Trust) -> SystemTime {
        let signer = &trust.signer.certificate;
        signer.not_before + signer.life() * 2 / 3
    }

    /// Whether agents have had the time to read the bundle with the next CA. While the one before is
    /// still needed there is no place for another. Where the signer does not hold, it has expired or
    /// was made by a clock that was ahead, nobody can be served by waiting.
    fn may_sign(&self, now: SystemTime, trust: &Trust, next: &Ca, bundle: &Bundle) -> bool {
        let waited = bundle
            .since
            .and_then(|since| now.duration_since(since).ok());
        let waited = waited.is_some_and(|waited| waited >= self.publish_wait);
        let in_turn = waited && trust.previous.is_none();
        let useless = !trust.signer.certificate.holds(now);
        bundle.has(&next.certificate) && (in_turn || useless)
    }

    /// Leaves of the old CA may be as young as this, or as the last look of a replica.
    fn switched(&self, now: SystemTime, trust: &Trust, next: &Ca) -> Trust {
        let certificate = trust.signer.certificate.clone();
        let until = (now + self.leaf_life + self.look()).min(certificate.not_after);
        Trust {
            signer: next.clone(),
            next: None,
            previous: Some(Previous { certificate, until }),
        }
    }
}
