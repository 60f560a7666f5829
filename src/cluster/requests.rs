//! Owns what is counted of requests to the API server, whoever makes them.

use std::time::Duration;

use http::{Method, Request, StatusCode};
use kube::{Client, client::Body};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::Family,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};
use tokio::time::Instant;

use crate::telemetry::Word;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Verb {
    Get,
    Post,
    Put,
    Patch,
    Delete,
    Other,
}

impl Verb {
    const ALL: [Self; 6] = [
        Self::Get,
        Self::Post,
        Self::Put,
        Self::Patch,
        Self::Delete,
        Self::Other,
    ];
}

impl From<&Method> for Verb {
    fn from(method: &Method) -> Self {
        match *method {
            Method::GET => Self::Get,
            Method::POST => Self::Post,
            Method::PUT => Self::Put,
            Method::PATCH => Self::Patch,
            Method::DELETE => Self::Delete,
            _ => Self::Other,
        }
    }
}

/// How it was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Answer {
    Success,
    Forbidden,
    NotFound,
    Conflict,
    Throttled,
    ClientError,
    ServerError,
    /// Not at all, or not in time.
    None,
}

impl Answer {
    const ALL: [Self; 8] = [
        Self::Success,
        Self::Forbidden,
        Self::NotFound,
        Self::Conflict,
        Self::Throttled,
        Self::ClientError,
        Self::ServerError,
        Self::None,
    ];
}

impl From<StatusCode> for Answer {
    fn from(status: StatusCode) -> Self {
        match status.as_u16() {
            401 | 403 => Self::Forbidden,
            404 => Self::NotFound,
            409 => Self::Conflict,
            429 => Self::Throttled,
            400..=499 => Self::ClientError,
            500.. => Self::ServerError,
            _ => Self::Success,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    verb: Word<Verb>,
    answer: Word<Answer>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Timed {
    verb: Word<Verb>,
}

#[derive(Clone)]
struct Requests {
    answers: Family<Answered, Counter>,
    times: Family<Timed, Histogram, fn() -> Histogram>,
}

impl Requests {
    fn register(registry: &mut Registry) -> Self {
        let requests = Self {
            answers: Family::default(),
            // From a millisecond to half a minute.
            times: Family::new_with_constructor(|| {
                Histogram::new(exponential_buckets(0.001, 2.5, 12))
            }),
        };
        for verb in Verb::ALL.map(Word) {
            drop(requests.times.get_or_create(&Timed { verb }));
            for answer in Answer::ALL.map(Word) {
                drop(requests.answers.get_or_create(&Answered { verb, answer }));
            }
        }
        registry.register(
            "api_requests",
            "Requests to the API server, by how they were answered",
            requests.answers.clone(),
        );
        registry.register(
            "api_request_duration_seconds",
            "From a request to the API server to the head of its answer",
            requests.times.clone(),
        );
        requests
    }

    fn answered(&self, verb: Verb, answer: Answer, time: Duration) {
        let (verb, answer) = (Word(verb), Word(answer));
        self.answers.get_or_create(&Answered { verb, answer }).inc();
        let times = self.times.get_or_create(&Timed { verb });
        times.observe(time.as_secs_f64());
    }
}

/// Counts a request when its answer is there, or when nobody waits for it any more.
struct UnderWay {
    requests: Requests,
    verb: Verb,
    answer: Answer,
    began: Instant,
}

impl UnderWay {
    fn ended(&mut self, status: StatusCode) {
        self.answer = status.into();
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let time = self.began.elapsed();
        self.requests.answered(self.verb, self.answer, time);
    }
}

/// A client that does what `client` does, and counts. To be called within the runtime.
#[must_use]
pub fn counted(client: Client, registry: &mut Registry) -> Client {
    let requests = Requests::register(registry);
    let namespace = client.default_namespace().to_owned();
    let service = tower::service_fn(move |request: Request<Body>| {
        let client = client.clone();
        let mut under_way = UnderWay {
            requests: requests.clone(),
            verb: request.method().into(),
            answer: Answer::None,
            began: Instant::now(),
        };
        async move {
            let response = client.send(request).await?;
            under_way.ended(response.status());
            Ok::<_, kube::Error>(response)
        }
    });
    Client::new(service, namespace)
}

#[cfg(test)]
mod tests {
    use http::Response;
    use k8s_openapi::api::core::v1::Namespace;
    use kube::Api;
    use prometheus_client::encoding::text::encode;

    use super::*;

    fn metrics(registry: &Registry) -> String {
        let mut text = String::new();
        encode(&mut text, registry).unwrap();
        text
    }

    #[tokio::test(start_paused = true)]
    async fn answers_failures_and_silence_are_counted_and_change_nothing() {
        let service = tower::service_fn(|request: Request<Body>| async move {
            match request.uri().path() {
                "/api/v1/namespaces/away" => Err(std::io::Error::other("away")),
                "/api/v1/namespaces/silent" => std::future::pending().await,
                _ => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    let body = r#"{"kind":"Status","code":404,"reason":"NotFound"}"#;
                    let body = Body::from(body.as_bytes().to_vec());
                    Ok(Response::builder().status(404).body(body).unwrap())
                }
            }
        });
        let mut registry = Registry::default();
        let client = counted(Client::new(service, "here"), &mut registry);
        assert_eq!(client.default_namespace(), "here");
        let api = Api::<Namespace>::all(client);
        assert!(api.get_opt("absent").await.unwrap().is_none());
        let error = api.get("away").await.unwrap_err();
        assert!(matches!(error, kube::Error::Service(_)), "{error:?}");
        let silent = tokio::time::timeout(Duration::from_secs(1), api.get("silent"));
        assert!(silent.await.is_err());
        let text = metrics(&registry);
        for line in [
            r#"api_requests_total{verb="get",answer="not-found"} 1"#,
            r#"api_requests_total{verb="get",answer="none"} 2"#,
            r#"api_requests_total{verb="put",answer="success"} 0"#,
            r#"api_request_duration_seconds_count{verb="get"} 3"#,
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
