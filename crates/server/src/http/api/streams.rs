//! The three transports' native paths.

use axum::Json;
use axum::body::Body;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::{FromRequestParts, Request, State};
use axum::response::{IntoResponse, Response};
use http::header::SET_COOKIE;
use http::request::Parts;
use http::{Method, Version};

use crate::app::App;
use crate::http::accept::Peer;
use crate::http::credential::{Credential, Use, verify};
use crate::http::problem::Problem;
use crate::transport::request::{Origin, Query};
use crate::transport::{long_poll, sse, websocket};

fn peer(parts: &Parts) -> Peer {
    let nowhere = Peer {
        remote: ([0, 0, 0, 0], 0).into(),
        is_detachable: false,
    };
    parts.extensions.get::<Peer>().copied().unwrap_or(nowhere)
}

/// `GET /api/v1/stream`: Server-Sent Events.
pub(crate) async fn sse(
    State(app): State<App>,
    request: Request<Body>,
) -> Result<Response, Problem> {
    let (parts, _) = request.into_parts();
    let query = Query::of(&parts.uri);
    let Credential {
        principal,
        topics,
        cookie,
    } = verify(&app, &parts, &query, Use::Stream).await?;
    if parts.method == Method::HEAD {
        query.topics(true)?;
        return Ok(sse::head_only());
    }
    let peer = peer(&parts);
    let ask = sse::Ask {
        principal,
        origin: Origin::new(peer.remote, &parts.headers),
        query,
        headers: parts.headers,
        ticket_topics: topics,
        is_detachable: peer.is_detachable,
    };
    let mut response = sse::open(&app.transports, ask).await?;
    if let Some(cookie) = cookie {
        response.headers_mut().append(SET_COOKIE, cookie);
    }
    Ok(response)
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
    let query = Query::of(&parts.uri);
    let Credential {
        principal,
        topics,
        cookie,
    } = verify(&app, &parts, &query, Use::Socket).await?;
    let origin = Origin::new(peer(&parts).remote, &parts.headers);
    let upgrade = WebSocketUpgrade::from_request_parts(&mut parts, &app)
        .await
        .map_err(|e| Problem::bad_request("Upgrade", &e.body_text()))?;
    let ask = websocket::Ask {
        principal,
        query,
        origin,
        ticket_topics: topics,
    };
    let mut response = websocket::open(&app, ask, upgrade).await?;
    if let Some(cookie) = cookie {
        response.headers_mut().append(SET_COOKIE, cookie);
    }
    Ok(response)
}

/// `GET /api/v1/poll`: long-poll.
pub(crate) async fn poll(
    State(app): State<App>,
    request: Request<Body>,
) -> Result<Response, Problem> {
    let (parts, _) = request.into_parts();
    let query = Query::of(&parts.uri);
    let Credential {
        principal,
        topics,
        cookie,
    } = verify(&app, &parts, &query, Use::Stream).await?;
    let origin = Origin::new(peer(&parts).remote, &parts.headers);
    let ask = long_poll::Ask {
        principal,
        query,
        origin,
        ticket_topics: topics,
    };
    let mut response = Json(long_poll::poll(&app.transports, ask).await?).into_response();
    if let Some(cookie) = cookie {
        response.headers_mut().append(SET_COOKIE, cookie);
    }
    Ok(response)
}
