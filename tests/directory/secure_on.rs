//! Which packets a password lets in.

use std::{sync::Arc, time::Duration};

use kubevirt_wol::{
    crd::{SecureOn, WolConfigSpec},
    manager::{
        directory::{Directory, Refusal},
        grant::Grant,
        passwords::{Keys, Passwords, Secret},
    },
    packet::Trailing,
    wake::Wake,
};

use crate::fixture::{all, directory, labelled, outcome, vm, wake};

const SECRET: &str = "secureon";

fn locked(spec: WolConfigSpec, secret: &str) -> WolConfigSpec {
    WolConfigSpec {
        secure_on: Some(SecureOn {
            secret_name: secret.into(),
        }),
        ..spec
    }
}

fn says(directory: &Directory, data: &[(&str, &[u8])]) {
    let keys = Keys::read(data.iter().copied());
    directory.set_secret(SECRET, Secret::Read(Arc::new(keys)));
}

/// A directory with the VM shop/web, whose one Secret was read.
fn protected(specs: &[WolConfigSpec], data: &[(&str, &[u8])]) -> Directory {
    let directory = directory(specs, &[vm("web", &[1]), vm("db", &[2])]);
    directory.set_passwords(Passwords::new(&[SECRET.into()], &"ca".into()));
    says(&directory, data);
    directory
}

fn carrying(last: u8, password: &[u8]) -> Wake {
    Wake {
        trailing: Trailing::cut(password),
        ..wake(last)
    }
}

fn look_up(directory: &Directory, last: u8, password: &[u8]) -> String {
    outcome(&directory.look_up(&carrying(last, password), Duration::ZERO))
}

fn refused(vm: &str, why: Refusal) -> String {
    format!("{vm}: {why:?}")
}

#[test]
fn only_the_password_of_the_vm_lets_a_packet_in() {
    let data: &[(&str, &[u8])] = &[("shop.web", b"secret"), ("default", b"192.168.1.1")];
    let directory = protected(&[locked(all(), SECRET)], data);
    for (last, password, expected) in [
        (1, &b"secret"[..], "wakes shop/web".to_owned()),
        (1, b"secreT", refused("shop/web", Refusal::PasswordWrong)),
        (1, b"", refused("shop/web", Refusal::PasswordAbsent)),
        (
            1,
            &[192, 168, 1, 1],
            refused("shop/web", Refusal::PasswordWrong),
        ),
        (2, &[192, 168, 1, 1], "wakes shop/db".to_owned()),
        (2, b"secret", refused("shop/db", Refusal::PasswordWrong)),
    ] {
        assert_eq!(
            look_up(&directory, last, password),
            expected,
            "{password:?}"
        );
    }
}

#[test]
fn a_vm_without_a_password_is_not_woken_by_a_config_that_wants_one() {
    let bad: &[(&str, &[u8])] = &[("shop.web", b"no password"), ("default", b"dflt")];
    for data in [&[("shop.db", &b"secret"[..])][..], bad] {
        let directory = protected(&[locked(all(), SECRET)], data);
        let unset = refused("shop/web", Refusal::PasswordUnset);
        for password in [&b""[..], b"secret", b"no pas", b"dflt"] {
            assert_eq!(look_up(&directory, 1, password), unset);
        }
    }
}

#[test]
fn a_secret_that_may_not_be_read_or_is_missing_lets_nothing_in() {
    let unset = refused("shop/web", Refusal::PasswordUnset);
    for name in ["other", "ca"] {
        let directory = protected(&[locked(all(), name)], &[("default", b"secret")]);
        assert_eq!(look_up(&directory, 1, b"secret"), unset, "{name}");
    }
    let directory = protected(&[locked(all(), SECRET)], &[("default", b"secret")]);
    directory.set_secret(SECRET, Secret::Missing);
    assert_eq!(look_up(&directory, 1, b"secret"), unset);
}

#[test]
fn another_password_counts_from_the_next_packet_on() {
    let directory = protected(&[locked(all(), SECRET)], &[("default", b"before")]);
    says(&directory, &[("default", b"after!")]);
    let wrong = refused("shop/web", Refusal::PasswordWrong);
    assert_eq!(look_up(&directory, 1, b"before"), wrong);
    assert_eq!(look_up(&directory, 1, b"after!"), "wakes shop/web");
}

#[test]
fn a_wake_waits_for_passwords_that_were_not_read_yet() {
    let directory = protected(&[locked(all(), SECRET)], &[]);
    directory.set_secret(SECRET, Secret::Unread);
    assert_eq!(look_up(&directory, 1, b"secret"), "locked");
    // Not for those that it does not need.
    let open = protected(&[locked(all(), SECRET), labelled("web")], &[]);
    open.set_secret(SECRET, Secret::Unread);
    assert_eq!(look_up(&open, 1, b""), "wakes shop/web");
    assert_eq!(look_up(&open, 2, b""), "locked");
}

#[test]
fn the_config_that_lets_a_wake_in_is_the_one_whose_password_it_carries() {
    let directory = protected(&[], &[("default", b"secret")]);
    let mut unpausing = locked(all(), SECRET);
    unpausing.wake_paused = true;
    let grants = [("locked", unpausing), ("open", labelled("web"))];
    let grants = grants.map(|(name, spec)| Grant::new(name, &spec).0.unwrap());
    directory.set_grants(grants.into());
    let web = vm("web", &[1]);
    let granting = |password| directory.granting(&carrying(1, password), &web);
    assert_eq!(granting(b"secret"), ["locked".into(), "open".into()]);
    assert_eq!(granting(b"wrong!"), ["open".into()]);
    assert_eq!(
        look_up(&directory, 1, b"secret"),
        "wakes or unpauses shop/web"
    );
    assert_eq!(look_up(&directory, 1, b"wrong!"), "wakes shop/web");
    let wrong = refused("shop/db", Refusal::PasswordWrong);
    assert_eq!(look_up(&directory, 2, b"wrong!"), wrong);
}
