//! VMs come, change and go.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use kubevirt_wol::manager::{
    directory::Directory,
    vm::{Noticed, Power, Vm, VmKey},
};

use crate::fixture::{all, directory, look_up, version, vm};

#[test]
fn an_address_that_moves_is_found_where_it_is() {
    let directory = directory(&[all()], &[vm("a", &[1, 2]), vm("b", &[3])]);
    directory.apply(version("2", vm("a", &[2, 4])), Instant::now());
    directory.apply(version("2", vm("b", &[1])), Instant::now());
    let seen = [1, 2, 3, 4].map(|last| look_up(&directory, last));
    assert_eq!(
        seen,
        ["wakes shop/b", "wakes shop/a", "not found", "wakes shop/a"]
    );
    assert_eq!(directory.size().macs, 3);
}

#[test]
fn what_a_list_no_longer_has_is_gone() {
    let directory = directory(&[all()], &[vm("a", &[1]), vm("b", &[2]), vm("c", &[3])]);
    let now = Instant::now();
    directory.begin_relist();
    directory.apply(vm("a", &[1]), now);
    directory.apply(vm("b", &[2]), now);
    // The list broke off and began again; meanwhile b was deleted.
    directory.begin_relist();
    assert_eq!(look_up(&directory, 3), "wakes shop/c");
    directory.apply(vm("a", &[1]), now);
    directory.apply(vm("d", &[4]), now);
    let gone = directory.finish_relist();
    let mut names: Vec<_> = gone.iter().map(|vm| vm.key.to_string()).collect();
    names.sort();
    assert_eq!(names, ["shop/b", "shop/c"]);
    let seen = [1, 2, 3, 4].map(|last| look_up(&directory, last));
    assert_eq!(
        seen,
        ["wakes shop/a", "not found", "not found", "wakes shop/d"]
    );
    assert_eq!((directory.size().vms, directory.size().macs), (2, 2));
}

#[test]
fn only_news_is_told() {
    let directory = Directory::new();
    let now = Instant::now();
    assert!(directory.apply(vm("a", &[1]), now).is_some());
    assert!(directory.apply(vm("a", &[1]), now).is_none());
    assert!(directory.apply(version("2", vm("a", &[1])), now).is_some());
    let reborn = Vm {
        uid: "another".into(),
        ..version("2", vm("a", &[1]))
    };
    assert!(directory.apply(reborn, now).is_some());
}

#[test]
fn when_a_vm_came_on_is_remembered() {
    let directory = Directory::new();
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let mut number = 0;
    let mut seen = |power, seconds| {
        number += 1;
        let vm = Vm {
            power,
            ..version(&number.to_string(), vm("a", &[1]))
        };
        directory.apply(vm, at(seconds)).unwrap().on_since
    };
    // Since when it is on when first seen, nobody knows.
    assert_eq!(seen(Power::On, 0), None);
    assert_eq!(seen(Power::Off, 1), None);
    assert_eq!(seen(Power::Stuck("ErrImagePull"), 2), Some(at(2)));
    assert_eq!(seen(Power::On, 3), Some(at(2)));
    assert_eq!(seen(Power::Paused, 4), Some(at(2)));
    assert_eq!(seen(Power::Stopping, 5), Some(at(2)));
    assert_eq!(seen(Power::Off, 6), Some(at(2)));
    assert_eq!(seen(Power::On, 7), Some(at(7)));
    let reborn = Vm {
        uid: "another".into(),
        ..vm("a", &[1])
    };
    assert_eq!(directory.apply(reborn, at(8)).unwrap().on_since, None);
}

#[test]
fn when_a_vm_went_off_is_remembered_as_far_as_it_was_seen() {
    let directory = directory(&[all()], &[]);
    let start = Instant::now();
    let at = |seconds| start + seconds * Duration::from_secs(1);
    let is = |power, number: u64| {
        let vm = Vm {
            power,
            ..vm("a", &[1])
        };
        version(&number.to_string(), vm)
    };
    let off = |vm, noticed: Noticed| directory.apply(vm, noticed).unwrap().off_since;
    assert_eq!(
        off(is(Power::Off, 1), at(1).into()),
        None,
        "a list tells nothing"
    );
    assert_eq!(off(is(Power::On, 2), at(2).into()), None);
    assert_eq!(off(is(Power::Stopping, 3), at(3).into()), Some(at(3)));
    assert_eq!(
        off(is(Power::Off, 4), at(4).into()),
        Some(at(3)),
        "not again"
    );
    assert_eq!(off(is(Power::On, 5), at(5).into()), Some(at(3)));
    let late = Noticed {
        at: at(20),
        earliest: at(8),
    };
    assert_eq!(
        off(is(Power::Off, 6), late),
        Some(at(8)),
        "it may have been then"
    );
    let reborn = Vm {
        uid: "another".into(),
        ..is(Power::Off, 7)
    };
    assert_eq!(off(reborn, at(21).into()), None);
}

#[test]
fn what_cannot_be_woken_is_counted() {
    let odd = Vm {
        bad_macs: vec!["nonsense".into(), "ff:ff:ff:ff:ff:ff".into()],
        ..vm("odd", &[])
    };
    let directory = directory(&[all()], &[odd.clone(), vm("a", &[1])]);
    let size = directory.size();
    assert_eq!((size.without_mac, size.bad_macs), (1, 2));
    directory.apply(version("2", vm("odd", &[2])), Instant::now());
    let size = directory.size();
    assert_eq!((size.without_mac, size.bad_macs), (0, 0));
    directory.apply(version("3", odd.clone()), Instant::now());
    directory.delete(&odd.key);
    let size = directory.size();
    assert_eq!((size.vms, size.without_mac, size.bad_macs), (1, 0, 0));
}

#[test]
fn lookups_and_changes_do_not_stop_each_other() {
    let directory = Arc::new(directory(&[all()], &[vm("fixed", &[0])]));
    let end = Instant::now() + Duration::from_millis(500);
    let workers: Vec<_> = (0..4)
        .map(|worker| {
            let directory = Arc::clone(&directory);
            thread::spawn(move || {
                let mut rounds = 0_u32;
                while Instant::now() < end {
                    rounds += 1;
                    let last = u8::try_from(rounds % 8).unwrap_or(0) + 1;
                    assert_eq!(look_up(&directory, 0), "wakes shop/fixed");
                    if worker < 2 {
                        let moved = version(&rounds.to_string(), vm("moving", &[last]));
                        directory.apply(moved, Instant::now());
                        directory.delete(&VmKey::new("shop", "moving"));
                    } else {
                        let found = look_up(&directory, last);
                        assert!(
                            ["not found", "wakes shop/moving"].contains(&&*found),
                            "{found}"
                        );
                    }
                }
                rounds
            })
        })
        .collect();
    for worker in workers {
        assert!(worker.join().unwrap() > 100);
    }
    assert_eq!((directory.size().vms, directory.size().macs), (1, 1));
}
