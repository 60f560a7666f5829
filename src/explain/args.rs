//! Owns the options of `kubevirt-wol explain`: types only.

#![allow(
    clippy::doc_markdown,
    reason = "these comments are the help text, where backticks would show"
)]

use std::{net::IpAddr, str::FromStr};

use clap::{Args, value_parser};

use crate::{
    cli::Installation,
    kubevirt::VmKey,
    mac::MacAddr,
    send::{PasswordText, Target},
};

/// Options of `kubevirt-wol explain`.
#[derive(Debug, Clone, Args)]
pub struct ExplainArgs {
    /// What a packet would name: a MAC address in any notation, or a virtual machine, of which every
    /// address is tried.
    #[arg(value_name = "MAC|NAMESPACE/NAME")]
    pub subject: Subject,
    /// The sender. Without it, one that every WolConfig lets in.
    #[arg(long, env = "WOL_EXPLAIN_SOURCE", value_name = "ADDRESS")]
    pub source: Option<IpAddr>,
    /// The interface of the node that hears the packet. Without it, one that every WolConfig takes
    /// packets of.
    #[arg(long, env = "WOL_EXPLAIN_INTERFACE", value_name = "NAME")]
    pub interface: Option<String>,
    /// The UDP port that the packet is for.
    #[arg(long, env = "WOL_EXPLAIN_PORT", default_value_t = 9, value_name = "PORT", value_parser = value_parser!(u16).range(1..))]
    pub port: u16,
    /// The SecureOn password in the packet: four bytes like 192.168.1.1 or six like
    /// 01:23:45:67:89:ab. Other users of this machine can read the command line: prefer the variable.
    #[arg(
        long,
        env = "WOL_PASSWORD",
        hide_env_values = true,
        value_name = "PASSWORD"
    )]
    pub password: Option<PasswordText>,
    /// Print the explanation as JSON.
    #[arg(long, env = "WOL_EXPLAIN_JSON")]
    pub json: bool,
    /// Which installation is asked about.
    #[command(flatten)]
    pub installation: Installation,
}

/// What is asked about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// A packet for this address.
    Mac(MacAddr),
    /// A packet for this virtual machine.
    Vm(VmKey),
}

/// The text names neither.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is neither a MAC address nor a virtual machine; write it like 52:54:00:12:34:56 or \
     NAMESPACE/NAME"
)]
pub struct ParseSubjectError(String);

impl FromStr for Subject {
    type Err = ParseSubjectError;

    /// Reads a MAC address, `NAMESPACE/NAME`, or what `send` takes.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let named = text.contains('/') && !text.starts_with("vm/");
        let target = if named {
            format!("vm/{text}").parse()
        } else {
            text.parse()
        };
        match target {
            Ok(Target::Mac(mac)) => Ok(Self::Mac(mac)),
            Ok(Target::Vm(key)) => Ok(Self::Vm(key)),
            Err(_) => Err(ParseSubjectError(text.chars().take(64).collect())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_is_an_address_or_a_virtual_machine() {
        let mac = Subject::Mac("52:54:00:12:34:56".parse().unwrap());
        assert_eq!("5254.0012.3456".parse(), Ok(mac));
        let vm = Subject::Vm(VmKey::new("shop", "web"));
        for text in ["shop/web", "vm/shop/web"] {
            assert_eq!(text.parse(), Ok(vm.clone()));
        }
        for text in ["", "web", "shop/../web", "Shop/web", "shop/web/start"] {
            let error = text.parse::<Subject>().unwrap_err();
            assert!(error.to_string().contains("NAMESPACE/NAME"), "{error}");
        }
    }
}
