//! The kubectl commands of the pages, typed at a real API server where all of the manifests are
//! installed. Those that change something are tried without effect.

use std::{
    collections::BTreeSet,
    fs,
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
};

use crate::common::{
    cluster::Cluster,
    kubectl::Kubectl,
    kubevirt::vm::vm,
    pages::{Pipeline, pages, pipelines, root},
};

/// Nothing happens there in a cluster without kubelet, controllers and metrics: only that kubectl
/// understands them can be seen.
const UNDERSTOOD: [&str; 5] = ["exec", "logs", "port-forward", "rollout", "top"];
/// What is not installed where KubeVirt is simulated.
const ABSENT: [&str; 3] = ["certificate", "kubevirt", "kubevirt,pods"];
const CHANGES: [&str; 10] = [
    "annotate", "apply", "create", "delete", "edit", "expose", "label", "patch", "scale", "set",
];

/// What the pages speak of and the manifests do not have: what the programs make, and what is there
/// during a migration.
const AROUND: &str = r"
apiVersion: v1
kind: Pod
metadata: {name: kubevirt-wol-agent-x, namespace: kubevirt-wol-system, labels: {app: wol-agent}}
spec: {hostNetwork: true, containers: [{name: agent, image: kubevirt-wol}]}
---
apiVersion: v1
kind: Service
metadata: {name: kubevirt-wol-legacy, namespace: kubevirt-wol-system}
spec: {ports: [{port: 9091}]}
---
apiVersion: coordination.k8s.io/v1
kind: Lease
metadata: {name: kubevirt-wol-manager, namespace: kubevirt-wol-system}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: kubevirt-wol-banned-nodes, namespace: kubevirt-wol-system}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: wol-agent-default, namespace: kubevirt-wol-system}
spec:
  selector: {matchLabels: {wol.pillon.org/wolconfig: default}}
  template:
    metadata: {labels: {wol.pillon.org/wolconfig: default}}
    spec: {containers: [{name: agent, image: agent, args: [--node-name=n, --operator-address=m]}]}
";

/// Runs kubectl as an administrator: whether it succeeded, and what it said.
fn run(kubectl: &Kubectl, cluster: &Cluster, words: &[String], input: &str) -> (bool, String) {
    let mut command = kubectl.command(cluster);
    command.args(words).stdin(Stdio::piped());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut pipe = child.stdin.take().unwrap();
    // It need not read it.
    let _ = pipe.write_all(input.as_bytes());
    drop(pipe);
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8_lossy(&said).into_owned(),
    )
}

fn words(line: &str) -> Vec<String> {
    line.split(' ').map(str::to_owned).collect()
}

/// The same command without effect, and without waiting.
fn harmless(words: &[String]) -> Vec<String> {
    let (own, inside) = match words.iter().position(|word| word == "--") {
        Some(at) => words.split_at(at),
        None => (words, &[][..]),
    };
    let mut own = own.to_vec();
    match &*own[0] {
        // There is no dry run of an editor.
        "edit" => own.splice(..1, ["get".to_owned()]).for_each(drop),
        verb if CHANGES.contains(&verb) => own.push("--dry-run=server".to_owned()),
        "exec" | "logs" | "port-forward" => own.push("--pod-running-timeout=1s".to_owned()),
        "rollout" => own.push("--timeout=1s".to_owned()),
        _ => {}
    }
    own.extend_from_slice(inside);
    own
}

