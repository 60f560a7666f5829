//! What a config's status tells, and its Events.

use std::time::Duration;

use serde_json::{Value, json};

use super::view::{MAC, NS, OTHER, condition, config, is, mapping, obstacle, prepared, status};
pub(crate) use super::{leaders::*, surroundings::*};
use crate::common::{
    cluster::{Cluster, INSECURE, eventually},
    kubevirt::vm::{RunStrategy, vm},
    process::free_udp,
};

/// VMs of every kind that a status has a word for.
async fn add_all_kinds(c: &Cluster) {
    c.kubevirt
        .add(&vm(NS, "desktop").mac("52-54-00-00-00-01"))
        .await;
    c.kubevirt
        .add(&vm(NS, "no-mac").interface_without_mac())
        .await;
    c.kubevirt.add(&vm(NS, "bad-mac").mac("not a mac")).await;
    c.kubevirt
        .add(&vm(NS, "group-mac").mac("01:00:5e:00:00:01"))
        .await;
    c.kubevirt
        .add(&vm(NS, "zero-mac").mac("00:00:00:00:00:00"))
        .await;
    for (name, strategy, mac) in [
        ("once", RunStrategy::Once, "52:54:00:00:00:03"),
        ("always", RunStrategy::Always, "52:54:00:00:00:04"),
        ("receiver", RunStrategy::WaitAsReceiver, "52:54:00:00:00:05"),
    ] {
        c.kubevirt
            .add(&vm(NS, name).mac(mac).run_strategy(strategy))
            .await;
    }
}

pub(crate) async fn a_status_tells_what_a_config_does(c: &Cluster) {
    let port = free_udp();
    prepared(c, json!({"wolPort": port})).await;
    add_all_kinds(c).await;
    let manager = c.manager(&[]).await;
    let _agent = c.agent("node-1", &manager, port);
    let seen = status(c, "default", "all there is", |s| {
        s["managedVMs"] == 3 && s["agentStatus"]["configured"] == 1 && s["unwakeableTotal"] == 7
    })
    .await;
    assert_eq!(seen["observedGeneration"], 1);
    assert_eq!(seen["ports"], json!([port]));
    assert_eq!(
        seen["agentStatus"],
        json!({"connected": 1, "configured": 1})
    );
    assert_eq!(seen["mappingsTotal"], 3);
    let mappings = [
        mapping(MAC, "desktop"),
        mapping("52:54:00:00:00:03", "once"),
        mapping("52:54:00:00:00:04", "always"),
    ];
    assert_eq!(
        seen["mappings"],
        json!(mappings),
        "in the order of their addresses"
    );
    for (name, word) in [
        ("no-mac", "no interface"),
        ("bad-mac", "that a packet can name"),
        ("group-mac", "that a packet can name"),
        ("zero-mac", "that a packet can name"),
        ("once", "Once"),
        ("always", "Always"),
        ("receiver", "migration"),
    ] {
        let reason = obstacle(&seen, name);
        assert!(reason.contains(word), "{name}: {reason:?}");
    }
    for (kind, wanted) in [
        ("Ready", "True"),
        ("Degraded", "False"),
        ("MACConflict", "False"),
        ("CacheStale", "False"),
        ("AgentFieldsIgnored", "False"),
        ("KubeVirtMissing", "False"),
    ] {
        assert!(is(&seen, kind, wanted), "{kind}: {seen:#}");
        assert_eq!(condition(&seen, kind)["observedGeneration"], 1, "{kind}");
    }
    assert!(seen["lastSync"].is_string());
}

/// What `kubectl get wolcfg -o wide` asks for and prints, without the age.
async fn columns(c: &Cluster) -> Vec<(String, Value)> {
    let request = http::Request::get("/apis/wol.pillon.org/v1beta1/wolconfigs/default")
        .header("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")
        .body(Vec::new());
    let table: Value = c.client.request(request.unwrap()).await.expect("a table");
    let names = table["columnDefinitions"].as_array().unwrap().iter();
    let cells = table["rows"][0]["cells"].as_array().unwrap();
    let names = names.map(|column| column["name"].as_str().unwrap().to_owned());
    let columns = names.zip(cells.iter().cloned());
    columns.filter(|(name, _)| name != "Age").collect()
}

pub(crate) async fn the_columns_show_what_an_admin_asks_for(c: &Cluster) {
    let port = free_udp();
    prepared(c, json!({"wolPort": port})).await;
    c.kubevirt.add(&vm(NS, "desktop").mac(MAC)).await;
    let manager = c.manager(&[]).await;
    let _agent = c.agent("node-1", &manager, port);
    status(c, "default", "an agent", |s| {
        s["agentStatus"]["configured"] == 1
    })
    .await;
    let shown = columns(c).await;
    let expected = [
        ("Name", json!("default")),
        ("Mode", json!("All")),
        ("Ports", json!(format!("[{port}]"))),
        ("VMs", json!(1)),
        ("Agents", json!(1)),
        ("Ready", json!("True")),
        ("Conflicts", json!(0)),
        ("Last Wake", Value::Null),
    ];
    assert_eq!(shown, expected.map(|(name, cell)| (name.to_owned(), cell)));
}

