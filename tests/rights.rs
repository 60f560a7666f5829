//! What managers and agents may do at the API server: as the manifest says, no more and no less.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that breaks has to fail"
)]

mod common;

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use common::{
    cluster::{Cluster, SOON, eventually},
    kubevirt::{
        Fault,
        vm::{RunStrategy, vm},
    },
    process::free_udp,
    rights,
    trust::NAMESPACE,
};
use k8s_openapi::api::{
    authorization::v1::{ResourceAttributes, SelfSubjectRulesReview},
    core::v1::Event,
};
use kube::{
    Api, Client,
    api::{ListParams, PostParams},
};
use kubevirt_wol::{
    admin::Heartbeat,
    manager::{
        events::{ConfigReason, ConfigRef, Events},
        metrics::Metrics,
        rights::{
            AGENT, MANAGER, RIGHTS, Right, Scope,
            Verb::{self, Get},
            manifest,
        },
    },
};
use nix::sys::signal::Signal;
use prometheus_client::registry::Registry;
use serde_json::json;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

const PROGRAM: &str = env!("CARGO_BIN_EXE_kubevirt-wol");
const DOCS: &str = include_str!("../docs/security.md");

/// What is used where this file does not look, and where that is.
const SHOWN_ELSEWHERE: &[(&str, &[Verb], &str)] = &[("pods", &[Get], IDENTITY)];
const IDENTITY: &str = "tests of who an agent is";

/// What no manager may ever be able to do, whatever else is granted: group, resource, name, verb.
const NEVER: &[(&str, &str, &str, &str)] = &[
    ("apps", "daemonsets", "", "create"),
    ("apps", "daemonsets", "kubevirt-wol-agent", "patch"),
    ("apps", "deployments", "", "create"),
    ("", "pods", "", "create"),
    ("", "pods/exec", "", "create"),
    ("", "secrets", "", "list"),
    ("", "secrets", "", "create"),
    ("", "secrets", "any-other", "get"),
    ("", "secrets", "kubevirt-wol-ca", "delete"),
    ("", "serviceaccounts/token", AGENT, "create"),
    ("", "configmaps", "any-other", "update"),
    ("kubevirt.io", "virtualmachines", "", "create"),
    ("kubevirt.io", "virtualmachines", "any", "patch"),
    ("kubevirt.io", "virtualmachines", "any", "delete"),
    (
        "subresources.kubevirt.io",
        "virtualmachines/stop",
        "any",
        "update",
    ),
    (
        "subresources.kubevirt.io",
        "virtualmachineinstances/console",
        "any",
        "get",
    ),
    ("wol.pillon.org", "wolconfigs", "any", "update"),
    ("rbac.authorization.k8s.io", "clusterroles", "any", "bind"),
];

#[test]
fn the_manifest_in_the_repository_is_what_the_code_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/base/rbac.yaml");
    let made = manifest("kubevirt-wol-system");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, &made).unwrap();
    }
    let kept = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        kept == made,
        "deploy/base/rbac.yaml is not what src/manager/rights.rs says; where the change of rights is meant: run `just manifests` or `UPDATE_GOLDEN=1 cargo test --test rights`"
    );
}

/// A right as docs/security.md shows it.
fn row(right: &Right) -> String {
    let group = match right.group {
        "" => String::new(),
        group => format!(" of `{group}`"),
    };
    let place = match (right.scope, right.name) {
        (Scope::Cluster, None) => "all, everywhere".to_owned(),
        (Scope::Cluster, Some(name)) => format!("`{name}`"),
        (Scope::Namespace, None) => "all, in its own namespace".to_owned(),
        (Scope::Namespace, Some(name)) => format!("`{name}`, in its own namespace"),
    };
    let (resource, verbs, why) = (right.resource, right.verbs(), right.why);
    format!("| `{resource}`{group} | {place} | {verbs} | {why} |")
}

