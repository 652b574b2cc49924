//! Health paths: alive, and ready to be sent requests.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde_json::json;

use crate::app::App;

/// The process answers.
pub(crate) async fn live() -> Response {
    Json(json!({ "status": "healthy" })).into_response()
}

/// The server can do its work: the log stores, the database answers, it is not going down.
pub(crate) async fn ready(State(app): State<App>) -> Response {
    let draining = app.transports.is_draining();
    let log = app.log.trouble();
    let database = app
        .log
        .db()
        .read(|conn| conn.row("SELECT 1", &[], |_| Ok(())))
        .await
        .err();
    let word = |fault: bool| if fault { "failing" } else { "ok" };
    let is_ready = !draining && log.is_none() && database.is_none();
    let status = if is_ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let body = json!({
        "status": if is_ready { "ready" } else if draining { "draining" } else { "not ready" },
        "checks": { "database": word(database.is_some()), "log": word(log.is_some()) },
    });
    (status, Json(body)).into_response()
}
