//! `/api/v1/incidents`: what people work on, with the paths that older clients call.

use std::str::FromStr;

use axum::Json;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::{ACCEPT, CONTENT_DISPOSITION, CONTENT_TYPE, HeaderMap};
use http::request::Parts;
use serde_json::json;
use tidings_alarms::Error;
use tidings_alarms::incident::{
    Actor, Change, Entry, Gate, Incident, NewIncident, Query as Asked, Severity, Sort, Status,
    entry, read_reason,
};
use tidings_core::auth::Principal;

use super::{caller_may, object, object_or_empty};
use crate::app::App;
use crate::http::problem::{Kind, Problem};
use crate::telemetry::request::RequestIds;
use crate::transport::request::Query;

const READ: &str = "incident_read";
const WRITE: &str = "incident_write";
/// Incidents on a page where the request does not say, and at most.
const PAGE_SIZE: u64 = 50;
const MAX_PAGE_SIZE: u64 = 200;
/// Pages that can be asked for: further ones cost as much as reading all before them.
const MAX_PAGE: u64 = 100_000;
/// The longest text that is searched for, in bytes.
const MAX_SEARCH_BYTES: usize = 256;

/// Who acts, as the audit trail names them.
pub(super) fn actor(principal: &Principal, parts: &Parts) -> Actor {
    let ids = parts.extensions.get::<std::sync::Arc<RequestIds>>();
    Actor::caller(&principal.subject, ids.map(|ids| ids.trace.trace_id()))
}

fn shown(principal: &Principal, incident: &Incident) -> Response {
    Json(incident.json(&principal.tenant)).into_response()
}

/// Opens one. 200 with the one that stands where there is one of the same title and entity.
pub(crate) async fn open(State(app): State<App>, request: Request) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let principal = caller_may(&app, &parts, WRITE).await?;
    let new = NewIncident::read(object(&app, &parts.headers, body).await?)?;
    let actor = actor(&principal, &parts);
    let opened = app.alarms.open_incident(&principal.tenant, new, actor);
    let (incident, is_new) = opened.await?;
    let status = if is_new {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    Ok((status, shown(&principal, &incident)).into_response())
}

/// A page of them.
pub(crate) async fn list(State(app): State<App>, request: Request) -> Result<Response, Problem> {
    let (parts, _) = request.into_parts();
    let principal = caller_may(&app, &parts, READ).await?;
    let asked = asked(&Query::of(&parts.uri))?;
    let (page, page_size) = (asked.page, asked.page_size);
    let found = app.alarms.incidents(&principal.tenant, asked).await?;
    let incidents = found.incidents.iter().map(|i| i.json(&principal.tenant));
    let list = json!({
        "incidents": incidents.collect::<Vec<_>>(), "total": found.total, "page": page, "page_size": page_size,
    });
    Ok(Json(list).into_response())
}

fn asked(query: &Query) -> Result<Asked, Problem> {
    let size = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    let search = query.get("search").filter(|text| !text.is_empty());
    if search.is_some_and(|text| text.len() > MAX_SEARCH_BYTES || text.contains('\0')) {
        let detail = format!("at most {MAX_SEARCH_BYTES} bytes without NUL");
        return Err(Problem::bad_request("search", &detail));
    }
    let is_ascending = match query.get("sort_dir") {
        None | Some("desc" | "") => false,
        Some("asc") => true,
        Some(_) => return Err(Problem::bad_request("sort_dir", "asc or desc")),
    };
    let sort = words(query, "sort_by", |word| {
        Sort::from_str(word).map_err(|e| e.to_string())
    })?;
    Ok(Asked {
        statuses: words(query, "status", status)?,
        without: words(query, "exclude_status", status)?,
        severities: words(query, "severity", |word| {
            Severity::from_str(word).map_err(|e| e.to_string())
        })?,
        search: search.map(str::to_owned),
        sort: sort.first().copied().unwrap_or_default(),
        is_ascending,
        page: size(query.number("page", 1, 1, MAX_PAGE)?),
        page_size: size(query.number("page_size", PAGE_SIZE, 1, MAX_PAGE_SIZE)?),
    })
}

/// The words of a parameter, which may be repeated and hold several with commas.
fn words<T>(
    query: &Query,
    name: &'static str,
    read: impl Fn(&str) -> Result<T, String>,
) -> Result<Vec<T>, Problem> {
    let words = query.all(name).flat_map(|value| value.split(','));
    let words = words.map(str::trim).filter(|word| !word.is_empty());
    words
        .map(|word| read(word).map_err(|why| Problem::bad_request(name, &why)))
        .collect()
}

