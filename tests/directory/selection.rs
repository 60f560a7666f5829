//! Which VMs the configs make wakeable, by which packets.

use std::time::{Duration, Instant};

use kubevirt_wol::{
    crd::WolConfigSpec,
    manager::{
        directory::Refusal,
        grant::{Grant, Problem},
        vm::{Power, Vm},
    },
};

use crate::fixture::{
    all, directory, explicit, labelled, look_up, outcome, version, vm, wake_from,
};

#[test]
fn without_any_config_nothing_is_wakeable() {
    let directory = directory(&[], &[vm("web", &[1])]);
    assert_eq!(look_up(&directory, 1), "shop/web: NoConfig");
    assert_eq!(look_up(&directory, 2), "not found");
}

#[test]
fn each_mode_selects_what_it_says() {
    let vms = [vm("web", &[1]), vm("db", &[2]), vm("lab/web", &[3])];
    let in_lab = WolConfigSpec {
        namespace_selectors: vec!["lab".into()],
        ..all()
    };
    let web_in_lab = WolConfigSpec {
        namespace_selectors: vec!["lab".into()],
        ..labelled("web")
    };
    let mapped = explicit(&[("52:54:00:00:00:02", "db")]);
    for (what, spec, woken) in [
        ("all", all(), [true, true, true]),
        ("all of a namespace", in_lab, [false, false, true]),
        ("labels", labelled("web"), [true, false, true]),
        ("labels in a namespace", web_in_lab, [false, false, true]),
        ("explicit", mapped, [false, true, false]),
    ] {
        let directory = directory(&[spec], &vms);
        let seen = [1, 2, 3].map(|last| look_up(&directory, last).starts_with("wakes"));
        assert_eq!(seen, woken, "{what}");
    }
}

#[test]
fn a_selector_that_says_nothing_selects_nothing() {
    for selector in [None, Some(serde_json::from_str("{}").unwrap())] {
        let spec = WolConfigSpec {
            vm_selector: selector,
            ..labelled("web")
        };
        let (_, problems) = Grant::new("config", &spec);
        assert!(matches!(problems[..], [Problem::NoSelector]));
        let directory = directory(&[spec], &[vm("web", &[1])]);
        assert_eq!(look_up(&directory, 1), "shop/web: NoConfig");
    }
}

#[test]
fn configs_add_up_and_none_widens_another() {
    let lab_net = WolConfigSpec {
        source_ranges: vec!["192.168.0.0/16".into()],
        ..labelled("db")
    };
    let directory = directory(
        &[labelled("web"), lab_net],
        &[vm("web", &[1]), vm("db", &[2]), vm("other", &[3])],
    );
    assert_eq!(look_up(&directory, 1), "wakes shop/web");
    // The first config listens to everybody, but not for this VM.
    assert_eq!(look_up(&directory, 2), "shop/db: Source");
    assert_eq!(look_up(&directory, 3), "shop/other: NoConfig");
    let from_lab =
        |last| outcome(&directory.look_up(&wake_from(last, "eth0", "192.168.1.1"), Duration::ZERO));
    assert_eq!(from_lab(2), "wakes shop/db");
    let from_a_pod = directory.look_up(&wake_from(1, "veth12ab", "10.0.0.7"), Duration::ZERO);
    assert_eq!(outcome(&from_a_pod), "shop/web: Source");
}

#[test]
fn an_address_of_two_selected_vms_wakes_neither() {
    let running = Vm {
        power: Power::On,
        ..vm("b", &[1])
    };
    let twins = [vm("a", &[1]), running.clone()];
    let both = directory(&[all()], &twins);
    assert_eq!(look_up(&both, 1), "ambiguous shop/a shop/b");
    assert_eq!(
        look_up(&directory(&[labelled("a")], &twins), 1),
        "wakes shop/a"
    );
    assert_eq!(
        look_up(&directory(&[labelled("a"), labelled("b")], &twins), 1),
        "ambiguous shop/a shop/b"
    );
    for power in [Power::Gone, Power::Receiver] {
        let leaving = version(
            "2",
            Vm {
                power,
                ..running.clone()
            },
        );
        both.apply(leaving, Instant::now());
        assert_eq!(look_up(&both, 1), "wakes shop/a", "{power:?}");
        both.apply(running.clone(), Instant::now());
    }
    both.delete(&running.key);
    assert_eq!(look_up(&both, 1), "wakes shop/a");
}

#[test]
fn two_vms_of_one_address_are_ambiguous_whoever_sends() {
    let lab_net = WolConfigSpec {
        source_ranges: vec!["192.168.0.0/16".into()],
        ..labelled("b")
    };
    let twins = [vm("a", &[1]), vm("b", &[1])];
    let directory = directory(&[labelled("a"), lab_net], &twins);
    assert_eq!(look_up(&directory, 1), "ambiguous shop/a shop/b");
}

#[test]
fn a_mapping_comes_before_discovery() {
    let mapping = explicit(&[("52-54-00-00-00-01", "db")]);
    let vms = [vm("web", &[1]), vm("db", &[2])];
    let directory = directory(&[all(), mapping], &vms);
    assert_eq!(look_up(&directory, 1), "wakes shop/db");
    assert_eq!(look_up(&directory, 2), "wakes shop/db");
}

#[test]
fn a_mapping_settles_an_ambiguity() {
    let mapping = explicit(&[("52:54:00:00:00:01", "b")]);
    let directory = directory(&[all(), mapping], &[vm("a", &[1]), vm("b", &[1])]);
    assert_eq!(look_up(&directory, 1), "wakes shop/b");
}

