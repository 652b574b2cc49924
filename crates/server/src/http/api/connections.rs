//! `/api/v1/connections`: one's own open connections, or all of the tenant for those who may see them.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use tidings_core::auth::Principal;
use tidings_core::tenant::Tenant;
use uuid::Uuid;

use super::list::Page;
use super::{ADMIN, caller};
use crate::app::App;
use crate::http::body;
use crate::http::problem::Problem;
use crate::transport::connections::Connection;
use crate::transport::frame::Reason;
use crate::transport::request::Query;

/// The scope that shows all of the tenant's connections.
const READ_ALL: &str = "connections:read";

fn may_see(principal: &Principal, subject: &str) -> bool {
    principal.subject.as_ref() == subject
        || principal.has_role(ADMIN)
        || principal.has_scope(READ_ALL)
}

fn unknown() -> Problem {
    Problem::not_found("there is no such connection")
}

/// Lists them, the newest first.
pub(crate) async fn list(State(app): State<App>, request: Request) -> Result<Response, Problem> {
    let (parts, _) = request.into_parts();
    let principal = caller(&app, &parts).await?;
    let page = Page::of(&Query::of(&parts.uri))?;
    let mut all = app.transports.connections.list(&principal.tenant);
    all.retain(|c| may_see(&principal, &c.subject));
    if let Some(after) = &page.after {
        let at = all.iter().position(|c| c.connection_id == *after);
        let at = at.ok_or_else(|| Problem::bad_request("after", "not a cursor of this list"))?;
        all.drain(..=at);
    }
    Ok(page.answer("connections", all, |c| &c.connection_id, |c| c))
}

fn find(app: &App, tenant: &Tenant, id: &str) -> Result<Arc<Connection>, Problem> {
    let id = Uuid::parse_str(id).map_err(|_| unknown())?;
    let found = app.transports.connections.find(tenant, id);
    found.ok_or_else(unknown)
}

/// Closes one.
pub(crate) async fn close(
    State(app): State<App>,
    Path(id): Path<String>,
    request: Request,
) -> Result<StatusCode, Problem> {
    let (parts, _) = request.into_parts();
    let principal = caller(&app, &parts).await?;
    let found = find(&app, &principal.tenant, &id)?;
    if !may_see(&principal, &found.principal().subject) {
        return Err(unknown());
    }
    if app
        .transports
        .connections
        .close(&principal.tenant, found.id, Reason::Closed)
    {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(unknown())
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Token {
    token: String,
}

#[derive(Debug, Serialize)]
struct Refreshed {
    expires_at: String,
}

/// Gives one a fresh token, before the old one ends.
pub(crate) async fn refresh(
    State(app): State<App>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, content) = request.into_parts();
    let caller = caller(&app, &parts).await?;
    let Token { token } = body::json(&parts.headers, content, &app.config.limits).await?;
    let found = find(&app, &caller.tenant, &id)?;
    let holder = found.principal();
    if holder.subject != caller.subject {
        return Err(unknown());
    }
    let principal = app.verify_refresh(&holder, &token).await?;
    let expires_at = principal.expires_at.to_string();
    if !app
        .transports
        .connections
        .refresh(&caller.tenant, found.id, principal)
    {
        return Err(unknown());
    }
    Ok(Json(Refreshed { expires_at }).into_response())
}