/// A status, by its name or by one that older clients know.
fn status(word: &str) -> Result<Status, String> {
    Ok(match word {
        "anomaly" | "detected" => Status::Open,
        "rca" | "sitrep_draft" => Status::Acknowledged,
        "sitrep_approved" | "resolving" | "resolution_approved" => Status::InProgress,
        "learning" => Status::Closed,
        word => Status::from_str(word).map_err(|e| e.to_string())?,
    })
}

/// One of them.
pub(crate) async fn get(
    State(app): State<App>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, _) = request.into_parts();
    let principal = caller_may(&app, &parts, READ).await?;
    let incident = app.alarms.incident(&principal.tenant, &id).await?;
    Ok(shown(&principal, &incident))
}

/// Changes one: its next step, its title, its summary.
pub(crate) async fn change(
    State(app): State<App>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let principal = caller_may(&app, &parts, WRITE).await?;
    let change = Change::read(object(&app, &parts.headers, body).await?)?;
    let actor = actor(&principal, &parts);
    let changed = app
        .alarms
        .change_incident(&principal.tenant, &id, change, actor);
    Ok(shown(&principal, &changed.await?))
}

/// The same problem with the status that clients of the old paths expect.
fn old(e: Error) -> Problem {
    let is_illegal = matches!(e, Error::Illegal { .. });
    let problem = Problem::from(e);
    if is_illegal {
        problem.under(Kind::IllegalMove)
    } else {
        problem
    }
}

/// The old path to the next step.
pub(crate) async fn advance(
    State(app): State<App>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, _) = request.into_parts();
    let principal = caller_may(&app, &parts, WRITE).await?;
    let actor = actor(&principal, &parts);
    let advanced = app.alarms.advance_incident(&principal.tenant, &id, actor);
    Ok(shown(&principal, &advanced.await.map_err(old)?))
}

/// The old path that closes.
pub(crate) async fn close(
    State(app): State<App>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let principal = caller_may(&app, &parts, "incident_close").await?;
    let reason = read_reason(object_or_empty(&app, &parts.headers, body).await?)?;
    let how = (reason, actor(&principal, &parts));
    let closed = app
        .alarms
        .move_incident(&principal.tenant, &id, Status::Closed, how);
    Ok(shown(&principal, &closed.await.map_err(old)?))
}

/// Passes the first gate.
pub(crate) async fn approve_sitrep(
    State(app): State<App>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    approve(
        &app,
        &id,
        request,
        (Gate::Sitrep, "incident_approve_sitrep"),
    )
    .await
}

/// Passes the second gate.
pub(crate) async fn approve_action(
    State(app): State<App>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    approve(
        &app,
        &id,
        request,
        (Gate::Action, "incident_approve_action"),
    )
    .await
}

async fn approve(
    app: &App,
    id: &str,
    request: Request,
    (gate, action): (Gate, &'static str),
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let principal = caller_may(app, &parts, action).await?;
    let reason = read_reason(object_or_empty(app, &parts.headers, body).await?)?;
    let how = (reason, actor(&principal, &parts));
    let approved = app
        .alarms
        .approve_incident(&principal.tenant, id, gate, how);
    Ok(shown(&principal, &approved.await?))
}

/// What happened to one.
pub(crate) async fn timeline(
    State(app): State<App>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let (_, entries) = entries(&app, &id, request).await?;
    let timeline: Vec<_> = entries.iter().map(Entry::timeline).collect();
    Ok(Json(json!({ "timeline": timeline })).into_response())
}

/// What was done to one, by whom.
pub(crate) async fn audit_trail(
    State(app): State<App>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, entries) = entries(&app, &id, request).await?;
    if prefers(&parts.headers, "text/csv") {
        return Ok(csv(&entries));
    }
    let trail: Vec<_> = entries.iter().filter_map(Entry::audit).collect();
    Ok(Json(json!({ "incident_id": id, "audit_trail": trail })).into_response())
}

/// The same as a table.
pub(crate) async fn audit_trail_csv(
    State(app): State<App>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let (_, entries) = entries(&app, &id, request).await?;
    Ok(csv(&entries))
}