#[test]
fn a_mapping_obeys_the_sources_of_its_own_config() {
    let mapping = WolConfigSpec {
        source_ranges: vec!["192.168.0.0/16".into()],
        ..explicit(&[("52:54:00:00:00:09", "web")])
    };
    let directory = directory(&[all(), mapping], &[vm("web", &[1])]);
    // The other config covers the VM, but this address is not the VM's own.
    assert_eq!(look_up(&directory, 9), "shop/web: Source");
    assert_eq!(look_up(&directory, 1), "wakes shop/web");
}

#[test]
fn a_mapped_vm_is_wakeable_as_soon_as_it_exists() {
    let directory = directory(&[explicit(&[("52:54:00:00:00:09", "new")])], &[]);
    assert_eq!(look_up(&directory, 9), "missing shop/new");
    directory.apply(vm("new", &[]), Instant::now());
    assert_eq!(look_up(&directory, 9), "wakes shop/new");
    let deleting = Vm {
        power: Power::Gone,
        ..vm("new", &[])
    };
    directory.apply(version("2", deleting), Instant::now());
    assert_eq!(look_up(&directory, 9), "missing shop/new");
}

#[test]
fn mappings_that_disagree_are_ambiguous() {
    let first = explicit(&[("52:54:00:00:00:01", "a")]);
    let second = explicit(&[("52:54:00:00:00:01", "b")]);
    let vms = [vm("a", &[]), vm("b", &[])];
    let apart = directory(&[first.clone(), second], &vms);
    assert_eq!(look_up(&apart, 1), "ambiguous shop/a shop/b");
    let agreeing = directory(&[first.clone(), first], &vms);
    assert_eq!(look_up(&agreeing, 1), "wakes shop/a");
    let spec = explicit(&[("52:54:00:00:00:01", "a"), ("525400000001", "b")]);
    let (_, problems) = Grant::new("config", &spec);
    assert!(matches!(problems[..], [Problem::MappedTwice(1, _)]));
    assert_eq!(
        look_up(&directory(&[spec], &vms), 1),
        "ambiguous shop/a shop/b"
    );
}

#[test]
fn the_receiving_end_of_a_migration_is_not_woken() {
    let receiver = Vm {
        power: Power::Receiver,
        ..vm("target", &[1])
    };
    let source = vm("source", &[1]);
    let alone = directory(&[all()], std::slice::from_ref(&receiver));
    assert_eq!(look_up(&alone, 1), "shop/target: Receiver");
    let mapping = explicit(&[("52:54:00:00:00:01", "target")]);
    let mapped = directory(&[mapping], std::slice::from_ref(&receiver));
    assert_eq!(look_up(&mapped, 1), "shop/target: Receiver");
    let both = directory(&[all()], &[receiver, source]);
    assert_eq!(look_up(&both, 1), "wakes shop/source");
}

#[test]
fn unpausing_takes_a_config_that_allows_this_very_wake() {
    let unpausing = WolConfigSpec {
        wake_paused: true,
        source_ranges: vec!["192.168.0.0/16".into()],
        ..all()
    };
    let directory = directory(&[all(), unpausing], &[vm("web", &[1])]);
    assert_eq!(look_up(&directory, 1), "wakes shop/web");
    let near = directory.look_up(&wake_from(1, "eth0", "192.168.1.1"), Duration::ZERO);
    assert_eq!(outcome(&near), "wakes or unpauses shop/web");
}

#[test]
fn what_cannot_be_read_never_allows_more() {
    let bad_range = WolConfigSpec {
        source_ranges: vec!["10.0.0.0/64".into()],
        ..all()
    };
    let bad_interface = WolConfigSpec {
        interfaces: vec!["eth[".into()],
        ..all()
    };
    let bad_selector = WolConfigSpec {
        vm_selector: serde_json::from_value(serde_json::json!({
            "matchExpressions": [{"key": "tier", "operator": "Near", "values": ["web"]}],
        }))
        .unwrap(),
        ..labelled("web")
    };
    for (spec, why) in [
        (bad_range, Refusal::NoConfig),
        (bad_interface, Refusal::NoConfig),
        (bad_selector, Refusal::NoConfig),
    ] {
        let (_, problems) = Grant::new("config", &spec);
        assert_eq!(problems.len(), 1, "{spec:?}");
        let directory = directory(&[spec], &[vm("web", &[1])]);
        assert_eq!(look_up(&directory, 1), format!("shop/web: {why:?}"));
    }
}

#[test]
fn one_bad_mapping_or_port_leaves_the_rest_of_its_config_in_force() {
    let spec = WolConfigSpec {
        wol_ports: vec![4000, 70_000, 0],
        wol_port: Some(-9),
        ..explicit(&[
            ("nonsense", "web"),
            ("ff:ff:ff:ff:ff:ff", "web"),
            ("52:54:00:00:00:08", ""),
            ("52:54:00:00:00:09", "web"),
        ])
    };
    let (grant, problems) = Grant::new("config", &spec);
    let said: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        said,
        [
            "explicitMappings[0].macAddress",
            "explicitMappings[1].macAddress",
            "explicitMappings[2] needs vmName and namespace",
            "wolPorts: 70000 is not between 1 and 65535",
            "wolPorts: 0 is not between 1 and 65535",
            "wolPorts: -9 is not between 1 and 65535",
        ]
    );
    assert_eq!(grant.unwrap().ports, [4000].into());
    let directory = directory(&[spec], &[vm("web", &[])]);
    assert_eq!(look_up(&directory, 9), "wakes shop/web");
}
