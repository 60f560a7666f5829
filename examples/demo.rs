//! The main job, on this machine alone: an API stand-in, a manager and two agents as processes of
//! their own, which know each other by TLS and tokens, and magic packets that start a VM or do not.
//! Needs no cluster and no root.
//!
//! `cargo run --release --example demo`: exit 0 only if everything happened as it should, read
//! from the stand-in's own record of requests. `-- --serve` keeps it up to play with; `-- --flood`
//! goes on with a flood of packets, and `-- --program FILE` plays with another program than its own,
//! such as that of the image. CI does both.

#![allow(
    clippy::print_stdout,
    clippy::expect_used,
    reason = "the demo tells its story on standard output, and what it cannot do ends it"
)]

#[path = "../tests/common/mod.rs"]
mod common;
#[path = "demo/flood.rs"]
mod flood;
#[path = "demo/story.rs"]
mod story;
#[path = "demo/strangers.rs"]
mod strangers;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::Parser;
use common::{
    cluster::{Agent, Cluster, Manager},
    kubevirt::vm::{RunStrategy, vm},
    process::free_udp,
};
use story::Story;
use tokio::signal::unix::{SignalKind, signal};

/// The sample that users start with.
const SAMPLE: &str = include_str!("../deploy/samples/wol_v1beta1_wolconfig.yaml");

const NAMESPACE: &str = "demo";
const DESKTOP: &str = "52:54:00:00:00:01";
const SERVER: &str = "52:54:00:00:00:02";
const BUSY: &str = "52:54:00:00:00:03";
const SHARED: &str = "52:54:00:00:00:04";
/// Nothing in the story wakes it: it is for visitors.
const SPARE: &str = "52:54:00:00:00:05";
const UNKNOWN: &str = "52:54:00:00:00:99";

#[derive(Parser)]
#[command(about = "See a magic packet start a VM, without a cluster and without root")]
struct Options {
    /// Keep everything up afterwards, to play with kubectl and kubevirt-wol send.
    #[arg(long)]
    serve: bool,
    /// Wake more VMs during 50,000 other packets per second; wants an optimised build.
    #[arg(long, conflicts_with = "serve")]
    flood: bool,
    /// Leave the sample configuration out, so that nothing is wakeable and the demo fails.
    #[arg(long)]
    without_config: bool,
    /// The program to see at work, such as that of the image, in place of the one in this demo.
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
}

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args_os().collect();
    // The manager, the agents and the sender are this very program, by its library's own entry.
    let subcommand = args.get(1).and_then(|first| first.to_str());
    if matches!(subcommand, Some("manager" | "agent" | "send" | "crd")) {
        return kubevirt_wol::run(args);
    }
    let options = Options::parse();
    let runtime = tokio::runtime::Runtime::new().expect("the async runtime starts");
    runtime.block_on(demo(&options))
}

async fn demo(options: &Options) -> ExitCode {
    let mut story = Story::begin();
    let own = || std::env::current_exe().expect("the demo knows its own file");
    let program = options.program.clone().unwrap_or_else(own);
    let bed = Bed::make(&mut story, &program, options).await;
    strangers::chapter_agents(&mut story, &bed);
    chapter_broadcast(&mut story, &bed).await;
    chapter_repeat(&mut story, &bed).await;
    chapter_halted(&mut story, &bed).await;
    chapter_refused(&mut story, &bed);
    strangers::chapter_strangers(&mut story, &bed).await;
    verdict(&mut story, &bed).await;
    if options.flood {
        flood::chapter(&mut story, bed).await;
        return story.end();
    }
    let code = story.end();
    if options.serve {
        serve(&story, &bed).await;
    }
    code
}

/// What the story plays on.
struct Bed {
    cluster: Cluster,
    manager: Manager,
    agents: [Agent; 2],
    port: u16,
    program: PathBuf,
}

impl Bed {
    async fn make(story: &mut Story, program: &Path, options: &Options) -> Self {
        Story::chapter("A cluster, as far as a wake needs one");
        let cluster = Cluster::stand_in(program).await;
        story.tell(
            "api",
            "an API server stand-in with KubeVirt's start, on loopback",
        );
        cluster.install_crd().await;
        cluster.namespace(NAMESPACE).await;
        let port = free_udp();
        if options.without_config {
            story.tell("admin", "no WolConfig: nothing is wakeable");
        } else {
            let mut sample: serde_json::Value =
                serde_yaml::from_str(SAMPLE).expect("the sample is YAML");
            // The sample's port 9 is not for everybody to open.
            sample["spec"]["wolPort"] = port.into();
            cluster.config("default", sample["spec"].clone()).await;
            story.tell(
                "admin",
                &format!(
                    "applied deploy/samples/wol_v1beta1_wolconfig.yaml with wolPort {port}: every VM is wakeable"
                ),
            );
        }
        Self::virtual_machines(story, &cluster).await;
        if options.flood {
            flood::virtual_machines(&cluster).await;
        }
        let manager = cluster.manager(&[]).await;
        story.tell("manager", "ready");
        let agents = ["node-1", "node-2"].map(|node| {
            let agent = cluster.agent(node, &manager, port);
            story.tell(
                node,
                &format!("agent listens on UDP port {port} and has a session with the manager"),
            );
            agent
        });
        Self {
            cluster,
            manager,
            agents,
            port,
            program: program.to_owned(),
        }
    }

