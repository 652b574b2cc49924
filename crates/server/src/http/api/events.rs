//! `POST /api/v1/events` publishes; `GET` pages through history.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{HeaderMap, StatusCode};
use serde::Serialize;
use serde_json::value::RawValue;
use tidings_core::auth::{Action, Principal};
use tidings_core::event::NewEvent;
use tidings_core::ingest::{Limits, cloudevents, native};
use tidings_core::log::{Batch, Idempotency, Published};

use super::caller;
use crate::app::App;
use crate::http::body;
use crate::http::entry::MadeEvent;
use crate::http::problem::{Kind, Problem};
use crate::telemetry::metrics::publishes;
use crate::telemetry::request::RequestIds;
use crate::transport::admission::whole_scope;
use crate::transport::long_poll::{self, Gap, with_cursors};
use crate::transport::request::Query;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
const SPECVERSION: HeaderName = HeaderName::from_static("ce-specversion");
/// The longest `Idempotency-Key`, in bytes.
const MAX_KEY_BYTES: usize = 255;
const TAKEN: &str = "application/json, application/x-ndjson, application/cloudevents+json, \
                     application/cloudevents-batch+json, or any type with ce- headers";

#[derive(Serialize)]
struct Answer<'a> {
    ids: Vec<&'a str>,
    cursor: Option<String>,
}

/// Publishes: all or nothing, durable before the answer.
pub(crate) async fn publish(State(app): State<App>, request: Request) -> Result<Response, Problem> {
    let (parts, content) = request.into_parts();
    let principal = caller(&app, &parts).await?;
    let key = parts
        .headers
        .get(IDEMPOTENCY_KEY)
        .map(|value| value.to_str().map(str::to_owned));
    let key = key.transpose().map_err(|_| wrong_key())?;
    let content = body::read(&parts.headers, content, app.config.limits.body).await?;
    let ids = parts.extensions.get::<Arc<RequestIds>>();
    let trace = ids.map(|ids| ids.trace.to_string());
    let mut events = read(&app, &parts.headers, &content, trace.as_deref())?;
    let own = ids.map(|ids| ids.event_id.clone());
    let is_one = events.len() == 1;
    if let [event] = &mut events[..] {
        event.given.clone_from(&own);
    }
    let published = publish_events(&app, &principal, events, key, &content).await?;
    let answer = Answer {
        ids: published
            .ids
            .iter()
            .map(tidings_core::event::EventId::as_str)
            .collect(),
        cursor: published.cursor.as_ref().map(ToString::to_string),
    };
    let mut response = (StatusCode::ACCEPTED, Json(answer)).into_response();
    if published.is_replayed {
        response
            .headers_mut()
            .insert(IDEMPOTENT_REPLAYED, HeaderValue::from_static("true"));
    }
    if let (true, Some(id)) = (is_one, published.ids.first())
        && own.as_ref() != Some(id)
    {
        response.extensions_mut().insert(MadeEvent(id.clone()));
    }
    Ok(response)
}

/// What one request may bring.
pub(super) fn limits(app: &App) -> Limits {
    let limits = &app.config.limits;
    Limits {
        event: limits.event,
        batch: limits.batch,
        json_depth: limits.json_depth,
    }
}

fn read(
    app: &App,
    headers: &HeaderMap,
    content: &[u8],
    trace: Option<&str>,
) -> Result<Vec<NewEvent>, Problem> {
    let limits = limits(app);
    let media_type = body::media_type(headers)?;
    let events = match media_type.as_deref() {
        Some("application/cloudevents+json") => cloudevents::structured(content, &limits, trace),
        Some("application/cloudevents-batch+json") => cloudevents::batch(content, &limits, trace),
        _ if headers.contains_key(SPECVERSION) => {
            let content_type = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok());
            let all = headers
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_bytes()));
            cloudevents::binary(all, content_type, content, &limits, trace)
        }
        Some("application/json") if has_cloud_headers(headers) => {
            return Err(Problem::bad_request("ce-specversion", "is required"));
        }
        Some("application/json") => native::json(content, &limits, trace),
        Some("application/x-ndjson" | "application/ndjson" | "application/jsonl") => {
            native::ndjson(content, &limits, trace)
        }
        other => return Err(body::unsupported(other, TAKEN)),
    };
    events.map_err(Problem::from)
}

fn has_cloud_headers(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| name.as_str().starts_with("ce-"))
}

