//! Whatever goes wrong with the watches, they heal by themselves, say what it was, and do not ask
//! without a pause meanwhile.

use std::time::Duration;

use crate::{
    VMS,
    cluster::{Cluster, vm},
    common::apiserver::{Failure, Fault, WatchEnd, When},
};

/// How long each trouble lasts.
const LASTS: Duration = Duration::from_secs(3);

/// A trouble of the watch of VMs, under which reason it counts, and how often it may be asked
/// meanwhile.
struct Trouble {
    name: &'static str,
    when: When,
    fault: Fault,
    reason: &'static str,
    asked: usize,
}

fn trouble(name: &'static str, fault: Fault, reason: &'static str) -> Trouble {
    Trouble {
        name,
        when: When::path(VMS),
        fault,
        reason,
        // After 0.05, 0.1, 0.2, 0.4 s, and so on up to a second, at the least.
        asked: 12,
    }
}

fn troubles() -> Vec<Trouble> {
    let answer = |code, reason| {
        let failure = Failure::new(code, reason, reason, serde_json::Value::Null);
        Fault::Answer(failure)
    };
    let text = |text| Fault::Answer(Failure::text(200, text));
    let watches = |trouble| Trouble {
        when: When::path(VMS).watches(),
        ..trouble
    };
    vec![
        trouble("401", Fault::unauthorized(), "unauthorized"),
        trouble("403", answer(403, "Forbidden"), "forbidden"),
        trouble("500", Fault::internal_error(), "unavailable"),
        trouble("503", answer(503, "ServiceUnavailable"), "unavailable"),
        trouble("a reset", Fault::Cut, "unavailable"),
        Trouble {
            asked: 3,
            ..trouble("429", Fault::too_many_requests(2), "throttled")
        },
        trouble("garbage in place of a list", text("<html>"), "other"),
        watches(trouble(
            "a watch that ends at once",
            text(""),
            "unavailable",
        )),
        // Each of these is followed by a list, which succeeds.
        Trouble {
            asked: 20,
            ..watches(trouble("garbage in a watch", text("<html>\n"), "other"))
        },
        Trouble {
            asked: 20,
            ..watches(trouble(
                "410 for a watch",
                answer(410, "Expired"),
                "expired",
            ))
        },
    ]
}

#[tokio::test]
async fn every_trouble_heals_is_told_and_makes_no_flood() {
    let cluster = Cluster::with_everything().await;
    let requests = || {
        let requests = cluster.server.requests().into_iter();
        requests.filter(|request| request.path == VMS).count()
    };
    for (number, trouble) in (1..).zip(troubles()) {
        cluster.in_contact().await;
        let number: u8 = number;
        let faults = cluster.server.faults();
        let (fault, before) = (faults.add(trouble.when, trouble.fault), requests());
        faults.end_watches(WatchEnd::Reset);
        tokio::time::sleep(LASTS).await;
        let asked = requests() - before;
        println!("{}: asked {asked} times", trouble.name);
        let name = trouble.name;
        assert!((1..=trouble.asked).contains(&asked), "{name}: {asked}");
        let line = format!(
            "watch_errors_total{{resource=\"virtual-machines\",reason=\"{}\"}} ",
            trouble.reason
        );
        assert!(
            cluster.has(&line) && !cluster.has(&format!("{line}0")),
            "{name}"
        );
        faults.remove(fault);
        let vm = vm(
            &format!("vm-{number}"),
            &format!("52:54:00:00:00:{number:02x}"),
        );
        cluster.create(vm).await;
        cluster
            .eventually(number, &format!("wakes shop/vm-{number}"))
            .await;
    }
}

#[tokio::test]
async fn a_pause_that_the_server_asks_for_is_kept() {
    let cluster = Cluster::with_everything().await;
    cluster.in_contact().await;
    let faults = cluster.server.faults();
    faults.add(When::path(VMS).times(1), Fault::too_many_requests(2));
    faults.end_watches(WatchEnd::Reset);
    cluster.out_of_contact().await;
    let began = std::time::Instant::now();
    cluster.in_contact().await;
    assert!(
        began.elapsed() > Duration::from_millis(1_500),
        "{:?}",
        began.elapsed()
    );
}
