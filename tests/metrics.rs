//! What the real program says on its admin port: `/metrics`, which docs/metrics.md describes and
//! dashboard and alerts ask for, and `/livez`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test bed that breaks has to fail the test"
)]

#[path = "common/process.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    reason = "a part of what other tests share"
)]
mod process;
#[path = "metrics/queries.rs"]
mod queries;
#[path = "common/skip.rs"]
#[allow(unreachable_pub, reason = "a part of what other tests share")]
mod skip;

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use process::{Process, free_tcp, free_udp};

const PROGRAM: &str = env!("CARGO_BIN_EXE_kubevirt-wol");
const DOCS: &str = include_str!("../docs/metrics.md");

/// What is known of a metric, by its name as it is scraped: type, labels and meaning, each as in
/// the table.
type Metrics = BTreeMap<String, [String; 3]>;

fn get(address: SocketAddr, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    head.contains(" 200 ").then(|| body.to_owned())
}

/// Asks until it is answered.
fn scrape(address: SocketAddr) -> String {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(text) = get(address, "/metrics") {
            return text;
        }
        assert!(Instant::now() < deadline, "no answer from {address}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A series: its name, and its labels. No value of ours has a comma or a quotation mark.
fn series(line: &str) -> (&str, Vec<(&str, &str)>) {
    let (series, _) = line.rsplit_once(' ').unwrap();
    let Some((name, labels)) = series.split_once('{') else {
        return (series, Vec::new());
    };
    let labels = labels.trim_end_matches('}').split(',');
    let labels = labels.filter_map(|label| label.split_once('='));
    let labels = labels.map(|(label, value)| (label, value.trim_matches('"')));
    (name, labels.collect())
}

/// As in the table: `` `reason`: `overflow`, `stale` ``.
fn written(labels: &BTreeMap<&str, BTreeSet<&str>>) -> String {
    let label = |(label, values): (&&str, &BTreeSet<&str>)| {
        // Of this one only the name is fixed.
        if values.contains(env!("CARGO_PKG_VERSION")) {
            return format!("`{label}`");
        }
        let values: Vec<_> = values.iter().map(|value| format!("`{value}`")).collect();
        format!("`{label}`: {}", values.join(", "))
    };
    let labels: Vec<_> = labels.iter().map(label).collect();
    labels.join("; ")
}

fn scraped(text: &str) -> Metrics {
    let lines = |mark: &'static str| {
        text.lines().filter_map(move |line| {
            let (name, rest) = line.strip_prefix(mark)?.split_once(' ')?;
            Some((name, rest.trim_end_matches('.')))
        })
    };
    let help: BTreeMap<_, _> = lines("# HELP ").collect();
    let row = |(name, kind): (&str, &str)| {
        let suffix = match kind {
            "counter" => "_total",
            "info" => "_info",
            _ => "",
        };
        let mut labels = BTreeMap::<_, BTreeSet<_>>::new();
        let own = format!("{name}{suffix}");
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (sample, values) = series(line);
            let part = sample.strip_prefix(&own);
            if part.is_some_and(|part| ["", "_bucket", "_sum", "_count"].contains(&part)) {
                for (label, value) in values.into_iter().filter(|(label, _)| *label != "le") {
                    labels.entry(label).or_default().insert(value);
                }
            }
        }
        let about = [kind.to_owned(), written(&labels), help[name].to_owned()];
        (own, about)
    };
    lines("# TYPE ").map(row).collect()
}

/// The table under a heading.
fn documented(heading: &str) -> Metrics {
    let (_, section) = DOCS.split_once(&format!("\n## {heading}\n")).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let rows = section
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.strip_suffix(" |"));
    let row = |row: &str| {
        let cells: Vec<_> = row.split(" | ").map(str::trim).collect();
        assert_eq!(cells.len(), 5, "{row}");
        let about = [cells[1], cells[2], cells[3]].map(str::to_owned);
        (cells[0].trim_end_matches('`').to_owned(), about)
    };
    rows.map(row).collect()
}

