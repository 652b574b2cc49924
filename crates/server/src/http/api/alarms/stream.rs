//! `GET /api/v1/stream/alarms`: the newest alarms, whole, now and whenever they change.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use http::Method;
use http::header::{CACHE_CONTROL, HeaderValue};
use tidings_alarms::alarm::event::TOPIC;

use crate::app::App;
use crate::http::api::streams::{ask, peer, with_cookie};
use crate::http::credential::Use;
use crate::http::problem::Problem;
use crate::transport::connections::Transport;
use crate::transport::request::patterns;
use crate::transport::{latest, sse};

/// Opens the stream. A tenant in the query never stands in for the token's.
pub(crate) async fn open(
    State(app): State<App>,
    request: Request<Body>,
) -> Result<Response, Problem> {
    let (parts, _) = request.into_parts();
    let (ask, cookie) = ask(&app, &parts, Transport::Sse, Use::CompatStream).await?;
    if parts.method == Method::HEAD {
        let mut head = sse::head_only();
        let value = HeaderValue::from_static("no-cache");
        head.headers_mut().insert(CACHE_CONTROL, value);
        return Ok(head);
    }
    let topics = patterns(&[TOPIC]).map_err(|why| Problem::bad_request("topic", &why))?;
    let is_http1 = peer(&parts).is_detachable;
    let tenant = ask.principal.tenant.clone();
    let state = async { app.boards.state(&tenant).await };
    let transports = &app.transports;
    let response = latest::open(transports, &transports.alarms, ask, topics, is_http1, state);
    Ok(with_cookie(response.await?, cookie))
}
