//! Every route of the product, on one page.

use std::sync::LazyLock;

use axum::Router;
use axum::extract::Request;
use axum::handler::Handler;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, MethodRouter, on};
use http::header::{ALLOW, HeaderValue};
use http::{Method, StatusCode};
use tower::util::MapResponseLayer;

use super::api::alarms::{
    alarm, clusters, customers, entities, incidents, ingest, kpis, scorecard, sleeping_cells,
    tmf642,
};
use super::api::{
    alarms, connections, dead_letters, events, health, metrics, openapi, page, problems,
    revocations, status, streams, tickets, users,
};
use super::entry::{RouteName, nothing_here};
use super::problem::Problem;
use crate::app::App;

const METRICS: &str = "/metrics";

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
            Method::PUT => MethodFilter::PUT,
            Method::PATCH => MethodFilter::PATCH,
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

    fn put<H: Handler<T, App>, T: 'static>(self, handler: H) -> Self {
        self.on(Method::PUT, handler)
    }

    fn patch<H: Handler<T, App>, T: 'static>(self, handler: H) -> Self {
        self.on(Method::PATCH, handler)
    }

    /// RFC 8441: what GET is to a WebSocket over HTTP/1.1, an extended CONNECT is over HTTP/2. It is the same request, so
    /// that it stands in no list of methods.
    fn connect<H: Handler<T, App>, T: 'static>(mut self, handler: H) -> Self {
        self.router = self.router.merge(on(MethodFilter::CONNECT, handler));
        self
    }

    fn delete<H: Handler<T, App>, T: 'static>(self, handler: H) -> Self {
        self.on(Method::DELETE, handler)
    }
}

/// The page.
#[must_use]
pub(crate) fn routes() -> Vec<Route> {
    let parts = [
        core(),
        network(),
        alarms(),
        clusters(),
        incidents(),
        customers(),
        users(),
    ];
    parts.into_iter().flatten().collect()
}

/// Entities, KPIs, sleeping cells.
fn network() -> Vec<Route> {
    vec![
        at("/api/v1/entities").get(entities::list),
        at("/api/v1/entities/bulk").post(entities::bulk),
        at("/api/v1/entities/{id}")
            .put(entities::put)
            .get(entities::get)
            .delete(entities::delete),
        at("/api/v1/kpis").post(kpis::add).get(kpis::read),
        at("/api/v1/sleeping-cells").get(sleeping_cells::list),
        at("/api/v1/sleeping-cells/detect").post(sleeping_cells::detect),
    ]
}

/// Alarms, their ingest and their stream.
fn alarms() -> Vec<Route> {
    vec![
        at("/api/v1/alarms/ingest").post(ingest::ingest),
        at("/api/v1/alarms/ingest/batch").post(ingest::batch),
        at("/api/v1/alarms/ingest/alertmanager").post(ingest::webhook),
        at("/api/v2/alerts").post(ingest::alerts),
        at("/api/v1/alarms").get(alarm::list),
        at("/api/v1/alarms/{id}").get(alarm::get),
        at("/api/v1/alarms/{id}/acknowledge").post(alarm::acknowledge),
        at("/api/v1/alarms/{id}/unacknowledge").post(alarm::unacknowledge),
        at("/api/v1/alarms/{id}/clear").post(alarm::clear),
        at("/api/v1/alarms/{id}/shelve").post(alarm::shelve),
        at("/api/v1/alarms/{id}/unshelve").post(alarm::unshelve),
        at("/api/v1/stream/alarms").get(alarms::stream::open),
        at("/tmf-api/alarmManagement/v4/alarm")
            .get(tmf642::list)
            .post(tmf642::create),
        at("/tmf-api/alarmManagement/v4/alarm/{id}")
            .get(tmf642::get)
            .patch(tmf642::patch),
    ]
}

/// Correlation.
fn clusters() -> Vec<Route> {
    vec![
        at("/api/v1/clusters").get(clusters::list),
        at("/api/v1/clusters/{id}").get(clusters::get),
        at("/api/v1/alarms/correlate").post(clusters::correlate),
    ]
}

/// Incidents and the scorecard.
fn incidents() -> Vec<Route> {
    vec![
        at("/api/v1/incidents")
            .post(incidents::open)
            .get(incidents::list),
        at("/api/v1/incidents/{id}")
            .get(incidents::get)
            .patch(incidents::change),
        at("/api/v1/incidents/{id}/advance").patch(incidents::advance),
        at("/api/v1/incidents/{id}/approve-sitrep").post(incidents::approve_sitrep),
        at("/api/v1/incidents/{id}/approve-action").post(incidents::approve_action),
        at("/api/v1/incidents/{id}/close").post(incidents::close),
        at("/api/v1/incidents/{id}/timeline").get(incidents::timeline),
        at("/api/v1/incidents/{id}/audit-trail").get(incidents::audit_trail),
        at("/api/v1/incidents/{id}/audit-trail/csv").get(incidents::audit_trail_csv),
        at("/api/v1/incidents/{id}/impact").get(incidents::impact),
        at("/api/v1/incidents/{id}/sitrep").get(incidents::sitrep),
        at("/api/v1/incidents/{id}/generate-sitrep").post(incidents::generate_sitrep),
        at("/api/v1/incidents/{id}/reasoning").get(incidents::reasoning),
        at("/api/v1/scorecard").get(scorecard::get),
        at("/api/v1/autonomous/scorecard").get(scorecard::old),
    ]
}

