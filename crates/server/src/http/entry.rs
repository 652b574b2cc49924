//! What every request goes through on its way in and out: ids, trace, origin, panic, log record, metric.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use http::header::{HeaderName, HeaderValue};
use http::{HeaderMap, Method, Request, StatusCode, Uri};
use tidings_core::event::EventId;
use tower::ServiceExt;
use tracing::{Instrument, Span};
use uuid::Uuid;

use super::accept::{Answer, Peer};
use super::cors;
use super::problem::{Kind, Problem};
use crate::app::App;
use crate::telemetry::metrics::request_seconds;
use crate::telemetry::request::RequestIds;
use crate::telemetry::traces;

const CORRELATION_ID: HeaderName = HeaderName::from_static("x-correlation-id");
const TRACE_ID: HeaderName = HeaderName::from_static("x-trace-id");
const EVENT_ID: HeaderName = HeaderName::from_static("x-event-id");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
const CONTENT_TYPE_OPTIONS: HeaderName = HeaderName::from_static("x-content-type-options");
/// Headers that every answer gets here and in [`cors`], with those that hyper adds.
const ADDED_HEADERS: usize = 8;
/// The longest correlation id that is taken over, in bytes.
const MAX_ID_BYTES: usize = 128;

/// Among a response's extensions: the id of the one event that the request made, where that is not the request's own.
#[derive(Debug, Clone)]
pub(crate) struct MadeEvent(pub EventId);

/// Among a response's extensions: the route, for the metric.
#[derive(Debug, Clone, Copy)]
pub(super) struct RouteName(pub(super) &'static str);

/// Answers requests by the routes.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    app: App,
    router: Router,
}

impl Entry {
    /// All routes of the product.
    #[must_use]
    pub(crate) fn new(app: App) -> Self {
        let router = super::routes::router(app.clone());
        Self::of(app, router)
    }

    /// The metrics alone, for a listener of their own.
    #[must_use]
    pub(crate) fn metrics(app: App) -> Self {
        let router = super::routes::metrics_router(app.clone());
        Self::of(app, router)
    }

    fn of(app: App, router: Router) -> Self {
        Self { app, router }
    }

    async fn inside(&self, request: Request<Body>) -> Response {
        match AssertUnwindSafe(self.router.clone().oneshot(request))
            .catch_unwind()
            .await
        {
            Ok(Ok(response)) => response,
            Ok(Err(never)) => match never {},
            Err(_) => Problem::internal("a handler panicked").into_response(),
        }
    }
}

impl Answer for Entry {
    async fn answer(&self, mut request: Request<Body>) -> Response {
        let started = Instant::now();
        let (span, ids) = identify(request.method(), request.headers(), &self.app);
        request.extensions_mut().insert(ids.clone());
        without_trailing_slash(request.uri_mut());
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let remote = request
            .extensions()
            .get::<Peer>()
            .map(|peer| peer.remote.ip());
        let origins = &self.app.config.http.allowed_origins;
        let origin = cors::allowed(request.headers(), origins).cloned();
        let is_preflight = cors::is_preflight(&method, request.headers());
        let mut response = if is_preflight {
            cors::preflight()
        } else {
            let inside = ids.clone().around(self.inside(request));
            match span.clone() {
                Some(span) => inside.instrument(span).await,
                None => inside.await,
            }
        };
        let ids = finish(ids, &mut response);
        cors::permit(&mut response, origins, origin.as_ref(), is_preflight);
        let (status, elapsed) = (response.status(), started.elapsed());
        let route = response.extensions_mut().remove::<RouteName>();
        let route = route.map_or("none", |route| route.0);
        time_request(route, label(&method), status.as_u16(), elapsed);
        if let Some(span) = span {
            traces::end_request(&span, label(&method), route, status, &ids);
        }
        let client_ip = ClientIp(remote);
        let duration_ms = elapsed.as_secs_f64() * 1_000.0;
        ids.within(|| {
            if status.is_server_error() && status != StatusCode::SERVICE_UNAVAILABLE {
                tracing::error!(%method, path, status_code = status.as_u16(), duration_ms, %client_ip, "request");
            } else {
                tracing::info!(%method, path, status_code = status.as_u16(), duration_ms, %client_ip, "request");
            }
        });
        response
    }
}

