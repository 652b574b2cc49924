//! The live page: three files in the binary, under a policy that lets them load nothing from elsewhere.

use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH, REFERRER_POLICY,
};

const POLICY: &str = "default-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'";

fn file(request: &Request, content_type: &'static str, content: &'static str) -> Response {
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, content.as_bytes());
    let tag: String = hash.as_ref()[..8]
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    let tag = format!("\"{tag}\"");
    let headers = [
        (CONTENT_TYPE, content_type),
        (CACHE_CONTROL, "no-cache"),
        (CONTENT_SECURITY_POLICY, POLICY),
        (REFERRER_POLICY, "no-referrer"),
    ];
    let is_known = request
        .headers()
        .get(IF_NONE_MATCH)
        .is_some_and(|known| known.as_bytes() == tag.as_bytes());
    if is_known {
        return (StatusCode::NOT_MODIFIED, [(ETAG, tag)]).into_response();
    }
    (headers, [(ETAG, tag)], content).into_response()
}

/// The page.
pub(crate) async fn index(request: Request) -> Response {
    file(
        &request,
        "text/html; charset=utf-8",
        include_str!("../page/index.html"),
    )
}

/// Its script.
pub(crate) async fn script(request: Request) -> Response {
    file(
        &request,
        "text/javascript; charset=utf-8",
        include_str!("../page/app.js"),
    )
}

/// The script of its network operations part.
pub(crate) async fn noc(request: Request) -> Response {
    file(
        &request,
        "text/javascript; charset=utf-8",
        include_str!("../page/noc.js"),
    )
}

/// Its looks.
pub(crate) async fn style(request: Request) -> Response {
    file(
        &request,
        "text/css; charset=utf-8",
        include_str!("../page/app.css"),
    )
}
