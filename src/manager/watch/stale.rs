//! Owns telling people when the `cacheTTL` of configs passes, and when it is over: once each, not
//! with every wake that is put off.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio::time::sleep;

use super::{Watch, contact::now};
use crate::{admin::Heartbeat, manager::grant::Grant};

/// How often it is looked.
const PERIOD: Duration = Duration::from_secs(1);

impl Watch {
    /// Tells in the log, in a metric and to who asks which configs are out of date.
    ///
    /// # Errors
    ///
    /// None: it ends when the token is cancelled, and not before.
    pub async fn staleness(self, heart: Heartbeat) -> anyhow::Result<()> {
        let mut told = Told::default();
        while self
            .token
            .run_until_cancelled(sleep(crate::pace::of(PERIOD)))
            .await
            .is_some()
        {
            heart.beat();
            let age = self.contact.age(now());
            let news = told.news(&self.directory.grants(), age);
            self.metrics.stale(told.0.len());
            self.stale.send_if_modified(|stale| {
                let differs = *stale != told.0;
                stale.clone_from(&told.0);
                differs
            });
            match news {
                Some(News::Passed(configs)) => tracing::warn!(
                    ?configs,
                    ?age,
                    "the API server has been away for longer than cacheTTL; wakes are put off unless \
                     another WolConfig allows them"
                ),
                Some(News::Over) => {
                    tracing::info!("in contact with the API server; every WolConfig counts again");
                }
                None => {}
            }
        }
        Ok(())
    }
}

/// The configs that were told to be out of date.
#[derive(Debug, Default)]
struct Told(BTreeSet<Arc<str>>);

#[derive(Debug, PartialEq, Eq)]
enum News {
    /// The `cacheTTL` of these has passed just now.
    Passed(Vec<Arc<str>>),
    /// None is out of date any more.
    Over,
}

impl Told {
    fn news(&mut self, grants: &[Grant], age: Duration) -> Option<News> {
        let stale = grants.iter().filter(|grant| grant.is_stale(age));
        let stale: BTreeSet<Arc<str>> = stale.map(|grant| grant.config.clone()).collect();
        let passed: Vec<Arc<str>> = stale.difference(&self.0).cloned().collect();
        let over = stale.is_empty() && !self.0.is_empty();
        self.0 = stale;
        if over {
            Some(News::Over)
        } else {
            (!passed.is_empty()).then_some(News::Passed(passed))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crd::WolConfigSpec;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn each_config_is_told_once_when_its_time_passes_and_the_end_once() {
        let grants: Vec<Grant> = [("now", 0), ("later", 10)]
            .into_iter()
            .filter_map(|(name, ttl)| {
                let spec = WolConfigSpec {
                    cache_ttl: Some(ttl),
                    ..WolConfigSpec::default()
                };
                Grant::new(name, &spec).0
            })
            .collect();
        let mut told = Told::default();
        let mut news = |seconds| told.news(&grants, seconds * SECOND);
        let passed = |name: &str| Some(News::Passed(vec![name.into()]));
        assert_eq!(news(0), None);
        assert_eq!(news(1), passed("now"));
        assert_eq!(news(10), None);
        assert_eq!(news(11), passed("later"));
        assert_eq!(news(12), None);
        assert_eq!(news(0), Some(News::Over));
        assert_eq!(news(0), None);
    }
}