/// What is wrong with a pipeline, as far as kubectl goes.
fn fault(kubectl: &Kubectl, cluster: &Cluster, pipeline: &Pipeline) -> Option<String> {
    let mut input = String::new();
    for command in pipeline {
        let (program, words) = command.split_first()?;
        if program == "kubevirt-wol" && words == ["crd"] {
            let output = Command::new(cluster.program()).arg("crd").output().unwrap();
            input = String::from_utf8(output.stdout).unwrap();
        }
        if let ("sed", Some(file)) = (&**program, words.last()) {
            input = fs::read_to_string(root().join(file)).unwrap_or_default();
        }
        let finds = |word: &String| input.lines().any(|line| line.contains(word));
        if program == "grep" && !input.is_empty() && !words.last().is_some_and(finds) {
            return Some(format!("{}: nothing is found", pipeline.concat().join(" ")));
        }
        if program != "kubectl" || words.iter().any(|word| ABSENT.contains(&&**word)) {
            continue;
        }
        let (succeeded, said) = run(kubectl, cluster, &harmless(words), &input);
        let verb = &*words[0];
        let misunderstood = [
            "unknown flag",
            "unknown shorthand",
            "unknown command",
            "usage",
        ];
        let wrong = match verb {
            verb if UNDERSTOOD.contains(&verb) => {
                let said = said.to_lowercase();
                misunderstood.iter().any(|mark| said.contains(mark))
            }
            // Exits with 1 where there is a difference.
            "diff" => said.contains("error"),
            // The manifests give every right that the pages ask about.
            "auth" => !succeeded || said.lines().any(|line| line == "no"),
            // The page makes it before it is spoken of.
            "create" | "expose" => !succeeded && !said.contains("AlreadyExists"),
            _ => !succeeded,
        };
        if wrong {
            return Some(format!("{}: {said}", command.join(" ")));
        }
        // There is no log in which something could be found.
        let silent = UNDERSTOOD.contains(&verb);
        input = if silent { String::new() } else { said };
    }
    None
}

/// The pipelines of the pages that have kubectl in them, once each. One page shows what they print,
/// in a cluster of its own, and has a test that compares.
fn of_the_pages() -> BTreeSet<Pipeline> {
    let pages = pages().into_iter();
    let pages = pages.filter(|page| page.path != "docs/what-you-see.md");
    let all = pages.flat_map(|page| pipelines(&page.text));
    let has_kubectl = |it: &Pipeline| it.iter().any(|command| command[0] == "kubectl");
    all.filter(has_kubectl).collect()
}

async fn prepare(kubectl: &Kubectl, cluster: &Cluster) {
    cluster.fresh().await;
    cluster.namespace("home").await;
    let desktop = vm("home", "desktop").mac("52:54:00:12:34:56");
    cluster.kubevirt.add(&desktop).await;
    for (line, input) in [
        ("apply --server-side --force-conflicts -k deploy/base", ""),
        (
            "wait --for=condition=Established crd/wolconfigs.wol.pillon.org",
            "",
        ),
        ("apply -f deploy/samples/wol_v1beta1_wolconfig.yaml", ""),
        ("apply -f -", AROUND),
    ] {
        let (succeeded, said) = run(kubectl, cluster, &words(line), input);
        assert!(succeeded, "kubectl {line}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_takes_every_command_of_the_pages() {
    let program = Path::new(env!("CARGO_BIN_EXE_kubevirt-wol"));
    let Some(kubectl) = Kubectl::find() else {
        return;
    };
    let Some(cluster) = Cluster::real(program).await else {
        return;
    };
    prepare(&kubectl, &cluster).await;
    for (line, right) in [
        ("get vm -A", true),
        ("get vms-of-all -A", false),
        ("logs -n home desktop --nonsense", false),
        ("delete service -n home nonsense", false),
        ("auth can-i create daemonsets -A --as=nobody", false),
    ] {
        let command = [words("kubectl"), words(line)].concat();
        let fault = fault(&kubectl, &cluster, &vec![command]);
        assert_eq!(fault.is_none(), right, "{line}: {fault:?}");
    }
    let all = of_the_pages();
    assert!(all.len() > 60, "only {} were found", all.len());
    let faults = all
        .iter()
        .filter_map(|pipeline| fault(&kubectl, &cluster, pipeline));
    let faults: Vec<_> = faults.collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
