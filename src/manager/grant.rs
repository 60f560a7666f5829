//! Owns [`Grant`]: what one `WolConfig` allows, as a pure decision over VMs and packets.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use kube::core::{Selector, SelectorExt as _};

use crate::{
    crd::{DiscoveryMode, WolConfigSpec},
    filter::{FilterError, SourceFilter},
    mac::{MacAddr, ParseMacError},
    manager::vm::{Vm, VmKey},
    rpc::{MessageError, station},
    settings::Settings,
    wake::Origin,
};

/// How long what is known may serve without contact, where a config does not say.
const DEFAULT_CACHE_TTL: Duration = Duration::from_secs(300);

/// What one `WolConfig` allows: its VMs may be woken by the packets that pass its filter. Several
/// grants are a union, none widens another.
#[derive(Debug, Clone)]
pub struct Grant {
    /// The `WolConfig` that it came from.
    pub config: Arc<str>,
    /// UDP ports where its packets are expected.
    pub ports: BTreeSet<u16>,
    /// Which packets count.
    pub filter: SourceFilter,
    /// Whether a wake unpauses a paused VM.
    pub wake_paused: bool,
    /// The Secret with the passwords that its packets must carry, whether it may be read or not;
    /// none where no password is needed.
    pub secure_on: Option<String>,
    /// How long it may serve while the API server is away.
    pub cache_ttl: Duration,
    discovery: Discovery,
    mappings: HashMap<MacAddr, Vec<VmKey>>,
    /// `mappings`, the other way round.
    mapped: HashMap<VmKey, Vec<MacAddr>>,
}

/// Which VMs a grant finds by itself.
#[derive(Debug, Clone)]
enum Discovery {
    Nothing,
    All {
        namespaces: HashSet<String>,
    },
    Labels {
        namespaces: HashSet<String>,
        selector: Selector,
    },
}

/// What is wrong with a `WolConfig` that its schema let pass.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// A mapping's address cannot be read.
    #[error("explicitMappings[{0}].macAddress")]
    Mac(usize, #[source] ParseMacError),
    /// A mapping's address is no station's.
    #[error("explicitMappings[{0}].macAddress")]
    Station(usize, #[source] MessageError),
    /// A mapping names no VM.
    #[error("explicitMappings[{0}] needs vmName and namespace")]
    NoVm(usize),
    /// Two mappings of one address to different VMs.
    #[error("explicitMappings[{0}] maps {1} to a second VM, so it wakes neither")]
    MappedTwice(usize, MacAddr),
    /// The interface patterns or source ranges cannot be read.
    #[error("interfaces or sourceRanges")]
    Filter(#[source] FilterError),
    /// The label selector makes no sense.
    #[error("vmSelector: {0}")]
    Selector(String),
    /// The label selector is absent or empty.
    #[error("vmSelector is empty and selects no VM; name a label, or use discoveryMode All")]
    NoSelector,
    /// A port that is not between 1 and 65535.
    #[error("wolPorts: {0} is not between 1 and 65535")]
    Port(i32),
    /// Passwords are in a Secret that the manager was not told to read.
    #[error(
        "secureOn: the manager may not read Secret {secret:?}, so this config lets no packet in; \
         name one of: {allowed}; or add it to --secure-on-secret and to the manager's Role"
    )]
    SecretNotAllowed {
        /// The Secret.
        secret: String,
        /// Those that may be read.
        allowed: String,
    },
    /// Passwords are asked of the Secret that holds the managers' keys.
    #[error(
        "secureOn: Secret {secret:?} is that of the managers' certificate authority, and never read \
         for passwords, so this config lets no packet in; name one of: {allowed}"
    )]
    SecretOfAuthority {
        /// The Secret.
        secret: String,
        /// Those that may be read.
        allowed: String,
    },
    /// A time below zero.
    #[error("cacheTTL: {0} is below 0, so 0 counts")]
    CacheTtl(i64),
}

impl Grant {
    /// Reads a config. What cannot be read is left out and reported. None where leaving it out
    /// could allow more than was meant: a config with a broken filter allows nothing.
    #[must_use]
    pub fn new(config: &str, spec: &WolConfigSpec) -> (Option<Self>, Vec<Problem>) {
        let mut problems = Vec::new();
        let filter = match SourceFilter::new(&spec.interfaces, &spec.source_ranges) {
            Ok(filter) => filter,
            Err(error) => return (None, vec![Problem::Filter(error)]),
        };
        let mappings = mappings(spec, &mut problems);
        let secure_on = spec.secure_on.as_ref().map(|s| s.secret_name.clone());
        let grant = Self {
            config: config.into(),
            ports: ports(spec, &mut problems),
            filter,
            wake_paused: spec.wake_paused,
            secure_on,
            cache_ttl: cache_ttl(spec, &mut problems),
            discovery: Discovery::new(spec, &mut problems),
            mapped: by_vm(&mappings),
            mappings,
        };
        (Some(grant), problems)
    }

    /// Whether a wake could start this VM as far as this grant is concerned, by discovery or by a
    /// mapping.
    #[must_use]
    pub fn covers(&self, vm: &Vm) -> bool {
        self.discovers(vm) || self.mapped.contains_key(&vm.key)
    }

    /// Whether the grant finds this VM by itself, so that the addresses in its spec wake it.
    #[must_use]
    pub fn discovers(&self, vm: &Vm) -> bool {
        self.discovery.finds(vm)
    }

    /// The VMs that the grant maps this address to: one, or several where the config contradicts
    /// itself.
    #[must_use]
    pub fn mapped(&self, mac: MacAddr) -> &[VmKey] {
        self.mappings.get(&mac).map_or(&[], Vec::as_slice)
    }

