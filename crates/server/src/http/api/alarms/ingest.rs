//! Alarms on their way in: tidings' own form, CloudEvents, Alertmanager, Prometheus.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, StatusCode};
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tidings_alarms::alarm::{Accepted, Occurrence, Request as Alarms};
use tidings_alarms::ingest::{Context, alertmanager, cloudevents, native};
use tidings_alarms::{Error, Invalid};
use tidings_core::auth::Principal;
use tidings_core::event::EventId;

use super::caller_may;
use crate::app::App;
use crate::http::body;
use crate::http::entry::MadeEvent;
use crate::http::problem::Problem;
use crate::telemetry::request::RequestIds;

const TAKEN: &str = "application/json, application/x-ndjson, application/cloudevents+json, \
                     application/cloudevents-batch+json, or application/json with ce- headers";

/// What a request is taken to be.
enum Form {
    One(Occurrence),
    Many(Vec<Occurrence>),
}

#[derive(Serialize)]
struct One<'a> {
    event_id: &'a str,
    alarm_id: &'a str,
    tenant_id: &'a str,
    status: &'static str,
}

#[derive(Serialize)]
struct Many<'a> {
    event_ids: Vec<&'a str>,
    tenant_id: &'a str,
    status: &'static str,
    count: usize,
    idempotent_count: usize,
}

/// What the module's readers need to know.
pub(super) fn context(app: &App) -> Context<'_> {
    Context {
        config: app.alarms.config(),
        now: app.clock.now(),
    }
}

/// `POST /api/v1/alarms/ingest`: one alarm, or many at once. All or nothing, durable before the answer.
pub(crate) async fn ingest(State(app): State<App>, request: Request) -> Result<Response, Problem> {
    take(&app, request, false).await
}

/// `POST /api/v1/alarms/ingest/batch`: the same, and the answer is always that of many.
pub(crate) async fn batch(State(app): State<App>, request: Request) -> Result<Response, Problem> {
    take(&app, request, true).await
}

async fn take(app: &App, request: Request, is_batch: bool) -> Result<Response, Problem> {
    let (parts, content) = request.into_parts();
    let principal = caller_may(app, &parts, "alarm_write").await?;
    let content = body::read(&parts.headers, content, app.config.limits.body).await?;
    let form = match read(app, &parts.headers, &content)? {
        Form::One(one) if is_batch => Form::Many(vec![one]),
        form => form,
    };
    let (is_one, occurrences) = match form {
        Form::One(one) => (true, vec![one]),
        Form::Many(many) => (false, many),
    };
    let accepted = store(app, &parts, &principal, occurrences).await?;
    let tenant_id = principal.tenant.as_str();
    match accepted.0.first().filter(|_| is_one) {
        Some(outcome) => {
            let answer = One {
                event_id: &outcome.event_id,
                alarm_id: &outcome.alarm_id,
                tenant_id,
                status: if outcome.is_repeat {
                    "accepted (idempotent)"
                } else {
                    "accepted"
                },
            };
            let mut response = (StatusCode::ACCEPTED, Json(answer)).into_response();
            if let Ok(id) = EventId::new(&outcome.event_id) {
                response.extensions_mut().insert(MadeEvent(id));
            }
            Ok(response)
        }
        None => {
            let answer = Many {
                event_ids: accepted.0.iter().map(|o| o.event_id.as_str()).collect(),
                tenant_id,
                status: "accepted",
                count: accepted.0.len(),
                idempotent_count: accepted.repeats(),
            };
            Ok((StatusCode::ACCEPTED, Json(answer)).into_response())
        }
    }
}

/// Hands occurrences to the module, in the name of a request.
pub(super) async fn store(
    app: &App,
    parts: &Parts,
    principal: &Principal,
    occurrences: Vec<Occurrence>,
) -> Result<Accepted, Problem> {
    let ids = parts.extensions.get::<Arc<RequestIds>>();
    let alarms = Alarms {
        occurrences,
        trace: ids.map(|ids| ids.trace.to_string()),
    };
    Ok(app.alarms.ingest(&principal.tenant, alarms).await?)
}

fn read(app: &App, headers: &HeaderMap, content: &Bytes) -> Result<Form, Problem> {
    let (context, limits) = (context(app), &app.config.limits);
    let media_type = body::media_type(headers)?;
    Ok(match media_type.as_deref() {
        Some("application/cloudevents+json") => {
            let value = body::any(content, limits.json_depth.saturating_add(1))?;
            Form::One(cloudevents::one(value, context)?)
        }
        Some("application/cloudevents-batch+json") => {
            Form::Many(cloudevents::many(array(app, content)?, context)?)
        }
        Some("application/json") if is_binary(headers) => {
            let (source, id) = attributes(headers)?;
            let value = item(app, content, None)?;
            Form::One(cloudevents::binary(source, id, value, context)?)
        }
        Some("application/json") if content.trim_ascii_start().starts_with(b"[") => {
            Form::Many(native::many(array(app, content)?, context)?)
        }
        Some("application/json") => Form::One(native::one(item(app, content, None)?, context)?),
        Some("application/x-ndjson" | "application/ndjson" | "application/jsonl") => {
            Form::Many(native::many(lines(app, content)?, context)?)
        }
        other => return Err(body::unsupported(other, TAKEN)),
    })
}

