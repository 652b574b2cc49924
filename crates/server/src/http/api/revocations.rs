//! `/api/v1/admin/revocations`: subjects and tokens that are refused from now on, on open streams too.

use axum::Json;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use tidings_core::auth::{Revocation, Revocations};
use tidings_core::db::DbError;
use tidings_core::event::EventId;

use super::admin;
use crate::app::App;
use crate::http::body;
use crate::http::problem::Problem;
use crate::transport::request::Query;

/// The longest subject, token id or reason, in bytes.
const MAX_TEXT_BYTES: usize = 1_024;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    subject: Option<String>,
    token_id: Option<String>,
    reason: Option<String>,
}

#[derive(Debug, Serialize)]
struct Shown {
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    revoked_by: String,
    revoked_at: String,
}

impl From<Revocation> for Shown {
    fn from(r: Revocation) -> Self {
        Self {
            id: r.id,
            subject: r.subject,
            token_id: r.token_id,
            reason: r.reason,
            revoked_by: r.revoked_by,
            revoked_at: r.revoked_at.to_string(),
        }
    }
}

#[derive(Debug, Serialize)]
struct List {
    revocations: Vec<Shown>,
    cursor: Option<String>,
}

fn check(field: &str, text: Option<&str>) -> Result<(), Problem> {
    let is_wrong =
        |t: &str| t.is_empty() || t.len() > MAX_TEXT_BYTES || t.chars().any(char::is_control);
    if text.is_some_and(is_wrong) {
        return Err(Problem::invalid(
            field,
            "1 to 1024 bytes without control characters",
        ));
    }
    Ok(())
}

/// Revokes a subject's tokens so far, or one token.
pub(crate) async fn revoke(State(app): State<App>, request: Request) -> Result<Response, Problem> {
    let (parts, content) = request.into_parts();
    let principal = admin(&app, &parts).await?;
    let limits = &app.config.limits;
    let asked: Asked = body::json(
        &parts.headers,
        content,
        limits.body_other,
        limits.json_depth,
    )
    .await?;
    if asked.subject.is_some() == asked.token_id.is_some() {
        return Err(Problem::invalid(
            "subject",
            "exactly one of subject and token_id",
        ));
    }
    check("subject", asked.subject.as_deref())?;
    check("token_id", asked.token_id.as_deref())?;
    check("reason", asked.reason.as_deref())?;
    let now = app.clock.now();
    let revocation = Revocation {
        id: EventId::random(now).to_string(),
        tenant: principal.tenant.clone(),
        subject: asked.subject,
        token_id: asked.token_id,
        reason: asked.reason,
        revoked_by: principal.subject.to_string(),
        revoked_at: now,
    };
    let stored = revocation.clone();
    app.log
        .write::<_, DbError>(&principal.tenant, move |tx| {
            Revocations::insert(tx, &stored)
        })
        .await
        .map_err(|e| Problem::from(&e))?;
    app.revocations.add(revocation.clone());
    Ok((StatusCode::CREATED, Json(Shown::from(revocation))).into_response())
}

/// Lists them, the newest first.
pub(crate) async fn list(State(app): State<App>, request: Request) -> Result<Response, Problem> {
    let (parts, _) = request.into_parts();
    let principal = admin(&app, &parts).await?;
    let query = Query::of(&parts.uri);
    let limit = usize::try_from(query.number("limit", 100, 1, 1_000)?).unwrap_or(usize::MAX);
    let (tenant, after) = (
        principal.tenant.clone(),
        query.get("after").map(str::to_owned),
    );
    let read = move |conn: &mut tidings_core::db::Conn| {
        Revocations::list(conn, &tenant, after.as_deref(), limit + 1)
    };
    let mut all = app
        .log
        .db()
        .read(read)
        .await
        .map_err(|e| Problem::from(&e))?;
    let more = all.len() > limit;
    all.truncate(limit);
    let cursor = all.last().filter(|_| more).map(|r| r.id.clone());
    Ok(Json(List {
        revocations: all.into_iter().map(Shown::from).collect(),
        cursor,
    })
    .into_response())
}

/// Undoes one.
pub(crate) async fn undo(
    State(app): State<App>,
    Path(id): Path<String>,
    request: Request,
) -> Result<StatusCode, Problem> {
    let (parts, _) = request.into_parts();
    let principal = admin(&app, &parts).await?;
    let (tenant, of) = (principal.tenant.clone(), id.clone());
    let removed = app
        .log
        .write::<_, DbError>(&principal.tenant, move |tx| {
            Revocations::remove(tx, &tenant, &of)
        })
        .await;
    if !removed.map_err(|e| Problem::from(&e))?.value {
        return Err(Problem::not_found("there is no such revocation"));
    }
    app.revocations.undo(&principal.tenant, &id);
    Ok(StatusCode::NO_CONTENT)
}
