//! `/api/v1/sleeping-cells`: entities that carry far less than is usual, or have gone silent.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use serde::Serialize;
use tidings_alarms::reading;
use tidings_alarms::sleeping::{Cause, Scan, SleepingCell};
use tidings_core::auth::Principal;

use super::{caller_may, may, object_or_empty};
use crate::app::App;
use crate::http::api::caller;
use crate::http::problem::Problem;

/// The score at which existing dashboards show a cell in full.
const FULL_DECAY: f64 = 6.0;
/// The score from which they call it asleep.
const ASLEEP: f64 = 0.6;

#[derive(Serialize)]
struct Shown<'a> {
    entity_id: &'a str,
    metric_name: &'a str,
    cause: Cause,
    since: String,
    detected_at: String,
    z_score: Option<f64>,
    baseline_mean: f64,
    current_value: Option<f64>,
    /// What existing dashboards draw: 0 to 1.
    decay_score: f64,
    status: &'static str,
}

impl<'a> From<&'a SleepingCell> for Shown<'a> {
    fn from(cell: &'a SleepingCell) -> Self {
        let z_score = cell.sleep.z_score;
        let decay_score = z_score.map_or(1.0, |z| (z.abs() / FULL_DECAY).min(1.0));
        Self {
            entity_id: &cell.entity_id,
            metric_name: &cell.metric_name,
            cause: cell.sleep.cause,
            since: cell.sleep.since.to_string(),
            detected_at: cell.detected_at.to_string(),
            z_score,
            baseline_mean: cell.sleep.usual.mean,
            current_value: cell.sleep.current_value,
            decay_score,
            status: if decay_score >= ASLEEP {
                "SLEEPING"
            } else {
                "RECOVERING"
            },
        }
    }
}

#[derive(Serialize)]
struct Cells<'a> {
    #[serde(flatten)]
    scan: Option<Scan>,
    sleeping_cells: Vec<Shown<'a>>,
}

/// Lists who sleeps now.
pub(crate) async fn list(
    State(app): State<App>,
    request: Request<Body>,
) -> Result<Response, Problem> {
    let (parts, _) = request.into_parts();
    let principal = caller_may_either(&app, &parts, "alarm_read", "metrics_read").await?;
    answer(&app, &principal, None).await
}

/// Scans now, and says what has changed and who sleeps.
pub(crate) async fn detect(
    State(app): State<App>,
    request: Request<Body>,
) -> Result<Response, Problem> {
    let (parts, content) = request.into_parts();
    let principal = caller_may_either(&app, &parts, "alarm_write", "metrics_write").await?;
    let body = object_or_empty(&app, &parts.headers, content).await?;
    reading::object(body, |_| Some(()))?;
    let scan = app.alarms.scan_sleeping_cells(&principal.tenant).await?;
    answer(&app, &principal, Some(scan)).await
}

/// Alarms tell of sleeping cells and KPIs show them: who may see one of the two may see these.
async fn caller_may_either(
    app: &App,
    parts: &Parts,
    one: &'static str,
    other: &'static str,
) -> Result<Arc<Principal>, Problem> {
    let principal = caller(app, parts).await?;
    if may(app, &principal, one) {
        return Ok(principal);
    }
    caller_may(app, parts, other).await
}

async fn answer(app: &App, principal: &Principal, scan: Option<Scan>) -> Result<Response, Problem> {
    let cells = app.alarms.sleeping_cells(&principal.tenant).await?;
    let sleeping_cells = cells.iter().map(Shown::from).collect();
    let shown = Cells {
        scan,
        sleeping_cells,
    };
    Ok(Json(shown).into_response())
}
