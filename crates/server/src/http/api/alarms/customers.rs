//! `/api/v1/customers` and proactive care: consent is asked where it counts, and a person can be forgotten.

use axum::Json;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde_json::json;
use tidings_alarms::customer::{Customer, NewCare, Place, Record};

use super::incidents::actor;
use super::{caller_may, object};
use crate::app::App;
use crate::http::api::list::Page;
use crate::http::problem::Problem;
use crate::transport::request::Query;

const READ: &str = "care_read";
const WRITE: &str = "care_write";

/// Stores one in place of the one with this id.
pub(crate) async fn put(
    State(app): State<App>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let principal = caller_may(&app, &parts, WRITE).await?;
    let body = object(&app, &parts.headers, body).await?;
    let (customer, is_new) = app
        .alarms
        .put_customer(&principal.tenant, &id, body)
        .await?;
    let status = if is_new {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    Ok((status, Json(customer.json(&principal.tenant))).into_response())
}

/// One of them.
pub(crate) async fn get(
    State(app): State<App>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, _) = request.into_parts();
    let principal = caller_may(&app, &parts, READ).await?;
    let customer = app.alarms.customer(&principal.tenant, &id).await?;
    Ok(Json(customer.json(&principal.tenant)).into_response())
}

/// Lists them, the newest first.
pub(crate) async fn list(State(app): State<App>, request: Request) -> Result<Response, Problem> {
    let (parts, _) = request.into_parts();
    let principal = caller_may(&app, &parts, READ).await?;
    let page = Page::of(&Query::of(&parts.uri))?;
    let after = match page.after.as_deref() {
        None => None,
        Some(text) => Some(
            Place::parse(text)
                .ok_or_else(|| Problem::bad_request("after", "the cursor of the page before"))?,
        ),
    };
    let customers = app
        .alarms
        .customers(&principal.tenant, after, page.to_read())
        .await?;
    let placed = |c: Customer| (Place(c.created_at, c.id.clone()).to_string(), c);
    let customers = customers.into_iter().map(placed).collect();
    let show = |(_, customer): (String, Customer)| customer.json(&principal.tenant);
    Ok(page.answer("customers", customers, |(place, _)| place, show))
}

/// Erases one.
pub(crate) async fn erase(
    State(app): State<App>,
    Path(id): Path<String>,
    request: Request,
) -> Result<StatusCode, Problem> {
    let (parts, _) = request.into_parts();
    let principal = caller_may(&app, &parts, WRITE).await?;
    let actor = actor(&principal, &parts);
    app.alarms
        .erase_customer(&principal.tenant, &id, actor)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Tells customers, as far as they consented.
pub(crate) async fn care(State(app): State<App>, request: Request) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let principal = caller_may(&app, &parts, WRITE).await?;
    let new = NewCare::read(object(&app, &parts.headers, body).await?)?;
    let actor = actor(&principal, &parts);
    let care = app.alarms.care(&principal.tenant, new, actor).await?;
    Ok(Json(care.json()).into_response())
}

/// The old path: tells those whom an incident affects and who are likely to leave.
pub(crate) async fn care_at_risk(
    State(app): State<App>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, _) = request.into_parts();
    let principal = caller_may(&app, &parts, WRITE).await?;
    let actor = actor(&principal, &parts);
    let care = app
        .alarms
        .care_at_risk(&principal.tenant, &id, actor)
        .await?;
    let Some(care) = care else {
        return Err(Problem::not_found(
            "this affects no customer who is likely to leave",
        ));
    };
    let sent: Vec<_> = care.sent.iter().map(Record::json).collect();
    Ok((StatusCode::CREATED, Json(sent)).into_response())
}

/// The old path: whom an incident affects and who are likely to leave.
pub(crate) async fn impact(
    State(app): State<App>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, _) = request.into_parts();
    let principal = caller_may(&app, &parts, READ).await?;
    let impact = app.alarms.incident_impact(&principal.tenant, &id).await?;
    let at_risk = impact.at_risk();
    let customer = |c: &&Customer| {
        json!({
            "id": c.id, "external_id": c.id, "name": c.name, "churn_risk_score": c.churn_risk,
            "associated_site_id": c.entity_ids.first(), "tenant_id": principal.tenant.as_str(),
            "created_at": c.created_at.to_string(),
        })
    };
    let analysis = json!({
        "anomaly_id": id, "impacted_customers": at_risk.iter().map(customer).collect::<Vec<_>>(),
        "total_high_risk_count": at_risk.len(),
    });
    Ok(Json(analysis).into_response())
}
