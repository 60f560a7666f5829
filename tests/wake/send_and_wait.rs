//! `send --wait`: who wakes a VM from a shell hears whether it runs.

use std::process::{Command, Output};

use super::{MAC, NS, ready};
use crate::common::{
    cluster::{Agent, Cluster},
    kubevirt::vm::{RunStrategy, vm},
};

/// Sends one packet to the agent, and waits.
async fn send_and_wait(c: &Cluster, agent: &Agent, args: &[&str]) -> Output {
    let mut command = Command::new(c.program());
    for (key, _) in std::env::vars_os() {
        if key.to_str().is_some_and(|key| key.starts_with("WOL_")) {
            command.env_remove(key);
        }
    }
    let port = agent.port.to_string();
    command
        .env("KUBECONFIG", c.kubeconfig())
        .args([
            "send",
            "--broadcast=127.0.0.1",
            "--count=1",
            "--port",
            &port,
        ])
        .args(args);
    let run = tokio::task::spawn_blocking(move || command.output());
    run.await.unwrap().unwrap()
}

fn lines(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub(crate) async fn who_sends_and_waits_is_told_that_the_vm_runs(c: &Cluster) {
    let (_manager, agent) = ready(c).await;
    c.kubevirt.add(&vm(NS, "desktop").mac(MAC)).await;
    let args = ["vm/home/desktop", "--wait", "--wait-timeout=30s"];
    let output = send_and_wait(c, &agent, &args).await;
    let told = lines(&output);
    assert_eq!(output.status.code(), Some(0), "{told}");
    assert_eq!(c.kubevirt.boots(NS, "desktop"), 1);
    assert!(told.contains("running vm/home/desktop: runs, "), "{told}");

    // By its address, and as a program reads it: it runs already.
    let args = [MAC, "--wait=home/desktop", "--json"];
    let output = send_and_wait(c, &agent, &args).await;
    let told = lines(&output);
    assert_eq!(output.status.code(), Some(0), "{told}");
    assert!(told.contains(r#""status":"running""#), "{told}");
    assert_eq!(c.kubevirt.boots(NS, "desktop"), 1);
}

pub(crate) async fn who_sends_and_waits_is_told_why_the_vm_does_not_run(c: &Cluster) {
    let (_manager, agent) = ready(c).await;
    // One that KubeVirt starts once only, and that is off.
    let once = vm(NS, "desktop").mac(MAC).run_strategy(RunStrategy::Once);
    c.kubevirt.add(&once).await;
    let args = ["vm/home/desktop", "--wait", "--wait-timeout=30s"];
    let output = send_and_wait(c, &agent, &args).await;
    let told = lines(&output);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("failed  vm/home/desktop: "), "{told}");
    assert!(told.contains("runStrategy Once"), "{told}");

    let args = ["vm/home/desktop", "--wait=home/nobody", "--wait-timeout=1s"];
    let output = send_and_wait(c, &agent, &args).await;
    let told = lines(&output);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(
        told.contains("failed  vm/home/nobody: it does not exist"),
        "{told}"
    );
    // The manager tells the same trouble once in a minute.
    assert!(
        told.contains("is Stopped after 1s; the last that was said of it: "),
        "{told}"
    );
}
