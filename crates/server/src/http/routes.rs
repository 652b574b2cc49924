//! Every route of the product, on one page.

use axum::Router;
use axum::extract::Request;
use axum::handler::Handler;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, MethodRouter, on};
use http::header::{ALLOW, HeaderValue};
use http::{Method, StatusCode};

use super::api::{
    connections, dead_letters, events, health, metrics, openapi, page, problems, revocations,
    status, streams, tickets,
};
use super::entry::nothing_here;
use super::problem::Problem;
use crate::app::App;

/// One path and what it does, by method.
pub(crate) struct Route {
    /// The path, with `{names}`.
    pub(crate) path: &'static str,
    /// Its methods.
    pub(crate) methods: Vec<Method>,
    router: MethodRouter<App>,
}

impl std::fmt::Debug for Route {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {:?}", self.path, self.methods)
    }
}

fn at(path: &'static str) -> Route {
    Route {
        path,
        methods: Vec::new(),
        router: MethodRouter::new(),
    }
}

impl Route {
    fn on<H: Handler<T, App>, T: 'static>(mut self, method: Method, handler: H) -> Self {
        let filter = match method {
            Method::POST => MethodFilter::POST,
            Method::DELETE => MethodFilter::DELETE,
            // HEAD works where GET does.
            _ => MethodFilter::GET,
        };
        self.router = self.router.merge(on(filter, handler));
        self.methods.push(method);
        self
    }

    fn get<H: Handler<T, App>, T: 'static>(self, handler: H) -> Self {
        self.on(Method::GET, handler)
    }

    fn post<H: Handler<T, App>, T: 'static>(self, handler: H) -> Self {
        self.on(Method::POST, handler)
    }

    fn delete<H: Handler<T, App>, T: 'static>(self, handler: H) -> Self {
        self.on(Method::DELETE, handler)
    }
}

/// The page.
#[must_use]
pub(crate) fn routes() -> Vec<Route> {
    vec![
        at("/api/v1/events")
            .post(events::publish)
            .get(events::history),
        at("/api/v1/stream").get(streams::sse),
        at("/api/v1/ws").get(streams::websocket),
        at("/api/v1/poll").get(streams::poll),
        at("/api/v1/stream/tickets").post(tickets::issue),
        at("/api/v1/connections").get(connections::list),
        at("/api/v1/connections/{id}").delete(connections::close),
        at("/api/v1/connections/{id}/token").post(connections::refresh),
        at("/api/v1/admin/revocations")
            .post(revocations::revoke)
            .get(revocations::list),
        at("/api/v1/admin/revocations/{id}").delete(revocations::undo),
        at("/api/v1/dead-letters")
            .get(dead_letters::list)
            .post(dead_letters::set_aside),
        at("/api/v1/dead-letters/{id}/retry").post(dead_letters::retry),
        at("/api/v1/status").get(status::get),
        at("/api/openapi.json").get(openapi::get),
        at("/metrics").get(metrics::get),
        at("/healthz").get(health::live),
        at("/health").get(health::live),
        at("/readyz").get(health::ready),
        at("/ready").get(health::ready),
        at("/health/readyz").get(health::ready),
        at("/problems/{slug}").get(problems::get),
        at("/").get(page::index),
        at("/app.js").get(page::script),
        at("/app.css").get(page::style),
    ]
}

/// The routes as axum wants them, each also answering OPTIONS, and 405 with `Allow` to the rest.
pub(crate) fn router(app: App) -> Router {
    let mut router = Router::new();
    for route in routes() {
        let mut allow = route.methods.clone();
        if allow.contains(&Method::GET) {
            allow.push(Method::HEAD);
        }
        allow.push(Method::OPTIONS);
        router = router.route(
            route.path,
            route
                .router
                .fallback(move |request: Request| async move { otherwise(&request, &allow) }),
        );
    }
    if app.is_clock_manual() {
        router = router.route(
            "/test/clock",
            on(MethodFilter::POST, super::api::test_clock::advance),
        );
    }
    router.fallback(nothing_here).with_state(app)
}

fn otherwise(request: &Request, allow: &[Method]) -> Response {
    if request.method() != Method::OPTIONS {
        return Problem::method_not_allowed(allow).into_response();
    }
    let text = allow
        .iter()
        .map(Method::as_str)
        .collect::<Vec<_>>()
        .join(", ");
    let mut response = StatusCode::NO_CONTENT.into_response();
    if let Ok(value) = HeaderValue::from_str(&text) {
        response.headers_mut().insert(ALLOW, value);
    }
    response
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The document and the page name the same paths and methods.
    #[test]
    fn the_openapi_document_has_every_route_and_no_other() {
        let document: serde_json::Value = serde_json::from_str(openapi::DOCUMENT).unwrap();
        let mut described = BTreeSet::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            for method in item
                .as_object()
                .unwrap()
                .keys()
                .filter(|k| ["get", "post", "put", "patch", "delete"].contains(&k.as_str()))
            {
                described.insert((path.clone(), method.to_uppercase()));
            }
        }
        let files = ["/", "/app.js", "/app.css"];
        let routed: BTreeSet<_> = routes()
            .iter()
            .filter(|r| !files.contains(&r.path))
            .flat_map(|r| {
                r.methods
                    .iter()
                    .map(|m| (r.path.to_owned(), m.to_string()))
                    .collect::<Vec<_>>()
            })
            .collect();
        assert_eq!(described, routed);
    }
}
