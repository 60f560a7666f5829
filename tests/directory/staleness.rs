//! What a lookup may still say when the API server has been away for some seconds.

use kubevirt_wol::{crd::WolConfigSpec, manager::grant::Grant};

use crate::fixture::{all, directory, explicit, labelled, look_up_after, vm};

fn lasting(seconds: i64, spec: WolConfigSpec) -> WolConfigSpec {
    WolConfigSpec {
        cache_ttl: Some(seconds),
        ..spec
    }
}

#[test]
fn a_config_serves_up_to_its_ttl_and_not_beyond() {
    for (ttl, served) in [(Some(0), 0), (Some(10), 10), (None, 300)] {
        let spec = WolConfigSpec {
            cache_ttl: ttl,
            ..all()
        };
        let directory = directory(&[spec], &[vm("web", &[1])]);
        assert_eq!(look_up_after(&directory, 1, served), "wakes shop/web");
        assert_eq!(look_up_after(&directory, 9, served), "not found");
        assert_eq!(look_up_after(&directory, 1, served + 1), "stale");
        assert_eq!(look_up_after(&directory, 9, served + 1), "stale");
    }
}

#[test]
fn a_ttl_below_zero_is_told_and_counts_as_zero() {
    let (grant, problems) = Grant::new("config", &lasting(-1, all()));
    assert!(grant.unwrap().cache_ttl.is_zero());
    let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(told, ["cacheTTL: -1 is below 0, so 0 counts"]);
}

#[test]
fn what_a_fresh_config_allows_wakes_beside_a_stale_one() {
    let specs = [lasting(0, labelled("a")), lasting(60, labelled("b"))];
    let directory = directory(&specs, &[vm("a", &[1]), vm("b", &[2]), vm("c", &[3])]);
    let seen = |seconds| [1, 2, 3, 9].map(|last| look_up_after(&directory, last, seconds));
    let known = [
        "wakes shop/a",
        "wakes shop/b",
        "shop/c: NoConfig",
        "not found",
    ];
    assert_eq!(seen(0), known);
    // The stale config may by now select c, and a VM with the last address may have come.
    assert_eq!(seen(30), ["stale", "wakes shop/b", "stale", "stale"]);
    assert_eq!(seen(61), ["stale"; 4]);
}

#[test]
fn a_stale_config_still_has_a_say_in_which_vm_is_meant() {
    let twins = [vm("a", &[1]), vm("b", &[1])];
    let both = directory(&[lasting(0, labelled("a")), labelled("b")], &twins);
    assert_eq!(look_up_after(&both, 1, 0), "ambiguous shop/a shop/b");
    assert_eq!(look_up_after(&both, 1, 30), "stale", "and never b alone");

    let mapping = lasting(0, explicit(&[("52:54:00:00:00:01", "a")]));
    let mapped = directory(&[mapping, labelled("b")], &twins);
    assert_eq!(look_up_after(&mapped, 1, 0), "wakes shop/a");
    assert_eq!(look_up_after(&mapped, 1, 30), "stale", "and never b");
}

#[test]
fn a_mapping_to_a_vm_that_does_not_exist_may_be_true_by_now() {
    let spec = lasting(0, explicit(&[("52:54:00:00:00:09", "new")]));
    let directory = directory(&[spec], &[]);
    assert_eq!(look_up_after(&directory, 9, 0), "missing shop/new");
    assert_eq!(look_up_after(&directory, 9, 1), "stale");
}

#[test]
fn without_a_config_nothing_is_out_of_date() {
    let directory = directory(&[], &[vm("web", &[1])]);
    assert_eq!(look_up_after(&directory, 1, 9_999), "shop/web: NoConfig");
    assert_eq!(look_up_after(&directory, 2, 9_999), "not found");
}
