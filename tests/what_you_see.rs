//! Keeps docs/what-you-see.md true: runs its commands, by the real kubectl on a real API server, and
//! compares what they print with what the page shows.

#![allow(clippy::unwrap_used, reason = "a test that breaks has to fail")]

#[path = "what_you_see/case.rs"]
mod case;
mod common;
#[path = "what_you_see/page.rs"]
mod page;

use std::path::Path;

use common::{cluster::Cluster, kubectl::Kubectl};
use page::{Block, blocks, shows};

const PAGE: &str = include_str!("../docs/what-you-see.md");

/// What the page has to show, whatever else it does.
const CASES: &[&str] = &[
    "kubectl get wolcfg",
    "kubectl get wolcfg -o wide",
    "kubectl describe vm -n home desktop",
    "kubectl describe vm -n home installer",
    "kubectl describe vm -n lab bench",
    "kubectl describe vm -n kiosks lobby",
    "kubectl describe wolcfg lab",
    "kubectl describe vm -n lab build-1",
    "kubectl get wolconfig default -o yaml",
    case::LOG,
];

#[test]
fn every_case_is_on_the_page() {
    let blocks = blocks(PAGE);
    let commands: Vec<_> = blocks.iter().map(|block| block.command).collect();
    assert_eq!(commands, CASES);
    for Block { command, shown } in blocks {
        let lines = shown.iter().filter(|line| line.trim() != "...");
        assert!(lines.count() > 0, "{command} shows nothing");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_page_shows_is_what_is_printed() {
    let program = Path::new(env!("CARGO_BIN_EXE_kubevirt-wol"));
    let Some(kubectl) = Kubectl::find() else {
        return;
    };
    let Some(cluster) = Cluster::real(program).await else {
        return;
    };
    let case = case::prepare(&cluster).await;
    let mut wrong = Vec::new();
    for Block { command, shown } in blocks(PAGE) {
        let printed = if command == case::LOG {
            case.wakes()
        } else {
            let words: Vec<_> = command.split(' ').skip(1).collect();
            kubectl.run(&cluster, &words)
        };
        if !shows(&shown, &printed) {
            let lines = printed
                .lines()
                .map(|line| line.trim_end().to_owned() + "\n");
            let printed: String = lines.collect();
            wrong.push(format!("```console\n$ {command}\n{printed}```\n"));
        }
    }
    assert!(
        wrong.is_empty(),
        "docs/what-you-see.md shows what is not printed. Printed is this, of which the page may \
         replace lines by one line of `...`:\n\n{}",
        wrong.join("\n")
    );
}
