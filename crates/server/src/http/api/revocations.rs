//! `/api/v1/admin/revocations`: subjects and tokens that are refused from now on, on open streams too.

use axum::Json;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use tidings_core::auth::{Revocation, Revocations};
use tidings_core::db::{Conn, DbError};
use tidings_core::event::EventId;

use super::admin;
use super::list::Page;
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
    let asked: Asked = body::json(&parts.headers, content, &app.config.limits).await?;
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
        .await?;
    app.revocations.add(revocation.clone());
    Ok((StatusCode::CREATED, Json(Shown::from(revocation))).into_response())
}

/// Lists them, the newest first.
pub(crate) async fn list(State(app): State<App>, request: Request) -> Result<Response, Problem> {
    let (parts, _) = request.into_parts();
    let principal = admin(&app, &parts).await?;
    let page = Page::of(&Query::of(&parts.uri))?;
    let (tenant, after, to_read) = (principal.tenant.clone(), page.after.clone(), page.to_read());
    let read = move |conn: &mut Conn| Revocations::list(conn, &tenant, after.as_deref(), to_read);
    let revocations = app.log.db().read(read).await?;
    Ok(page.answer("revocations", revocations, |r| &r.id, Shown::from))
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
    if !removed?.value {
        return Err(Problem::not_found("there is no such revocation"));
    }
    app.revocations.undo(&principal.tenant, &id);
    Ok(StatusCode::NO_CONTENT)
}
