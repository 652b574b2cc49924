//! `GET /metrics`: Prometheus text.

use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;

use crate::telemetry;

/// Everything that is counted.
pub(crate) async fn get() -> Response {
    (
        [(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")],
        telemetry::metrics::render(),
    )
        .into_response()
}
