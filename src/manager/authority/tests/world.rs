//! The two objects and the replicas that look at them, with a clock of their own.

use std::{
    cell::RefCell,
    time::{Duration, SystemTime},
};

use super::{
    super::{
        ca::{Leaf, trusts},
        certificate::Certificate,
        rotation::{Seen, Step, Times},
        state::{Bundle, Data, Trust},
    },
    DAY, NAME,
};

pub(super) const TIMES: Times = Times {
    ca_life: Duration::from_secs(365 * 86_400),
    publish_wait: DAY,
    leaf_life: Duration::from_secs(7 * 86_400),
};

pub(super) fn start() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

/// The two objects, and replicas that look at them.
pub(super) struct World {
    pub(super) now: SystemTime,
    /// What no clock that is set changes.
    pub(super) passed: Duration,
    pub(super) secret: Data,
    pub(super) until: Option<String>,
    pub(super) map: Option<(String, Option<String>)>,
    /// When each CA came into the bundle, as the agents' kubelets saw it.
    pub(super) published: Vec<(Certificate, SystemTime)>,
    pub(super) replicas: Vec<Replica>,
    pub(super) steps: Vec<Step>,
    /// What was read last, and what it meant: reading tries out the keys, which takes its time.
    read: RefCell<(Data, Option<String>, Option<Trust>)>,
}

#[derive(Default)]
pub(super) struct Replica {
    pub(super) held: Option<Trust>,
    pub(super) leaf: Option<(Leaf, Certificate)>,
    pub(super) empty_since: Option<Duration>,
}

impl World {
    pub(super) fn new(replicas: usize) -> Self {
        Self {
            now: start(),
            passed: Duration::ZERO,
            secret: Data::new(),
            until: None,
            map: Some((String::new(), None)),
            published: Vec::new(),
            replicas: (0..replicas).map(|_| Replica::default()).collect(),
            steps: Vec::new(),
            read: RefCell::default(),
        }
    }

    pub(super) fn trust(&self) -> Trust {
        self.found().unwrap()
    }

    pub(super) fn found(&self) -> Option<Trust> {
        let mut read = self.read.borrow_mut();
        if read.0 != self.secret || read.1 != self.until {
            let trust = Trust::read(&self.secret, self.until.as_deref()).unwrap();
            *read = (self.secret.clone(), self.until.clone(), trust);
        }
        read.2.clone()
    }

    pub(super) fn bundle(&self) -> Option<Bundle> {
        let (pem, since) = self.map.as_ref()?;
        Some(Bundle::read(Some(pem), since.as_deref()))
    }

    /// One replica does all that is due, and serves. Replica 0 leads.
    pub(super) fn look(&mut self, replica: usize) {
        while self.step(replica) {}
        let Replica { held, leaf, .. } = &mut self.replicas[replica];
        let Some(signer) = held.as_ref().map(|trust| &trust.signer) else {
            return;
        };
        let due = leaf
            .as_ref()
            .is_none_or(|(leaf, by)| leaf.is_due(self.now) || *by != signer.certificate);
        if due && signer.certificate.holds(self.now) {
            let fresh = signer
                .sign(&[NAME.to_owned()], self.now, TIMES.leaf_life)
                .unwrap();
            *leaf = Some((fresh, signer.certificate.clone()));
        }
    }

    fn step(&mut self, replica: usize) -> bool {
        let leads = replica == 0;
        let found = self.found();
        let bundle = self.bundle();
        let empty_since = &mut self.replicas[replica].empty_since;
        let since = empty_since.take().unwrap_or(self.passed);
        *empty_since = found.is_none().then_some(since);
        let seen = Seen {
            found: found.as_ref(),
            empty_for: self.passed.saturating_sub(since),
            held: self.replicas[replica].held.as_ref(),
            bundle: bundle.as_ref(),
            leads,
        };
        if let Some((step, trust)) = TIMES.secret(self.now, seen).unwrap() {
            self.check_drop(found.as_ref(), step);
            (self.secret, self.until) = trust.write();
            self.steps.push(step);
            return true;
        }
        let Some(trust) = found else { return false };
        self.replicas[replica].held = Some(trust.clone());
        let Some(bundle) = bundle else { return false };
        let Some((step, bundle)) = TIMES.bundle(self.now, &trust, &bundle, leads) else {
            return false;
        };
        self.steps.push(step);
        for ca in &bundle.certificates {
            if !self.published.iter().any(|(known, _)| known == ca) {
                self.published.push((ca.clone(), self.now));
            }
        }
        self.published.retain(|(ca, _)| bundle.has(ca));
        self.map = Some(bundle.write());
        true
    }

    /// A CA is dropped only when nothing that it signed is in use any more.
    fn check_drop(&self, found: Option<&Trust>, step: Step) {
        let Some(previous) = found.and_then(|trust| trust.previous.as_ref()) else {
            return;
        };
        let mut leaves = self
            .replicas
            .iter()
            .filter_map(|replica| replica.leaf.as_ref());
        let used = leaves
            .any(|(leaf, by)| *by == previous.certificate && !leaf.certificate.is_over(self.now));
        assert!(step != Step::Drop || !used, "dropped while it is used");
    }

    /// Agents that read the bundle within the wait trust what every replica serves.
    pub(super) fn check(&self) {
        for (leaf, by) in self
            .replicas
            .iter()
            .filter_map(|replica| replica.leaf.as_ref())
        {
            let published = self.published.iter().find(|(ca, _)| ca == by);
            let (ca, since) = published.expect("a leaf of a CA that nobody trusts");
            if leaf.certificate.is_over(self.now) {
                continue;
            }
            assert!(
                trusts(ca, &leaf.certificate, NAME, self.now),
                "not accepted"
            );
            let is_first = self.steps.iter().all(|step| *step != Step::Switch);
            let waited = self.now.duration_since(*since).unwrap_or_default() >= TIMES.publish_wait;
            assert!(is_first || waited, "signed too early");
        }
    }

    pub(super) fn pass(&mut self, time: Duration, look: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now += look;
            self.passed += look;
            // The leader looks first, the others see what it did only at their own next look.
            for replica in (0..self.replicas.len()).rev() {
                self.look(replica);
                self.check();
            }
        }
    }
}
