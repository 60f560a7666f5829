//! Owns [`Refusal`]: why a packet may not wake a VM, and how one grant comes to it.

use std::fmt;

use crate::{
    manager::{
        grant::Grant,
        passwords::{Check, Passwords},
        vm::Vm,
    },
    wake::Wake,
};

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
