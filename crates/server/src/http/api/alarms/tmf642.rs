//! A subset of TM Forum's TMF642 Alarm Management API v4.

use axum::Json;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use http::header::{HeaderName, HeaderValue, LOCATION};
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use tidings_alarms::alarm::list::{Filter, Start};
use tidings_alarms::alarm::{Condition, Operation};
use tidings_alarms::ingest::tmf642;
use tidings_alarms::{Error, Perceived};

use super::alarm::{limit, word};
use super::{caller_may, ingest, object};
use crate::app::App;
use crate::http::problem::Problem;
use crate::transport::request::Query;

const BASE: &str = "/tmf-api/alarmManagement/v4/alarm";
const X_TOTAL_COUNT: HeaderName = HeaderName::from_static("x-total-count");
const X_RESULT_COUNT: HeaderName = HeaderName::from_static("x-result-count");
/// The furthest that a list may be skipped into: cursors go further.
const MAX_OFFSET: u64 = 1_000_000;

fn filter(query: &Query) -> Result<Filter, Problem> {
    let mut filter = Filter::default();
    match word::<Perceived>(query, "perceivedSeverity")? {
        Some(Perceived::Raised(severity)) => {
            filter.severity = Some(severity);
            filter.condition = Some(Condition::Raised);
        }
        Some(Perceived::Cleared) => filter.condition = Some(Condition::Cleared),
        None => {}
    }
    filter.alarm_type = query.get("alarmType").map(str::to_owned);
    filter.entity_id = query.get("alarmedObject.id").map(str::to_owned);
    filter.is_acknowledged = match query.get("ackState") {
        None => None,
        Some("acknowledged") => Some(true),
        Some("unacknowledged") => Some(false),
        Some(_) => {
            return Err(Problem::bad_request(
                "ackState",
                "acknowledged or unacknowledged",
            ));
        }
    };
    Ok(filter)
}

/// `GET /tmf-api/alarmManagement/v4/alarm`: a JSON array, newest first.
pub(crate) async fn list(State(app): State<App>, request: Request) -> Result<Response, Problem> {
    let (parts, _) = request.into_parts();
    let principal = caller_may(&app, &parts, "alarm_read").await?;
    let query = Query::of(&parts.uri);
    let (filter, limit) = (filter(&query)?, limit(&query)?);
    let offset = Start::Offset(query.number("offset", 0, 0, MAX_OFFSET)?);
    let page = app
        .alarms
        .alarms(&principal.tenant, filter, offset, limit)
        .await?;
    let tenant = principal.tenant.as_str();
    let shown = page.alarms.iter().map(|a| tmf642::shown(a, tenant, BASE));
    let shown: Vec<Value> = shown.collect();
    let mut headers = HeaderMap::new();
    headers.insert(X_TOTAL_COUNT, HeaderValue::from(page.total));
    headers.insert(X_RESULT_COUNT, HeaderValue::from(shown.len()));
    Ok((headers, Json(shown)).into_response())
}

/// `GET /tmf-api/alarmManagement/v4/alarm/{id}`.
pub(crate) async fn get(
    State(app): State<App>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, _) = request.into_parts();
    let principal = caller_may(&app, &parts, "alarm_read").await?;
    let alarm = app.alarms.alarm(&principal.tenant, &id).await?;
    Ok(Json(tmf642::shown(&alarm, principal.tenant.as_str(), BASE)).into_response())
}

/// `POST /tmf-api/alarmManagement/v4/alarm`.
pub(crate) async fn create(State(app): State<App>, request: Request) -> Result<Response, Problem> {
    let (parts, content) = request.into_parts();
    let principal = caller_may(&app, &parts, "alarm_write").await?;
    let value = object(&app, &parts.headers, content).await?;
    let occurrence = tmf642::create(value, ingest::context(&app))?;
    let accepted = ingest::store(&app, &parts, &principal, vec![occurrence]).await?;
    let outcome = accepted.0.into_iter().next().ok_or(Error::Full)?;
    let id = &outcome.alarm_id;
    let answer = if outcome.is_repeat {
        json!({ "status": "already_exists", "id": id, "idempotent": true })
    } else {
        json!({ "status": "persisted", "id": id })
    };
    let place = [(LOCATION, format!("{BASE}/{id}"))];
    Ok((StatusCode::CREATED, place, Json(answer)).into_response())
}

/// `PATCH /tmf-api/alarmManagement/v4/alarm/{id}`: `ackState`.
pub(crate) async fn patch(
    State(app): State<App>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, content) = request.into_parts();
    let principal = caller_may(&app, &parts, "alarm_write").await?;
    let value = object(&app, &parts.headers, content).await?;
    let operation = if tmf642::patch(value)? {
        Operation::Acknowledge
    } else {
        Operation::Unacknowledge
    };
    let (tenant, subject) = (&principal.tenant, &principal.subject);
    let alarm = app.alarms.operate(tenant, &id, subject, operation).await?;
    Ok(Json(tmf642::shown(&alarm, tenant.as_str(), BASE)).into_response())
}
