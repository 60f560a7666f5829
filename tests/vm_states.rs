//! What is read of a `VirtualMachine`, and what a wake makes of its state.

#![allow(
    clippy::unwrap_used,
    reason = "a fixture that breaks has to fail the test"
)]

use kube::{ResourceExt as _, api::WatchEvent};
use kubevirt_wol::{
    kubevirt::VirtualMachine,
    manager::vm::{Power, RunStrategy, Vm},
};
use serde_json::{Value, json};

const ONCE: &str = "runStrategy Once starts a VM only once; use Manual or RerunOnFailure";

fn read(value: &Value) -> VirtualMachine {
    serde_json::from_str(&value.to_string()).unwrap()
}

fn vm(spec: &Value, status: &Value) -> Vm {
    let object = json!({
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachine",
        "metadata": {"name": "web", "namespace": "shop", "uid": "u-1", "resourceVersion": "7"},
        "spec": spec,
        "status": status,
    });
    read(&object).into()
}

fn power(strategy: &str, status: &str) -> Power {
    let spec = json!({"runStrategy": strategy});
    vm(&spec, &json!({"printableStatus": status})).power
}

/// For each status: what it means for Halted, Manual, `RerunOnFailure`, Always, Once.
#[test]
fn every_printable_status_has_a_meaning() {
    use Power::{Gone, Off, On, Paused, Receiver, Stopping, Stuck};
    let never = Power::Unsupported(ONCE);
    let failed = Stuck("DataVolumeError");
    let crashing = Stuck("CrashLoopBackOff");
    let table = [
        ("Terminating", [Gone; 5]),
        ("Stopping", [Stopping, Stopping, Stopping, Stopping, never]),
        ("Migrating", [On; 5]),
        ("Paused", [Paused; 5]),
        ("Running", [On; 5]),
        ("ErrorPvcNotFound", [Stuck("ErrorPvcNotFound"); 5]),
        ("DataVolumeError", [Off, Off, Off, failed, failed]),
        ("ErrorUnschedulable", [Stuck("ErrorUnschedulable"); 5]),
        ("Provisioning", [Off, Off, Off, On, On]),
        ("WaitingForVolumeBinding", [On; 5]),
        ("ErrImagePull", [Stuck("ErrImagePull"); 5]),
        ("ImagePullBackOff", [Stuck("ImagePullBackOff"); 5]),
        ("Starting", [On; 5]),
        ("CrashLoopBackOff", [Off, Off, Off, crashing, crashing]),
        ("Stopped", [Off, Off, Off, On, never]),
        ("WaitingForReceiver", [Receiver; 5]),
        ("Unknown", [Off, Off, Off, On, never]),
        ("", [Off, Off, Off, On, never]),
        ("SomethingFromTheFuture", [Off, Off, Off, On, never]),
    ];
    for (status, expected) in table {
        let strategies = ["Halted", "Manual", "RerunOnFailure", "Always", "Once"];
        let seen = strategies.map(|strategy| power(strategy, status));
        assert_eq!(seen, expected, "{status}");
    }
}

#[test]
fn the_receiving_end_of_a_migration_is_never_a_candidate() {
    for status in ["Stopped", "Starting", "Running", "WaitingForReceiver", "?"] {
        let power = power("WaitAsReceiver", status);
        assert_eq!(power, Power::Receiver, "{status}");
        assert!(!power.is_candidate());
    }
}

#[test]
fn a_strategy_from_the_future_is_tried() {
    assert_eq!(power("Sometimes", "Stopped"), Power::Off);
    assert_eq!(power("Sometimes", "Running"), Power::On);
}

#[test]
fn running_stands_for_a_strategy() {
    let of = |spec: Value| {
        let vm = vm(&spec, &json!({"printableStatus": "Stopped"}));
        (vm.strategy, vm.power)
    };
    let halted = (RunStrategy::Halted, Power::Off);
    assert_eq!(
        of(json!({"running": true})),
        (RunStrategy::Always, Power::On)
    );
    assert_eq!(of(json!({"running": false})), halted);
    assert_eq!(of(json!({})), halted);
    assert_eq!(
        of(json!({"running": true, "runStrategy": "Manual"})),
        (RunStrategy::Manual, Power::Off)
    );
}

#[test]
fn a_deleted_vm_is_gone_whatever_its_status_says() {
    let vm: Vm = read(&json!({
        "metadata": {"name": "web", "deletionTimestamp": "2026-11-23T10:00:00Z"},
        "spec": {"runStrategy": "Manual"},
        "status": {"printableStatus": "Stopped"},
    }))
    .into();
    assert_eq!(vm.power, Power::Gone);
}

