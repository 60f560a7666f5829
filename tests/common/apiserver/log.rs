//! Owns the record of all requests, from which tests read what was done.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    time::SystemTime,
};

use axum::body::Bytes;
use http::Method;

/// How many requests are remembered.
const REMEMBERED: usize = 500_000;

/// One request.
#[derive(Debug, Clone)]
pub struct Request {
    /// Counts from 0.
    pub number: u64,
    pub at: SystemTime,
    pub method: Method,
    pub path: String,
    /// As sent, without the question mark.
    pub query: String,
    pub user_agent: String,
    /// As sent; empty for what has none, and for the ones that were refused or forwarded unread.
    pub body: Bytes,
    /// What was answered; none while it is not, or where the connection was cut instead.
    pub status: Option<u16>,
}

impl Request {
    /// Whether it is a watch.
    pub fn is_watch(&self) -> bool {
        let watch = |part: &str| matches!(part, "watch=1" | "watch=true");
        self.method == Method::GET && self.query.split('&').any(watch)
    }
}

/// All requests, in the order of their arrival.
#[derive(Debug, Default)]
pub struct Log(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    first: u64,
    requests: VecDeque<Request>,
}

impl Log {
    /// Adds a request and returns its number.
    pub fn begin(&self, parts: &http::request::Parts) -> u64 {
        let agent = parts.headers.get(http::header::USER_AGENT);
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let number = inner.first + inner.requests.len() as u64;
        inner.requests.push_back(Request {
            number,
            at: SystemTime::now(),
            method: parts.method.clone(),
            path: parts.uri.path().to_owned(),
            query: parts.uri.query().unwrap_or_default().to_owned(),
            user_agent: agent
                .and_then(|agent| agent.to_str().ok())
                .unwrap_or_default()
                .to_owned(),
            body: Bytes::new(),
            status: None,
        });
        if inner.requests.len() > REMEMBERED {
            inner.requests.pop_front();
            inner.first += 1;
        }
        number
    }

    pub fn body(&self, number: u64, body: &Bytes) {
        self.change(number, |request| request.body = body.clone());
    }

    pub fn end(&self, number: u64, status: u16) {
        self.change(number, |request| request.status = Some(status));
    }

    fn change(&self, number: u64, change: impl FnOnce(&mut Request)) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let index = number
            .checked_sub(inner.first)
            .and_then(|index| usize::try_from(index).ok());
        if let Some(request) = index.and_then(|index| inner.requests.get_mut(index)) {
            change(request);
        }
    }

    pub fn all(&self) -> Vec<Request> {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.requests.iter().cloned().collect()
    }

    pub fn clear(&self) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.first += inner.requests.len() as u64;
        inner.requests.clear();
    }
}
