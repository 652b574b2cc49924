//! `/api/v1/kpis`: what entities measure.

use axum::Json;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::Serialize;
use serde_json::json;
use tidings_alarms::kpi::{MAX_POINTS, Range, Step};
use tidings_core::clock::Timestamp;

use super::{Content, caller_may, filter, moment, one_or_items};
use crate::app::App;
use crate::http::problem::Problem;
use crate::transport::request::Query;

/// The longest step, in seconds: a year.
const MAX_STEP_SECONDS: u64 = 366 * 86_400;

#[derive(Serialize)]
struct Samples<T> {
    samples: Vec<T>,
}

#[derive(Serialize)]
struct Point {
    timestamp: String,
    value: f64,
}

#[derive(Serialize)]
struct Mean {
    timestamp: String,
    value: f64,
    min: f64,
    max: f64,
    count: u64,
}

impl From<(Timestamp, f64)> for Point {
    fn from((at, value): (Timestamp, f64)) -> Self {
        Self {
            timestamp: at.to_string(),
            value,
        }
    }
}

impl From<Step> for Mean {
    fn from(step: Step) -> Self {
        Self {
            timestamp: step.timestamp.to_string(),
            value: step.mean,
            min: step.min,
            max: step.max,
            count: step.count,
        }
    }
}

/// Stores samples, all or none.
pub(crate) async fn add(
    State(app): State<App>,
    request: Request<Body>,
) -> Result<Response, Problem> {
    let (parts, content) = request.into_parts();
    let principal = caller_may(&app, &parts, "metrics_write").await?;
    let tenant = &principal.tenant;
    let count = match one_or_items(&app, &parts.headers, content).await? {
        Content::One(one) => app.alarms.add_sample(tenant, one).await?,
        Content::Many(items) => app.alarms.add_samples(tenant, items).await?,
    };
    Ok((StatusCode::ACCEPTED, Json(json!({ "count": count }))).into_response())
}

/// Reads a range, thinned out where a step is asked for.
pub(crate) async fn read(
    State(app): State<App>,
    request: Request<Body>,
) -> Result<Response, Problem> {
    let (parts, _) = request.into_parts();
    let principal = caller_may(&app, &parts, "metrics_read").await?;
    let query = Query::of(&parts.uri);
    let required = |name| {
        let value = filter(&query, name)?;
        value.ok_or_else(|| Problem::bad_request(name, "is required"))
    };
    let range = Range {
        entity_id: required("entity_id")?,
        metric_name: required("metric")?,
        from: moment(&query, "from")?,
        to: moment(&query, "to")?,
    };
    let step = filter(&query, "step")?;
    let seconds = query.number("step", 0, u64::from(step.is_some()), MAX_STEP_SECONDS);
    let tenant = &principal.tenant;
    let answer = match step {
        None => {
            let points = app.alarms.samples(tenant, range).await?;
            points.map(|points| answer(points.into_iter().map(Point::from)))
        }
        Some(_) => {
            let seconds = u32::try_from(seconds?).unwrap_or(u32::MAX);
            let steps = app.alarms.steps(tenant, range, seconds).await?;
            steps.map(|steps| answer(steps.into_iter().map(Mean::from)))
        }
    };
    answer.ok_or_else(|| {
        let detail =
            format!("more than {MAX_POINTS} points; ask for a longer step or a shorter range");
        Problem::bad_request("step", &detail)
    })
}

fn answer<T: Serialize>(points: impl Iterator<Item = T>) -> Response {
    let samples = points.collect();
    Json(Samples { samples }).into_response()
}
