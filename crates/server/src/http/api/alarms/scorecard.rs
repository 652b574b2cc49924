//! `/api/v1/scorecard`, and the old path to it.

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use tidings_alarms::scorecard::Scorecard;
use tidings_core::clock::Timestamp;
use tidings_core::tenant::Tenant;

use super::caller_may;
use crate::app::App;
use crate::http::problem::Problem;
use crate::transport::request::Query;

const READ: &str = "scorecard_read";

/// The figures of a window.
pub(crate) async fn get(State(app): State<App>, request: Request) -> Result<Response, Problem> {
    let (parts, _) = request.into_parts();
    let principal = caller_may(&app, &parts, READ).await?;
    let (from, to) = window(&Query::of(&parts.uri))?;
    let card = read(&app, &principal.tenant, from, to).await?;
    Ok(Json(card.json()).into_response())
}

/// The same with what older clients read; where no window is asked for, of the data's own range where they are old.
pub(crate) async fn old(State(app): State<App>, request: Request) -> Result<Response, Problem> {
    let (parts, _) = request.into_parts();
    let principal = caller_may(&app, &parts, READ).await?;
    let (mut from, mut to) = window(&Query::of(&parts.uri))?;
    if from.is_none() && to.is_none() {
        let own = app.alarms.scorecard_window(&principal.tenant).await?;
        (from, to) = own.unzip();
    }
    let card = read(&app, &principal.tenant, from, to).await?;
    Ok(Json(card.json_with_old()).into_response())
}

async fn read(
    app: &App,
    tenant: &Tenant,
    from: Option<Timestamp>,
    to: Option<Timestamp>,
) -> Result<Scorecard, Problem> {
    Ok(app.alarms.scorecard(tenant, from, to).await?)
}

fn window(query: &Query) -> Result<(Option<Timestamp>, Option<Timestamp>), Problem> {
    let time = |name: &'static str| {
        let text = query.get(name).filter(|text| !text.is_empty());
        let read = |text: &str| {
            Timestamp::parse(text).map_err(|e| Problem::bad_request(name, &e.to_string()))
        };
        text.map(read).transpose()
    };
    let (from, to) = (time("from")?, time("to")?);
    match (from, to) {
        (Some(from), Some(to)) if from >= to => {
            Err(Problem::bad_request("to", "must be after from"))
        }
        window => Ok(window),
    }
}
