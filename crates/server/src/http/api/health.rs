//! Health paths: alive, and ready to be sent requests.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde_json::json;

use crate::app::App;

/// How long the database may take before it counts as failing.
const PATIENCE: Duration = Duration::from_secs(2);

/// The process answers.
pub(crate) async fn live() -> Response {
    Json(json!({ "status": "healthy" })).into_response()
}

/// The server can do its work: the log stores, the database answers, it is not going down.
pub(crate) async fn ready(State(app): State<App>) -> Response {
    let draining = app.transports.is_draining();
    let log = app.log.trouble();
    let answered = tokio::time::timeout(PATIENCE, app.log.db().probe()).await;
    let is_database_failing = !matches!(answered, Ok(Ok(())));
    let word = |fault: bool| if fault { "failing" } else { "ok" };
    let is_ready = !draining && log.is_none() && !is_database_failing;
    let status = if is_ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let body = json!({
        "status": if is_ready { "ready" } else if draining { "draining" } else { "not ready" },
        "checks": { "database": word(is_database_failing), "log": word(log.is_some()) },
    });
    (status, Json(body)).into_response()
}
