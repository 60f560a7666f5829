//! Owns what the dashboard and the alerts may ask for: names, labels and values that the programs
//! really have. A query with a slip of the pen never fails, it only shows nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::LazyLock,
};

use regex::Regex;
use serde_json::{Value, json};

use super::{agent, manager, scrape, series, skip::skipped};

const RULES: &str = include_str!("../../deploy/components/prometheus/rules.yaml");
const RULES_TEST: &str = include_str!("../../deploy/components/prometheus/rules_test.yaml");
const DASHBOARD: &str = include_str!("../../deploy/dashboards/kubevirt-wol.json");

/// What Prometheus adds to whatever it scrapes from a pod.
const OF_THE_TARGET: [&str; 2] = ["namespace", "pod"];

/// The labels of a series and their values.
type Labels = BTreeMap<String, BTreeSet<String>>;

/// A query, and the words for people that name its labels.
struct Query {
    expr: String,
    shown: String,
}

/// All series that a manager and an agent expose, by the name that queries use.
fn exposed() -> BTreeMap<String, Labels> {
    let (_manager, of_manager) = manager();
    let (_agent, of_agent) = agent();
    let text = scrape(of_manager) + &scrape(of_agent);
    let mut all = BTreeMap::<_, Labels>::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (name, labels) = series(line);
        let known = all.entry(name.to_owned()).or_default();
        for (label, value) in labels {
            let values = known.entry(label.to_owned()).or_default();
            values.insert(value.to_owned());
        }
    }
    all
}

/// Every object that has an `expr`, however deep.
fn queries(value: &Value, found: &mut Vec<Query>) {
    match value {
        Value::Array(all) => all.iter().for_each(|one| queries(one, found)),
        Value::Object(fields) => {
            if let Some(Value::String(expr)) = fields.get("expr") {
                let shown = [
                    &fields.get("legendFormat"),
                    &fields.get("annotations").map(|it| &it["summary"]),
                    &fields.get("annotations").map(|it| &it["description"]),
                ];
                let shown = shown.map(|text| text.and_then(Value::as_str).unwrap_or_default());
                found.push(Query {
                    expr: expr.clone(),
                    shown: shown.join(" "),
                });
            }
            fields.values().for_each(|one| queries(one, found));
        }
        _ => {}
    }
}

fn rules() -> Value {
    serde_yaml::from_str(RULES).unwrap()
}

fn of_rules() -> Vec<Query> {
    let mut found = Vec::new();
    queries(&rules(), &mut found);
    found
}

fn of_dashboard() -> Vec<Query> {
    let mut found = Vec::new();
    queries(&serde_json::from_str(DASHBOARD).unwrap(), &mut found);
    found
}

/// What is wrong with a query.
fn faults(query: &Query, exposed: &BTreeMap<String, Labels>) -> Vec<String> {
    static SELECTOR: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r"\b(kubevirt_wol_\w+)\s*(?:\{([^}]*)\})?\s*(\[[^\]]*\])?").unwrap()
    });
    static MATCHER: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r#"(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)""#).unwrap());
    static GROUP: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"\b(?:by|on)\s*\(([^)]*)\)").unwrap());
    static SHOWN: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"\{\{\s*(?:\$labels\.)?(\w+)\s*\}\}").unwrap());
    let mut faults = Vec::new();
    let mut known: BTreeSet<&str> = OF_THE_TARGET.into();
    for selector in SELECTOR.captures_iter(&query.expr) {
        let name = &selector[1];
        let Some(labels) = exposed.get(name) else {
            faults.push(format!("{name} is not exposed"));
            continue;
        };
        known.extend(labels.keys().map(String::as_str));
        let parts = ["_total", "_bucket", "_sum", "_count"];
        let counts = parts.iter().any(|part| name.ends_with(part));
        if counts != selector.get(3).is_some() {
            faults.push(format!(
                "{name} is to have a range if it counts, and only then"
            ));
        }
        let matchers = selector.get(2).map_or("", |it| it.as_str());
        for matcher in MATCHER.captures_iter(matchers) {
            let label = &matcher[1];
            let Some(values) = labels.get(label) else {
                if !OF_THE_TARGET.contains(&label) {
                    faults.push(format!("{name} has no label {label}"));
                }
                continue;
            };
            for value in matcher[3].split('|') {
                if !values.contains(value) {
                    faults.push(format!("{label} of {name} is never {value}"));
                }
            }
        }
    }
    let mut kept: BTreeSet<&str> = OF_THE_TARGET.into();
    for group in GROUP.captures_iter(&query.expr) {
        let labels = group.get(1).map_or("", |it| it.as_str());
        kept.extend(labels.split(',').map(str::trim));
    }
    let unknown = kept.difference(&known);
    faults.extend(unknown.map(|label| format!("nothing here has the label {label}")));
    for label in SHOWN.captures_iter(&query.shown) {
        if !kept.contains(&label[1]) {
            faults.push(format!("{} is shown, and not kept", &label[1]));
        }
    }
    faults
}

