//! What every answer of KubeVirt and of the API server to a start means.

use std::time::Duration;

use clap::Parser as _;
use http::StatusCode;
use kubevirt_wol::{
    cli::{Cli, Command},
    manager::{
        metrics::Meaning,
        start::{Answered, classify},
    },
};

const ONCE: &str = "Once does not support manual start requests";
const ALWAYS: &str = "Always does not support manual start requests";
const LOST: &str =
    "Internal error occurred: the server rejected our request due to an error in our request";
const UNDERWAY: &str =
    "Internal error occurred: unable to complete request: stop/start already underway";
const SNAPSHOT: &str = "Internal error occurred: admission webhook \"vm\" denied the request: Cannot update vm running state until snapshot \"s\" completes";
const RESTORE: &str = "Internal error occurred: admission webhook \"vm\" denied the request: Cannot update VM runStrategy until restore \"r\" completes";
const DENIED: &str = "Internal error occurred: admission webhook \"vm\" denied the request: spec.template.spec.domain.cpu is odd";
const WEBHOOK: &str = "Internal error occurred: failed calling webhook \"vm\": connection refused";

fn object(code: u16, message: &str) -> String {
    serde_json::json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": message,
    })
    .to_string()
}

/// The word for what an answer means, and whether it may have started the VM.
fn meaning(code: u16, body: &str) -> (Meaning, bool) {
    let answer = classify(StatusCode::from_u16(code).unwrap(), body, None);
    (answer.meaning(), answer.may_have_started())
}

#[allow(clippy::too_many_lines, reason = "one table")]
#[test]
fn status_objects_mean_what_the_table_says() {
    for (code, message, expected) in [
        (
            400,
            "Can not unmarshal Request body to struct",
            (Meaning::NotUnderstood, false),
        ),
        (401, "Unauthorized", (Meaning::Unavailable, false)),
        (
            403,
            "cannot update resource \"virtualmachines/start\"",
            (Meaning::Forbidden, false),
        ),
        (
            404,
            "virtualmachine.kubevirt.io \"x\" not found",
            (Meaning::Gone, false),
        ),
        (
            404,
            "the server could not find the requested resource",
            (Meaning::ApiMissing, false),
        ),
        (405, "method not allowed", (Meaning::NotUnderstood, false)),
        (406, "not acceptable", (Meaning::NotUnderstood, false)),
        (409, "VM is already running", (Meaning::Recheck, false)),
        (409, ALWAYS, (Meaning::Recheck, false)),
        (409, ONCE, (Meaning::Unsupported, false)),
        (
            409,
            "RerunOnFailure does not support starting VM from failed state",
            (Meaning::Recheck, false),
        ),
        (409, "VM recovery required", (Meaning::Refused, false)),
        (500, LOST, (Meaning::Recheck, true)),
        (500, UNDERWAY, (Meaning::Recheck, true)),
        (500, SNAPSHOT, (Meaning::Recheck, false)),
        (500, RESTORE, (Meaning::Recheck, false)),
        (500, DENIED, (Meaning::Refused, false)),
        (500, WEBHOOK, (Meaning::Unavailable, false)),
        (
            500,
            "etcdserver: request timed out",
            (Meaning::Recheck, true),
        ),
        (
            503,
            "the server is currently unable to handle the request",
            (Meaning::Unavailable, false),
        ),
        (
            504,
            "Timeout: request did not complete within 60s",
            (Meaning::Recheck, true),
        ),
        (429, "too many requests", (Meaning::Unavailable, false)),
    ] {
        assert_eq!(
            meaning(code, &object(code, message)),
            expected,
            "{code} {message}"
        );
    }
}

#[test]
fn answers_in_plain_text_or_empty_ones_mean_what_the_table_says() {
    for (code, body, expected) in [
        (202, "", (Meaning::Accepted, true)),
        (200, "", (Meaning::Accepted, true)),
        (401, "not authorised", (Meaning::Forbidden, false)),
        (404, "404 page not found\n", (Meaning::ApiMissing, false)),
        (406, "406: Not Acceptable", (Meaning::NotUnderstood, false)),
        (409, "", (Meaning::Recheck, false)),
        (500, "", (Meaning::Recheck, true)),
        (502, "bad gateway", (Meaning::Recheck, true)),
        (
            503,
            "error trying to reach service: dial tcp: refused",
            (Meaning::Unavailable, false),
        ),
        (418, "{\"kind\":", (Meaning::NotUnderstood, false)),
    ] {
        assert_eq!(meaning(code, body), expected, "{code} {body}");
    }
}

#[test]
fn a_named_pause_is_kept_and_a_missing_api_is_asked_rarely() {
    let pause = |code, after| match classify(StatusCode::from_u16(code).unwrap(), "", after) {
        Answered::Retry { after, .. } => after,
        Answered::ApiMissing { after, .. } => Some(after),
        other => panic!("{code} means {other:?}"),
    };
    let seven = Some(Duration::from_secs(7));
    assert_eq!(pause(429, seven), seven);
    assert_eq!(pause(503, None), None);
    assert_eq!(pause(404, None), Some(Duration::from_secs(10)));
    assert_eq!(pause(404, seven), seven);
}

#[test]
fn a_long_text_is_cut_and_the_server_s_own_words_are_kept() {
    let text = format!("denied the request: {}", "é".repeat(5_000));
    let Answered::Refused(why) = classify(StatusCode::INTERNAL_SERVER_ERROR, &text, None) else {
        panic!("not refused");
    };
    assert!(why.starts_with("KubeVirt answered 500: denied the request: é"));
    assert!(why.chars().count() < 400);
}

#[test]
fn starts_are_bounded_as_promised_unless_somebody_sets_otherwise() {
    let read = |flags: &[&str]| {
        let args = ["kubevirt-wol", "manager"].iter().chain(flags);
        match Cli::try_parse_from(args).unwrap().command {
            Command::Manager(args) => (args.start_rate, args.start_burst, args.start_concurrency),
            other => panic!("not a manager: {other:?}"),
        }
    };
    assert_eq!(read(&[]), (20, 50, 16));
    let flags = ["--start-rate=1", "--start-burst=2", "--start-concurrency=3"];
    assert_eq!(read(&flags), (1, 2, 3));
}

#[test]
fn a_refusal_is_no_answer_while_changes_of_the_cluster_do_not_come_either() {
    let refused = || Answered::Forbidden("403".into());
    assert_eq!(refused().doubted(Duration::ZERO), refused());
    let doubted = refused().doubted(Duration::from_millis(1));
    assert!(matches!(
        doubted,
        Answered::Retry {
            effective: false,
            ..
        }
    ));
    let gone = Answered::Gone.doubted(Duration::from_secs(1));
    assert_eq!(gone, Answered::Gone);
}
