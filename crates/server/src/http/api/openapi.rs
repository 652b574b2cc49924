//! `GET /api/openapi.json`: the whole API. A test holds it against the routes.

use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;

/// The OpenAPI 3.1 document.
pub(crate) const DOCUMENT: &str = include_str!("../openapi.json");

/// The document.
pub(crate) async fn get() -> Response {
    ([(CONTENT_TYPE, "application/json")], DOCUMENT).into_response()
}
