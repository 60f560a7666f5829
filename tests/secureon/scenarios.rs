//! Which packets wake, each told as: given a Secret, when a packet comes, then a VM starts or not.

use std::time::Duration;

use serde_json::json;

use kubevirt_wol::rpc::pb::{
    WolEvent, wol_event_response::Status, wol_service_client::WolServiceClient,
};

use crate::{
    bed::{SECRET, delete, hears, put, ready, refused, send, starts, told, wakes_soon},
    common::{
        apiserver::{Fault, When},
        cluster::{Cluster, eventually},
        kubevirt::vm::vm,
        process::{free_tcp, free_udp},
    },
    view::{MAC, NS, OTHER, condition, is, status},
};

pub(crate) use crate::told::*;

/// Longer than a wake takes: what has not happened by then does not happen.
const A_WHILE: Duration = Duration::from_millis(700);
const DESKTOP: (&str, &str) = (MAC, "desktop");
const LAPTOP: (&str, &str) = (OTHER, "laptop");

pub(crate) async fn passwords_of_four_and_six_bytes_wake(c: &Cluster) {
    let secret: &[(&str, &[u8])] = &[
        ("home.desktop", b"192.168.1.1\n"),
        ("home.laptop", b"\x01\x23\x45\x67\x89\xab"),
    ];
    let (_manager, agent) = ready(c, secret).await;
    wakes_soon(c, &agent, DESKTOP, &[192, 168, 1, 1]).await;
    wakes_soon(c, &agent, LAPTOP, b"\x01\x23\x45\x67\x89\xab").await;
    status(c, "default", "that it serves", |s| is(s, "Ready", "True")).await;
}

pub(crate) async fn a_wrong_password_starts_nothing_and_is_told_on_the_vm(c: &Cluster) {
    let (manager, agent) = ready(c, &[("home.desktop", b"secret")]).await;
    for wrong in [&b"secreT"[..], b"secr", &[0; 6]] {
        refused(&manager, &agent, MAC, wrong).await;
    }
    told(c, "desktop", "SecureOn password is wrong").await;
    refused(&manager, &agent, OTHER, b"secret").await;
    told(c, "laptop", "their Secret has none for it").await;
    assert_eq!((starts(c, "desktop"), starts(c, "laptop")), (0, 0));
}

pub(crate) async fn a_packet_without_a_password_starts_nothing(c: &Cluster) {
    let (manager, agent) = ready(c, &[("default", b"secret")]).await;
    refused(&manager, &agent, MAC, b"").await;
    told(c, "desktop", "the packet has none").await;
    assert_eq!(starts(c, "desktop"), 0);
}

pub(crate) async fn a_wrong_password_never_hides_the_right_one(c: &Cluster) {
    let (manager, agent) = ready(c, &[("default", b"secret")]).await;
    refused(&manager, &agent, MAC, b"wrong!").await;
    // Within every window of repeats.
    hears(&agent, MAC, b"secret");
    c.kubevirt.wait_for_status(NS, "desktop", "Running").await;
    // The right one first, and each from two nodes that hear both.
    let second = c.agent("node-2", &manager, agent.port);
    send("127.255.255.255", agent.port, OTHER, b"secret");
    send("127.255.255.255", agent.port, OTHER, b"wrong!");
    c.kubevirt.wait_for_status(NS, "laptop", "Running").await;
    for node in [&agent, &second] {
        eventually("each node heard both", async || node.heard(OTHER) >= 2).await;
    }
    tokio::time::sleep(A_WHILE).await;
    assert_eq!(c.kubevirt.codes(NS, "desktop"), [202]);
    assert_eq!(c.kubevirt.codes(NS, "laptop"), [202]);
    // The wrong one hides nothing from the other node either.
    let third = "52:54:00:00:00:03";
    c.kubevirt.add(&vm(NS, "tablet").mac(third)).await;
    eventually("the right one wakes on", async || {
        send("127.255.255.255", agent.port, third, b"wrong!");
        send("127.255.255.255", agent.port, third, b"secret");
        tokio::time::sleep(Duration::from_millis(50)).await;
        starts(c, "tablet") > 0
    })
    .await;
}

