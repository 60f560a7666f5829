//! The API stand-in answers as a real API server does: the same requests go to both, and codes,
//! media types and bodies are compared.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a step that cannot be taken has to fail the test"
)]

#[path = "conformance/authority.rs"]
mod authority;
mod common;
#[path = "conformance/custom.rs"]
mod custom;
#[path = "conformance/manager.rs"]
mod manager;
#[path = "conformance/memory.rs"]
mod memory;
#[path = "conformance/normalise.rs"]
mod normalise;
#[path = "conformance/requests.rs"]
mod requests;
#[path = "conformance/schemas.rs"]
mod schemas;
#[path = "conformance/tokens.rs"]
mod tokens;

use std::{io::Write as _, time::Duration};

use common::{apiserver::ApiServer, envtest::Envtest};
use http::Request;
use kube::Client;
use memory::Memory;
use requests::Step;
use serde_json::Value;

/// How long a server may take to follow a change of its definitions.
const SETTLE: Duration = Duration::from_secs(30);

/// What a server said.
#[derive(Debug, PartialEq)]
struct Answer {
    code: u16,
    media_type: String,
    warnings: Vec<String>,
    /// A list for a stream, a string for text.
    body: Value,
}

async fn send(client: &Client, step: &Step, memory: &mut Memory) -> Answer {
    let step = memory.fill(step);
    let mut request = Request::builder()
        .method(step.method.clone())
        .uri(&step.path)
        .header("user-agent", "conformance/1");
    if let Some(media_type) = step.media_type {
        request = request.header("content-type", media_type);
    }
    if let Some(accept) = step.accept {
        request = request.header("accept", accept);
    }
    let request = request.body(step.body.clone().into_bytes().into());
    let response = client.send(request.unwrap()).await.unwrap();
    let media_type = response.headers().get("content-type");
    let media_type = media_type.map(|value| value.to_str().unwrap().to_owned());
    let warnings = response.headers().get_all("warning").iter();
    let warnings = warnings
        .map(|value| value.to_str().unwrap().to_owned())
        .collect();
    let code = response.status().as_u16();
    let body = read(response.into_body()).await;
    memory.note(&body);
    Answer {
        code,
        media_type: media_type.unwrap_or_default(),
        warnings,
        body: normalise::body(&body),
    }
}

async fn read(body: kube::client::Body) -> String {
    let body = axum::body::to_bytes(axum::body::Body::new(body), usize::MAX).await;
    String::from_utf8(body.unwrap().to_vec()).unwrap()
}

/// Sends a step, and again if it is to have a code in the end.
async fn settle(client: &Client, step: &Step, memory: &mut Memory) -> Answer {
    let wait = async {
        loop {
            let answer = send(client, step, memory).await;
            if step.until.is_none_or(|code| code == answer.code) {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let settled = tokio::time::timeout(SETTLE, wait).await;
    settled.unwrap_or_else(|_| panic!("{step:?} never gets its code"))
}

fn client(server: &ApiServer) -> Client {
    let mut config = kube::Config::new(server.url().parse().unwrap());
    config.default_retry = false;
    Client::try_from(config).unwrap()
}

#[tokio::test]
async fn the_stand_in_answers_as_a_real_server() {
    let Some(envtest) = Envtest::start() else {
        return;
    };
    let real = envtest.client().await;
    let server = ApiServer::start().await;
    let stand_in = client(&server);
    let steps = requests::all();
    let (mut theirs, mut ours) = (Memory::default(), Memory::default());
    let (mut compared, mut different) = (0, Vec::new());
    for step in &steps {
        let (expected, found) = tokio::join!(
            settle(&real, step, &mut theirs),
            settle(&stand_in, step, &mut ours)
        );
        if step.until.is_some() {
            continue;
        }
        compared += 1;
        if expected != found {
            different.push(difference(step, &expected, &found));
        }
    }
    // Not `eprintln!`, which the harness shows for failed tests only.
    let line = format!(
        "\nconformance: {compared} requests compared, {} answered differently\n",
        different.len()
    );
    let _ = std::io::stderr().write_all(line.as_bytes());
    assert!(different.is_empty(), "{}", different.join("\n"));
    // Steps that are lost by a mistake would be missed by nobody.
    assert!(compared >= 300, "only {compared} requests were compared");
}

/// What differs, as the patch that makes the real answer of ours.
fn difference(step: &Step, expected: &Answer, found: &Answer) -> String {
    let Step {
        method, path, body, ..
    } = step;
    let patch = json_patch::diff(&found.body, &expected.body);
    format!(
        "{method} {path} {body}\n  real {} {} {:?}, stand-in {} {} {:?}\n  {patch}",
        expected.code,
        expected.media_type,
        expected.warnings,
        found.code,
        found.media_type,
        found.warnings
    )
}