    /// The addresses that the grant maps to this VM.
    #[must_use]
    pub fn mapped_to(&self, vm: &VmKey) -> &[MacAddr] {
        self.mapped.get(vm).map_or(&[], Vec::as_slice)
    }

    /// The VMs that the grant maps an address to, whether they exist or not.
    pub fn mapped_vms(&self) -> impl Iterator<Item = &VmKey> {
        self.mapped.keys()
    }

    /// All addresses that the grant maps to VMs.
    pub fn mapped_macs(&self) -> impl Iterator<Item = MacAddr> + use<'_> {
        self.mappings.keys().copied()
    }

    /// Whether this address names this VM as far as this grant is concerned.
    #[must_use]
    pub fn names(&self, mac: MacAddr, vm: &Vm) -> bool {
        self.mapped(mac).contains(&vm.key) || (vm.macs.contains(&mac) && self.discovers(vm))
    }

    /// Whether a packet that came this way counts.
    #[must_use]
    pub fn passes(&self, origin: &Origin) -> bool {
        self.filter.passes(origin)
    }

    /// Whether the grant may not serve: changes may have escaped us for `age`, which is longer than
    /// its config puts up with.
    #[must_use]
    pub fn is_stale(&self, age: Duration) -> bool {
        age > self.cache_ttl
    }
}

impl Discovery {
    fn new(spec: &WolConfigSpec, problems: &mut Vec<Problem>) -> Self {
        let namespaces = spec.namespace_selectors.iter().cloned().collect();
        match spec.discovery_mode {
            DiscoveryMode::Explicit => Self::Nothing,
            DiscoveryMode::All => Self::All { namespaces },
            DiscoveryMode::LabelSelector => {
                let selector = spec.vm_selector.clone().unwrap_or_default();
                match Selector::try_from(selector) {
                    // Everywhere else in Kubernetes it would select everything, which nobody means
                    // who chose this mode.
                    Ok(selector) if selector.selects_all() => problems.push(Problem::NoSelector),
                    Ok(selector) => {
                        return Self::Labels {
                            namespaces,
                            selector,
                        };
                    }
                    Err(error) => problems.push(Problem::Selector(error.0)),
                }
                Self::Nothing
            }
        }
    }

    fn finds(&self, vm: &Vm) -> bool {
        let within = |namespaces: &HashSet<String>| {
            namespaces.is_empty() || namespaces.contains(&*vm.key.namespace)
        };
        match self {
            Self::Nothing => false,
            Self::All { namespaces } => within(namespaces),
            Self::Labels {
                namespaces,
                selector,
            } => within(namespaces) && selector.matches(&vm.labels),
        }
    }
}

fn mappings(spec: &WolConfigSpec, problems: &mut Vec<Problem>) -> HashMap<MacAddr, Vec<VmKey>> {
    let mut read: HashMap<MacAddr, Vec<VmKey>> = HashMap::new();
    for (position, mapping) in spec.explicit_mappings.iter().enumerate() {
        let mac = match mapping.mac_address.parse().map(station) {
            Ok(Ok(mac)) => mac,
            Ok(Err(error)) => {
                problems.push(Problem::Station(position, error));
                continue;
            }
            Err(error) => {
                problems.push(Problem::Mac(position, error));
                continue;
            }
        };
        if mapping.vm_name.is_empty() || mapping.namespace.is_empty() {
            problems.push(Problem::NoVm(position));
            continue;
        }
        let key = VmKey::new(&mapping.namespace, &mapping.vm_name);
        let keys = read.entry(mac).or_default();
        if !keys.contains(&key) {
            keys.push(key);
            if keys.len() > 1 {
                problems.push(Problem::MappedTwice(position, mac));
            }
        }
    }
    read
}

fn by_vm(mappings: &HashMap<MacAddr, Vec<VmKey>>) -> HashMap<VmKey, Vec<MacAddr>> {
    let mut macs: HashMap<VmKey, Vec<MacAddr>> = HashMap::new();
    for (mac, vms) in mappings {
        for vm in vms {
            macs.entry(vm.clone()).or_default().push(*mac);
        }
    }
    macs
}

/// The ports that a config asks for, as far as they make sense.
#[must_use]
pub fn ports_of(spec: &WolConfigSpec) -> BTreeSet<u16> {
    ports(spec, &mut Vec::new())
}

/// The ports that a config asks for. One that asks for none at all gets the default ones; one
/// whose ports are all wrong gets none, for it did not ask for the default ones.
fn ports(spec: &WolConfigSpec, problems: &mut Vec<Problem>) -> BTreeSet<u16> {
    let mut asked = spec.wol_ports.iter().chain(&spec.wol_port).peekable();
    if asked.peek().is_none() {
        return Settings::DEFAULT_PORTS.into();
    }
    let mut read = BTreeSet::new();
    for number in asked {
        match u16::try_from(*number) {
            Ok(port) if port != 0 => {
                read.insert(port);
            }
            _ => problems.push(Problem::Port(*number)),
        }
    }
    read
}

fn cache_ttl(spec: &WolConfigSpec, problems: &mut Vec<Problem>) -> Duration {
    let Some(seconds) = spec.cache_ttl else {
        return crate::pace::of(DEFAULT_CACHE_TTL);
    };
    let ttl = u64::try_from(seconds)
        .map(Duration::from_secs)
        .map(crate::pace::of);
    ttl.unwrap_or_else(|_| {
        problems.push(Problem::CacheTtl(seconds));
        Duration::ZERO
    })
}
