//! Owns [`Configuration`]: puts into force what the managers ask for together.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{intake::Intake, listeners::Listeners, route::ReplicaId, wishes::Wishes};
use crate::{
    admin::Gate,
    rpc::{
        self,
        pb::{self, ConfigurationStatus},
    },
    settings::Settings,
};

/// UDP ports that a manager may ask for.
const MAX_PORTS: usize = 64;

/// What all sessions change the settings of the agent by.
pub(super) struct Configuration {
    intake: Arc<Intake>,
    listeners: Arc<Listeners>,
    /// Ports from the command line, which no manager overrides; none where there were none.
    fixed_ports: BTreeSet<u16>,
    /// Opened by the first settings that were taken over.
    configured: Gate,
    /// Held while settings are put into force, so that the last ones to come win.
    wishes: Mutex<Wishes>,
}

impl Configuration {
    pub(super) fn new(
        intake: Arc<Intake>,
        listeners: Arc<Listeners>,
        fixed_ports: BTreeSet<u16>,
        configured: Gate,
    ) -> Self {
        Self {
            intake,
            listeners,
            fixed_ports,
            configured,
            wishes: Mutex::default(),
        }
    }

    /// Takes a replica's settings over, or keeps its old ones, and says which.
    pub(super) fn take(
        &self,
        replica: &ReplicaId,
        configuration: &pb::Configuration,
    ) -> ConfigurationStatus {
        let generation = configuration.generation;
        let result = rpc::settings(configuration)
            .map_err(|error| error.to_string())
            .and_then(bounded);
        let (accepted, message) = match result {
            Ok(settings) => {
                let message = self.difference(&settings);
                let mut wishes = self.lock();
                let all = wishes.ask(replica.clone(), settings);
                let ports = list(self.apply(&all));
                drop(wishes);
                self.configured.open();
                tracing::info!(generation, manager = &**replica, ports, "configured");
                (true, message)
            }
            Err(message) => {
                tracing::warn!(
                    generation,
                    manager = &**replica,
                    "the settings are refused, the old ones stay: {message}"
                );
                (false, message)
            }
        };
        ConfigurationStatus {
            generation,
            accepted,
            message,
            listeners: Vec::new(),
        }
    }

    /// A replica is gone, and with it what it alone asked for.
    pub(super) fn withdraw(&self, replica: &str) {
        let mut wishes = self.lock();
        if let Some(settings) = wishes.withdraw(replica) {
            self.apply(&settings);
        }
    }

    /// Every listener as managers read it, and a number that rises whenever that changes.
    pub(super) fn listeners(&self) -> (u64, Vec<pb::Listener>) {
        self.listeners.report()
    }

    /// The number alone.
    pub(super) fn revision(&self) -> u64 {
        self.listeners.revision()
    }

    /// Tells the ports in force.
    fn apply<'a>(&'a self, settings: &'a Settings) -> &'a BTreeSet<u16> {
        self.intake.apply(settings);
        let ports = self.ports(settings);
        self.listeners.apply(ports);
        ports
    }

    /// Says what of the settings is not as it was asked for.
    fn difference(&self, settings: &Settings) -> String {
        let (ports, wanted) = (self.ports(settings), &settings.udp_ports);
        if ports == wanted {
            return String::new();
        }
        format!(
            "listens on UDP ports {} as --wol-port says, not on {}",
            list(ports),
            list(wanted)
        )
    }

    /// The ports to listen on.
    fn ports<'a>(&'a self, settings: &'a Settings) -> &'a BTreeSet<u16> {
        if self.fixed_ports.is_empty() {
            &settings.udp_ports
        } else {
            &self.fixed_ports
        }
    }

    fn lock(&self) -> MutexGuard<'_, Wishes> {
        self.wishes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Bounds what a manager can make the agent open.
fn bounded(settings: Settings) -> Result<Settings, String> {
    match settings.udp_ports.len() {
        0..=MAX_PORTS => Ok(settings),
        n => Err(format!(
            "{n} UDP ports are too many; an agent opens at most {MAX_PORTS}"
        )),
    }
}

fn list(ports: &BTreeSet<u16>) -> String {
    let ports: Vec<_> = ports.iter().map(ToString::to_string).collect();
    ports.join(", ")
}