#[test]
fn the_page_on_security_shows_every_right_and_no_other() {
    let (_, section) = DOCS
        .split_once("\n### At the API server\n")
        .expect("the section is there");
    let rows = section.lines().skip_while(|line| !line.starts_with("|---"));
    let rows: Vec<_> = rows.skip(1).take_while(|l| l.starts_with('|')).collect();
    let expected: Vec<_> = RIGHTS.iter().map(row).collect();
    assert!(
        rows == expected,
        "docs/security.md, At the API server, has to have these rows:\n{}",
        expected.join("\n")
    );
}

#[test]
fn agents_are_given_nothing() {
    let documents = rights::documents();
    let bindings = documents.iter().filter_map(|d| d["subjects"].as_array());
    let subjects: Vec<_> = bindings.flatten().map(|s| &s["name"]).collect();
    assert_eq!(subjects, [MANAGER, MANAGER]);
    let account = documents
        .iter()
        .find(|d| d["kind"] == "ServiceAccount" && d["metadata"]["name"] == AGENT)
        .expect("agents have an account");
    assert_eq!(account["automountServiceAccountToken"], false);
}

/// A manager does all that it ever does: it starts, looks again, unpauses, tells, and leads.
async fn a_day_of_a_manager(c: &Cluster) {
    c.install_crd().await;
    c.namespace("home").await;
    c.config("default", json!({"wakePaused": true})).await;
    let mut manager = c.manager(&[]).await;
    let agent = c.agent("node-1", &manager, free_udp());
    let k = &c.kubevirt;
    let mac = |n: u8| format!("52:54:00:00:00:{n:02x}");
    for (n, name) in [(1, "off"), (2, "open")] {
        k.create(&vm("home", name).mac(&mac(n))).await;
    }
    let paused = vm("home", "paused").mac(&mac(3)).running(true);
    k.create(&paused).await;
    let once = vm("home", "once").run_strategy(RunStrategy::Once);
    k.add(&once.mac(&mac(4))).await;
    k.wait_for_status("home", "paused", "Running").await;
    k.pause("home", "paused");
    k.wait_for_status("home", "paused", "Paused").await;
    let known = "kubevirt_wol_directory_mac_addresses";
    eventually("all VMs are known", async || manager.metric(known) > 3.5).await;

    agent.hears(&mac(1));
    k.wait_for_status("home", "off", "Running").await;
    // What became of this one is left open.
    k.fault_once(Fault::Refuse(500, "who knows".into()));
    agent.hears(&mac(2));
    k.wait_for_status("home", "open", "Running").await;
    agent.hears(&mac(3));
    k.wait_for_status("home", "paused", "Running").await;
    agent.hears(&mac(4));
    eventually("a trouble is told", async || {
        !c.events("home", "once").await.is_empty()
    })
    .await;
    eventually("it writes statuses", async || {
        manager.metric("kubevirt_wol_status_writes_total{result=\"done\"}") > 0.5
    })
    .await;
    for failed in [
        r#"kubevirt_wol_kubernetes_events_total{result="failed"}"#,
        r#"kubevirt_wol_status_writes_total{result="failed"}"#,
        r#"kubevirt_wol_api_requests_total{verb="get",answer="forbidden"}"#,
    ] {
        assert!(manager.metric(failed) < 0.5, "{failed}");
    }
    // It gives the Lease back.
    manager.process.signal(Signal::SIGTERM);
    assert!(manager.process.ended(SOON).success());
}

/// The part of a manager that tells tells of a trouble, and of the same one a minute later.
async fn a_trouble_repeats(c: &Cluster, manager: Client) {
    let metrics = Metrics::new(&mut Registry::default());
    let (events, scribe) = Events::new(manager, "replica-a".into(), metrics);
    let end = CancellationToken::new();
    let scribe = JoinSet::from_iter([scribe.run(end.clone(), Heartbeat::default())]);
    let config = ConfigRef {
        name: "default".into(),
        uid: "6f2d".into(),
        resource_version: "1".into(),
    };
    let now = Instant::now();
    for now in [now, now + Duration::from_secs(61)] {
        events.config(&config, ConfigReason::Rejected, "nonsense".into(), now);
    }
    // What waits is written before the end.
    end.cancel();
    scribe.join_all().await;
    let api = Api::<Event>::namespaced(c.client.clone(), "default");
    let told = ListParams::default().fields("involvedObject.uid=6f2d");
    let counts = api.list(&told).await.unwrap().items.into_iter();
    let counts: Vec<_> = counts.filter_map(|event| event.count).collect();
    assert_eq!(counts, [2], "one Event, brought up to date");
}

