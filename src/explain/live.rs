//! Owns what is taken from the cluster: the VMs, the configs and the passwords, put into the
//! manager's own directory as the manager does it; and who would hear a packet.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use anyhow::bail;
use k8s_openapi::api::core::v1::Secret as Object;
use kube::{ResourceExt as _, core::DeserializeGuard};

use super::ExplainArgs;
use crate::{
    check::{CONFIGS, endpoints, holder},
    cli::Installation,
    cluster::{Look, Place, Unseen},
    crd::WolConfig,
    kubevirt::VirtualMachine,
    manager::{
        config::{Finding, Plan, Windows, plan},
        directory::Directory,
        passwords::{Keys, Passwords, Secret},
        vm::Vm,
    },
    settings::Settings,
};

const MACHINES: Place<'_> = Place {
    group: "kubevirt.io",
    version: "v1",
    plural: "virtualmachines",
    namespace: None,
};

/// What managers know just now.
pub(super) struct Live {
    pub(super) directory: Directory,
    /// What agents are told.
    pub(super) settings: Settings,
    /// What of the configs makes no sense.
    pub(super) problems: Vec<Finding>,
    /// The names of the configs.
    pub(super) configs: Vec<String>,
    /// What could not be looked at, or read, and may matter.
    pub(super) notes: Vec<String>,
    /// Whether a manager is there to take a wake; none where nobody can tell.
    pub(super) manager: Option<bool>,
    /// How many nodes have an agent with a session; none where nobody can tell.
    pub(super) connected: Option<i32>,
}

/// Looks at all of it.
pub(super) async fn look(args: &ExplainArgs) -> anyhow::Result<Live> {
    let look = Look::new().await?;
    let mut notes = Vec::new();
    let configs = configs(&look, args, &mut notes).await?;
    let connected = configs.values().filter_map(|config| config.status.as_ref());
    let connected = connected.filter_map(|status| status.agent_status.as_ref());
    let connected = connected.map(|agents| agents.connected).max();
    let names = &args.installation;
    let secrets: Vec<Arc<str>> = names
        .secure_on_secrets
        .iter()
        .map(|it| (**it).into())
        .collect();
    let passwords = Passwords::new(&secrets, &(*names.ca_secret).into());
    let defaults = Settings::default();
    let windows = Windows {
        dedup: defaults.dedup_window,
        event_ttl: defaults.event_ttl,
        rates: defaults.rates,
    };
    let Plan {
        grants,
        settings,
        problems,
    } = plan(&configs, windows, &passwords);
    let directory = Directory::new();
    directory.set_passwords(passwords);
    let wanted = secrets.iter().filter(|name| {
        let mut grants = grants.iter();
        grants.any(|grant| grant.secure_on.as_deref() == Some(name))
    });
    for name in wanted {
        match secret(&look, names, name).await {
            Ok(secret) => directory.set_secret(name, secret),
            Err(why) => notes.push(format!("Secret {name} with SecureOn passwords {why}")),
        }
    }
    directory.set_grants(grants);
    machines(&look, &directory, &mut notes).await?;
    Ok(Live {
        manager: manager(&look, names).await,
        configs: configs.into_keys().collect(),
        directory,
        settings,
        problems,
        notes,
        connected,
    })
}

/// All configs that can be read. What was not said of the packet is not held against it.
async fn configs(
    look: &Look,
    args: &ExplainArgs,
    notes: &mut Vec<String>,
) -> anyhow::Result<BTreeMap<String, Arc<WolConfig>>> {
    let found = match look.list::<DeserializeGuard<WolConfig>>(&CONFIGS, "").await {
        Ok(found) => found,
        Err(Unseen::NotServed) => {
            notes.push(
                "the API server does not know WolConfigs; kubevirt-wol check says more".into(),
            );
            Vec::new()
        }
        Err(why) => bail!("the WolConfigs {why}, at {}", look.server),
    };
    let mut configs = BTreeMap::new();
    for DeserializeGuard(config) in found {
        match config {
            Ok(mut config) => {
                if args.source.is_none() {
                    config.spec.source_ranges.clear();
                }
                if args.interface.is_none() {
                    config.spec.interfaces.clear();
                }
                configs.insert(config.name_any(), Arc::new(config));
            }
            Err(invalid) => {
                let name = invalid.metadata.name.unwrap_or_default();
                let error = invalid.error;
                notes.push(format!(
                    "WolConfig {name} cannot be read, and allows nothing: {error}"
                ));
            }
        }
    }
    Ok(configs)
}

/// Puts all VMs into the directory, as the manager's watch does.
async fn machines(
    look: &Look,
    directory: &Directory,
    notes: &mut Vec<String>,
) -> anyhow::Result<()> {
    let found = match look.list::<VirtualMachine>(&MACHINES, "").await {
        Ok(found) => found,
        Err(Unseen::NotServed) => {
            notes.push("the API server does not know VirtualMachines; KubeVirt is missing".into());
            Vec::new()
        }
        Err(why) => bail!("the VirtualMachines {why}, at {}", look.server),
    };
    let now = Instant::now();
    for vm in found {
        if let Some(field) = vm.malformed {
            let (namespace, name) = (vm.namespace().unwrap_or_default(), vm.name_any());
            notes.push(format!(
                "{namespace}/{name} cannot be read, for its {field}"
            ));
        } else {
            directory.apply(Vm::from(vm), now);
        }
    }
    Ok(())
}

async fn secret(look: &Look, names: &Installation, name: &str) -> Result<Secret, Unseen> {
    let place = Place {
        group: "",
        version: "v1",
        plural: "secrets",
        namespace: Some(&names.namespace),
    };
    // By the right to list it, as managers have.
    match look
        .list::<Object>(&place, &format!("fieldSelector=metadata.name%3D{name}"))
        .await
    {
        Ok(found) => Ok(found.first().map_or(Secret::Missing, |secret| {
            let data = secret.data.iter().flatten();
            let keys = Keys::read(data.map(|(key, value)| (key.as_str(), &*value.0)));
            Secret::Read(Arc::new(keys))
        })),
        Err(why) => Err(why),
    }
}

/// Whether a manager is there: the Service has an endpoint that is ready, or somebody holds the
/// Lease, as a manager outside of the cluster does.
async fn manager(look: &Look, names: &Installation) -> Option<bool> {
    let ready = endpoints(look, names).await.map(|ready| !ready.is_empty());
    if ready == Ok(true) {
        return Some(true);
    }
    match holder(look, &names.namespace).await {
        Ok(Some(_)) => Some(true),
        Ok(None) | Err(Unseen::Absent) => ready.ok(),
        Err(_) => None,
    }
}
