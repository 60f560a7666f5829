//! Owns connections and the way of a request: log, faults, route, answer.

use std::{cell::RefCell, fmt::Display, io, sync::Arc, time::Duration};

use axum::body::{Body, Bytes, to_bytes};
use http::{HeaderValue, Method, Request, Response, header};
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::Value;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use super::{
    State, aggregate, discovery,
    failure::{self, Failure},
    faults::Fault,
    form::Form,
    kinds, list, reviews,
    route::{self, Address, Call, Target},
    tokens, watch, write,
};

/// The largest body that is read, in bytes, as in etcd's default.
const LARGEST: usize = 3 * 1024 * 1024;

/// Serves connections until `stop` is cancelled; then those that are idle end at once and the
/// others after their request, but no later than a second.
pub async fn run(state: Arc<State>, listener: TcpListener, stop: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => if let Ok((stream, _)) = accepted {
                connections.spawn(connection(state.clone(), stream, stop.clone()));
            },
            Some(_) = connections.join_next() => {}
        }
    }
    drop(listener);
    let all = async { while connections.join_next().await.is_some() {} };
    // What is left after this, such as a hanging request, is cut.
    let _ = tokio::time::timeout(Duration::from_secs(1), all).await;
}

async fn connection(state: Arc<State>, stream: TcpStream, stop: CancellationToken) {
    let mut cut = state.faults.connections();
    if *cut.borrow_and_update() {
        return;
    }
    let _ = stream.set_nodelay(true);
    let service = hyper::service::service_fn(|request| answer(state.clone(), request));
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder.timer(TokioTimer::new());
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        // An error is the client's going away, or a cut on purpose.
        _ = connection.as_mut() => {}
        _ = cut.changed() => {}
        () = stop.cancelled() => {
            state.faults.end_watches(super::faults::WatchEnd::Clean);
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }
}

/// Answers a request; an error cuts the connection.
async fn answer(state: Arc<State>, request: Request<Incoming>) -> io::Result<Response<Body>> {
    let (parts, body) = request.into_parts();
    let number = state.log.begin(&parts);
    let fault = state.faults.find(&parts);
    let request = Request::from_parts(parts, Body::new(body));
    let response = match fault {
        Some(Fault::Answer(failure)) => render_failure(failure),
        Some(Fault::Cut) => return Err(io::ErrorKind::ConnectionReset.into()),
        Some(Fault::Hang) => std::future::pending().await,
        Some(Fault::Delay(time)) => {
            tokio::time::sleep(time).await;
            carry_out(&state, number, request).await
        }
        Some(Fault::LoseAnswer) => {
            carry_out(&state, number, request).await;
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        Some(Fault::HangAnswer) => {
            carry_out(&state, number, request).await;
            std::future::pending().await
        }
        None => carry_out(&state, number, request).await,
    };
    state.log.end(number, response.status().as_u16());
    Ok(response)
}

async fn carry_out(state: &Arc<State>, number: u64, request: Request<Body>) -> Response<Body> {
    if let Some(backend) = state.backends.find(request.uri().path()) {
        let forwarded = aggregate::forward(backend, request).await;
        return forwarded.unwrap_or_else(render_failure);
    }
    let (parts, body) = request.into_parts();
    let Ok(body) = to_bytes(body, LARGEST).await else {
        let text = "Request entity too large: limit is 3145728";
        return render_failure(Failure::new(
            413,
            "RequestEntityTooLarge",
            text,
            Value::Null,
        ));
    };
    state.log.body(number, &body);
    dispatch(state, &parts, body).unwrap_or_else(render_failure)
}

fn dispatch(
    state: &Arc<State>,
    parts: &http::request::Parts,
    body: Bytes,
) -> Result<Response<Body>, Failure> {
    match Target::parse(parts.uri.path()) {
        Target::Other => Ok(match discovery::other(state, parts.uri.path())? {
            Value::String(text) => render_text(200, text),
            value => render(200, value),
        }),
        Target::Version { group, version } => {
            Ok(render(200, discovery::version(state, &group, &version)?))
        }
        Target::Resource(address) => {
            let call = call(state, parts, address, body)?;
            let custom = call.resource.custom.as_ref();
            let deprecated = custom.and_then(|custom| custom.warning.clone());
            call.warnings.borrow_mut().extend(deprecated);
            let response = resource(state, &call);
            let mut response = response.unwrap_or_else(render_failure);
            for text in call.warnings.borrow().iter() {
                let text = text.replace('"', "\\\"");
                if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{text}\"")) {
                    response.headers_mut().append(header::WARNING, value);
                }
            }
            Ok(response)
        }
    }
}

