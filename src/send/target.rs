//! Owns how people name what to wake: an address, or a virtual machine.

use std::str::FromStr;

use crate::{kubevirt::VmKey, mac::MacAddr};

/// What to wake, as it was named.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Target {
    /// By its address.
    Mac(MacAddr),
    /// By its name in the cluster, where its addresses are to be looked up.
    Vm(VmKey),
}

/// Why a text names nothing to wake.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseTargetError {
    /// Neither of the two forms.
    #[error(
        "{0:?} is neither a MAC address nor a virtual machine; write it like 52:54:00:12:34:56 or \
         vm/NAMESPACE/NAME"
    )]
    Syntax(String),
    /// A name that no object in Kubernetes can have.
    #[error(
        "{0:?} names no virtual machine: write vm/NAMESPACE/NAME, in lower-case letters, digits \
         and hyphens"
    )]
    Name(String),
}

/// What a virtual machine's name begins with.
pub(super) const VM: &str = "vm/";
/// Lengths of a namespace and of a name, at most (RFC 1123 by way of Kubernetes).
const MAX_LABEL: usize = 63;
const MAX_NAME: usize = 253;

impl FromStr for Target {
    type Err = ParseTargetError;

    /// Reads `vm/NAMESPACE/NAME`, or a MAC address in any notation.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let shown = || text.chars().take(64).collect();
        let Some(key) = text.strip_prefix(VM) else {
            let mac = text.parse().map(Self::Mac);
            return mac.map_err(|_| ParseTargetError::Syntax(shown()));
        };
        let (namespace, name) = key
            .split_once('/')
            .ok_or_else(|| ParseTargetError::Syntax(shown()))?;
        // They become part of a URL.
        if is_label(namespace) && is_name(name) {
            Ok(Self::Vm(VmKey::new(namespace, name)))
        } else {
            Err(ParseTargetError::Name(shown()))
        }
    }
}

/// Reads `NAMESPACE/NAME`, or `vm/NAMESPACE/NAME`.
pub(super) fn vm(text: &str) -> Result<VmKey, ParseTargetError> {
    let bare = text.strip_prefix(VM).filter(|rest| rest.contains('/'));
    match format!("{VM}{}", bare.unwrap_or(text)).parse()? {
        Target::Vm(key) => Ok(key),
        Target::Mac(_) => Err(ParseTargetError::Syntax(text.to_owned())),
    }
}

/// Whether this can be a namespace.
fn is_label(text: &str) -> bool {
    (1..=MAX_LABEL).contains(&text.len()) && is_part(text)
}

/// Whether this can be the name of a custom resource: parts with dots between them.
fn is_name(text: &str) -> bool {
    text.len() <= MAX_NAME && text.split('.').all(is_part)
}

fn is_part(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    !text.is_empty()
        && text.bytes().all(|b| plain(b) || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::{ParseTargetError, Target, VmKey};

    #[test]
    fn a_target_is_an_address_or_a_virtual_machine() {
        let address = Target::Mac("52:54:00:12:34:56".parse().unwrap());
        for text in ["52:54:00:12:34:56", "5254.0012.3456", "525400-123456"] {
            assert_eq!(text.parse(), Ok(address.clone()), "{text}");
        }
        for (namespace, name) in [
            ("shop", "web"),
            ("a", "b"),
            ("team-1", "win11.desk-2.example"),
            (&"n".repeat(63), &"v".repeat(253)),
        ] {
            let text = format!("vm/{namespace}/{name}");
            let expected = Target::Vm(VmKey::new(namespace, name));
            assert_eq!(text.parse(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_has_neither_form_is_refused_and_both_are_named() {
        for text in ["", "web", "52:54:00:12:34", "shop/web", "vm", "vm/web"] {
            let error = text.parse::<Target>().unwrap_err();
            assert_eq!(error, ParseTargetError::Syntax(text.to_owned()));
            let told = error.to_string();
            assert!(told.contains("52:54:00:12:34:56"), "{told}");
            assert!(told.contains("vm/NAMESPACE/NAME"), "{told}");
        }
    }

    #[test]
    fn what_kubernetes_takes_for_no_name_never_gets_into_a_url() {
        for text in [
            "vm//web",
            "vm/shop/",
            "vm/shop/web/start",
            "vm/shop/../web",
            "vm/shop/web?watch=1",
            "vm/shop/web ",
            "vm/shop/Web",
            "vm/-shop/web",
            "vm/shop-/web",
            "vm/shop.eu/web",
            "vm/shop/web..eu",
            "vm/shop/w\u{e9}b",
            &format!("vm/{}/web", "n".repeat(64)),
            &format!("vm/shop/{}", "v".repeat(254)),
        ] {
            let error = text.parse::<Target>().unwrap_err();
            assert!(matches!(error, ParseTargetError::Name(_)), "{text}");
            assert!(error.to_string().len() < 200, "{error}");
        }
    }
}
