//! `/api/v1/entities`: what the network is made of.

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::Serialize;
use serde_json::json;
use tidings_alarms::entity::{Entity, Filter, Place};

use super::{caller_may, filter, items, object};
use crate::app::App;
use crate::http::api::list::Page;
use crate::http::problem::Problem;
use crate::transport::request::Query;

#[derive(Serialize)]
struct Shown<'a> {
    tenant_id: &'a str,
    #[serde(flatten)]
    entity: Entity,
}

/// Stores one in place of the one with this id.
pub(crate) async fn put(
    State(app): State<App>,
    Path(id): Path<String>,
    request: Request<Body>,
) -> Result<Response, Problem> {
    let (parts, content) = request.into_parts();
    let principal = caller_may(&app, &parts, "topology_write").await?;
    let body = object(&app, &parts.headers, content).await?;
    let tenant = &principal.tenant;
    let (entity, is_new) = app.alarms.put_entity(tenant, &id, body).await?;
    let status = if is_new {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    let tenant_id = tenant.as_str();
    Ok((status, Json(Shown { tenant_id, entity })).into_response())
}

/// Stores many, all or none.
pub(crate) async fn bulk(
    State(app): State<App>,
    request: Request<Body>,
) -> Result<Response, Problem> {
    let (parts, content) = request.into_parts();
    let principal = caller_may(&app, &parts, "topology_write").await?;
    let items = items(&app, &parts.headers, content).await?;
    let count = app.alarms.put_entities(&principal.tenant, items).await?;
    Ok(Json(json!({ "count": count })).into_response())
}

/// Shows one.
pub(crate) async fn get(
    State(app): State<App>,
    Path(id): Path<String>,
    request: Request<Body>,
) -> Result<Response, Problem> {
    let (parts, _) = request.into_parts();
    let principal = caller_may(&app, &parts, "topology_read").await?;
    let tenant = &principal.tenant;
    let entity = app.alarms.entity(tenant, &id).await?;
    let tenant_id = tenant.as_str();
    Ok(Json(Shown { tenant_id, entity }).into_response())
}

/// Removes one, with its samples.
pub(crate) async fn delete(
    State(app): State<App>,
    Path(id): Path<String>,
    request: Request<Body>,
) -> Result<StatusCode, Problem> {
    let (parts, _) = request.into_parts();
    let principal = caller_may(&app, &parts, "topology_write").await?;
    app.alarms.delete_entity(&principal.tenant, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Lists them, the newest first.
pub(crate) async fn list(
    State(app): State<App>,
    request: Request<Body>,
) -> Result<Response, Problem> {
    let (parts, _) = request.into_parts();
    let principal = caller_may(&app, &parts, "topology_read").await?;
    let query = Query::of(&parts.uri);
    let page = Page::of(&query)?;
    let after = match page.after.as_deref().filter(|text| !text.is_empty()) {
        None => None,
        Some(text) => {
            let no_cursor = || Problem::bad_request("after", "not a cursor of this list");
            Some(Place::parse(text).ok_or_else(no_cursor)?)
        }
    };
    let wanted = Filter {
        entity_type: filter(&query, "entity_type")?,
        external_id: filter(&query, "external_id")?,
    };
    let tenant = &principal.tenant;
    let found = app.alarms.entities(tenant, wanted, after, page.to_read());
    let tenant_id = tenant.as_str();
    let place = |entity: Entity| {
        (
            Place(entity.created_at, entity.id.clone()).to_string(),
            entity,
        )
    };
    let found = found.await?.into_iter().map(place).collect();
    let show = |(_, entity)| Shown { tenant_id, entity };
    Ok(page.answer("entities", found, |(place, _)| place, show))
}
