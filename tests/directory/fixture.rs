//! VMs, configs and wakes in few words, and outcomes too.

use std::time::{Duration, Instant};

use kubevirt_wol::{
    crd::{DiscoveryMode, ExplicitMapping, WolConfigSpec},
    mac::MacAddr,
    manager::{
        directory::{Directory, Lookup},
        grant::Grant,
        vm::{Power, RunStrategy, Vm, VmKey},
    },
    packet::Trailing,
    wake::{Carrier, Origin, Wake},
};

pub(crate) fn mac(last: u8) -> MacAddr {
    MacAddr::new([0x52, 0x54, 0, 0, 0, last])
}

pub(crate) fn vm(name: &str, macs: &[u8]) -> Vm {
    let (namespace, name) = name.split_once('/').unwrap_or(("shop", name));
    Vm {
        key: VmKey::new(namespace, name),
        uid: format!("uid-of-{name}").into(),
        resource_version: "1".into(),
        labels: [("tier".to_owned(), name.to_owned())].into(),
        macs: macs.iter().copied().map(mac).collect(),
        bad_macs: Vec::new(),
        strategy: RunStrategy::Manual,
        power: Power::Off,
        running: false,
        on_since: None,
        off_since: None,
    }
}

pub(crate) fn version(version: &str, vm: Vm) -> Vm {
    Vm {
        resource_version: version.into(),
        ..vm
    }
}

pub(crate) fn wake(last: u8) -> Wake {
    wake_from(last, "eth0", "10.0.0.7")
}

pub(crate) fn wake_from(last: u8, interface: &str, source: &str) -> Wake {
    Wake {
        target: mac(last),
        trailing: Trailing::default(),
        origin: Origin {
            carrier: Carrier::Udp,
            interface: interface.into(),
            vlan: None,
            source_mac: None,
            source: source.parse().ok(),
            source_port: 9,
            length: 102,
        },
    }
}

pub(crate) fn all() -> WolConfigSpec {
    WolConfigSpec::default()
}

pub(crate) fn labelled(tier: &str) -> WolConfigSpec {
    WolConfigSpec {
        discovery_mode: DiscoveryMode::LabelSelector,
        vm_selector: serde_json::from_value(serde_json::json!({"matchLabels": {"tier": tier}}))
            .unwrap(),
        ..all()
    }
}

pub(crate) fn explicit(mappings: &[(&str, &str)]) -> WolConfigSpec {
    let mapping = |(mac, vm): &(&str, &str)| {
        let (namespace, name) = vm.split_once('/').unwrap_or(("shop", vm));
        ExplicitMapping {
            mac_address: (*mac).into(),
            vm_name: name.into(),
            namespace: namespace.into(),
        }
    };
    WolConfigSpec {
        discovery_mode: DiscoveryMode::Explicit,
        explicit_mappings: mappings.iter().map(mapping).collect(),
        ..all()
    }
}

pub(crate) fn grant(directory: &Directory, specs: &[WolConfigSpec]) {
    let grants: Vec<Grant> = specs
        .iter()
        .filter_map(|spec| Grant::new("config", spec).0)
        .collect();
    directory.set_grants(grants.into());
}

pub(crate) fn directory(specs: &[WolConfigSpec], vms: &[Vm]) -> Directory {
    let directory = Directory::new();
    for vm in vms {
        directory.apply(vm.clone(), Instant::now());
    }
    grant(&directory, specs);
    directory
}

/// The outcome in a few words, for tables.
pub(crate) fn outcome(lookup: &Lookup) -> String {
    match lookup {
        Lookup::Wakeable { vm, unpause: true } => format!("wakes or unpauses {}", vm.key),
        Lookup::Wakeable { vm, .. } => format!("wakes {}", vm.key),
        Lookup::NotFound => "not found".into(),
        Lookup::Missing(key) => format!("missing {key}"),
        Lookup::NotSelected { vm, why } => format!("{}: {why:?}", vm.key),
        Lookup::Ambiguous(keys) => {
            let keys: Vec<_> = keys.iter().map(ToString::to_string).collect();
            format!("ambiguous {}", keys.join(" "))
        }
        Lookup::Stale => "stale".into(),
        Lookup::Locked => "locked".into(),
    }
}

pub(crate) fn look_up(directory: &Directory, last: u8) -> String {
    look_up_after(directory, last, 0)
}

/// As after so many seconds without contact to the API server.
pub(crate) fn look_up_after(directory: &Directory, last: u8, seconds: u64) -> String {
    outcome(&directory.look_up(&wake(last), Duration::from_secs(seconds)))
}