#[test]
fn a_change_under_way_counts() {
    let pending = |strategy: &str, status: &str, actions: &[&str]| {
        let changes: Vec<_> = actions.iter().map(|a| json!({"action": a})).collect();
        let status = json!({
            "printableStatus": status,
            "created": true,
            "stateChangeRequests": changes,
        });
        vm(&json!({"runStrategy": strategy}), &status).power
    };
    for (strategy, status, actions, expected) in [
        ("Manual", "Stopped", &["Start"][..], Power::On),
        ("Manual", "Stopped", &["Stop"], Power::Stopping),
        // A guest powered off, and a start clears its remains away first.
        ("Manual", "Stopped", &["Stop", "Start"], Power::On),
        ("RerunOnFailure", "Stopped", &["Stop", "Start"], Power::On),
        // A restart has to stop first, like any stop.
        ("Manual", "Stopping", &["Stop", "Start"], Power::Stopping),
        ("RerunOnFailure", "Stopped", &["Stop"], Power::Stopping),
        ("RerunOnFailure", "CrashLoopBackOff", &["Start"], Power::On),
        // Left over from before; KubeVirt accepts a start all the same.
        ("Halted", "Stopped", &["Stop"], Power::Off),
        ("Always", "Stopped", &["Start"], Power::On),
    ] {
        let seen = pending(strategy, status, actions);
        assert_eq!(seen, expected, "{strategy} {status} {actions:?}");
    }
}

#[test]
fn a_disk_that_is_imported_says_nothing_of_its_vm() {
    let power = |status| vm(&json!({"runStrategy": "Manual"}), &status).power;
    let importing = json!({"printableStatus": "Provisioning"});
    assert_eq!(power(importing), Power::Off, "nobody has started it");
    let asked = json!([{"action": "Start"}]);
    let asked = json!({"printableStatus": "Provisioning", "stateChangeRequests": asked});
    assert_eq!(power(asked), Power::On);
    let created = json!({"printableStatus": "Provisioning", "created": true});
    assert_eq!(power(created), Power::On, "its VMI waits for the disk");
}

#[test]
fn readiness_outweighs_a_status_that_says_nothing() {
    let with = |status: &str, ready: bool, created: bool| {
        vm(
            &json!({"runStrategy": "Manual"}),
            &json!({"printableStatus": status, "ready": ready, "created": created}),
        )
        .power
    };
    assert_eq!(with("FromTheFuture", true, true), Power::On);
    // The VMI of a guest that powered itself off stays.
    assert_eq!(with("Stopped", false, true), Power::Off);
    assert_eq!(with("DataVolumeError", true, true), Power::On);
    let failed = Power::Stuck("DataVolumeError");
    assert_eq!(with("DataVolumeError", false, true), failed);
}

#[test]
fn a_guest_that_runs_is_told_from_one_that_is_on_its_way() {
    let running = |status: &str, ready: bool| {
        let status = json!({"printableStatus": status, "ready": ready});
        vm(&json!({"runStrategy": "Always"}), &status).running
    };
    for status in ["Running", "Migrating", "Paused"] {
        assert!(running(status, false), "{status}");
    }
    for status in [
        "Starting",
        "Provisioning",
        "WaitingForVolumeBinding",
        "Stopped",
        "Stopping",
    ] {
        assert!(!running(status, false), "{status}");
    }
    assert!(running("FromTheFuture", true));
}

fn with_interfaces(interfaces: &Value) -> Vm {
    let devices = json!({"domain": {"devices": {"interfaces": interfaces}}});
    let template = json!({"metadata": null, "spec": devices});
    vm(&json!({"template": template}), &json!({}))
}

#[test]
fn addresses_are_read_in_every_notation_that_kubevirt_admits() {
    for text in [
        "DE:AD:00:00:be:af",
        "de-ad-00-00-be-af",
        "DEAD.0000.beaf",
        "dead0000beaf",
    ] {
        let vm = with_interfaces(&json!([{"name": "a", "macAddress": text}]));
        assert_eq!(vm.macs, ["de:ad:00:00:be:af".parse().unwrap()], "{text}");
        assert!(vm.bad_macs.is_empty());
    }
}

