//! Owns [`Passwords`]: what the SecureOn Secrets say of each VM. Pure; a watch feeds it, the
//! directory asks it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use crate::{
    manager::{grant::Problem, vm::VmKey},
    packet::Trailing,
    password::Password,
};

/// The key of the VMs that have none of their own.
const DEFAULT: &str = "default";

/// Fewer bytes than this are no password of anybody.
const SHORTEST: usize = 4;

/// The Secrets from which passwords may be read, and what they say. No other Secret opens anything.
#[derive(Debug, Clone, Default)]
pub struct Passwords {
    secrets: BTreeMap<Arc<str>, Secret>,
    /// The Secret of the managers' certificate authority, which is never one of them.
    authority: Arc<str>,
}

/// What is known of one Secret.
#[derive(Debug, Clone, Default)]
pub enum Secret {
    /// Nothing yet.
    #[default]
    Unread,
    /// It does not exist.
    Missing,
    /// It says this.
    Read(Arc<Keys>),
}

/// The keys of one Secret.
#[derive(Debug, Default)]
pub struct Keys {
    vms: HashMap<VmKey, Entry>,
    default: Option<Entry>,
    unusable: BTreeSet<String>,
}

/// The value of one key; none where it is no password. Such a key opens nothing, and its VM does not
/// fall back to the default: somebody meant it to have a password of its own.
type Entry = Option<Password>;

/// What a packet's password is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// It is the VM's.
    Right,
    /// It is another one.
    Wrong,
    /// The packet carries none.
    Absent,
    /// The VM has none, so that no packet can carry it.
    Unset,
    /// The Secret was not read yet.
    Unread,
}

impl Passwords {
    /// Passwords of these Secrets, none of which has been read. That of the certificate `authority`
    /// is left out, whoever names it.
    #[must_use]
    pub fn new(secrets: &[Arc<str>], authority: &Arc<str>) -> Self {
        let secrets = secrets.iter().filter(|name| *name != authority);
        Self {
            secrets: secrets.map(|name| (name.clone(), Secret::Unread)).collect(),
            authority: authority.clone(),
        }
    }

    /// The names of the Secrets.
    pub fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.secrets.keys()
    }

    /// What is known of this Secret; none where it may not be read.
    #[must_use]
    pub fn secret(&self, name: &str) -> Option<&Secret> {
        self.secrets.get(name)
    }

    /// The same, but for what one of the Secrets says.
    #[must_use]
    pub fn with(&self, name: &str, secret: Secret) -> Self {
        let mut other = self.clone();
        if let Some(known) = other.secrets.get_mut(name) {
            *known = secret;
        }
        other
    }

    /// What is wrong with a config that names this Secret, if it may not be read.
    #[must_use]
    pub fn problem(&self, name: &str) -> Option<Problem> {
        if self.secrets.contains_key(name) {
            return None;
        }
        let names: Vec<&str> = self.names().map(AsRef::as_ref).collect();
        let (secret, allowed) = (name.to_owned(), names.join(", "));
        Some(if *name == *self.authority {
            Problem::SecretOfAuthority { secret, allowed }
        } else {
            Problem::SecretNotAllowed { secret, allowed }
        })
    }

    /// Compares what a packet carries with the password that a Secret has for a VM.
    #[must_use]
    pub fn check(&self, secret: &str, vm: &VmKey, carried: &Trailing) -> Check {
        let keys = match self.secrets.get(secret) {
            Some(Secret::Read(keys)) => keys,
            Some(Secret::Unread) => return Check::Unread,
            Some(Secret::Missing) | None => return Check::Unset,
        };
        match keys.of(vm) {
            None => Check::Unset,
            Some(_) if carried.as_bytes().len() < SHORTEST => Check::Absent,
            Some(password) if password.begins(carried.as_bytes()) => Check::Right,
            Some(_) => Check::Wrong,
        }
    }
}

impl Keys {
    /// Reads the data of a Secret.
    pub fn read<'a>(data: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Self {
        let mut keys = Self::default();
        for (key, value) in data {
            let entry = Password::from_value(value);
            let vm = parse_key(key);
            if entry.is_none() || (vm.is_none() && key != DEFAULT) {
                keys.unusable.insert(key.to_owned());
            }
            if key == DEFAULT {
                keys.default = Some(entry);
            } else if let Some(vm) = vm {
                keys.vms.insert(vm, entry);
            }
        }
        keys
    }

    /// The password of a VM: that of its own key before the default.
    fn of(&self, vm: &VmKey) -> Option<&Password> {
        self.vms.get(vm).or(self.default.as_ref())?.as_ref()
    }

    /// The keys that name no VM, or whose value is no password, in their order.
    #[must_use]
    pub fn unusable(&self) -> &BTreeSet<String> {
        &self.unusable
    }

    /// How many passwords there are.
    #[must_use]
    pub fn count(&self) -> usize {
        let entries = self.vms.values().chain(&self.default);
        entries.flatten().count()
    }
}