/// An address as records show it; empty where it is not known.
struct ClientIp(Option<IpAddr>);

impl fmt::Display for ClientIp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |ip| ip.fmt(f))
    }
}

/// Notes how long a request took. The series of a thread's recent requests are at hand.
fn time_request(route: &'static str, method: &'static str, status: u16, took: Duration) {
    type Series = HashMap<(&'static str, &'static str, u16), metrics::Histogram>;
    thread_local! {
        static SERIES: RefCell<Series> = RefCell::default();
    }
    SERIES.with_borrow_mut(|series| {
        let known = series.entry((route, method, status));
        known
            .or_insert_with(|| request_seconds(route, method, status))
            .record(took);
    });
}

/// The ids of a request, and the span to run it in where traces are exported.
fn identify(method: &Method, headers: &HeaderMap, app: &App) -> (Option<Span>, Arc<RequestIds>) {
    let text = |name| {
        headers
            .get(name)
            .and_then(|v: &HeaderValue| v.to_str().ok())
    };
    let given = [CORRELATION_ID, TRACE_ID, REQUEST_ID]
        .iter()
        .find_map(|name| clean(headers.get(name)?));
    let (span, trace) = traces::request(label(method), text(TRACEPARENT), text(TRACESTATE));
    let ids = RequestIds {
        correlation_id: given.unwrap_or_else(|| Uuid::new_v4().to_string()),
        event_id: EventId::random(app.clock.now()),
        trace,
    };
    (span, Arc::new(ids))
}

/// Puts the ids into the answer.
fn finish(mut ids: Arc<RequestIds>, response: &mut Response) -> Arc<RequestIds> {
    if let Some(made) = response.extensions_mut().remove::<MadeEvent>() {
        Arc::make_mut(&mut ids).event_id = made.0;
    }
    if let Some(mut problem) = response.extensions_mut().remove::<Problem>() {
        // A problem of ours is written again, now that its correlation id is known. Headers that were added stay.
        problem.correlation_id = Some(ids.correlation_id.clone());
        let (parts, body) = problem.into_response().into_parts();
        *response.body_mut() = body;
        for (name, value) in &parts.headers {
            response.headers_mut().insert(name, value.clone());
        }
        response.headers_mut().remove(http::header::CONTENT_LENGTH);
    }
    let headers = response.headers_mut();
    headers.reserve(ADDED_HEADERS);
    headers.insert(CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    for (name, value) in [
        (CORRELATION_ID, ids.correlation_id.as_str().try_into()),
        (TRACE_ID, ids.trace.trace_id().try_into()),
        (EVENT_ID, ids.event_id.as_str().try_into()),
    ] {
        if let Ok(value) = value {
            headers.insert(name, value);
        }
    }
    ids
}

/// An id of the caller's, where it is short and plain: it goes into logs.
fn clean(value: &HeaderValue) -> Option<String> {
    let text = value.to_str().ok()?;
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.:@/+=".contains(&b);
    (!text.is_empty() && text.len() <= MAX_ID_BYTES && text.bytes().all(is_plain))
        .then(|| text.to_owned())
}

/// `/a/b/` is `/a/b`.
fn without_trailing_slash(uri: &mut Uri) {
    let path = uri.path();
    if path.len() < 2 || !path.ends_with('/') {
        return;
    }
    let path = path.trim_end_matches('/');
    let path = if path.is_empty() { "/" } else { path };
    let path_and_query = uri
        .query()
        .map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"));
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = path_and_query.parse().ok();
    if let Ok(shorter) = Uri::from_parts(parts) {
        *uri = shorter;
    }
}

fn label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        Method::CONNECT => "CONNECT",
        _ => "other",
    }
}

/// What is not on the routes' page.
pub(crate) async fn nothing_here() -> Problem {
    Problem::new(Kind::NotFound, "there is no such path")
}
