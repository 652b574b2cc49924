//! `GET /api/v1/status`: this node, and the caller's tenant.

use axum::Json;
use axum::extract::{Request, State};
use serde::Serialize;
use tidings_core::log::store;

use super::caller;
use crate::app::App;
use crate::http::problem::Problem;

/// The answer.
#[derive(Debug, Serialize)]
pub(crate) struct Status {
    version: &'static str,
    node: String,
    uptime_seconds: u64,
    log: LogStatus,
    connections: Counts,
}

#[derive(Debug, Serialize)]
struct LogStatus {
    head: String,
    oldest: String,
}

#[derive(Debug, Serialize)]
struct Counts {
    sse: usize,
    websocket: usize,
    long_poll: usize,
}

/// Numbers of the caller's tenant.
pub(crate) async fn get(State(app): State<App>, request: Request) -> Result<Json<Status>, Problem> {
    let (parts, _) = request.into_parts();
    let principal = caller(&app, &parts).await?;
    let log = app.log.tenant(&principal.tenant).await?;
    let of = log.clone();
    let oldest = app
        .log
        .db()
        .read(move |conn| store::oldest(conn, &of))
        .await?;
    let [sse, websocket, long_poll] = app.transports.connections.counts_of(&principal.tenant);
    Ok(Json(Status {
        version: env!("CARGO_PKG_VERSION"),
        node: app.node.clone(),
        uptime_seconds: app.started.elapsed().as_secs(),
        log: LogStatus {
            head: log.at(log.head()).to_string(),
            oldest: log.at(oldest).to_string(),
        },
        connections: Counts {
            sse,
            websocket,
            long_poll,
        },
    }))
}
