//! `/api/v1/clusters`, and correlation on demand.

use axum::Json;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use tidings_alarms::cluster::demand::Demand;
use tidings_alarms::ingest::Context;

use super::super::list::Page;
use super::caller_may;
use crate::app::App;
use crate::http::body::{any, check_json, read};
use crate::http::problem::Problem;
use crate::transport::request::Query;

/// A page of those that stand, the newest first.
pub(crate) async fn list(State(app): State<App>, request: Request) -> Result<Response, Problem> {
    let (parts, _) = request.into_parts();
    let principal = caller_may(&app, &parts, "alarm_read").await?;
    let page = Page::of(&Query::of(&parts.uri))?;
    let found = app
        .alarms
        .clusters(&principal.tenant, page.after.clone(), page.to_read())
        .await?;
    Ok(page.answer("clusters", found, |c| &c.cluster_id, |c| c))
}

/// One of them.
pub(crate) async fn get(
    State(app): State<App>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, _) = request.into_parts();
    let principal = caller_may(&app, &parts, "alarm_read").await?;
    let found = app.alarms.cluster(&principal.tenant, &id).await?;
    Ok(Json(found).into_response())
}

/// Correlates what is stored, or what the body brings.
pub(crate) async fn correlate(
    State(app): State<App>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let principal = caller_may(&app, &parts, "alarm_read").await?;
    check_json(&parts.headers)?;
    let limits = &app.config.limits;
    // As large as what ingest takes.
    let bytes = read(&parts.headers, body, limits.body).await?;
    let body = any(&bytes, limits.json_depth.saturating_add(2))?;
    let context = Context {
        config: app.alarms.config(),
        now: app.clock.now(),
    };
    let demand = Demand::read(body, context)?;
    let answer = app.alarms.correlate(&principal.tenant, demand).await?;
    Ok(Json(answer).into_response())
}