/// Reads `namespace.vm`. Names of namespaces have no dots, those of VMs may: the first one parts
/// them. Other names than Kubernetes gives would never match, so that they are told.
fn parse_key(key: &str) -> Option<VmKey> {
    let (namespace, name) = key.split_once('.')?;
    let label = |part: &str| {
        let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let ends = [part.bytes().next(), part.bytes().next_back()];
        ends.iter().all(|end| end.is_some_and(inner))
            && part.bytes().all(|byte| inner(byte) || byte == b'-')
    };
    let valid = label(namespace) && name.split('.').all(label);
    valid.then(|| VmKey::new(namespace, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passwords(data: &[(&str, &[u8])]) -> Passwords {
        let none = Passwords::new(&["secureon".into(), "ca".into()], &"ca".into());
        let keys = Keys::read(data.iter().copied());
        none.with("secureon", Secret::Read(Arc::new(keys)))
    }

    fn check(passwords: &Passwords, vm: (&str, &str), carried: &[u8]) -> Check {
        let vm = VmKey::new(vm.0, vm.1);
        passwords.check("secureon", &vm, &Trailing::cut(carried))
    }

    const WEB: (&str, &str) = ("shop", "web");

    #[test]
    fn the_key_of_a_vm_goes_before_the_default() {
        let passwords = passwords(&[
            ("shop.web", b"secret"),
            ("shop.db.east-1", b"dbpw"),
            ("default", b"10.0.0.1"),
        ]);
        for (vm, carried, expected) in [
            (WEB, &b"secret"[..], Check::Right),
            (WEB, &[10, 0, 0, 1], Check::Wrong),
            (("shop", "db.east-1"), b"dbpw", Check::Right),
            (("shop", "db"), b"dbpw", Check::Wrong),
            (("shop", "db"), &[10, 0, 0, 1], Check::Right),
            (("home", "web"), b"secret", Check::Wrong),
        ] {
            assert_eq!(check(&passwords, vm, carried), expected, "{vm:?}");
        }
    }

    #[test]
    fn four_bytes_are_enough_for_four_and_not_for_six() {
        let passwords = passwords(&[("shop.web", b"secret"), ("shop.db", b"secr")]);
        for (vm, carried, expected) in [
            (WEB, &b"secr"[..], Check::Wrong),
            (WEB, b"sec", Check::Absent),
            (WEB, b"", Check::Absent),
            (("shop", "db"), b"secr", Check::Right),
            // What follows may be the padding of a frame.
            (("shop", "db"), b"secr\0\0", Check::Right),
            (("shop", "db"), b"\0secr", Check::Wrong),
        ] {
            assert_eq!(check(&passwords, vm, carried), expected, "{carried:?}");
        }
    }

    #[test]
    fn a_value_that_is_no_password_opens_nothing_and_does_not_fall_back() {
        let passwords = passwords(&[("shop.web", b"five5"), ("default", b"secret")]);
        assert_eq!(check(&passwords, WEB, b"secret"), Check::Unset);
        assert_eq!(check(&passwords, WEB, b"five5"), Check::Unset);
        assert_eq!(check(&passwords, ("shop", "db"), b"secret"), Check::Right);
    }

    #[test]
    fn keys_that_name_no_vm_are_told() {
        let bad = [
            "web",
            "shop.",
            ".web",
            "Shop.web",
            "shop_a.web",
            "a..b",
            "DEFAULT",
            "-a.b",
        ];
        let data = bad.iter().map(|key| (*key, &b"secret"[..]));
        let keys = Keys::read(data.chain([("shop.web", &b"secret"[..]), ("default", b"1234567")]));
        let told: Vec<&str> = keys.unusable().iter().map(String::as_str).collect();
        let mut expected = [&bad[..], &["default"]].concat();
        expected.sort_unstable();
        assert_eq!(told, expected);
        assert_eq!(keys.count(), 1);
    }

    #[test]
    fn a_secret_that_may_not_be_read_never_opens_anything() {
        let passwords = passwords(&[("default", b"secret")]);
        let keys = || Secret::Read(Arc::new(Keys::read([("default", &b"secret"[..])])));
        let vm = VmKey::new("shop", "web");
        for name in ["other", "ca", ""] {
            let pushed = passwords.with(name, keys());
            let carried = Trailing::cut(b"secret");
            assert_eq!(pushed.check(name, &vm, &carried), Check::Unset, "{name}");
            assert!(pushed.problem(name).is_some(), "{name}");
        }
        assert!(passwords.problem("secureon").is_none());
        let told = passwords.problem("ca").unwrap().to_string();
        assert!(told.contains("certificate authority"), "{told}");
    }

    #[test]
    fn what_was_not_read_is_not_taken_for_absent() {
        let none = Passwords::new(&["secureon".into()], &"ca".into());
        assert_eq!(check(&none, WEB, b"secret"), Check::Unread);
        let missing = none.with("secureon", Secret::Missing);
        assert_eq!(check(&missing, WEB, b"secret"), Check::Unset);
    }

    #[test]
    fn no_password_is_written_to_logs() {
        let told = format!("{:?}", passwords(&[("shop.web", b"\xc9\xca\xcb\xcc")]));
        assert!(told.contains("web") && !told.contains("201"), "{told}");
    }
}
