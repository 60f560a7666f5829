//! Keeps the direction of dependencies: who may know whom.

#![allow(clippy::unwrap_used, reason = "a test that breaks has to fail")]

use std::{
    fs,
    path::{Path, PathBuf},
};

/// (files that begin with, words that they may not hold, why)
const RULES: &[(&str, &[&str], &str)] = &[
    (
        "agent",
        &["crate::manager", "super::super::manager"],
        "agent and manager do not know each other",
    ),
    (
        "manager",
        &["crate::agent"],
        "agent and manager do not know each other",
    ),
    (
        "send",
        &["crate::manager", "crate::agent"],
        "a sender needs neither manager nor agent",
    ),
    ("explain", &["crate::agent"], "the answer is the manager's"),
    (
        "check",
        &["crate::agent", "crate::send"],
        "who looks needs no agent, and sends nothing",
    ),
    (
        "kubevirt",
        &["crate::manager", "crate::agent", "crate::send"],
        "the API's types serve all, and know nobody",
    ),
    (
        "mac.rs",
        &["kube::", "k8s_openapi::", "tonic::", "tokio::", "crate::"],
        "the core is pure",
    ),
    (
        "packet.rs",
        &["kube::", "k8s_openapi::", "tonic::", "tokio::"],
        "the core is pure",
    ),
    (
        "password.rs",
        &["kube::", "k8s_openapi::", "tonic::", "tokio::"],
        "the core is pure",
    ),
    (
        "frame.rs",
        &["kube::", "k8s_openapi::", "tonic::", "tokio::"],
        "the core is pure",
    ),
    (
        "filter.rs",
        &["kube::", "k8s_openapi::", "tonic::", "tokio::"],
        "the core is pure",
    ),
    (
        "dedup.rs",
        &["kube::", "k8s_openapi::", "tonic::", "tokio::", "crate::"],
        "the core is pure",
    ),
    (
        "wake.rs",
        &["kube::", "k8s_openapi::", "tonic::", "tokio::"],
        "the core is pure",
    ),
    (
        "wakeable.rs",
        &["kube::", "k8s_openapi::", "tonic::", "tokio::"],
        "the core is pure",
    ),
    (
        "agent/ring",
        &["kube::", "k8s_openapi::", "tonic::", "tokio::"],
        "what becomes of wakes is pure",
    ),
    (
        "agent/route.rs",
        &["kube::", "k8s_openapi::", "tonic::", "tokio::"],
        "what becomes of wakes is pure",
    ),
    (
        "agent/wishes.rs",
        &["kube::", "k8s_openapi::", "tonic::", "tokio::"],
        "what becomes of wakes is pure",
    ),
    (
        "throttle.rs",
        &["kube::", "k8s_openapi::", "tonic::", "tokio::", "crate::"],
        "the core is pure",
    ),
    (
        "shares.rs",
        &["kube::", "k8s_openapi::", "tonic::", "tokio::"],
        "the core is pure",
    ),
    (
        "manager/quota.rs",
        &["kube::", "k8s_openapi::", "tonic::", "tokio::"],
        "the quota is pure",
    ),
    (
        "agent/budget.rs",
        &["kube::", "k8s_openapi::", "tonic::", "tokio::"],
        "the budget is pure",
    ),
    (
        "manager/directory",
        &["kube::", "k8s_openapi::", "tonic::", "tokio::"],
        "the directory is pure",
    ),
    (
        "manager/passwords.rs",
        &["kube::", "k8s_openapi::", "tonic::", "tokio::"],
        "what Secrets say is pure",
    ),
    (
        "manager/intents.rs",
        &["kube::", "k8s_openapi::", "tonic::", "tokio::"],
        "the state machine is pure",
    ),
    (
        "manager/authority/ca.rs",
        &["kube::", "k8s_openapi::", "tonic::", "tokio::"],
        "the certificates and their rotation are pure",
    ),
    (
        "manager/authority/certificate.rs",
        &["kube::", "k8s_openapi::", "tonic::", "tokio::"],
        "the certificates and their rotation are pure",
    ),
    (
        "manager/authority/rotation.rs",
        &["kube::", "k8s_openapi::", "tonic::", "tokio::"],
        "the certificates and their rotation are pure",
    ),
    (
        "manager/authority/state.rs",
        &["kube::", "k8s_openapi::", "tonic::", "tokio::"],
        "the certificates and their rotation are pure",
    ),
    (
        "",
        &["crate::cli::Cli", "std::env::var("],
        "only the entry point parses the command line",
    ),
];

#[test]
fn modules_know_only_what_they_may() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let files = sources(&root);
    let mut broken = Vec::new();
    for (prefix, forbidden, why) in RULES {
        let mut met = false;
        for file in &files {
            let name = file.strip_prefix(&root).unwrap().to_str().unwrap();
            if !name.starts_with(prefix) {
                continue;
            }
            met = true;
            for (number, line) in code(file).lines().enumerate() {
                // `super::` in a path would hide the direction; the crate's own name is `crate`.
                let line = line.split("//").next().unwrap_or_default();
                if let Some(word) = forbidden.iter().find(|word| names(line, word)) {
                    broken.push(format!("src/{name}:{}: {word} ({why})", number + 1));
                }
            }
        }
        assert!(
            met,
            "no file begins with src/{prefix}: the rule guards nothing"
        );
    }
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

/// Whether `line` names `word` as a path of its own: `kube::` is not in `crate::kube::`.
fn names(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        !line[..at]
            .ends_with(|before: char| before.is_alphanumeric() || before == '_' || before == ':')
    })
}

/// The code of a file without its unit tests, which may use what they like.
fn code(file: &Path) -> String {
    let text = fs::read_to_string(file).unwrap();
    text.split("#[cfg(test)]\nmod ")
        .next()
        .unwrap_or_default()
        .to_owned()
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|kind| kind == "rs") {
            found.push(path);
        }
    }
    found
}
