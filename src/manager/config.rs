//! Owns what all `WolConfig`s together ask for ([`plan`]): the grants, the agents' settings, and
//! what is wrong. Pure.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use crate::{
    crd::WolConfig,
    filter::SourceFilter,
    manager::{
        grant::{Grant, Problem},
        passwords::Passwords,
    },
    settings::{Rates, Settings},
};

/// The agents' times and rates, which come from the manager's command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Windows {
    /// See [`Settings::dedup_window`].
    pub dedup: Duration,
    /// See [`Settings::event_ttl`].
    pub event_ttl: Duration,
    /// See [`Settings::rates`].
    pub rates: Rates,
}

/// What all configs together ask for.
#[derive(Debug)]
pub struct Plan {
    /// One per usable config, in the order of their names.
    pub grants: Arc<[Grant]>,
    /// What agents shall do.
    pub settings: Settings,
    /// What is wrong, and with which config.
    pub problems: Vec<Finding>,
}

/// What is wrong with one version of one config.
#[derive(Debug)]
pub struct Finding {
    /// The config's name.
    pub config: Arc<str>,
    /// Its `metadata.generation`.
    pub generation: i64,
    /// What is wrong.
    pub problem: Problem,
}

/// Puts together what `configs`, keyed by name, ask for. The same configs give the same plan. Of
/// `passwords` only the names of the Secrets count.
///
/// Agents always have a filter, if only the default one: a packet that no config wants is then
/// reported and answered with the reason, instead of vanishing on the node. Likewise, without any
/// config they listen on the default ports.
#[must_use]
pub fn plan(
    configs: &BTreeMap<String, Arc<WolConfig>>,
    windows: Windows,
    passwords: &Passwords,
) -> Plan {
    let mut grants = Vec::new();
    let mut problems = Vec::new();
    for (name, config) in configs {
        let (grant, found) = Grant::new(name, &config.spec);
        grants.extend(grant);
        let secure_on = config.spec.secure_on.as_ref();
        let locked = secure_on.and_then(|secure_on| passwords.problem(&secure_on.secret_name));
        problems.extend(found.into_iter().chain(locked).map(|problem| Finding {
            config: name.as_str().into(),
            generation: config.metadata.generation.unwrap_or_default(),
            problem,
        }));
    }
    Plan {
        settings: Settings {
            udp_ports: if configs.is_empty() {
                Settings::DEFAULT_PORTS.into()
            } else {
                grants.iter().flat_map(|g| &g.ports).copied().collect()
            },
            dedup_window: windows.dedup,
            event_ttl: windows.event_ttl,
            filters: filters(&grants),
            rates: windows.rates,
        },
        grants: grants.into(),
        problems,
    }
}

fn filters(grants: &[Grant]) -> Vec<SourceFilter> {
    let mut distinct: Vec<SourceFilter> = Vec::new();
    for grant in grants {
        if !distinct.contains(&grant.filter) {
            distinct.push(grant.filter.clone());
        }
    }
    if distinct.is_empty() {
        distinct.push(SourceFilter::default());
    }
    distinct
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crd::{SecureOn, WolConfigSpec};

    const WINDOWS: Windows = Windows {
        dedup: Duration::from_secs(2),
        event_ttl: Duration::from_secs(30),
        rates: Rates {
            source: 10,
            agent: 100,
        },
    };

    fn planned(specs: &[(&str, WolConfigSpec)]) -> Plan {
        let configs = specs.iter().map(|(name, spec)| {
            let mut config = WolConfig::new(name, spec.clone());
            config.metadata.generation = Some(3);
            ((*name).to_owned(), Arc::new(config))
        });
        let passwords = Passwords::new(&["secureon".into()], &"ca".into());
        plan(&configs.collect(), WINDOWS, &passwords)
    }

    fn ports(ports: &[i32], port: Option<i32>) -> WolConfigSpec {
        WolConfigSpec {
            wol_ports: ports.into(),
            wol_port: port,
            ..WolConfigSpec::default()
        }
    }

    fn ranges(range: &str) -> WolConfigSpec {
        WolConfigSpec {
            source_ranges: vec![range.into()],
            ..WolConfigSpec::default()
        }
    }

    #[test]
    fn agents_listen_where_any_config_asks() {
        for (specs, expected) in [
            (vec![], vec![7, 9]),
            (vec![("a", ports(&[], None))], vec![7, 9]),
            (vec![("a", ports(&[], Some(4000)))], vec![4000]),
            (vec![("a", ports(&[9, 40_000], Some(9)))], vec![9, 40_000]),
            (
                vec![("a", ports(&[4000], None)), ("b", ports(&[], None))],
                vec![7, 9, 4000],
            ),
            (vec![("a", ports(&[70_000], None))], vec![]),
        ] {
            let seen: Vec<u16> = planned(&specs).settings.udp_ports.into_iter().collect();
            assert_eq!(seen, expected, "{specs:?}");
        }
    }

    #[test]
    fn agents_hear_what_any_config_wants_and_each_filter_once() {
        let lab = SourceFilter::new::<&str, _>(&[], &["10.0.0.0/8"]).unwrap();
        let plan = planned(&[
            ("a", ranges("10.0.0.0/8")),
            ("b", WolConfigSpec::default()),
            ("c", ranges("10.0.0.0/8")),
        ]);
        assert_eq!(plan.settings.filters, [lab, SourceFilter::default()]);
    }

    #[test]
    fn without_a_usable_config_agents_still_report() {
        for specs in [vec![], vec![("a", ranges("10.0.0.0/64"))]] {
            let plan = planned(&specs);
            assert!(plan.grants.is_empty());
            assert_eq!(plan.settings.filters, [SourceFilter::default()]);
        }
    }

    #[test]
    fn a_problem_names_its_config_and_leaves_the_others_alone() {
        let plan = planned(&[
            ("bad", ranges("10.0.0.0/64")),
            ("good", ranges("10.0.0.0/8")),
        ]);
        let granted: Vec<&str> = plan.grants.iter().map(|g| &*g.config).collect();
        assert_eq!(granted, ["good"]);
        let [finding] = &plan.problems[..] else {
            panic!("{:?}", plan.problems);
        };
        assert_eq!((&*finding.config, finding.generation), ("bad", 3));
        assert!(matches!(finding.problem, Problem::Filter(_)));
    }

    #[test]
    fn only_the_named_secrets_may_be_asked_for_and_that_of_the_authority_never() {
        let wanting = |secret: &str| WolConfigSpec {
            secure_on: Some(SecureOn {
                secret_name: secret.into(),
            }),
            ..WolConfigSpec::default()
        };
        let plan = planned(&[
            ("a", wanting("secureon")),
            ("b", wanting("other")),
            ("c", wanting("ca")),
        ]);
        let [other, authority] = &plan.problems[..] else {
            panic!("{:?}", plan.problems);
        };
        assert!(matches!(other.problem, Problem::SecretNotAllowed { .. }));
        assert!(matches!(
            authority.problem,
            Problem::SecretOfAuthority { .. }
        ));
        assert!(plan.grants.iter().all(|grant| grant.secure_on.is_some()));
    }

    #[test]
    fn times_and_rates_come_from_the_command_line() {
        let settings = planned(&[]).settings;
        assert_eq!(settings.dedup_window, WINDOWS.dedup);
        assert_eq!(settings.event_ttl, WINDOWS.event_ttl);
        assert_eq!(settings.rates, WINDOWS.rates);
    }
}