#[test]
fn only_addresses_that_a_packet_can_name_count() {
    let vm = with_interfaces(&json!([
        {"name": "a", "macAddress": "ff:ff:ff:ff:ff:ff"},
        {"name": "b", "macAddress": "00:00:00:00:00:00"},
        {"name": "c", "macAddress": "01:00:5e:00:00:01"},
        {"name": "d", "macAddress": "nonsense"},
        {"name": "e", "macAddress": "52:54:00:00:00:01", "state": "absent"},
        {"name": "f", "macAddress": "52:54:00:00:00:02", "state": "down"},
        {"name": "g", "macAddress": "52-54-00-00-00-02"},
        {"name": "h", "macAddress": ""},
        {"name": "i"},
    ]));
    assert_eq!(vm.macs, ["52:54:00:00:00:02".parse().unwrap()]);
    assert_eq!(
        vm.bad_macs,
        [
            "ff:ff:ff:ff:ff:ff",
            "00:00:00:00:00:00",
            "01:00:5e:00:00:01",
            "nonsense"
        ]
    );
}

#[test]
fn what_is_shown_of_bad_addresses_is_bounded() {
    let many: Vec<_> = (0..256)
        .map(|_| json!({"macAddress": "x".repeat(10_000)}))
        .collect();
    let vm = with_interfaces(&many.into());
    assert!(vm.bad_macs.iter().map(String::len).sum::<usize>() <= 8 * 64);
}

#[test]
fn what_may_be_missing_may_be_null_too() {
    for object in [
        json!({"metadata": {"name": "web"}}),
        json!({"metadata": {"name": "web"}, "spec": null, "status": null}),
        json!({"metadata": {"name": "web", "labels": null}, "spec": {"template": null}}),
        json!({"metadata": {"name": "web"}, "spec": {"template": {"spec": {"domain": null}}}}),
        json!({"metadata": {"name": "web"}, "status": {"stateChangeRequests": []}}),
    ] {
        let vm = read(&object);
        assert_eq!(vm.malformed, None, "{object}");
        assert_eq!(Vm::from(vm).power, Power::Off, "{object}");
    }
}

#[test]
fn a_field_of_a_wrong_type_spoils_one_vm_and_not_its_list() {
    let nics = |nics: Value| json!({"spec": {"template": {"spec": {"domain": {"devices": {"interfaces": nics}}}}}});
    let fine = json!({"metadata": {"name": "fine"}, "spec": {"runStrategy": "Manual"}});
    for (mut odd, field) in [
        (json!({"spec": "text"}), "spec"),
        (json!({"spec": {"running": "yes"}}), "spec.running"),
        (
            json!({"spec": {"runStrategy": ["Manual", {"a": [1]}]}}),
            "spec.runStrategy",
        ),
        (json!({"spec": {"template": 1.5}}), "spec.template"),
        (json!({"status": [1, {"a": 2}]}), "status"),
        (json!({"status": {"ready": -1}}), "status.ready"),
        (
            json!({"status": {"printableStatus": {"a": {"b": []}}}}),
            "status.printableStatus",
        ),
        (nics(json!({"0": {}})), "interfaces"),
        (nics(json!([7])), "interfaces"),
        (nics(json!([{"macAddress": 5}])), "interfaces[].macAddress"),
    ] {
        odd["metadata"] = json!({"name": "odd", "namespace": "shop"});
        let text = json!([fine, odd, fine]).to_string();
        let list: Vec<VirtualMachine> = serde_json::from_str(&text).unwrap();
        assert_eq!(list[1].malformed, Some(field), "{odd}");
        assert_eq!(list[1].name_any(), "odd");
        for vm in [&list[0], &list[2]] {
            assert_eq!((vm.malformed, vm.name_any()), (None, "fine".into()));
            assert_eq!(vm.run_strategy.as_deref(), Some("Manual"));
        }
    }
    let labels = json!({"metadata": {"name": "odd", "labels": {"a": 1, "b": "c"}}});
    assert_eq!(read(&labels).malformed, Some("metadata.labels"));
}

#[test]
fn a_watch_event_is_read_in_any_order_of_its_fields() {
    let vm = r#"{"metadata": {"name": "a", "labels": {"b": "c"}}, "status": {"ready": true}}"#;
    for text in [
        format!(r#"{{"type": "ADDED", "object": {vm}}}"#),
        format!(r#"{{"object": {vm}, "type": "ADDED"}}"#),
    ] {
        match serde_json::from_str(&text).unwrap() {
            WatchEvent::<VirtualMachine>::Added(vm) => {
                assert!(vm.ready);
                assert_eq!(vm.labels()["b"], "c");
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn bulk_is_not_kept() {
    let vm = read(&json!({
        "metadata": {
            "name": "web",
            "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "x".repeat(4000)},
            "managedFields": [{"manager": "kubectl", "fieldsV1": {"f:spec": {}}}],
            "finalizers": ["kubevirt.io/virtualMachineControllerFinalize"],
        },
    }));
    assert!(vm.metadata.annotations.is_none());
    assert!(vm.metadata.managed_fields.is_none());
    assert!(vm.metadata.finalizers.is_none());
}
