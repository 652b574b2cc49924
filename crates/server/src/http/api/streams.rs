//! The three transports' native paths.

use axum::Json;
use axum::body::Body;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::{FromRequestParts, Request, State};
use axum::response::{IntoResponse, Response};
use http::header::{HeaderValue, SET_COOKIE};
use http::request::Parts;
use http::{Method, Version};

use crate::app::App;
use crate::http::accept::Peer;
use crate::http::credential::{Credential, Use, verify};
use crate::http::problem::Problem;
use crate::transport::admission::Ask;
use crate::transport::connections::Transport;
use crate::transport::request::{Origin, Query, last_event_id};
use crate::transport::{long_poll, sse, websocket};

pub(super) fn peer(parts: &Parts) -> Peer {
    let nowhere = Peer {
        remote: ([0, 0, 0, 0], 0).into(),
        is_detachable: false,
    };
    parts.extensions.get::<Peer>().copied().unwrap_or(nowhere)
}

/// Who asks for a stream, and for what. Beside it: the cookie with which a ticket opens the stream again.
pub(super) async fn ask(
    app: &App,
    parts: &Parts,
    transport: Transport,
    purpose: Use,
) -> Result<(Ask, Option<HeaderValue>), Problem> {
    let query = Query::of(&parts.uri);
    let Credential {
        principal,
        topics,
        cookie,
    } = verify(app, parts, &query, purpose).await?;
    let cursor = match transport {
        Transport::Sse => last_event_id(&parts.headers, &query),
        Transport::Websocket => query.cursor("last_event_id"),
        Transport::LongPoll => query.cursor("after"),
    };
    let ask = Ask {
        transport,
        principal,
        query,
        cursor,
        origin: Origin::new(peer(parts).remote, &parts.headers),
        ticket_topics: topics,
    };
    Ok((ask, cookie))
}

pub(super) fn with_cookie(mut response: Response, cookie: Option<HeaderValue>) -> Response {
    if let Some(cookie) = cookie {
        response.headers_mut().append(SET_COOKIE, cookie);
    }
    response
}

/// `GET /api/v1/stream`: Server-Sent Events.
pub(crate) async fn sse(
    State(app): State<App>,
    request: Request<Body>,
) -> Result<Response, Problem> {
    let (parts, _) = request.into_parts();
    let (ask, cookie) = ask(&app, &parts, Transport::Sse, Use::Stream).await?;
    if parts.method == Method::HEAD {
        ask.query.topics(true)?;
        return Ok(sse::head_only());
    }
    let response = sse::open(&app.transports, ask, peer(&parts).is_detachable).await?;
    Ok(with_cookie(response, cookie))
}

/// `GET /api/v1/ws`, over HTTP/2 an extended CONNECT: WebSocket.
pub(crate) async fn websocket(
    State(app): State<App>,
    request: Request<Body>,
) -> Result<Response, Problem> {
    let (mut parts, _) = request.into_parts();
    if parts.method == Method::CONNECT && parts.version < Version::HTTP_2 {
        let allowed = [Method::GET, Method::HEAD, Method::OPTIONS];
        return Err(Problem::method_not_allowed(&allowed));
    }
    let (ask, cookie) = ask(&app, &parts, Transport::Websocket, Use::Socket).await?;
    let upgrade = WebSocketUpgrade::from_request_parts(&mut parts, &app)
        .await
        .map_err(|e| Problem::bad_request("Upgrade", &e.body_text()))?;
    let response = websocket::open(&app, ask, upgrade).await?;
    Ok(with_cookie(response, cookie))
}

/// `GET /api/v1/poll`: long-poll.
pub(crate) async fn poll(
    State(app): State<App>,
    request: Request<Body>,
) -> Result<Response, Problem> {
    let (parts, _) = request.into_parts();
    let (ask, cookie) = ask(&app, &parts, Transport::LongPoll, Use::Stream).await?;
    let answer = long_poll::poll(&app.transports, ask).await?;
    Ok(with_cookie(Json(answer).into_response(), cookie))
}
