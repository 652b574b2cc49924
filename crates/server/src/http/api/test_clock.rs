//! Moves a manual clock. Routed only where the process was started with one, which only tests do.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use serde::Deserialize;

use crate::app::App;

/// By how much.
#[derive(Debug, Deserialize)]
pub(crate) struct Advance {
    advance_ms: u64,
}

/// Moves it.
pub(crate) async fn advance(State(app): State<App>, Json(by): Json<Advance>) -> StatusCode {
    app.clock.advance(Duration::from_millis(by.advance_ms));
    StatusCode::NO_CONTENT
}
