//! Alarms as people see them: lists, one of them, and what is done with it.

use std::fmt::Display;
use std::str::FromStr;

use axum::Json;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tidings_alarms::alarm::list::{Filter, Start};
use tidings_alarms::alarm::{Operation, Shown};
use tidings_alarms::reading;
use tidings_core::clock::Timestamp;

use super::{caller_may, object_or_empty};
use crate::app::App;
use crate::http::problem::Problem;
use crate::transport::request::Query;

/// Alarms of a page where the request does not say.
const DEFAULT_LIMIT: u64 = 100;
/// Alarms that a page may hold.
const MAX_LIMIT: u64 = 1_000;

#[derive(Serialize)]
struct List<'a> {
    alarms: Vec<Shown<'a>>,
    cursor: Option<String>,
    total: u64,
}

/// A word of the query, where it is there.
pub(super) fn word<T: FromStr<Err: Display>>(
    query: &Query,
    name: &'static str,
) -> Result<Option<T>, Problem> {
    let Some(text) = query.get(name).filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let word = text.parse().map(Some);
    word.map_err(|e: T::Err| Problem::bad_request(name, &e.to_string()))
}

/// A moment of the query, where it is there. A `+` that came unescaped is a space by now.
fn moment(query: &Query, name: &'static str) -> Result<Option<Timestamp>, Problem> {
    let Some(text) = query.get(name).filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let at = Timestamp::parse(&text.replace(' ', "+")).map(Some);
    at.map_err(|e| Problem::bad_request(name, &e.to_string()))
}

fn text(query: &Query, name: &'static str) -> Result<Option<String>, Problem> {
    let text = query.get(name).filter(|text| !text.is_empty());
    match text {
        Some(text) if text.len() > reading::MAX_TEXT_BYTES || text.contains('\0') => Err(
            Problem::bad_request(name, "is too long, or has a NUL character"),
        ),
        text => Ok(text.map(str::to_owned)),
    }
}

fn filter(query: &Query) -> Result<Filter, Problem> {
    Ok(Filter {
        condition: word(query, "condition")?,
        severity: word(query, "severity")?,
        operator_state: word(query, "operator_state")?,
        entity_id: text(query, "entity_id")?,
        alarm_type: text(query, "alarm_type")?,
        since: moment(query, "since")?,
        until: moment(query, "until")?,
        search: text(query, "search")?,
        ..Filter::default()
    })
}

/// How many items of a list a request asks for.
pub(super) fn limit(query: &Query) -> Result<usize, Problem> {
    let limit = query.number("limit", DEFAULT_LIMIT, 1, MAX_LIMIT)?;
    Ok(usize::try_from(limit).unwrap_or(usize::MAX))
}

/// `GET /api/v1/alarms`: newest first.
pub(crate) async fn list(State(app): State<App>, request: Request) -> Result<Response, Problem> {
    let (parts, _) = request.into_parts();
    let principal = caller_may(&app, &parts, "alarm_read").await?;
    let query = Query::of(&parts.uri);
    let (filter, after, limit) = (filter(&query)?, word(&query, "after")?, limit(&query)?);
    let page = app
        .alarms
        .alarms(&principal.tenant, filter, Start::After(after), limit)
        .await?;
    let now = app.clock.now();
    let shown = page.alarms.iter().map(|a| a.shown(&principal.tenant, now));
    let answer = List {
        alarms: shown.collect(),
        cursor: page.next.map(|next| next.to_string()),
        total: page.total,
    };
    Ok(Json(answer).into_response())
}

/// `GET /api/v1/alarms/{id}`.
pub(crate) async fn get(
    State(app): State<App>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, _) = request.into_parts();
    let principal = caller_may(&app, &parts, "alarm_read").await?;
    let alarm = app.alarms.alarm(&principal.tenant, &id).await?;
    Ok(Json(alarm.shown(&principal.tenant, app.clock.now())).into_response())
}

macro_rules! operations {
    ($($(#[$doc:meta])* $name:ident => $operation:expr;)*) => {
        $($(#[$doc])*
        pub(crate) async fn $name(
            State(app): State<App>,
            Path(id): Path<String>,
            request: Request,
        ) -> Result<Response, Problem> {
            operate(&app, &id, request, |body| {
                // Who does it is the credential's to say.
                reading::object(body, |r| {
                    for sent in ["tenant_id", "approved_by", "acknowledged_by"] {
                        r.ignore(sent);
                    }
                    Some($operation)
                })
            })
            .await
        })*
    };
}

operations! {
    /// `POST /api/v1/alarms/{id}/acknowledge`.
    acknowledge => Operation::Acknowledge;
    /// `POST /api/v1/alarms/{id}/unacknowledge`.
    unacknowledge => Operation::Unacknowledge;
    /// `POST /api/v1/alarms/{id}/clear`.
    clear => Operation::Clear;
    /// `POST /api/v1/alarms/{id}/unshelve`.
    unshelve => Operation::Unshelve;
}

/// `POST /api/v1/alarms/{id}/shelve`.
pub(crate) async fn shelve(
    State(app): State<App>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    operate(&app, &id, request, |body| {
        reading::object(body, |r| {
            r.ignore("tenant_id");
            let (reason, expires_at) = (r.text("reason"), r.time("expires_at"));
            Some(Operation::Shelve {
                reason: reason?,
                expires_at: expires_at?,
            })
        })
    })
    .await
}

async fn operate(
    app: &App,
    id: &str,
    request: Request,
    read: impl FnOnce(serde_json::Value) -> Result<Operation, tidings_alarms::Error>,
) -> Result<Response, Problem> {
    let (parts, content) = request.into_parts();
    let principal = caller_may(app, &parts, "alarm_write").await?;
    let operation = read(object_or_empty(app, &parts.headers, content).await?)?;
    let (tenant, subject) = (&principal.tenant, &principal.subject);
    let alarm = app.alarms.operate(tenant, id, subject, operation).await?;
    Ok(Json(alarm.shown(tenant, app.clock.now())).into_response())
}