fn call(
    state: &State,
    parts: &http::request::Parts,
    address: Address,
    body: Bytes,
) -> Result<Call, Failure> {
    let Address {
        group,
        version,
        plural,
        ..
    } = &address;
    let found = kinds::find(&state.store(), group, version, plural);
    let resource = found.ok_or_else(|| {
        if kinds::is_built_in(group, version) {
            Failure::no_such_resource()
        } else {
            Failure::page_not_found()
        }
    })?;
    if let Some(part) = &address.subresource
        && !resource.has(part)
    {
        return Err(Failure::no_such_resource());
    }
    if !resource.namespaced && address.namespace.is_some() {
        return Err(Failure::no_such_resource());
    }
    Ok(Call {
        resource,
        method: parts.method.clone(),
        namespace: address.namespace,
        name: address.name,
        subresource: address.subresource,
        query: route::query(parts.uri.query()),
        headers: parts.headers.clone(),
        body,
        warnings: RefCell::default(),
    })
}

fn resource(state: &Arc<State>, call: &Call) -> Result<Response<Body>, Failure> {
    let form = Form::accepted(call)?;
    let one = |(code, object): write::Written| {
        let status = object["kind"] == "Status";
        let text = if status {
            object.to_string()
        } else {
            form.one(&call.resource, &object)
        };
        render(code, text)
    };
    let named = call.name.is_some();
    if call.resource.review {
        return match call.method {
            Method::POST if !named => Ok(render(201, reviews::answer(state, call)?)),
            _ => Err(Failure::method_not_allowed()),
        };
    }
    if call.resource.namespaced
        && call.namespace.is_none()
        && (named || call.method == Method::POST)
    {
        return Err(Failure::method_not_allowed());
    }
    if call.subresource.as_deref() == Some("token") {
        return match call.method {
            Method::POST => Ok(render(201, tokens::request(state, call)?)),
            _ => Err(Failure::method_not_allowed()),
        };
    }
    match call.method {
        Method::GET if call.flag("watch") && !named => Ok(stream(watch::start(state, call, form)?)),
        Method::GET if named => {
            let object = list::get(&state.store(), call)?;
            Ok(one((200, Value::clone(&object))))
        }
        Method::GET => {
            let page = list::list(&state.store(), call)?;
            Ok(render(200, form.list(&call.resource, &page)))
        }
        Method::POST if !named => write::create(state, call).map(one),
        Method::PUT if named => write::update(state, call).map(one),
        Method::PATCH if named => write::patch(state, call).map(one),
        Method::DELETE if named && call.subresource.is_none() => {
            write::delete(state, call).map(one)
        }
        Method::DELETE if !named => {
            let (objects, revision) = write::delete_collection(state, call)?;
            let page = list::Page::whole(&call.resource, objects.into_values(), revision);
            Ok(render(200, Form::Whole.list(&call.resource, &page)))
        }
        _ => Err(Failure::method_not_allowed()),
    }
}

fn render(code: u16, json: impl Display) -> Response<Body> {
    with_type(code, "application/json", format!("{json}\n").into())
}

fn render_text(code: u16, text: String) -> Response<Body> {
    with_type(code, "text/plain; charset=utf-8", text.into())
}

fn stream(body: Body) -> Response<Body> {
    with_type(200, "application/json", body)
}

fn render_failure(failure: Failure) -> Response<Body> {
    let mut response = match failure.body {
        failure::Body::Status(status) => render(failure.code, status),
        failure::Body::Text(text) => render_text(failure.code, text),
    };
    if let Some(seconds) = failure.retry_after {
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, seconds.into());
    }
    response
}

fn with_type(code: u16, media_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = http::StatusCode::from_u16(code).expect("invariant: a known code");
    let value = HeaderValue::from_static(media_type);
    response.headers_mut().insert(header::CONTENT_TYPE, value);
    response
}
