//! `POST /api/v1/stream/tickets`: a string that is good for one connection, for those who can set no header.

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::caller;
use crate::app::App;
use crate::http::body;
use crate::http::problem::Problem;
use crate::transport::admission::whole_scope;
use crate::transport::request::patterns;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    topics: Option<Vec<String>>,
}

#[derive(Debug, Serialize)]
struct Bought {
    ticket: String,
    expires_in: u64,
}

/// Sells a ticket to whoever has a credential.
pub(crate) async fn issue(State(app): State<App>, request: Request) -> Result<Response, Problem> {
    let (parts, content) = request.into_parts();
    let principal = caller(&app, &parts).await?;
    let asked: Asked = body::json_or_default(&parts.headers, content, &app.config.limits).await?;
    let topics = match asked.topics {
        None => None,
        Some(topics) => {
            let topics = patterns(&topics).map_err(|why| Problem::invalid("topics", &why))?;
            whole_scope(&app.transports.connections, &principal, &topics, "topics")?;
            Some(topics.as_slice().to_vec())
        }
    };
    let bought = app
        .tickets
        .issue(&principal, topics)
        .map_err(|e| Problem::from(&e))?;
    let answer = Bought {
        ticket: bought.ticket,
        expires_in: bought.expires_in.as_secs(),
    };
    Ok((StatusCode::CREATED, Json(answer)).into_response())
}
