//! Owns what is wrong with the two objects: counted each time, and told once until it changes.

use std::collections::HashMap;

use super::{
    Names,
    metrics::{Kept, Metrics, Trouble},
    store::Failure,
};
use crate::telemetry::Word;

/// What is done with an object. One may fail where the other one does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Deed {
    Read,
    Write,
}

/// What failed last, each until it succeeds.
pub(super) struct Troubles {
    names: Names,
    metrics: Metrics,
    told: HashMap<(Kept, Deed), Failure>,
}

impl Troubles {
    pub(super) fn new(names: Names, metrics: Metrics) -> Self {
        Self {
            names,
            metrics,
            told: HashMap::new(),
        }
    }

    /// Counts what is wrong with an object, and tells it once.
    pub(super) fn note<T>(&mut self, what: (Kept, Deed), result: Result<T, Failure>) -> Option<T> {
        let (object, _) = what;
        let failure = match result {
            Ok(good) => {
                // That it has expired is told when it is held.
                let told = self.told.get(&what);
                if told.is_some_and(|failure| failure.trouble != Trouble::Expired) {
                    self.told.remove(&what);
                    tracing::info!(
                        object = self.name(object),
                        "the managers' CA: can be used again"
                    );
                }
                return Some(good);
            }
            Err(failure) => failure,
        };
        self.metrics.failed(object, failure.trouble);
        if self.told.get(&what) != Some(&failure) {
            tracing::warn!(
                namespace = self.names.namespace,
                object = self.name(object),
                reason = %Word(failure.trouble),
                error = failure.words,
                "the managers' CA: {}",
                failure.trouble.remedy(object)
            );
            self.told.insert(what, failure);
        }
        None
    }

    /// There is nothing to be done, or it is known that it can be.
    pub(super) fn forget(&mut self, what: (Kept, Deed)) {
        self.told.remove(&what);
    }

    /// Whether another try may soon succeed.
    pub(super) fn may_pass(&self) -> bool {
        let mut failures = self.told.values();
        failures.any(|failure| failure.trouble == Trouble::Unavailable)
    }

    fn name(&self, object: Kept) -> &str {
        match object {
            Kept::Secret => &self.names.secret,
            Kept::Bundle => &self.names.bundle,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::tests::logged;

    fn troubles() -> Troubles {
        let names = Names {
            namespace: "wol".to_owned(),
            secret: "the-ca".to_owned(),
            bundle: "the-bundle".to_owned(),
        };
        Troubles::new(names, Metrics::default())
    }

    fn failed(trouble: Trouble) -> Result<(), Failure> {
        let words = "no".to_owned();
        Err(Failure { trouble, words })
    }

    #[test]
    fn what_can_be_read_and_not_written_is_told_once_and_when_it_is_over() {
        let mut troubles = troubles();
        let log = logged("info", || {
            for _ in 0..3 {
                troubles.note((Kept::Secret, Deed::Read), Ok(()));
                troubles.note((Kept::Secret, Deed::Write), failed(Trouble::Forbidden));
            }
        });
        assert_eq!(log.lines().count(), 1, "{log}");
        assert!(log.contains("check the manager's Role"), "{log}");
        let log = logged("info", || {
            troubles.note((Kept::Secret, Deed::Read), Ok(()));
            troubles.note((Kept::Secret, Deed::Write), Ok(()));
        });
        assert_eq!(log.lines().count(), 1, "{log}");
        assert!(log.contains("can be used again"), "{log}");
    }

    #[test]
    fn a_deleted_object_is_named_with_its_remedy() {
        let mut troubles = troubles();
        for (object, name) in [(Kept::Secret, "the-ca"), (Kept::Bundle, "the-bundle")] {
            let log = logged("warn", || {
                troubles.note((object, Deed::Read), failed(Trouble::Absent));
            });
            for words in [name, "apply the manifests again (deploy/base/trust.yaml)"] {
                assert!(log.contains(words), "{log}");
            }
        }
    }
}
