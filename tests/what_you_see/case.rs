//! Owns the cluster that the page tells of: what is in it, and what has happened there.

use serde_json::{Value, json};

use crate::common::{
    cluster::{Agent, Cluster, Manager, eventually},
    kubevirt::vm::{RunStrategy, Vm, vm},
    process::free_udp,
};
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, ResourceExt as _, api::PostParams};
use kubevirt_wol::crd::WolConfig;

/// How the page asks for the lines that a manager logs of wakes.
pub(crate) const LOG: &str = "kubectl logs -n kubevirt-wol-system \
     deploy/kubevirt-wol-controller-manager | grep '\"wake\"'";

const DESKTOP: &str = "52:54:00:12:34:56";
const INSTALLER: &str = "52:54:00:12:34:57";
const BENCH: &str = "52:54:00:ab:cd:01";
const LOBBY: &str = "52:54:00:ab:cd:03";
const BUILD: &str = "52:54:00:ab:cd:02";

/// What has to stay while the commands run.
pub(crate) struct Case {
    manager: Manager,
    _agent: Agent,
}

impl Case {
    /// The lines that the manager logged of wakes.
    pub(crate) fn wakes(&self) -> String {
        let lines = self.manager.process.lines().into_iter();
        let wakes = lines.filter(|line| line.message() == "wake");
        wakes.map(|line| line.text + "\n").collect()
    }
}

/// Makes the cluster, sends the packets, and waits until everything is told.
pub(crate) async fn prepare(c: &Cluster) -> Case {
    c.install_crd().await;
    let port = free_udp();
    let home = json!({"wolPort": port, "namespaceSelectors": ["home"]});
    c.config("default", home).await;
    let sources = ["10.20.0.0/16"];
    let lab = json!({"wolPort": port, "namespaceSelectors": ["lab"], "sourceRanges": sources});
    c.config("lab", lab).await;
    let secret = json!({"secretName": passwords(c).await});
    let kiosks = json!({"wolPort": port, "namespaceSelectors": ["kiosks"], "secureOn": secret});
    c.config("kiosks", kiosks).await;
    for (machine, mac) in machines() {
        c.namespace(machine.namespace()).await;
        c.kubevirt.add(&machine.mac(mac)).await;
    }
    let manager = c.manager(&[]).await;
    let agent = c.agent("node-1", &manager, port);
    // One after the other, so that the log has one order.
    for (namespace, name, mac, told) in [
        ("home", "desktop", DESKTOP, "WakeOnLanStarted"),
        ("home", "installer", INSTALLER, "WakeOnLanRefused"),
        ("lab", "bench", BENCH, "WakeOnLanIgnored"),
        ("kiosks", "lobby", LOBBY, "WakeOnLanIgnored"),
    ] {
        agent.hears(mac);
        told_on(c, namespace, name, told).await;
    }
    c.kubevirt
        .wait_for_status("home", "desktop", "Running")
        .await;
    told_on(c, "lab", "build-1", "WakeOnLanAmbiguous").await;
    told_on(c, "default", "lab", "MACConflict").await;
    status(c, "default", |s| {
        s["agentStatus"]["configured"] == 1 && s["lastWake"]["outcome"] == "started"
    })
    .await;
    for config in ["lab", "kiosks"] {
        status(c, config, |s| s["agentStatus"]["configured"] == 1).await;
    }
    Case {
        manager,
        _agent: agent,
    }
}

/// Makes the Secret with the passwords; its name.
async fn passwords(c: &Cluster) -> String {
    let name = "kubevirt-wol-secureon";
    let secret = json!({"metadata": {"name": name}, "stringData": {"default": "192.168.1.1"}});
    let secret: Secret = serde_json::from_value(secret).unwrap();
    let api = Api::namespaced(c.client.clone(), "default");
    let created = api.create(&PostParams::default(), &secret).await;
    created.unwrap().name_any()
}

fn machines() -> [(Vm, &'static str); 6] {
    [
        (vm("home", "desktop"), DESKTOP),
        (
            vm("home", "installer").run_strategy(RunStrategy::Once),
            INSTALLER,
        ),
        (vm("lab", "bench"), BENCH),
        (vm("kiosks", "lobby"), LOBBY),
        (vm("lab", "build-1"), BUILD),
        (vm("lab", "build-2"), BUILD),
    ]
}

async fn told_on(c: &Cluster, namespace: &str, name: &str, reason: &str) {
    eventually(&format!("{reason} on {name}"), async || {
        let events = c.events(namespace, name).await;
        events.iter().any(|event| event.starts_with(reason))
    })
    .await;
}

async fn status(c: &Cluster, name: &str, holds: impl Fn(&Value) -> bool) {
    let api = Api::<WolConfig>::all(c.client.clone());
    eventually(&format!("the status of {name} is complete"), async || {
        let config = api.get(name).await.unwrap();
        holds(&serde_json::to_value(config.status).unwrap())
    })
    .await;
}
