//! What is told of passwords, to whom, and that none of it is a password.

use serde_json::{Value, json};

use crate::{
    bed::{SECRET, delete, put, ready, refused, wakes_soon},
    common::{
        cluster::{Cluster, get},
        rights::{OTHER_PASSWORDS, give_other_passwords},
    },
    view::{MAC, NS, OTHER, condition, config, is, status},
};

fn message<'a>(status: &'a Value, kind: &str) -> &'a str {
    condition(status, kind)["message"].as_str().unwrap()
}

pub(crate) async fn only_secrets_that_the_manager_was_told_of_are_read(c: &Cluster) {
    let (names, data) = (
        [OTHER_PASSWORDS, "kubevirt-wol-ca"],
        [("default", &b"secret"[..])],
    );
    put(c, OTHER_PASSWORDS, &data).await;
    if c.server().is_none() {
        give_other_passwords(&c.client).await;
    }
    let (manager, agent) = ready(c, &[]).await;
    for (name, reason) in names
        .into_iter()
        .zip(["SecureOnSecretNotAllowed", "SecureOnSecretOfAuthority"])
    {
        c.config("default", json!({"secureOn": {"secretName": name}}))
            .await;
        let seen = status(c, "default", reason, |s| {
            condition(s, "Ready")["reason"] == reason && is(s, "Degraded", "True")
        })
        .await;
        assert!(message(&seen, "Ready").contains(SECRET), "{seen:#}");
        refused(&manager, &agent, MAC, b"secret").await;
    }
    assert_eq!(crate::bed::starts(c, "desktop"), 0);
    drop((manager, agent));
    // Told of both, the manager serves the one, and does not start for the other.
    let both = format!("{OTHER_PASSWORDS},{SECRET}");
    c.config("default", json!({"secureOn": {"secretName": names[0]}}))
        .await;
    let manager = c.manager(&["--secure-on-secret", &both]).await;
    let agent = c.agent("node-1", &manager, crate::common::process::free_udp());
    wakes_soon(c, &agent, (MAC, "desktop"), b"secret").await;
    let mut refusing = c.manager_at(
        crate::common::process::free_tcp(),
        &["--secure-on-secret", names[1]],
    );
    let ended = refusing.process.ended(crate::common::cluster::SOON);
    assert_eq!(ended.code(), Some(2), "{}", refusing.process.text());
    delete(c, OTHER_PASSWORDS).await;
}

pub(crate) async fn a_key_that_opens_nothing_is_named_and_its_value_is_not(c: &Cluster) {
    let secret: &[(&str, &[u8])] = &[
        ("home.desktop", b"hunter2hunter2"),
        ("Home.Laptop", b"secret"),
        ("default", b"secret"),
    ];
    let (manager, agent) = ready(c, secret).await;
    let seen = status(c, "default", "which keys are none", |s| {
        condition(s, "Degraded")["reason"] == "SecureOnKeysUnusable"
    })
    .await;
    let told = message(&seen, "Degraded");
    assert!(told.contains("Home.Laptop; home.desktop"), "{told}");
    assert!(!seen.to_string().contains("hunter2"), "{seen:#}");
    assert!(is(&seen, "Ready", "True"), "the other VMs wake: {seen:#}");
    // Fails closed: the default is not this VM's.
    refused(&manager, &agent, MAC, b"secret").await;
    wakes_soon(c, &agent, (OTHER, "laptop"), b"secret").await;
    put(c, SECRET, &[("home.desktop", b"secret")]).await;
    wakes_soon(c, &agent, (MAC, "desktop"), b"secret").await;
    status(c, "default", "that all keys are well", |s| {
        condition(s, "Degraded")["reason"] != "SecureOnKeysUnusable"
    })
    .await;
}

pub(crate) async fn a_config_that_opens_the_same_vms_is_told(c: &Cluster) {
    let (_manager, agent) = ready(c, &[("default", b"secret")]).await;
    status(c, "default", "that nothing is open", |s| {
        is(s, "SecureOnBypassed", "False")
    })
    .await;
    let mapping = json!({"macAddress": MAC, "vmName": "desktop", "namespace": NS});
    c.config(
        "open",
        json!({"discoveryMode": "Explicit", "explicitMappings": [mapping]}),
    )
    .await;
    let seen = status(c, "default", "which VM is open", |s| {
        is(s, "SecureOnBypassed", "True")
    })
    .await;
    let told = message(&seen, "SecureOnBypassed");
    assert!(told.ends_with(": home/desktop by open"), "{told}");
    wakes_soon(c, &agent, (MAC, "desktop"), b"").await;
    assert!(is(
        &config(c, "open").await["status"],
        "SecureOnBypassed",
        "False"
    ));
    c.delete_config("open").await;
    status(c, "default", "that nothing is open", |s| {
        is(s, "SecureOnBypassed", "False")
    })
    .await;
}

pub(crate) async fn no_password_is_shown_anywhere(c: &Cluster) {
    let (right, wrong) = (&b"Pa55-A"[..], &b"Pa55-B"[..]);
    let secret = [("default", right), ("home.laptop", b"Pa55-not-one")];
    let (manager, agent) = ready(c, &secret).await;
    refused(&manager, &agent, MAC, wrong).await;
    refused(&manager, &agent, OTHER, right).await;
    wakes_soon(c, &agent, (MAC, "desktop"), right).await;
    crate::bed::told(c, "laptop", "SecureOn").await;
    let seen = status(c, "default", "an unusable key", |s| {
        condition(s, "Degraded")["reason"] == "SecureOnKeysUnusable"
    })
    .await;
    let metrics = get(manager.admin, "/metrics").unwrap().1;
    let mut shown = vec![manager.process.text(), agent.process.text(), metrics];
    shown.push(seen.to_string());
    for name in ["desktop", "laptop"] {
        shown.extend(c.events(NS, name).await);
    }
    // As text, as bytes of a debugger, in hexadecimal, and as a Secret holds them.
    for form in [
        "Pa55",
        "[80, 97, 53, 53",
        "50613535",
        "50:61:35:35",
        "UGE1NS",
    ] {
        for text in &shown {
            assert!(!text.contains(form), "{form} in {text}");
        }
    }
}