#[test]
fn dashboard_and_alerts_ask_for_what_is_exposed() {
    let exposed = exposed();
    let (rules, dashboard) = (of_rules(), of_dashboard());
    assert!(rules.len() > 20 && dashboard.len() > 40);
    let wrong = rules.iter().chain(&dashboard).filter_map(|query| {
        let faults = faults(query, &exposed);
        (!faults.is_empty()).then(|| format!("{}: {}", query.expr, faults.join("; ")))
    });
    let wrong: Vec<_> = wrong.collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_query_for_what_does_not_exist_is_noticed() {
    let labels = |of: &[(&str, &str)]| -> Labels {
        let label = |(label, value): &(&str, &str)| {
            (String::from(*label), BTreeSet::from([String::from(*value)]))
        };
        of.iter().map(label).collect()
    };
    let exposed = BTreeMap::from([
        ("kubevirt_wol_open".to_owned(), labels(&[])),
        (
            "kubevirt_wol_wakes_total".to_owned(),
            labels(&[("outcome", "started")]),
        ),
    ]);
    for (expr, shown, faulty) in [
        ("kubevirt_wol_open > 0", "{{ $labels.pod }}", false),
        ("rate(kubevirt_wol_wakes_total[5m])", "", false),
        ("kubevirt_wol_wakes_total", "", true),
        ("rate(kubevirt_wol_open[5m])", "", true),
        ("kubevirt_wol_wakes[5m]", "", true),
        (
            "kubevirt_wol_wakes_total{outcome=~\"started\"}[5m]",
            "",
            false,
        ),
        (
            "kubevirt_wol_wakes_total{outcome=~\"started|begun\"}[5m]",
            "",
            true,
        ),
        ("kubevirt_wol_wakes_total{node=\"n\"}[5m]", "", true),
        ("sum by (node) (kubevirt_wol_open)", "", true),
        ("sum by (pod) (kubevirt_wol_open)", "{{outcome}}", true),
    ] {
        let query = Query {
            expr: expr.to_owned(),
            shown: shown.to_owned(),
        };
        let faults = faults(&query, &exposed);
        assert_eq!(!faults.is_empty(), faulty, "{expr}: {faults:?}");
    }
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn every_alert_has_a_page_and_every_page_an_alert() {
    let rules = rules();
    let groups = rules["spec"]["groups"].as_array().unwrap();
    let alerts = groups.iter().flat_map(|it| it["rules"].as_array().unwrap());
    let mut named = BTreeSet::new();
    for alert in alerts {
        let name = alert["alert"].as_str().unwrap();
        let page = format!("docs/runbooks/{name}.md");
        assert_eq!(alert["annotations"]["runbook_url"], page, "{name}");
        let text = fs::read_to_string(repository().join(&page));
        let text = text.unwrap_or_else(|error| panic!("{page}: {error}"));
        assert!(text.starts_with(&format!("# {name}\n")), "{page}");
        for heading in ["## What it means", "## How to look", "## What to do"] {
            assert!(
                text.contains(&format!("\n{heading}\n")),
                "{page}: {heading}"
            );
        }
        assert!(named.insert(format!("{name}.md")), "{name} is there twice");
    }
    let pages = fs::read_dir(repository().join("docs/runbooks")).unwrap();
    let pages = pages.map(|page| page.unwrap().file_name().into_string().unwrap());
    let pages: BTreeSet<_> = pages.filter(|page| page != "README.md").collect();
    assert_eq!(pages, named);
}

/// Runs promtool; None where there is none.
fn promtool(args: &[&str], file: &Path) -> Option<()> {
    let output = Command::new("promtool").args(args).arg(file).output();
    let Ok(output) = output else {
        skipped("promtool is not installed");
        return None;
    };
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(output.status.success(), "promtool {args:?}: {said}");
    Some(())
}

fn written(folder: &tempfile::TempDir, name: &str, text: &str) -> PathBuf {
    let file = folder.path().join(name);
    fs::write(&file, text).unwrap();
    file
}

#[test]
fn each_alert_fires_when_it_should_and_only_then() {
    let folder = tempfile::tempdir().unwrap();
    // Prometheus takes what the operator's object wraps.
    let plain = serde_yaml::to_string(&rules()["spec"]).unwrap();
    let file = written(&folder, "rules.yaml", &plain);
    if promtool(&["check", "rules"], &file).is_some() {
        let test = written(&folder, "rules_test.yaml", RULES_TEST);
        promtool(&["test", "rules"], &test);
    }
    let rules = rules();
    let groups = rules["spec"]["groups"].as_array().unwrap();
    for alert in groups.iter().flat_map(|it| it["rules"].as_array().unwrap()) {
        let name = alert["alert"].as_str().unwrap();
        let tested = RULES_TEST.contains(&format!("\n  - name: {name}\n"));
        assert!(tested, "{name} has no test");
    }
}

#[test]
fn prometheus_understands_every_query_of_the_dashboard() {
    let folder = tempfile::tempdir().unwrap();
    let rule = |(number, query): (usize, Query)| {
        let expr = query.expr.replace("$__rate_interval", "5m");
        json!({"record": format!("query:{number}"), "expr": expr.replace("$namespace", ".*")})
    };
    let rules: Vec<_> = of_dashboard().into_iter().enumerate().map(rule).collect();
    let rules = json!({"groups": [{"name": "dashboard", "rules": rules}]});
    let file = written(&folder, "dashboard.yaml", &rules.to_string());
    promtool(&["check", "rules"], &file);
}