fn is_binary(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| name.as_str().starts_with("ce-"))
}

/// The `ce-source` and `ce-id` of an event in binary mode.
fn attributes(headers: &HeaderMap) -> Result<(&str, &str), Problem> {
    let header = |name: &'static str| {
        let value = headers.get(name).and_then(|value| value.to_str().ok());
        let value = value.filter(|text| !text.is_empty());
        value.ok_or_else(|| Problem::bad_request(name, "is required"))
    };
    if header("ce-specversion")? != "1.0" {
        return Err(Problem::bad_request("ce-specversion", "must be 1.0"));
    }
    header("ce-type")?;
    Ok((header("ce-source")?, header("ce-id")?))
}

/// Reads one alarm's text, within the limit of an event.
fn item(app: &App, text: &[u8], index: Option<usize>) -> Result<Value, Problem> {
    let limits = &app.config.limits;
    let at = |problem: Problem| match index {
        Some(index) => problem.of_item(index),
        None => problem,
    };
    if text.len() > limits.event {
        let detail = format!("an alarm is at most {} bytes", limits.event);
        return Err(at(Problem::too_large(&detail)));
    }
    body::any(text, limits.json_depth).map_err(at)
}

/// Reads an array's items.
pub(super) fn array(app: &App, content: &Bytes) -> Result<Vec<Value>, Problem> {
    // Two levels more than an item has: the envelope of an event, and the array.
    let depth = app.config.limits.json_depth.saturating_add(2);
    let whole: Value = body::any(content, depth)?;
    if !whole.is_array() {
        return Err(wrong("list_type", "must be a list"));
    }
    drop(whole);
    let items: Vec<&RawValue> =
        serde_json::from_slice(content).map_err(|e| Problem::malformed(&e.to_string()))?;
    check_count(app, items.len())?;
    let items = items.into_iter().enumerate();
    items
        .map(|(index, raw)| item(app, raw.get().as_bytes(), Some(index)))
        .collect()
}

/// Reads one item a line; empty lines are skipped.
fn lines(app: &App, content: &Bytes) -> Result<Vec<Value>, Problem> {
    let lines = content.split(|b| *b == b'\n');
    let lines: Vec<_> = lines.filter(|line| !line.trim_ascii().is_empty()).collect();
    check_count(app, lines.len())?;
    let lines = lines.into_iter().enumerate();
    lines
        .map(|(index, line)| item(app, line, Some(index)))
        .collect()
}

fn check_count(app: &App, count: usize) -> Result<(), Problem> {
    let most = app.config.limits.batch;
    match count {
        0 => Err(wrong("too_short", "at least one alarm")),
        n if n > most => Err(Problem::too_large(&format!(
            "{n} alarms; at most {most} in one request"
        ))),
        _ => Ok(()),
    }
}

/// The body as a whole is wrong.
fn wrong(kind: &'static str, message: &str) -> Problem {
    Error::from(Invalid {
        at: Vec::new(),
        message: message.to_owned(),
        kind,
    })
    .into()
}

/// `POST /api/v1/alarms/ingest/alertmanager`: Alertmanager's webhook, version 4.
pub(crate) async fn webhook(State(app): State<App>, request: Request) -> Result<Response, Problem> {
    let (parts, content) = request.into_parts();
    let principal = caller_may(&app, &parts, "alarm_write").await?;
    body::check_json(&parts.headers)?;
    let content = body::read(&parts.headers, content, app.config.limits.body).await?;
    let value = body::any(&content, app.config.limits.json_depth)?;
    let occurrences = alertmanager::webhook(value, context(&app))?;
    store(&app, &parts, &principal, occurrences).await?;
    Ok(Json(json!({})).into_response())
}

/// `POST /api/v2/alerts`: what Prometheus sends to an Alertmanager.
pub(crate) async fn alerts(State(app): State<App>, request: Request) -> Result<Response, Problem> {
    let (parts, content) = request.into_parts();
    let principal = caller_may(&app, &parts, "alarm_write").await?;
    body::check_json(&parts.headers)?;
    let content = body::read(&parts.headers, content, app.config.limits.body).await?;
    let occurrences = if content.trim_ascii() == b"[]" {
        Vec::new()
    } else {
        alertmanager::alerts(array(&app, &content)?, context(&app))?
    };
    store(&app, &parts, &principal, occurrences).await?;
    Ok(Json(json!({})).into_response())
}