    async fn virtual_machines(story: &mut Story, cluster: &Cluster) {
        let manual = |name: &str| vm(NAMESPACE, name).run_strategy(RunStrategy::Manual);
        let kubevirt = &cluster.kubevirt;
        kubevirt.add(&manual("desktop").mac(DESKTOP)).await;
        // Another notation, as people write them.
        let server = vm(NAMESPACE, "server").mac("5254.0000.0002");
        kubevirt
            .add(&server.run_strategy(RunStrategy::Halted))
            .await;
        let busy = vm(NAMESPACE, "busy")
            .mac(BUSY)
            .run_strategy(RunStrategy::Always);
        kubevirt.create(&busy).await;
        kubevirt
            .add(&manual("nameless").interface_without_mac())
            .await;
        kubevirt.add(&manual("twin-1").mac(SHARED)).await;
        kubevirt.add(&manual("twin-2").mac(SHARED)).await;
        kubevirt.add(&manual("spare").mac(SPARE)).await;
        kubevirt.wait_for_status(NAMESPACE, "busy", "Running").await;
        story.tell(
            "admin",
            "seven VMs: desktop and spare (Manual), server (Halted), busy (running), nameless (no MAC), twin-1 and twin-2 (one MAC)",
        );
    }

    /// Sends by the real `send`, to both agents at once.
    fn send(&self, story: &mut Story, mac: &str, copies: u32) {
        story.send(&self.program, mac, self.port, copies);
    }
}

async fn chapter_broadcast(story: &mut Story, bed: &Bed) {
    Story::chapter("A packet is broadcast, in three copies, and every node hears it");
    bed.send(story, DESKTOP, 3);
    story.follow(bed, DESKTOP, "started");
    let on = story.running(&bed.cluster, NAMESPACE, "desktop").await;
    story.expect("demo/desktop is Running", on);
    let heard = bed.agents.iter().all(|agent| agent.heard(DESKTOP) == 1);
    story.expect("each node reported the three copies once", heard);
}

async fn chapter_repeat(story: &mut Story, bed: &Bed) {
    Story::chapter(
        "Sent again after the agents' 2 s and within the managers' 10 s, it is a repeat",
    );
    tokio::time::sleep(Duration::from_millis(2100)).await;
    bed.send(story, DESKTOP, 1);
    story.follow(bed, DESKTOP, "duplicate");
}

async fn chapter_halted(story: &mut Story, bed: &Bed) {
    Story::chapter("A Halted VM starts, too, and is told what that means");
    bed.send(story, SERVER, 1);
    story.follow(bed, SERVER, "started");
    let on = story.running(&bed.cluster, NAMESPACE, "server").await;
    story.expect("demo/server is Running", on);
}

fn chapter_refused(story: &mut Story, bed: &Bed) {
    Story::chapter("What starts nothing, and why");
    for (mac, outcome) in [
        (BUSY, "already-on"),
        (SHARED, "ambiguous"),
        (UNKNOWN, "not-found"),
    ] {
        bed.send(story, mac, 1);
        story.follow(bed, mac, outcome);
    }
}

/// Holds the record of requests against what should have happened.
async fn verdict(story: &mut Story, bed: &Bed) {
    Story::chapter("What the API server's record says");
    let server = bed.cluster.server().expect("the demo runs on the stand-in");
    let called = |name: &str| {
        let path = format!("/namespaces/{NAMESPACE}/virtualmachines/{name}/start");
        let requests = server.requests().into_iter();
        requests
            .filter(|r| r.method == http::Method::PUT && r.path.ends_with(&path))
            .count()
    };
    for name in ["desktop", "server"] {
        story.expect(&format!("{name}: one start"), called(name) == 1);
    }
    for name in ["busy", "spare", "nameless", "twin-1", "twin-2"] {
        story.expect(&format!("{name}: no start"), called(name) == 0);
    }
    for (name, word) in [
        ("desktop", "node-"),
        ("server", "Manual"),
        ("twin-1", "twin-2"),
        ("twin-2", "twin-1"),
    ] {
        let told = story.event(&bed.cluster, NAMESPACE, name, word).await;
        story.expect(&format!("{name}: an Event says so"), told);
    }
}

/// Stays up until it is told to end, and tells what is heard and decided meanwhile.
async fn serve(story: &Story, bed: &Bed) {
    let mut terminated = signal(SignalKind::terminate()).expect("signals can be waited for");
    let kubeconfig = bed.cluster.kubeconfig().display();
    let send = format!("{} send --broadcast 127.255.255.255", bed.program.display());
    println!("\nEverything stays up until Ctrl-C. In another terminal, wake the spare VM:\n");
    println!("  {send} --port {} {SPARE}\n", bed.port);
    println!("and look at it:\n");
    println!("  export KUBECONFIG={kubeconfig}");
    println!("  kubectl get vm,wolcfg -A");
    println!("  kubectl describe vm -n {NAMESPACE} spare");
    println!("  curl -s http://{}/metrics\n", bed.manager.admin);
    println!(
        "Agents hear UDP port {}, the manager takes TLS and tokens of agents on {}.\n",
        bed.port, bed.manager.grpc
    );
    tokio::select! {
        // Fails only where no signal handler can be installed; then it ends at once.
        _ = tokio::signal::ctrl_c() => {}
        _ = terminated.recv() => {}
        () = story.narrate(bed) => {}
    }
}