/// Customers and proactive care.
fn customers() -> Vec<Route> {
    vec![
        at("/api/v1/customers").get(customers::list),
        at("/api/v1/customers/{id}")
            .put(customers::put)
            .get(customers::get)
            .delete(customers::erase),
        at("/api/v1/proactive-care").post(customers::care),
        at("/api/v1/cx/proactive-care/{id}").post(customers::care_at_risk),
        at("/api/v1/cx/impact/{id}").get(customers::impact),
    ]
}

/// Local users.
fn users() -> Vec<Route> {
    vec![
        at("/api/v1/auth/token").post(users::token),
        at("/api/v1/auth/refresh").post(users::refresh),
        at("/api/v1/auth/select-tenant").post(users::select_tenant),
        at("/api/v1/auth/tenants").get(users::tenants),
        at("/api/v1/auth/change-password").post(users::change_password),
    ]
}

fn core() -> Vec<Route> {
    vec![
        at("/api/v1/events")
            .post(events::publish)
            .get(events::history),
        at("/api/v1/stream").get(streams::sse),
        at("/api/v1/ws")
            .get(streams::websocket)
            .connect(streams::websocket),
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
        at(METRICS).get(metrics::get),
        at("/healthz").get(health::live),
        at("/health").get(health::live),
        at("/readyz").get(health::ready),
        at("/ready").get(health::ready),
        at("/health/readyz").get(health::ready),
        at("/problems/{slug}").get(problems::get),
        at("/").get(page::index),
        at("/app.js").get(page::script),
        at("/noc.js").get(page::noc),
        at("/app.css").get(page::style),
    ]
}

/// The route that a path is of, as it stands on the page.
pub(crate) fn template(path: &str) -> Option<&'static str> {
    static PATHS: LazyLock<Vec<&str>> =
        LazyLock::new(|| routes().iter().map(|route| route.path).collect());
    let is_of = |template: &&&str| {
        let mut segments = path.split('/');
        let fits = template.split('/').all(|name| {
            let segment = segments.next();
            segment.is_some_and(|segment| name.starts_with('{') || name == segment)
        });
        fits && segments.next().is_none()
    };
    let fitting = PATHS.iter().filter(is_of);
    // A name of its own is nearer than a place for any.
    fitting
        .min_by_key(|template| template.matches('{').count())
        .copied()
}

/// The routes as axum wants them, each also answering OPTIONS, and 405 with `Allow` to the rest.
pub(crate) fn router(app: App) -> Router {
    // Metrics that have a listener of their own are not here.
    let is_here = |route: &Route| route.path != METRICS || app.config.metrics.listen.is_none();
    let router = with(routes().into_iter().filter(is_here));
    let router = if app.is_clock_manual() {
        router.route(
            "/test/clock",
            on(MethodFilter::POST, super::api::test_clock::advance),
        )
    } else {
        router
    };
    router.fallback(nothing_here).with_state(app)
}

/// The metrics alone.
pub(crate) fn metrics_router(app: App) -> Router {
    with(routes().into_iter().filter(|route| route.path == METRICS))
        .fallback(nothing_here)
        .with_state(app)
}

fn with(routes: impl Iterator<Item = Route>) -> Router<App> {
    let mut router = Router::new();
    for route in routes {
        let mut allow = route.methods.clone();
        if allow.contains(&Method::GET) {
            allow.push(Method::HEAD);
        }
        allow.push(Method::OPTIONS);
        // The fallback first: it is named for the metrics like the rest.
        let methods = route
            .router
            .fallback(move |request: Request| async move { otherwise(&request, &allow) });
        let name = RouteName(route.path);
        let named = MapResponseLayer::new(move |mut response: Response| {
            response.extensions_mut().insert(name);
            response
        });
        router = router.route(route.path, methods.layer(named));
    }
    router
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

    #[test]
    fn a_path_has_the_template_of_its_route() {
        let events = "/api/v1/events";
        assert_eq!(template(events), Some(events));
        let token = "/api/v1/connections/{id}/token";
        assert_eq!(template("/api/v1/connections/7/token"), Some(token));
        for none in [
            "/api/v1/connections/7/other",
            "/api/v1/connections/7/token/x",
        ] {
            assert_eq!(template(none), None);
        }
    }

    /// The document and the page name the same paths and methods.
    #[test]
    fn the_openapi_document_has_every_route_and_no_other() {
        let document: serde_json::Value = serde_json::from_str(openapi::document()).unwrap();
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
        let files = ["/", "/app.js", "/noc.js", "/app.css"];
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
