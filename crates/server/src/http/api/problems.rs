//! `GET /problems/{slug}`: what a problem's `type` leads to.

use axum::extract::Path;
use axum::response::{Html, IntoResponse, Response};

use crate::http::problem::{Kind, Problem};

/// A short page for a person who followed a `type`.
pub(crate) async fn get(Path(slug): Path<String>) -> Response {
    let Some(kind) = Kind::ALL.iter().find(|kind| kind.slug() == slug) else {
        return Problem::not_found("there is no such problem type").into_response();
    };
    let (title, status, meaning) = (kind.title(), kind.status(), kind.meaning());
    Html(format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>{title} · tidings</title><link rel=\"stylesheet\" href=\"/app.css\">\
         <main class=\"problem\"><p>{status}</p><h1>{title}</h1><p>{meaning}</p></main></html>"
    ))
    .into_response()
}
