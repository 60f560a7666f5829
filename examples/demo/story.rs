//! Tells what happens as it happens, and remembers what did not.

use std::{
    ops::Range,
    path::Path,
    process::{Command, ExitCode},
    time::{Duration, Instant, SystemTime},
};

use crate::{
    Bed,
    common::{apiserver::ApiServer, cluster::Cluster, process::Line},
};

/// Far longer than anything here takes.
const SOON: Duration = Duration::from_secs(10);

/// Once something went wrong, the rest is not waited for so long.
const IMPATIENT: Duration = Duration::from_millis(300);

/// The story so far.
pub(crate) struct Story {
    start: Instant,
    /// When the latest packet was sent.
    sent: Instant,
    failed: Vec<String>,
    held: usize,
}

impl Story {
    pub(crate) fn begin() -> Self {
        let start = Instant::now();
        Self {
            start,
            sent: start,
            failed: Vec::new(),
            held: 0,
        }
    }

    pub(crate) fn chapter(title: &str) {
        println!("\n{title}");
    }

    /// Says who did what, now.
    pub(crate) fn tell(&self, who: &str, what: &str) {
        self.tell_at(Instant::now(), who, what);
    }

    fn tell_at(&self, at: Instant, who: &str, what: &str) {
        let seconds = at.saturating_duration_since(self.start).as_secs_f64();
        println!("  {seconds:7.3} s  {who:<8} {what}");
    }

    /// Sends copies of a packet to all agents, by `kubevirt-wol send`.
    pub(crate) fn send(&mut self, program: &Path, mac: &str, port: u16, copies: u32) {
        self.sent = Instant::now();
        let times = if copies == 1 {
            "once".to_owned()
        } else {
            format!("{copies} times")
        };
        self.tell("send", &format!("{mac} to 127.255.255.255:{port}, {times}"));
        let (port, copies) = (port.to_string(), copies.to_string());
        let result = Command::new(program)
            .args(["send", "--broadcast", "127.255.255.255", "--port", &port])
            .args(["--count", &copies, "--interval", "100", mac])
            .output();
        let ok = result.as_ref().is_ok_and(|output| output.status.success());
        if !ok {
            self.expect(
                &format!("a packet for {mac} can be sent: {result:?}"),
                false,
            );
        }
    }

    /// Tells who heard the latest packet and what the manager made of it, which should be
    /// `outcome`.
    pub(crate) fn follow(&mut self, bed: &Bed, mac: &str, outcome: &str) {
        let (sent, patience) = (self.sent, self.patience());
        let about = |line: &Line| line.at >= sent && line.field("mac") == mac;
        let decided = bed.manager.process.find(patience, |line| {
            about(line) && line.field("outcome") == outcome
        });
        for agent in &bed.agents {
            agent.process.find(patience, about);
        }
        self.tell_lines(bed, sent..Instant::now(), Some(mac));
        self.expect(&format!("the manager says {outcome}"), decided.is_some());
    }

    /// Tells, in order, who heard what, what the API server was asked and what the manager decided.
    fn tell_lines(&self, bed: &Bed, time: Range<Instant>, mac: Option<&str>) {
        let about =
            |line: &Line| time.contains(&line.at) && mac.is_none_or(|mac| line.field("mac") == mac);
        let mut lines = calls(bed);
        lines.retain(|(at, ..)| time.contains(at));
        for agent in &bed.agents {
            let heard = agent.process.lines().into_iter();
            let heard = heard.filter(|line| about(line) && !line.field("carrier").is_empty());
            lines.extend(heard.map(|line| (line.at, agent.node.clone(), heard_text(&line))));
        }
        let decisions = bed.manager.process.lines().into_iter();
        let decisions = decisions.filter(|line| about(line) && !line.field("outcome").is_empty());
        lines.extend(decisions.map(|line| (line.at, "manager".to_owned(), decision_text(&line))));
        lines.sort_by_key(|(at, ..)| *at);
        for (at, who, what) in lines {
            self.tell_at(at, &who, &what);
        }
    }

    /// Tells what happens from now on; never ends.
    pub(crate) async fn narrate(&self, bed: &Bed) {
        let mut told = Instant::now();
        loop {
            tokio::time::sleep(Duration::from_millis(300)).await;
            let now = Instant::now();
            self.tell_lines(bed, told..now, None);
            told = now;
        }
    }

    fn patience(&self) -> Duration {
        if self.failed.is_empty() {
            SOON
        } else {
            IMPATIENT
        }
    }

    /// Whether the VM comes to run.
    pub(crate) async fn running(&self, cluster: &Cluster, namespace: &str, name: &str) -> bool {
        let deadline = Instant::now() + self.patience();
        while Instant::now() < deadline {
            let vm = cluster.kubevirt.get(namespace, name).await;
            if vm["status"]["printableStatus"] == "Running" {
                self.tell("kubevirt", &format!("{namespace}/{name} is Running"));
                return true;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        false
    }

    /// Whether an Event on the VM comes that holds `word`; tells it.
    pub(crate) async fn event(
        &self,
        cluster: &Cluster,
        namespace: &str,
        name: &str,
        word: &str,
    ) -> bool {
        let deadline = Instant::now() + self.patience();
        while Instant::now() < deadline {
            let events = cluster.events(namespace, name).await;
            if let Some(event) = events.iter().find(|event| event.contains(word)) {
                self.tell("event", &format!("on {namespace}/{name}: {event}"));
                return true;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        false
    }

    /// Notes whether something is as it should be.
    pub(crate) fn expect(&mut self, what: &str, holds: bool) {
        println!(
            "  {}  {what}",
            if holds { "     ok   " } else { "    WRONG " }
        );
        if holds {
            self.held += 1;
        } else {
            self.failed.push(what.to_owned());
        }
    }

    /// The end: the exit code says whether every expectation held.
    pub(crate) fn end(&self) -> ExitCode {
        if self.failed.is_empty() {
            println!("\nAll {} expectations held.", self.held);
            return ExitCode::SUCCESS;
        }
        println!(
            "\n{} of {} expectations did not hold:",
            self.failed.len(),
            self.failed.len() + self.held
        );
        for what in &self.failed {
            println!("  {what}");
        }
        ExitCode::FAILURE
    }
}

/// The calls of `start`, as the API server recorded them.
fn calls(bed: &Bed) -> Vec<(Instant, String, String)> {
    let server = bed.cluster.server();
    let requests = server.map(ApiServer::requests).unwrap_or_default();
    let starts = requests
        .into_iter()
        .filter(|request| request.path.ends_with("/start"));
    // The record has wall-clock times.
    let now = (Instant::now(), SystemTime::now());
    let calls = starts.filter_map(|request| {
        let ago = now.1.duration_since(request.at).unwrap_or_default();
        let answer = request
            .status
            .map_or("no answer yet".to_owned(), |code| code.to_string());
        let text = format!("{} {} -> {answer}", request.method, request.path);
        Some((now.0.checked_sub(ago)?, "api".to_owned(), text))
    });
    calls.collect()
}

fn heard_text(line: &Line) -> String {
    format!(
        "heard {} from {} on {}",
        line.field("mac"),
        line.field("source"),
        line.field("iface")
    )
}

fn decision_text(line: &Line) -> String {
    let vm = match (line.field("namespace"), line.field("vm")) {
        (_, "") => "no VM".to_owned(),
        (namespace, vm) => format!("{namespace}/{vm}"),
    };
    match (line.field("outcome"), line.field("reason")) {
        (outcome, reason) if outcome == reason => format!("{vm}: {outcome}"),
        (outcome, reason) => format!("{vm}: {outcome}; {reason}"),
    }
}