pub(crate) async fn the_right_password_after_a_thousand_wrong_ones_wakes(c: &Cluster) {
    let (_manager, agent) = ready(c, &[("default", b"secret")]).await;
    for number in 0..1000_u32 {
        hears(&agent, MAC, &number.to_be_bytes());
        if number % 50 == 49 {
            // The socket's buffer is no part of this.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    // As senders do.
    for _ in 0..3 {
        hears(&agent, MAC, b"secret");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    c.kubevirt.wait_for_status(NS, "desktop", "Running").await;
    assert_eq!(c.kubevirt.codes(NS, "desktop"), [202]);
    let events = c.events(NS, "desktop").await;
    assert!(events.len() < 10, "told in bounds: {events:?}");
}

pub(crate) async fn the_key_of_a_vm_goes_before_the_default(c: &Cluster) {
    let secret: &[(&str, &[u8])] = &[("home.desktop", b"deskpw"), ("default", b"others")];
    let (manager, agent) = ready(c, secret).await;
    wakes_soon(c, &agent, LAPTOP, b"others").await;
    refused(&manager, &agent, MAC, b"others").await;
    assert_eq!(starts(c, "desktop"), 0);
    wakes_soon(c, &agent, DESKTOP, b"deskpw").await;
}

pub(crate) async fn another_password_counts_at_once(c: &Cluster) {
    let (manager, agent) = ready(c, &[("default", b"before")]).await;
    wakes_soon(c, &agent, LAPTOP, b"before").await;
    put(c, SECRET, &[("default", b"after!")]).await;
    wakes_soon(c, &agent, DESKTOP, b"after!").await;
    c.kubevirt.stop(NS, "desktop").await;
    c.kubevirt.wait_for_status(NS, "desktop", "Stopped").await;
    refused(&manager, &agent, MAC, b"before").await;
    assert_eq!(starts(c, "desktop"), 1);
}

pub(crate) async fn a_secret_may_be_made_later_and_deleted_again(c: &Cluster) {
    let (manager, agent) = ready(c, &[]).await;
    let missing = status(c, "default", "that the Secret is missing", |s| {
        condition(s, "Ready")["reason"] == "SecureOnSecretMissing"
    })
    .await;
    let message = condition(&missing, "Ready")["message"].as_str().unwrap();
    let remedy = format!("kubectl create secret generic {SECRET}");
    assert!(message.contains(&remedy), "{message}");
    refused(&manager, &agent, MAC, b"secret").await;
    put(c, SECRET, &[("default", b"secret")]).await;
    wakes_soon(c, &agent, DESKTOP, b"secret").await;
    status(c, "default", "that it serves", |s| is(s, "Ready", "True")).await;
    delete(c, SECRET).await;
    status(c, "default", "that the Secret is gone", |s| {
        is(s, "Ready", "False")
    })
    .await;
    refused(&manager, &agent, OTHER, b"secret").await;
    assert_eq!(starts(c, "laptop"), 0);
}

pub(crate) async fn passwords_serve_on_while_the_api_is_away(c: &Cluster) {
    let (manager, agent) = ready(c, &[("default", b"secret")]).await;
    refused(&manager, &agent, MAC, b"wrong!").await;
    c.cut_off(true);
    refused(&manager, &agent, MAC, b"wrong?").await;
    hears(&agent, MAC, b"secret");
    eventually("the wake waits", async || {
        manager.metric("kubevirt_wol_intents_open") >= 1.0
    })
    .await;
    c.cut_off(false);
    c.kubevirt.wait_for_status(NS, "desktop", "Running").await;
}

/// On the stand-in, which can be told to fail for one resource.
pub(crate) async fn wakes_wait_for_a_secret_that_cannot_be_read(c: &Cluster) {
    let Some(server) = c.server() else { return };
    let reads = When::matching(|request| {
        let query = request.uri.query().unwrap_or_default();
        request.uri.path().ends_with("/secrets") && query.contains(SECRET)
    });
    let reads = reads.method(http::Method::GET);
    let fault = server.faults().add(reads, Fault::internal_error());
    c.install_crd().await;
    c.namespace(NS).await;
    c.config("default", json!({"secureOn": {"secretName": SECRET}}))
        .await;
    c.kubevirt.add(&vm(NS, "desktop").mac(MAC)).await;
    let manager = c.manager(&[]).await;
    let agent = c.agent("node-1", &manager, free_udp());
    status(c, "default", "that the Secret was not read", |s| {
        condition(s, "Ready")["reason"] == "SecureOnSecretUnread"
    })
    .await;
    hears(&agent, MAC, b"secret");
    eventually("the wake is put off", async || {
        manager.metric(r#"kubevirt_wol_events_total{verdict="busy"}"#) >= 1.0
    })
    .await;
    assert_eq!(starts(c, "desktop"), 0);
    put(c, SECRET, &[("default", b"secret")]).await;
    server.faults().remove(fault);
    // One packet was enough: the agent has kept it.
    c.kubevirt.wait_for_status(NS, "desktop", "Running").await;
}

pub(crate) async fn the_original_protocol_never_carries_a_password(c: &Cluster) {
    let (_manager, agent) = ready(c, &[("default", b"\0\0\0\0")]).await;
    let plaintext = free_tcp();
    let _other = c
        .manager(&["--legacy-plaintext-bind", &plaintext.to_string()])
        .await;
    let client = WolServiceClient::connect(format!("http://{plaintext}"));
    let event = WolEvent {
        mac_address: MAC.into(),
        node_name: "old-node".into(),
        // As long as a packet with a password.
        packet_size: 108,
        ..WolEvent::default()
    };
    let answer = client.await.unwrap().report_wol_event(event).await;
    let answer = answer.expect("an answer").into_inner();
    assert_eq!(answer.status(), Status::Error, "{answer:?}");
    assert!(answer.message.contains("SecureOn"), "{}", answer.message);
    tokio::time::sleep(A_WHILE).await;
    assert_eq!(starts(c, "desktop"), 0);
    wakes_soon(c, &agent, DESKTOP, &[0; 4]).await;
}