pub(crate) async fn two_vms_with_one_address_are_told_until_one_is_gone(c: &Cluster) {
    prepared(c, json!({})).await;
    c.kubevirt.add(&vm(NS, "desktop").mac(MAC)).await;
    let _manager = c.manager(&[]).await;
    let before = status(c, "default", "no conflict", |s| {
        is(s, "MACConflict", "False") && s["managedVMs"] == 1
    })
    .await;
    c.kubevirt.add(&vm(NS, "twin").mac("5254.0000.0001")).await;
    let seen = status(c, "default", "a conflict", |s| is(s, "MACConflict", "True")).await;
    let names = json!([format!("{NS}/desktop"), format!("{NS}/twin")]);
    assert_eq!(
        seen["conflicts"],
        json!([{"macAddress": MAC, "vms": names}])
    );
    assert_eq!(
        (&seen["conflictsTotal"], &seen["managedVMs"]),
        (&json!(1), &json!(0))
    );
    let message = condition(&seen, "MACConflict")["message"].as_str().unwrap();
    assert!(
        message.contains(MAC) && message.contains("home/twin"),
        "{message}"
    );
    assert_eq!(
        condition(&seen, "Ready"),
        condition(&before, "Ready"),
        "what did not change keeps its time"
    );
    for (namespace, name) in [("default", "default"), (NS, "desktop"), (NS, "twin")] {
        eventually(&format!("an Event on {name}"), async || {
            let events = c.events(namespace, name).await;
            events
                .iter()
                .any(|event| event.contains(MAC) && event.contains("home/twin"))
        })
        .await;
    }
    c.kubevirt.delete(NS, "twin").await;
    let after = status(c, "default", "no conflict", |s| {
        is(s, "MACConflict", "False")
    })
    .await;
    assert_eq!(after["mappings"], json!([mapping(MAC, "desktop")]));
    assert_eq!(after.get("conflicts"), None, "{after:#}");
}

async fn version(c: &Cluster) -> Value {
    config(c, "default").await["metadata"]["resourceVersion"].take()
}

