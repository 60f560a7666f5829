//! Owns aggregated groups: requests for them go to another server, here an axum router.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use axum::{Router, body::Body};
use http::{Request, Response};
use tower::ServiceExt as _;

use super::failure::Failure;

/// What serves an aggregated group.
#[derive(Debug, Clone)]
pub enum Backend {
    Router(Router),
    /// Nobody can be reached, for this reason.
    Unreachable(String),
    /// The server takes requests and answers none.
    Frozen,
}

/// The aggregated groups, by group and version.
#[derive(Debug, Default)]
pub struct Aggregated(Mutex<BTreeMap<(String, String), Backend>>);

impl Aggregated {
    pub fn set(&self, group: &str, version: &str, backend: Backend) {
        let key = (group.to_owned(), version.to_owned());
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(key, backend);
    }

    pub fn remove(&self, group: &str, version: &str) {
        let key = (group.to_owned(), version.to_owned());
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&key);
    }

    pub fn names(&self) -> Vec<(String, String)> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .keys()
            .cloned()
            .collect()
    }

    /// What serves a path, if it is of an aggregated group.
    pub fn find(&self, path: &str) -> Option<Backend> {
        let mut parts = path.split('/').filter(|part| !part.is_empty());
        if parts.next() != Some("apis") {
            return None;
        }
        let key = (parts.next()?.to_owned(), parts.next()?.to_owned());
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&key)
            .cloned()
    }
}

/// Forwards a request as it is, and its answer.
pub async fn forward(backend: Backend, request: Request<Body>) -> Result<Response<Body>, Failure> {
    match backend {
        Backend::Router(router) => {
            let Ok(response) = router.oneshot(request).await;
            Ok(response)
        }
        Backend::Unreachable(why) => Err(Failure::text(
            503,
            format!("error trying to reach service: {why}\n"),
        )),
        Backend::Frozen => std::future::pending().await,
    }
}