/// Fails with the rows that are to be written instead.
fn compare(heading: &str, scraped: &Metrics) {
    let documented = documented(heading);
    let mut wrong = Vec::new();
    for (name, [kind, labels, meaning]) in scraped {
        if documented.get(name) != scraped.get(name) {
            wrong.push(format!("| `{name}` | {kind} | {labels} | {meaning} | … |"));
        }
    }
    for name in documented
        .keys()
        .filter(|name| !scraped.contains_key(*name))
    {
        wrong.push(format!("{name} does not exist"));
    }
    let wrong = wrong.join("\n");
    assert!(wrong.is_empty(), "docs/metrics.md, {heading}:\n{wrong}");
}

/// Words that are the same for whoever writes a query.
fn is_conventional(metrics: &Metrics) {
    let values = |labels: &str| {
        let words = labels.split('`').skip(1).step_by(2).map(str::to_owned);
        words.collect::<Vec<_>>()
    };
    for (name, [kind, labels, _]) in metrics {
        assert!(name.starts_with("kubevirt_wol_"), "{name}");
        assert_eq!(name.ends_with("_total"), kind == "counter", "{name}");
        assert!(kind != "histogram" || name.ends_with("_seconds"), "{name}");
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        for word in values(labels) {
            assert!(word.bytes().all(plain), "{name}: {word}");
        }
    }
}

/// A manager without an API server, and where it is asked.
fn manager() -> (Process, SocketAddr) {
    let (admin, grpc) = (free_tcp(), free_tcp());
    let file = tempfile::NamedTempFile::new().unwrap();
    let config = "{apiVersion: v1, kind: Config, current-context: a,
        contexts: [{name: a, context: {cluster: a, user: a}}], users: [{name: a}],
        clusters: [{name: a, cluster: {server: 'http://127.0.0.1:1'}}]}";
    std::fs::write(file.path(), config).unwrap();
    let flags = format!("manager --insecure --grpc-bind {grpc} --admin-bind {admin}");
    let mut command = Command::new(PROGRAM);
    command.args(flags.split(' '));
    command.env("KUBECONFIG", file.path());
    let process = Process::spawn_command("manager", command);
    // It has read its kubeconfig by then.
    scrape(admin);
    (process, admin)
}

/// An agent without a manager, and where it is asked.
fn agent() -> (Process, SocketAddr) {
    let (admin, manager, port) = (free_tcp(), free_tcp(), free_udp());
    let flags = format!(
        "agent --insecure --no-raw --node-name node-1 --manager {manager} --admin-bind {admin} \
         --wol-port {port}"
    );
    let flags: Vec<_> = flags.split_whitespace().collect();
    (Process::spawn("agent", Path::new(PROGRAM), &flags), admin)
}

#[test]
fn the_manager_counts_what_the_docs_say() {
    let (_process, admin) = manager();
    let metrics = scraped(&scrape(admin));
    is_conventional(&metrics);
    compare("Manager", &metrics);
}

#[test]
fn the_agent_counts_what_the_docs_say() {
    let (_process, admin) = agent();
    let metrics = scraped(&scrape(admin));
    is_conventional(&metrics);
    compare("Agent", &metrics);
}

/// The tasks that `/livez` watches, after more time than any of them may wait between two turns.
fn idle_tasks(admin: SocketAddr) -> Vec<String> {
    scrape(admin);
    std::thread::sleep(Duration::from_secs(10));
    let text = get(admin, "/livez?verbose").expect("no task is stuck");
    let task = |line: &str| {
        let (task, rest) = line.split_once(": ").unwrap();
        let age: f64 = rest.trim_end_matches(" s ago").parse().unwrap();
        assert!(age < 7.0, "an idle task takes no turns: {line}");
        task.to_owned()
    };
    let lines = text.lines().filter(|line| *line != "ok");
    let mut tasks: Vec<_> = lines.map(task).collect();
    tasks.sort();
    tasks
}

#[test]
fn every_task_of_an_idle_manager_shows_that_it_lives() {
    let (_process, admin) = manager();
    let expected = [
        "agents",
        "banned nodes",
        "configs",
        "daemon set",
        "events",
        "last wakes",
        "leader",
        "passwords",
        "pulse",
        "staleness",
        "status",
        "virtual machines",
        "wakeable addresses",
        "waker",
    ];
    assert_eq!(idle_tasks(admin), expected);
}

#[test]
fn every_task_of_an_idle_agent_shows_that_it_lives() {
    let (_process, admin) = agent();
    let expected = [
        "UDP socket",
        "clock",
        "listeners",
        "name resolution",
        "session",
    ];
    assert_eq!(idle_tasks(admin), expected);
}