/// What an `Idempotency-Key` is.
pub(crate) const KEY: &str = "1 to 255 printable ASCII characters";

/// Whether a text may be an `Idempotency-Key`.
pub(crate) fn is_key(text: &str) -> bool {
    (1..=MAX_KEY_BYTES).contains(&text.len()) && text.bytes().all(|b| (b' '..=b'~').contains(&b))
}

fn wrong_key() -> Problem {
    Problem::bad_request("Idempotency-Key", KEY)
}

/// Publishes events that came as separate texts, as over a WebSocket.
pub(crate) async fn publish_items(
    app: &App,
    principal: &Arc<Principal>,
    items: Vec<Box<RawValue>>,
    key: Option<String>,
) -> Result<Published, Problem> {
    let events = native::items(&items, &limits(app), None)?;
    let content = items
        .iter()
        .map(|item| item.get())
        .collect::<Vec<_>>()
        .join("\n");
    publish_events(app, principal, events, key, content.as_bytes()).await
}

/// Asks the policy whether all of them may be published.
pub(super) fn check_publish(
    app: &App,
    principal: &Principal,
    events: &[NewEvent],
) -> Result<(), Problem> {
    let policies = app.policies.current();
    let mut allowed: Option<&tidings_core::topic::Topic> = None;
    for event in events {
        // Events of one request mostly share a topic.
        if allowed != Some(&event.topic)
            && !policies.allows(principal, Action::Publish, &event.topic)
        {
            publishes("forbidden", events.len() as u64, None);
            return Err(Problem::forbidden(
                "topic",
                &format!("the policy does not allow publishing on {}", event.topic),
            ));
        }
        allowed = Some(&event.topic);
    }
    Ok(())
}

async fn publish_events(
    app: &App,
    principal: &Arc<Principal>,
    events: Vec<NewEvent>,
    key: Option<String>,
    content: &[u8],
) -> Result<Published, Problem> {
    check_publish(app, principal, &events)?;
    let idempotency = match key {
        None => None,
        Some(key) => {
            let is_plain = is_key(&key);
            let request = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, content);
            let request = request
                .as_ref()
                .iter()
                .map(|b| format!("{b:02x}"))
                .collect();
            Some(Idempotency {
                key: Some(key).filter(|_| is_plain).ok_or_else(wrong_key)?,
                request,
            })
        }
    };
    let started = std::time::Instant::now();
    let count = events.len() as u64;
    let batch = Batch {
        subject: principal.subject.clone(),
        events,
        idempotency,
    };
    let result = app.log.publish(&principal.tenant, batch).await;
    let (word, took) = match &result {
        Ok(published) if published.is_replayed => ("replayed", None),
        Ok(_) => ("accepted", Some(started.elapsed())),
        Err(_) => ("refused", None),
    };
    publishes(word, count, took);
    result.map_err(Problem::from)
}

#[derive(Serialize)]
struct History {
    events: Vec<Box<RawValue>>,
    cursor: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    gap: Option<Gap>,
}

/// Pages through history, oldest first.
pub(crate) async fn history(
    State(app): State<App>,
    request: Request<Body>,
) -> Result<Response, Problem> {
    let (parts, _) = request.into_parts();
    let principal = caller(&app, &parts).await?;
    let query = Query::of(&parts.uri);
    let asked = query.topics(true)?;
    let limit = query.number("limit", long_poll::DEFAULT_LIMIT, 1, long_poll::MAX_LIMIT)?;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let scope = whole_scope(&app.transports.connections, &principal, &asked, "topic")?;
    let log = app.log.tenant(&principal.tenant).await?;
    let after = match query.get("after").filter(|after| !after.is_empty()) {
        None => 0,
        Some(cursor) => app.hub.resume(&log, cursor.as_bytes()).ok_or_else(|| {
            Problem::new(Kind::BadParameter, "not a cursor of this log").at("after")
        })?,
    };
    let page = app
        .log
        .history(&log, after, &scope.patterns, &scope.rights, limit)
        .await?;
    // From the very beginning nothing is missing that was asked for.
    let gap = page.end.gap.filter(|_| after > 0).map(|oldest| Gap {
        oldest: log.at(oldest).to_string(),
    });
    let answer = History {
        events: with_cursors(&log, &page.events)?,
        cursor: log.at(page.end.next).to_string(),
        gap,
    };
    Ok(Json(answer).into_response())
}
