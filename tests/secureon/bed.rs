//! A cluster with a config that wants passwords, and senders that carry them.

use std::net::UdpSocket;

use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api,
    api::{DeleteParams, PostParams},
};
use kubevirt_wol::packet::MagicPacket;
use serde_json::json;

use crate::{
    common::{
        cluster::{Agent, Cluster, Manager, eventually},
        kubevirt::vm::vm,
        process::free_udp,
    },
    view::{MAC, NS, OTHER},
};

pub(crate) const SECRET: &str = "kubevirt-wol-secureon";

/// Where the tests' managers look for Secrets.
const NAMESPACE: &str = "default";

/// The definitions, no Secret, a config that wants passwords of it, the VMs `desktop` and `laptop`,
/// a manager and an agent.
pub(crate) async fn ready(c: &Cluster, secret: &[(&str, &[u8])]) -> (Manager, Agent) {
    c.install_crd().await;
    c.namespace(NS).await;
    delete(c, SECRET).await;
    if !secret.is_empty() {
        put(c, SECRET, secret).await;
    }
    c.config("default", json!({"secureOn": {"secretName": SECRET}}))
        .await;
    c.kubevirt.add(&vm(NS, "desktop").mac(MAC)).await;
    c.kubevirt.add(&vm(NS, "laptop").mac(OTHER)).await;
    let manager = c.manager(&[]).await;
    let agent = c.agent("node-1", &manager, free_udp());
    (manager, agent)
}

fn secrets(c: &Cluster) -> Api<Secret> {
    Api::namespaced(c.client.clone(), NAMESPACE)
}

/// Creates or replaces a Secret.
pub(crate) async fn put(c: &Cluster, name: &str, data: &[(&str, &[u8])]) {
    let mut secret = Secret::default();
    secret.metadata.name = Some(name.into());
    let data = data.iter().map(|(key, value)| {
        let value = k8s_openapi::ByteString(value.to_vec());
        ((*key).to_owned(), value)
    });
    secret.data = Some(data.collect());
    let (api, params) = (secrets(c), PostParams::default());
    let result = match api.create(&params, &secret).await {
        Err(kube::Error::Api(status)) if status.is_already_exists() => {
            api.replace(name, &params, &secret).await
        }
        result => result,
    };
    result.expect("the Secret is taken");
}

/// Deletes a Secret, where there is one.
pub(crate) async fn delete(c: &Cluster, name: &str) {
    match secrets(c).delete(name, &DeleteParams::default()).await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.is_not_found() => {}
        Err(error) => panic!("cannot delete Secret {name}: {error}"),
    }
}

/// Sends a magic packet with a password to an agent, or to all of loopback.
pub(crate) fn send(address: &str, port: u16, mac: &str, password: &[u8]) {
    let packet = MagicPacket::new(mac.parse().unwrap(), password).unwrap();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_broadcast(true).unwrap();
    let sent = socket.send_to(&packet.to_bytes(), (address, port));
    sent.expect("loopback can be sent to");
}

pub(crate) fn hears(agent: &Agent, mac: &str, password: &[u8]) {
    send("127.0.0.1", agent.port, mac, password);
}

/// How often the VM was called to start.
pub(crate) fn starts(c: &Cluster, name: &str) -> usize {
    c.kubevirt.codes(NS, name).len()
}

/// Sends packets until the VM was called to start.
pub(crate) async fn wakes_soon(
    c: &Cluster,
    agent: &Agent,
    (mac, name): (&str, &str),
    password: &[u8],
) {
    eventually(&format!("{mac} wakes {name}"), async || {
        hears(agent, mac, password);
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        starts(c, name) > 0
    })
    .await;
}

/// Sends one packet and waits until a wake more than before was answered as a wrong password.
pub(crate) async fn refused(manager: &Manager, agent: &Agent, mac: &str, password: &[u8]) {
    let count = || manager.metric(r#"kubevirt_wol_wakes_total{outcome="wrong-password"}"#);
    let before = count();
    hears(agent, mac, password);
    eventually("the packet is refused", async || {
        // Spares the processor for who has to answer.
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        count() > before
    })
    .await;
}

/// Whether an Event on the VM says this.
pub(crate) async fn told(c: &Cluster, name: &str, text: &str) {
    eventually(&format!("an Event on {name}: {text}"), async || {
        let events = c.events(NS, name).await;
        let ignored = |event: &&String| event.starts_with("WakeOnLanIgnored: ");
        events.iter().filter(ignored).any(|e| e.contains(text))
    })
    .await;
}
