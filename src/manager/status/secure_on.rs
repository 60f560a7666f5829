//! Owns what a status says of SecureOn: whether the passwords can be read, which keys of the Secret
//! are none, and which VMs another config opens.

use super::{
    Facts,
    conditions::{MAX_NAMED, Verdict, shortened},
};
use crate::{
    crd::WolConfig,
    manager::{
        grant::Problem,
        passwords::{Keys, Secret},
    },
};

/// What is known of the Secret that a config names, and its name.
fn secret<'a>(config: &'a WolConfig, facts: &'a Facts<'_>) -> Option<(&'a str, &'a Secret)> {
    let name = config.spec.secure_on.as_ref()?.secret_name.as_str();
    Some((name, facts.passwords.secret(name)?))
}

/// Why no packet can carry the right password: a reason and what to do.
pub(super) fn obstacle(config: &WolConfig, facts: &Facts<'_>) -> Option<(&'static str, String)> {
    for problem in &facts.problems {
        let reason = match problem {
            Problem::SecretNotAllowed { .. } => "SecureOnSecretNotAllowed",
            Problem::SecretOfAuthority { .. } => "SecureOnSecretOfAuthority",
            _ => continue,
        };
        return Some((reason, problem.to_string()));
    }
    let (name, secret) = secret(config, facts)?;
    match secret {
        Secret::Unread => {
            let why = format!(
                "Secret {name} with the SecureOn passwords has not been read yet, so wakes wait; if \
                 this stays, see the manager's log: its Role has to allow list and watch of it"
            );
            Some(("SecureOnSecretUnread", why))
        }
        Secret::Missing => {
            let why = format!(
                "there is no Secret {name} with SecureOn passwords in the manager's namespace, so \
                 this config lets no packet in; make it: kubectl create secret generic {name} \
                 --from-literal=default=192.168.1.1 -n NAMESPACE"
            );
            Some(("SecureOnSecretMissing", why))
        }
        Secret::Read(keys) if keys.count() == 0 => {
            let why = format!(
                "Secret {name} has no SecureOn password, so this config lets no packet in; its keys \
                 are NAMESPACE.VM or default, its values four or six bytes, or a text such as \
                 192.168.1.1 or 01:23:45:67:89:ab"
            );
            Some(("SecureOnSecretEmpty", why))
        }
        Secret::Read(_) => None,
    }
}

/// Which keys of the Secret open nothing.
pub(super) fn unusable_keys(config: &WolConfig, facts: &Facts<'_>) -> Option<String> {
    let (name, Secret::Read(keys)) = secret(config, facts)? else {
        return None;
    };
    (!keys.unusable().is_empty()).then(|| {
        let named = named(keys);
        format!(
            "keys of Secret {name} open nothing, and their VMs do not fall back to default; name \
             them NAMESPACE.VM or default, and give them four or six bytes, or a text such as \
             192.168.1.1 or 01:23:45:67:89:ab: {named}"
        )
    })
}

/// The keys, and never their values.
fn named(keys: &Keys) -> String {
    let named = keys.unusable().iter().take(MAX_NAMED);
    shortened(&named.cloned().collect::<Vec<_>>(), keys.unusable().len())
}

/// Which VMs of this config wake without the password that it wants.
pub(super) fn bypassed(config: &WolConfig, facts: &Facts<'_>) -> Verdict {
    if config.spec.secure_on.is_none() {
        return Verdict::no("NotSet", "spec.secureOn is not set");
    }
    let found = facts.findings.as_ref();
    let Some(found) = found.filter(|found| found.bypassed_total > 0) else {
        let message = "no WolConfig without secureOn selects any of its VMs";
        return Verdict::no("NoOther", message);
    };
    let named = found.bypassed.iter().take(MAX_NAMED);
    let named = named.map(|(vm, config)| format!("{vm} by {config}"));
    let all = shortened(&named.collect::<Vec<_>>(), found.bypassed_total);
    Verdict::yes(
        "OpenByAnother",
        format!(
            "packets without a password wake these VMs, since a WolConfig without secureOn selects \
             them, too; set secureOn there, or leave the VMs out: {all}"
        ),
    )
}
