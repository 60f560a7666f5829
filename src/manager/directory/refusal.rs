//! Owns [`Refusal`]: why a packet may not wake a VM, and how one grant comes to it.

use std::fmt;

use super::Lookup;
use crate::{
    mac::MacAddr,
    manager::{
        grant::Grant,
        passwords::{Check, Passwords},
        vm::Vm,
    },
    wake::{Outcome, Wake},
};

/// VMs named where an address is ambiguous.
pub const MAX_NAMED: usize = 8;

/// Why a packet may not wake a VM; of several grants' reasons the greatest counts, for its packet
/// came furthest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Refusal {
    /// No `WolConfig` selects the VM.
    NoConfig,
    /// Those that select the VM do not listen to the packet's interface or sender.
    Source,
    /// Those that do want a SecureOn password, and the VM has none.
    PasswordUnset,
    /// Those that do want a SecureOn password, which the packet lacks.
    PasswordAbsent,
    /// The packet's SecureOn password is not the VM's.
    PasswordWrong,
    /// The VM is the receiving end of a migration.
    Receiver,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoConfig => "no WolConfig selects it",
            Self::Source => {
                "no WolConfig that selects it allows this sender and interface (sourceRanges, \
                 interfaces)"
            }
            Self::PasswordUnset => {
                "the WolConfigs that select it want a SecureOn password, and their Secret has none \
                 for it"
            }
            Self::PasswordAbsent => {
                "the WolConfigs that select it want a SecureOn password, and the packet has none"
            }
            Self::PasswordWrong => "the packet's SecureOn password is wrong",
            Self::Receiver => "it is the receiving end of a migration",
        })
    }
}

impl Lookup {
    /// What becomes of a wake for `target` that wakes nothing, and why, for people; none where it may
    /// wake something, or nobody knows yet.
    #[must_use]
    pub fn refusal(&self, target: MacAddr) -> Option<(Outcome, String)> {
        match self {
            Self::Wakeable { .. } | Self::Stale | Self::Locked => None,
            Self::NotFound => {
                let why = format!("no virtual machine has the address {target} in its spec");
                Some((Outcome::NotFound, why))
            }
            Self::Missing(key) => {
                let why = format!("a WolConfig maps {target} to {key}, which does not exist");
                Some((Outcome::NotFound, why))
            }
            Self::NotSelected { vm, why } => {
                let text = format!("{} has the address {target}, but {why}", vm.key);
                Some((why.outcome(), text))
            }
            Self::Ambiguous(keys) => {
                let named = keys.iter().take(MAX_NAMED).map(ToString::to_string);
                let named = named.collect::<Vec<_>>().join(", ");
                let count = keys.len();
                let why = format!("{count} virtual machines have the address {target}: {named}");
                Some((Outcome::Ambiguous, why))
            }
        }
    }
}

impl Refusal {
    /// What becomes of the wake.
    const fn outcome(self) -> Outcome {
        match self {
            Self::PasswordUnset | Self::PasswordAbsent | Self::PasswordWrong => {
                Outcome::WrongPassword
            }
            Self::Receiver => Outcome::Unsupported,
            Self::NoConfig | Self::Source => Outcome::NotSelected,
        }
    }
}

/// What a grant says to a packet that names a VM of its own.
pub(super) enum Say {
    /// It may wake the VM.
    Yes,
    /// It may not.
    No(Refusal),
    /// The passwords were not read yet.
    Unknown,
}

pub(super) fn ask(grant: &Grant, wake: &Wake, vm: &Vm, passwords: &Passwords) -> Say {
    if !grant.passes(&wake.origin) {
        return Say::No(Refusal::Source);
    }
    let Some(secret) = &grant.secure_on else {
        return Say::Yes;
    };
    match passwords.check(secret, &vm.key, &wake.trailing) {
        Check::Right => Say::Yes,
        Check::Wrong => Say::No(Refusal::PasswordWrong),
        Check::Absent => Say::No(Refusal::PasswordAbsent),
        Check::Unset => Say::No(Refusal::PasswordUnset),
        Check::Unread => Say::Unknown,
    }
}