/// Whether other tests show that this is needed.
fn is_shown_elsewhere(right: &Right, verb: Verb) -> bool {
    let name = right.name.map_or(String::new(), |name| format!(" {name}"));
    let words = format!("{}{name}", right.resource);
    let mut shown = SHOWN_ELSEWHERE.iter();
    shown.any(|(shown, verbs, _)| *shown == words && verbs.contains(&verb))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manager_needs_all_its_rights_and_no_other() {
    let cluster = Cluster::stand_in(Path::new(PROGRAM)).await;
    a_day_of_a_manager(&cluster).await;
    let server = cluster.server().unwrap();
    a_trouble_repeats(&cluster, rights::client(&server.kubeconfig()).await).await;
    rights::expect_kept(server);
    let uses = rights::uses(server);
    let is_used = |right: &Right, verb: Verb| {
        let mut rights = uses.iter().filter_map(|(_, right)| *right);
        rights.any(|(one, its)| std::ptr::eq(one, right) && its == verb)
    };
    for (right, verb) in rights::all() {
        assert_ne!(
            is_used(right, verb),
            is_shown_elsewhere(right, verb),
            "{verb} {right:?}: either it is used here, or SHOWN_ELSEWHERE has it; else nobody needs it"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_real_api_server_the_rights_are_enough_and_agents_have_none() {
    let Some(cluster) = Cluster::real(Path::new(PROGRAM)).await else {
        return;
    };
    cluster.fresh().await;
    a_day_of_a_manager(&cluster).await;
    let account = |name: &str| format!("system:serviceaccount:{NAMESPACE}:{name}");
    let starts = cluster.kubevirt.starts();
    assert!(!starts.is_empty());
    for start in starts {
        assert_eq!(
            start.user,
            Some(account(MANAGER)),
            "who starts {}",
            start.vm
        );
    }

    let admin = fs::read_to_string(cluster.kubeconfig()).unwrap();
    let manager = rights::by_account(&cluster.client, &admin, MANAGER).await;
    let manager = rights::client(&manager).await;
    a_trouble_repeats(&cluster, manager.clone()).await;
    for what in NEVER {
        for namespace in [NAMESPACE, "kube-system"] {
            let attributes = attributes(what, namespace);
            let allowed = rights::allows(&manager, &attributes).await;
            assert!(!allowed, "a manager may {what:?} in {namespace}");
        }
    }

    let agent = rights::by_account(&cluster.client, &admin, AGENT).await;
    let mut review = SelfSubjectRulesReview::default();
    review.spec.namespace = Some(NAMESPACE.into());
    let api = Api::all(rights::client(&agent).await);
    let answer = api.create(&PostParams::default(), &review).await.unwrap();
    let rules = answer.status.unwrap().resource_rules;
    let groups = rules.into_iter().flat_map(|rule| rule.api_groups.unwrap());
    // What everybody may: ask who he is and what he may.
    let others: Vec<_> = groups
        .filter(|group| !["authentication.k8s.io", "authorization.k8s.io"].contains(&&**group))
        .collect();
    assert_eq!(others, Vec::<String>::new(), "an agent has rights");
}

fn attributes(what: &(&str, &str, &str, &str), namespace: &str) -> ResourceAttributes {
    let (group, resource, name, verb) = *what;
    let (resource, part) = resource.split_once('/').unwrap_or((resource, ""));
    ResourceAttributes {
        group: Some(group.into()),
        resource: Some(resource.into()),
        subresource: Some(part.into()),
        name: Some(name.into()),
        namespace: Some(namespace.into()),
        verb: Some(verb.into()),
        ..ResourceAttributes::default()
    }
}