pub(crate) async fn what_nobody_changes_is_not_written_again(c: &Cluster) {
    prepared(c, json!({})).await;
    c.kubevirt.add(&vm(NS, "desktop").mac(MAC)).await;
    let _manager = c.manager(&[]).await;
    let seen = status(c, "default", "a VM", |s| s["managedVMs"] == 1).await;
    let first = version(c).await;
    for round in 0..5 {
        let change = json!({"metadata": {"annotations": {"round": round.to_string()}}});
        c.kubevirt.edit(NS, "desktop", change).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(version(c).await, first);
    // Nor do a new generation and a new VM touch the time of a condition that stays.
    c.config("default", json!({"wolPorts": [4009]})).await;
    c.kubevirt.add(&vm(NS, "other").mac(OTHER)).await;
    let later = status(c, "default", "a VM more", |s| {
        s["managedVMs"] == 2 && s["observedGeneration"] == 2
    })
    .await;
    for kind in ["Ready", "Degraded", "MACConflict"] {
        let time = |s| condition(s, kind)["lastTransitionTime"].clone();
        assert_eq!(time(&later), time(&seen), "{kind}");
        assert_eq!(condition(&later, kind)["observedGeneration"], 2, "{kind}");
    }
}

pub(crate) async fn the_last_wake_is_told_by_who_served_it_and_not_too_often(c: &Cluster) {
    prepared(c, json!({})).await;
    c.config("elsewhere", json!({"namespaceSelectors": ["none"]}))
        .await;
    c.kubevirt.add(&vm(NS, "desktop").mac(MAC)).await;
    c.kubevirt.add(&vm(NS, "other").mac(OTHER)).await;
    // It cannot lead, and serves wakes all the same.
    let manager = c.manager(&["--namespace", "nowhere", INSECURE]).await;
    let agent = c.agent_at("node-1", manager.grpc, free_udp(), &[INSECURE]);
    agent.configured();
    agent.hears(MAC);
    let seen = status(c, "default", "a wake", |s| s["lastWake"].is_object()).await;
    let wake = &seen["lastWake"];
    for (field, wanted) in [
        ("macAddress", MAC),
        ("vmName", "desktop"),
        ("namespace", NS),
        ("node", "node-1"),
        ("outcome", "started"),
    ] {
        assert_eq!(wake[field], wanted, "{field}");
    }
    let origin = wake["origin"].as_str().unwrap();
    assert!(origin.contains("127.0.0.1"), "{origin}");
    agent.hears(OTHER);
    c.kubevirt.wait_for_status(NS, "other", "Running").await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let soon = config(c, "default").await;
    assert_eq!(
        soon["status"]["lastWake"]["vmName"], "desktop",
        "once in ten seconds"
    );
    status(c, "default", "the next wake", |s| {
        s["lastWake"]["vmName"] == "other"
    })
    .await;
    let untouched = config(c, "elsewhere").await;
    assert_eq!(untouched["status"]["lastWake"], Value::Null);
}

pub(crate) async fn what_makes_no_sense_is_told_and_the_rest_works(c: &Cluster) {
    let twice = json!([
        {"macAddress": MAC, "vmName": "desktop", "namespace": NS},
        {"macAddress": "52-54-00-00-00-01", "vmName": "other", "namespace": NS},
        {"macAddress": OTHER, "vmName": "other", "namespace": NS},
    ]);
    prepared(
        c,
        json!({"discoveryMode": "Explicit", "explicitMappings": twice}),
    )
    .await;
    c.config(
        "locked",
        json!({"secureOn": {"secretName": "kubevirt-wol-secureon"}}),
    )
    .await;
    c.config(
        "original",
        json!({"agent": {"image": "example.test/agent:1"}}),
    )
    .await;
    c.kubevirt.add(&vm("home", "other")).await;
    let _manager = c.manager(&[]).await;
    let seen = status(c, "default", "a problem", |s| {
        is(s, "Degraded", "True") && s["managedVMs"] == 1
    })
    .await;
    let message = condition(&seen, "Degraded")["message"].as_str().unwrap();
    assert!(
        message.contains("explicitMappings[1]") && message.contains(MAC),
        "{message}"
    );
    assert_eq!(seen["mappings"], json!([mapping(OTHER, "other")]));
    eventually("an Event on the config", async || {
        let events = c.events("default", "default").await;
        events
            .iter()
            .any(|event| event.starts_with("ConfigRejected: ") && event.contains(MAC))
    })
    .await;
    let locked = status(c, "locked", "that it is locked", |s| {
        is(s, "Ready", "False")
    })
    .await;
    assert_eq!(
        condition(&locked, "Ready")["reason"],
        "SecureOnSecretMissing"
    );
    let seen = status(c, "original", "ignored fields", |s| {
        is(s, "AgentFieldsIgnored", "True")
    })
    .await;
    assert!(
        is(&seen, "Degraded", "False"),
        "accepted for compatibility: {seen:#}"
    );
}

pub(crate) async fn a_mapping_waits_for_its_vm(c: &Cluster) {
    let mappings = json!([{"macAddress": MAC, "vmName": "later", "namespace": NS}]);
    prepared(
        c,
        json!({"discoveryMode": "Explicit", "explicitMappings": mappings}),
    )
    .await;
    let _manager = c.manager(&[]).await;
    let seen = status(c, "default", "what is missing", |s| {
        s["unwakeableTotal"] == 1
    })
    .await;
    assert!(
        obstacle(&seen, "later").contains("does not exist"),
        "{seen:#}"
    );
    assert_eq!(seen["managedVMs"], 0);
    c.kubevirt.add(&vm(NS, "later")).await;
    let seen = status(c, "default", "a VM", |s| s["managedVMs"] == 1).await;
    assert_eq!(seen["mappings"], json!([mapping(MAC, "later")]));
    assert_eq!(seen["unwakeableTotal"], 0);
    c.kubevirt.delete(NS, "later").await;
    status(c, "default", "no VM", |s| {
        s["managedVMs"] == 0 && s["unwakeableTotal"] == 1
    })
    .await;
}

pub(crate) async fn selections_follow_labels_and_configs(c: &Cluster) {
    let selector = json!({"matchLabels": {"wol": "yes"}});
    prepared(
        c,
        json!({"discoveryMode": "LabelSelector", "vmSelector": selector}),
    )
    .await;
    c.kubevirt
        .add(&vm(NS, "desktop").mac(MAC).label("wol", "yes"))
        .await;
    c.kubevirt
        .add(&vm(NS, "twin").mac(MAC).label("wol", "no"))
        .await;
    let _manager = c.manager(&[]).await;
    status(c, "default", "one VM", |s| s["managedVMs"] == 1).await;
    let relabel = |value: &str| json!({"metadata": {"labels": {"wol": value}}});
    c.kubevirt.edit(NS, "twin", relabel("yes")).await;
    status(c, "default", "a conflict", |s| s["conflictsTotal"] == 1).await;
    c.kubevirt.edit(NS, "desktop", relabel("no")).await;
    let seen = status(c, "default", "the other VM", |s| s["managedVMs"] == 1).await;
    assert_eq!(seen["mappings"], json!([mapping(MAC, "twin")]));
    c.config("default", json!({"discoveryMode": "All"})).await;
    status(c, "default", "a conflict again", |s| {
        s["conflictsTotal"] == 1
    })
    .await;
    c.config("default", json!({"namespaceSelectors": ["nowhere"]}))
        .await;
    let seen = status(c, "default", "nothing", |s| {
        s["conflictsTotal"] == 0 && s["managedVMs"] == 0 && s["observedGeneration"] == 3
    })
    .await;
    assert!(
        is(&seen, "Ready", "True"),
        "a selection may be empty: {seen:#}"
    );
}
