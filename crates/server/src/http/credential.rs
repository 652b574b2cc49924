//! Who is asking: by bearer token, cookie, WebSocket subprotocol, one-time ticket, or, where it is switched on, by a token
//! in the query.

use std::sync::Arc;

use http::header::{AUTHORIZATION, COOKIE, HeaderValue, SEC_WEBSOCKET_PROTOCOL};
use http::{HeaderMap, Method};
use tidings_core::auth::{Principal, Refusal, Tickets};
use tidings_core::topic::Patterns;

use super::cors;
use super::problem::Problem;
use crate::app::App;
use crate::config::QueryToken;
use crate::transport::request::Query;

/// What a credential is used for: not all of them are good for everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    /// An ordinary request.
    Request,
    /// A stream or a poll: tickets too.
    Stream,
    /// A stream whose existing clients have no other way than `?token=`, and are told with 400 that their token names no
    /// tenant.
    CompatStream,
    /// A WebSocket: tickets and subprotocols too, and the origin always counts.
    Socket,
}

/// Who is asking, and what their credential brings along.
#[derive(Debug)]
pub(crate) struct Credential {
    /// Who.
    pub(crate) principal: Arc<Principal>,
    /// What a ticket was bought for.
    pub(crate) topics: Option<Patterns>,
    /// The cookie with which a ticket opens the stream again.
    pub(crate) cookie: Option<HeaderValue>,
}

enum Found {
    Token(String),
    CookieToken(String),
    Ticket(String),
}

/// Finds the credential of a request and verifies it.
pub(crate) async fn verify(
    app: &App,
    request: &http::request::Parts,
    query: &Query,
    purpose: Use,
) -> Result<Credential, Problem> {
    let headers = &request.headers;
    let origins = &app.config.http.allowed_origins;
    let is_welcome = || cors::is_welcome(headers, &request.uri, origins);
    if purpose == Use::Socket && !is_welcome() {
        return Err(Refusal::Origin.into());
    }
    let token = match find(app, headers, query, purpose)? {
        None => return Err(Refusal::Missing.into()),
        Some(Found::Ticket(ticket)) => return redeem(app, request, &ticket),
        Some(Found::Token(token)) => token,
        Some(Found::CookieToken(token)) => {
            // A page of any origin can make a browser send the cookie: what changes something needs a page that may.
            let is_safe = matches!(request.method, Method::GET | Method::HEAD | Method::OPTIONS)
                && purpose != Use::Socket;
            if !is_safe && (!headers.contains_key(http::header::ORIGIN) || !is_welcome()) {
                return Err(Refusal::Origin.into());
            }
            token
        }
    };
    let principal = match app.verify(&token).await {
        Err(Refusal::NoTenant) if purpose == Use::CompatStream => {
            let detail = "the token names no tenant, and a tenant_id beside it does not stand in";
            return Err(Problem::bad_request("tenant_id", detail));
        }
        verified => verified?,
    };
    Ok(Credential {
        principal,
        topics: None,
        cookie: None,
    })
}

/// The bearer token of a request.
pub(crate) fn bearer(headers: &HeaderMap) -> Result<String, Problem> {
    authorization(headers)?.ok_or_else(|| Refusal::Missing.into())
}

fn authorization(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut given = headers.get_all(AUTHORIZATION).iter();
    let Some(value) = given.next() else {
        return Ok(None);
    };
    if given.next().is_some() {
        return Err(Problem::bad_request("Authorization", "stands twice"));
    }
    let text = value
        .to_str()
        .map_err(|_| Problem::from(Refusal::Malformed))?;
    let (scheme, token) = text.split_once(' ').unwrap_or((text, ""));
    if !scheme.eq_ignore_ascii_case("bearer") || token.trim().is_empty() {
        return Err(Refusal::Malformed.into());
    }
    Ok(Some(token.trim().to_owned()))
}

fn find(
    app: &App,
    headers: &HeaderMap,
    query: &Query,
    purpose: Use,
) -> Result<Option<Found>, Problem> {
    if let Some(token) = authorization(headers)? {
        return Ok(Some(Found::Token(token)));
    }
    if purpose == Use::Socket {
        let offered = headers
            .get_all(SEC_WEBSOCKET_PROTOCOL)
            .iter()
            .filter_map(|v| v.to_str().ok());
        for protocol in offered.flat_map(|v| v.split(',')).map(str::trim) {
            if let Some(token) = protocol.strip_prefix("bearer.") {
                return Ok(Some(Found::Token(token.to_owned())));
            }
            if let Some(ticket) = protocol.strip_prefix("ticket.") {
                return Ok(Some(Found::Ticket(ticket.to_owned())));
            }
        }
    }
    if purpose != Use::Request {
        if let Some(ticket) = query.get("ticket") {
            return Ok(Some(Found::Ticket(ticket.to_owned())));
        }
        let is_accepted = match app.config.auth.query_token {
            QueryToken::Off => false,
            QueryToken::Compat => purpose == Use::CompatStream,
            QueryToken::Streams => true,
        };
        if let Some(token) = query.get("token").filter(|_| is_accepted) {
            return Ok(Some(Found::Token(token.to_owned())));
        }
    }
    Ok(cookie(headers, &app.config.auth.cookie).map(Found::CookieToken))
}

/// The value of a cookie.
fn cookie(headers: &HeaderMap, name: &str) -> Option<String> {
    let all = headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|v| v.to_str().ok());
    let mut pairs = all
        .flat_map(|v| v.split(';'))
        .filter_map(|pair| pair.trim().split_once('='));
    pairs
        .find(|(n, _)| *n == name)
        .map(|(_, value)| value.trim_matches('"').to_owned())
}

fn redeem(app: &App, request: &http::request::Parts, ticket: &str) -> Result<Credential, Problem> {
    let headers = &request.headers;
    let name = Tickets::cookie_name(ticket);
    let redeemed = app
        .tickets
        .redeem(ticket, cookie(headers, &name).as_deref())?;
    if app.revocations.refuses(&redeemed.principal) {
        return Err(Refusal::Revoked.into());
    }
    let now = app.clock.now();
    if redeemed
        .principal
        .expires_at
        .plus(app.config.auth.core.leeway)
        <= now
    {
        return Err(Refusal::Expired.into());
    }
    let cookie = redeemed.set_cookie.and_then(|value| {
        let age = redeemed.principal.expires_at.since(now).as_secs();
        let secure = if app.config.tls.is_some() {
            "; Secure"
        } else {
            ""
        };
        // For this stream's path alone.
        let path = request.uri.path();
        let text =
            format!("{name}={value}; Path={path}; Max-Age={age}; HttpOnly; SameSite=Lax{secure}");
        let mut header = HeaderValue::from_str(&text).ok()?;
        header.set_sensitive(true);
        Some(header)
    });
    let topics = redeemed.topics.map(Patterns::new);
    Ok(Credential {
        principal: redeemed.principal,
        topics,
        cookie,
    })
}
