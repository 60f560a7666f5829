//! What kubelet learns of an agent, by the program's own probe.

use std::{
    os::unix::net::UnixListener,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use kubevirt_wol::cli::AgentArgs;

use crate::{
    bed::{Agent, args, free_address, free_port, millis, settings},
    fake_manager::FakeManager,
};

/// Longer than anything takes that is expected to happen.
const SOON: Duration = Duration::from_secs(20);

/// Its exit code and what it said.
fn probe(what: &str, socket: &Path) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kubevirt-wol"));
    let output = command
        .args(["probe", what])
        .env("WOL_HEALTH_SOCKET", socket)
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(said).unwrap())
}

/// Waits until the probe says so.
async fn expect(what: &str, socket: &Path, code: i32, words: &str) {
    let deadline = Instant::now() + SOON;
    loop {
        let (ended, said) = probe(what, socket);
        if ended == Some(code) && said.contains(words) {
            return;
        }
        assert!(Instant::now() < deadline, "{ended:?} {said}");
        tokio::time::sleep(millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_is_ready_once_a_manager_has_configured_it_and_until_it_ends() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("health.sock");
    let (address, port) = (free_address(), free_port());
    expect("ready", &socket, 1, "no agent runs with --health-socket").await;
    let agent = Agent::start(AgentArgs {
        health_socket: Some(socket.clone()),
        ..args(address, &[port])
    });
    expect("live", &socket, 0, "ok").await;
    expect(
        "ready",
        &socket,
        1,
        "not ready: waiting for the settings from a manager",
    )
    .await;
    let mut manager = FakeManager::start(address).await;
    let (_, mut session) = manager.accept().await;
    session.configure(settings(1, &[port])).await;
    expect("ready", &socket, 0, "ok").await;
    drop((session, manager));
    tokio::time::sleep(millis(300)).await;
    expect("ready", &socket, 0, "ok").await;
    agent.stop();
    expect("ready", &socket, 1, "no agent runs with --health-socket").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_agents_of_a_node_are_asked_by_sockets_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let start = |name: &str| {
        let socket = folder.path().join(name);
        let health_socket = Some(socket.clone());
        let manager = free_address();
        let args = AgentArgs {
            health_socket,
            ..args(manager, &[port])
        };
        (Agent::start(args), socket)
    };
    let ((old, first), (_new, second)) = (start("old.sock"), start("new.sock"));
    expect("live", &first, 0, "ok").await;
    expect("live", &second, 0, "ok").await;
    old.stop();
    expect("live", &first, 1, "no agent runs").await;
    expect("live", &second, 0, "ok").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_gives_an_agent_that_hangs_three_seconds() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("health.sock");
    let hangs = UnixListener::bind(&socket).unwrap();
    let began = Instant::now();
    expect("live", &socket, 1, "does not answer within 3 s").await;
    assert!(
        began.elapsed() >= Duration::from_secs(3),
        "it waits that long"
    );
    drop(hangs);
    expect("live", &socket, 1, "has ended").await;
}
