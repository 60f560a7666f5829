//! Owns what the watches count.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use crate::{manager::directory::Size, telemetry::Word};

/// What is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Watched {
    /// `virtualmachines.kubevirt.io`
    VirtualMachines,
    /// `wolconfigs.wol.pillon.org`
    WolConfigs,
    /// `secrets` with SecureOn passwords
    Secrets,
}

impl Watched {
    pub(super) const ALL: [Self; 3] = [Self::VirtualMachines, Self::WolConfigs, Self::Secrets];

    /// Those that a lookup cannot do without.
    pub(super) const VITAL: [Self; 2] = [Self::VirtualMachines, Self::WolConfigs];
}

/// Why a list or watch failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Trouble {
    /// The API server does not know the resource.
    Absent,
    /// It does not let us.
    Forbidden,
    /// It does not know us: a token is being renewed, or is none of its own.
    Unauthorized,
    /// It has forgotten the version to resume from.
    Expired,
    /// It is busy.
    Throttled,
    /// It cannot be reached, breaks off, or fails.
    Unavailable,
    /// It says something that we do not understand.
    Other,
}

impl Trouble {
    const ALL: [Self; 7] = [
        Self::Absent,
        Self::Forbidden,
        Self::Unauthorized,
        Self::Expired,
        Self::Throttled,
        Self::Unavailable,
        Self::Other,
    ];
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Failed {
    resource: Word<Watched>,
    reason: Word<Trouble>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Of {
    resource: Word<Watched>,
}

/// The counters of all watches.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    errors: Family<Failed, Counter>,
    unreadable: Family<Of, Gauge>,
    problems: Gauge,
    stale: Gauge,
    vms: Gauge,
    macs: Gauge,
    without_mac: Gauge,
    bad_macs: Gauge,
}

impl Metrics {
    /// Makes them known to `registry`, each at zero.
    #[must_use]
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        for resource in Watched::VITAL {
            metrics.unreadable(resource, 0);
        }
        for resource in Watched::ALL.map(Word) {
            for reason in Trouble::ALL.map(Word) {
                drop(metrics.errors.get_or_create(&Failed { resource, reason }));
            }
        }
        registry.register(
            "watch_errors",
            "Lists and watches that failed, by resource and reason",
            metrics.errors.clone(),
        );
        registry.register(
            "unreadable_objects",
            "Objects that cannot be read and have no effect",
            metrics.unreadable.clone(),
        );
        registry.register(
            "config_problems",
            "Parts of WolConfigs that have no effect because they make no sense",
            metrics.problems.clone(),
        );
        registry.register(
            "stale_configs",
            "WolConfigs whose cacheTTL has passed without contact to the API server; what only they allow is put off",
            metrics.stale.clone(),
        );
        registry.register(
            "directory_virtual_machines",
            "VirtualMachines known",
            metrics.vms.clone(),
        );
        registry.register(
            "directory_mac_addresses",
            "Distinct MAC addresses known",
            metrics.macs.clone(),
        );
        registry.register(
            "directory_virtual_machines_without_mac",
            "VirtualMachines whose spec has no usable MAC address, so that only an explicit mapping wakes them",
            metrics.without_mac.clone(),
        );
        registry.register(
            "directory_unusable_mac_addresses",
            "MAC addresses in the specs of VirtualMachines that no packet can name",
            metrics.bad_macs.clone(),
        );
        metrics
    }

    pub(super) fn error(&self, resource: Watched, reason: Trouble) {
        let (resource, reason) = (Word(resource), Word(reason));
        self.errors
            .get_or_create(&Failed { resource, reason })
            .inc();
    }

    pub(super) fn unreadable(&self, resource: Watched, count: usize) {
        let resource = Word(resource);
        set(&self.unreadable.get_or_create(&Of { resource }), count);
    }

    pub(super) fn problems(&self, count: usize) {
        set(&self.problems, count);
    }

    pub(super) fn stale(&self, count: usize) {
        set(&self.stale, count);
    }

    pub(super) fn directory(&self, size: Size) {
        set(&self.vms, size.vms);
        set(&self.macs, size.macs);
        set(&self.without_mac, size.without_mac);
        set(&self.bad_macs, size.bad_macs);
    }
}

fn set(gauge: &Gauge, count: usize) {
    gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
}