fn csv(entries: &[Entry]) -> Response {
    let headers = [
        (CONTENT_TYPE, "text/csv; charset=utf-8"),
        (
            CONTENT_DISPOSITION,
            "attachment; filename=\"audit-trail.csv\"",
        ),
    ];
    (headers, entry::csv(entries)).into_response()
}

async fn entries(app: &App, id: &str, request: Request) -> Result<(Parts, Vec<Entry>), Problem> {
    let (parts, _) = request.into_parts();
    let principal = caller_may(app, &parts, READ).await?;
    let entries = app.alarms.incident_entries(&principal.tenant, id).await?;
    Ok((parts, entries))
}

/// Whom and what one affects.
pub(crate) async fn impact(
    State(app): State<App>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, _) = request.into_parts();
    let principal = caller_may(&app, &parts, READ).await?;
    let impact = app.alarms.incident_impact(&principal.tenant, &id).await?;
    Ok(Json(impact.json()).into_response())
}

/// Where one stands, in plain words.
pub(crate) async fn sitrep(
    State(app): State<App>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, _) = request.into_parts();
    let principal = caller_may(&app, &parts, READ).await?;
    let sitrep = app.alarms.sitrep(&principal.tenant, &id).await?;
    if prefers(&parts.headers, "text/plain") {
        let content_type = [(CONTENT_TYPE, "text/plain; charset=utf-8")];
        return Ok((content_type, sitrep.text).into_response());
    }
    Ok(Json(sitrep.json()).into_response())
}

/// The old path that has a report made: the incident, with the report beside it.
pub(crate) async fn generate_sitrep(
    State(app): State<App>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, _) = request.into_parts();
    let principal = caller_may(&app, &parts, READ).await?;
    let actor = actor(&principal, &parts);
    let made = app.alarms.generate_sitrep(&principal.tenant, &id, actor);
    let (incident, sitrep) = made.await?;
    let mut json = incident.json(&principal.tenant);
    json["sitrep"] = sitrep.text.into();
    json["generated_at"] = sitrep.generated_at.to_string().into();
    Ok(Json(json).into_response())
}

/// Why tidings thinks what it thinks.
pub(crate) async fn reasoning(
    State(app): State<App>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, _) = request.into_parts();
    let principal = caller_may(&app, &parts, READ).await?;
    let incident = app.alarms.incident(&principal.tenant, &id).await?;
    let reasoning = json!({
        "incident_id": id, "reasoning_chain": incident.reasoning(), "llm_model_version": null, "llm_prompt_hash": null,
    });
    Ok(Json(reasoning).into_response())
}

/// Whether a client asks for this media type before JSON: it names it, and no JSON before it.
fn prefers(headers: &HeaderMap, media_type: &str) -> bool {
    let accepted = headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|v| v.to_str().ok());
    let mut accepted = accepted.flat_map(|value| value.split(',')).map(|range| {
        let name = range.split(';').next().unwrap_or_default();
        name.trim().to_ascii_lowercase()
    });
    let first = accepted.find(|name| name == media_type || name == "application/json");
    first.is_some_and(|name| name == media_type)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_is_for_who_asks_for_it() {
        for (accept, is_plain) in [
            ("", false),
            ("*/*", false),
            ("application/json", false),
            ("text/plain", true),
            ("Text/Plain; charset=utf-8, */*", true),
            ("application/json, text/plain", false),
            ("text/html, text/plain;q=0.9", true),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, accept.parse().unwrap());
            assert_eq!(prefers(&headers, "text/plain"), is_plain, "{accept}");
        }
    }

    #[test]
    fn a_list_is_asked_for_by_words_that_are_known() {
        let of = |query: &str| asked(&Query::of(&format!("/?{query}").parse().unwrap()));
        let asked = of(
            "status=open,in_progress&status=learning&severity=HIGH&sort_by=priority&sort_dir=asc",
        )
        .unwrap();
        assert_eq!(
            asked.statuses,
            [Status::Open, Status::InProgress, Status::Closed]
        );
        assert_eq!(
            (asked.severities, asked.sort),
            (vec![Severity::High], Sort::Severity)
        );
        assert_eq!(
            (asked.is_ascending, asked.page, asked.page_size),
            (true, 1, 50)
        );
        for wrong in [
            "status=done",
            "exclude_status=x",
            "severity=loud",
            "sort_by=colour",
            "sort_dir=up",
            "page=0",
            "page=x",
            "page_size=201",
            "page_size=0",
            "search=%00",
        ] {
            assert!(of(wrong).is_err(), "{wrong}");
        }
    }
}
