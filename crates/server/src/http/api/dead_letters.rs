//! `/api/v1/dead-letters`: what could not be taken in, with its reason. Sources hand it in, an administrator looks and
//! retries.

use axum::Json;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use tidings_core::db::{Conn, DbError};
use tidings_core::ingest::native;
use tidings_core::log::dead_letter::{self, DeadLetter};
use tidings_core::log::{AppendError, PublishError, WriteError};

use super::admin;
use super::list::Page;
use crate::app::App;
use crate::http::api::events;
use crate::http::body;
use crate::http::problem::Problem;
use crate::transport::request::Query;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    source: String,
    reason: String,
    content: String,
}

#[derive(Debug, Serialize)]
struct Shown {
    id: String,
    source: String,
    reason: String,
    content: String,
    stored_at: String,
}

impl From<DeadLetter> for Shown {
    fn from(d: DeadLetter) -> Self {
        Self {
            id: d.id,
            source: d.source,
            reason: d.reason,
            content: d.content,
            stored_at: d.stored_at.to_string(),
        }
    }
}

/// Sets something aside.
pub(crate) async fn set_aside(
    State(app): State<App>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, content) = request.into_parts();
    let principal = admin(&app, &parts).await?;
    let asked: Asked = body::json(&parts.headers, content, &app.config.limits).await?;
    for (field, text) in [("source", &asked.source), ("reason", &asked.reason)] {
        if text.is_empty() || text.len() > 1_024 || text.contains('\0') {
            return Err(Problem::invalid(field, "1 to 1024 bytes without NUL"));
        }
    }
    let written = app.log.write::<_, DbError>(&principal.tenant, move |tx| {
        let (tenant, now) = (tx.tenant_number(), tx.now());
        dead_letter::insert(
            tx,
            tenant,
            &asked.source,
            &asked.reason,
            &asked.content,
            now,
        )
    });
    let id = written.await?.value;
    Ok((StatusCode::CREATED, Json(serde_json::json!({ "id": id }))).into_response())
}

/// Lists what was set aside, the newest first.
pub(crate) async fn list(State(app): State<App>, request: Request) -> Result<Response, Problem> {
    let (parts, _) = request.into_parts();
    let principal = admin(&app, &parts).await?;
    let page = Page::of(&Query::of(&parts.uri))?;
    let log = app.log.tenant(&principal.tenant).await?;
    let (after, to_read) = (page.after.clone(), page.to_read());
    let read =
        move |conn: &mut Conn| dead_letter::list(conn, log.number, after.as_deref(), to_read);
    let letters = app.log.db().read(read).await?;
    Ok(page.answer("dead_letters", letters, |d| &d.id, Shown::from))
}

/// Tries again to take one in: as an event of tidings' own form. It is dropped once that has worked.
pub(crate) async fn retry(
    State(app): State<App>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, _) = request.into_parts();
    let principal = admin(&app, &parts).await?;
    let unknown = || Problem::not_found("there is no such dead letter");
    let log = app.log.tenant(&principal.tenant).await?;
    let (number, of) = (log.number, id.clone());
    let found = app
        .log
        .db()
        .read(move |conn| dead_letter::find(conn, number, &of))
        .await?;
    let letter = found.ok_or_else(unknown)?;
    let events = native::json(letter.content.as_bytes(), &events::limits(&app), None)?;
    events::check_publish(&app, &principal, &events)?;
    let written = app.log.write::<_, Refused>(&principal.tenant, move |tx| {
        // Twice at once: only one of them finds it.
        if !dead_letter::remove(tx, number, &id)? {
            return Ok(None);
        }
        let mut ids = Vec::with_capacity(events.len());
        for (index, event) in events.into_iter().enumerate() {
            let id = tx
                .append_once(event)
                .map_err(|why| Refused { index, why })?;
            ids.push(id.to_string());
        }
        Ok(Some(ids))
    });
    let written = written.await.map_err(problem)?;
    let ids = written.value.ok_or_else(unknown)?;
    let cursor = written.cursor.map(|c| c.to_string());
    Ok((
        StatusCode::ACCEPTED,
        Json(serde_json::json!({ "ids": ids, "cursor": cursor })),
    )
        .into_response())
}

/// Why a dead letter stays one.
struct Refused {
    /// The event's place in it.
    index: usize,
    why: AppendError,
}

impl From<DbError> for Refused {
    fn from(e: DbError) -> Self {
        Self {
            index: 0,
            why: e.into(),
        }
    }
}

fn problem(e: WriteError<Refused>) -> Problem {
    let e = match e {
        WriteError::Refused(Refused { index, why }) => match why {
            AppendError::IdConflict => return Problem::from(PublishError::IdConflict { index }),
            AppendError::Database(e) => WriteError::Refused(e),
        },
        WriteError::Full => WriteError::Full,
        WriteError::Unavailable(e) => WriteError::Unavailable(e),
    };
    Problem::from(e)
}
