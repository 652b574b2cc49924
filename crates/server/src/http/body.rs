//! Reads a request's body within bounds.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;

use super::problem::{Kind, Problem};
use crate::config::LimitsSection;

/// How long a body may take, so that nobody can hold a request by dripping it.
const BODY_TIME: Duration = Duration::from_secs(60);

/// Reads the whole body, at most `limit` bytes.
pub(crate) async fn read(headers: &HeaderMap, body: Body, limit: usize) -> Result<Bytes, Problem> {
    let too_large = || Problem::too_large(&format!("the body is over the limit of {limit} bytes"));
    let said = headers
        .get(CONTENT_LENGTH)
        .and_then(|v| v.to_str().ok())
        .and_then(|v| v.parse::<usize>().ok());
    if said.is_some_and(|said| said > limit) {
        return Err(too_large());
    }
    let limited = Limited::new(body, limit);
    match tokio::time::timeout(BODY_TIME, limited.collect()).await {
        Err(_) => Err(Problem::malformed("the body did not come in time")),
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(e)) if e.downcast_ref::<LengthLimitError>().is_some() => Err(too_large()),
        Ok(Err(_)) => Err(Problem::malformed("the body was cut short")),
    }
}

/// The media type of the body, in lower case and without parameters.
pub(crate) fn media_type(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut all = headers.get_all(CONTENT_TYPE).iter();
    let Some(value) = all.next() else {
        return Ok(None);
    };
    if all.next().is_some() {
        return Err(Problem::bad_request("Content-Type", "stands twice"));
    }
    let text = value
        .to_str()
        .map_err(|_| Problem::bad_request("Content-Type", "is not text"))?;
    Ok(Some(
        text.split(';')
            .next()
            .unwrap_or_default()
            .trim()
            .to_ascii_lowercase(),
    ))
}

/// A content type that this path does not take.
#[must_use]
pub(crate) fn unsupported(found: Option<&str>, taken: &str) -> Problem {
    let found = found.unwrap_or("none");
    Problem::new(
        Kind::UnsupportedType,
        &format!("the content type is {found}; this path takes {taken}"),
    )
    .at("Content-Type")
}

/// Reads a JSON object into a type whose unknown members are refused.
pub(crate) async fn json<T: DeserializeOwned>(
    headers: &HeaderMap,
    body: Body,
    limits: &LimitsSection,
) -> Result<T, Problem> {
    check_json(headers)?;
    parse_body(&read(headers, body, limits.body_other).await?, limits)
}

/// The same, where no body at all stands for the default.
pub(crate) async fn json_or_default<T: DeserializeOwned + Default>(
    headers: &HeaderMap,
    body: Body,
    limits: &LimitsSection,
) -> Result<T, Problem> {
    let bytes = read(headers, body, limits.body_other).await?;
    if bytes.is_empty() {
        return Ok(T::default());
    }
    check_json(headers)?;
    parse_body(&bytes, limits)
}

/// Refuses what does not say that it is JSON.
pub(crate) fn check_json(headers: &HeaderMap) -> Result<(), Problem> {
    match media_type(headers)?.as_deref() {
        Some("application/json") => Ok(()),
        other => Err(unsupported(other, "application/json")),
    }
}

fn parse_body<T: DeserializeOwned>(bytes: &[u8], limits: &LimitsSection) -> Result<T, Problem> {
    // Syntax first: what is no JSON at all is another fault than what is of the wrong kind.
    let _: serde::de::IgnoredAny = any(bytes, limits.json_depth)?;
    parse(text(bytes, limits.json_depth)?)
}

/// Reads JSON of whatever kind within a depth.
pub(crate) fn any<T: DeserializeOwned>(bytes: &[u8], depth: usize) -> Result<T, Problem> {
    let text = text(bytes, depth)?;
    serde_json::from_str(text).map_err(|e| Problem::malformed(&format!("not JSON: {e}")))
}

/// Text whose arrays and objects stand no deeper inside one another than that.
fn text(bytes: &[u8], depth: usize) -> Result<&str, Problem> {
    let text = std::str::from_utf8(bytes)
        .map_err(|e| Problem::malformed(&format!("not UTF-8 at byte {}", e.valid_up_to())))?;
    tidings_core::event::check_depth(bytes, depth)
        .map_err(|e| Problem::malformed(&e.to_string()))?;
    Ok(text)
}

/// Reads JSON of which the syntax is known to be right; the member at fault is named.
pub(crate) fn parse<T: DeserializeOwned>(text: &str) -> Result<T, Problem> {
    let mut reader = serde_json::Deserializer::from_str(text);
    serde_path_to_error::deserialize(&mut reader).map_err(|e| {
        let why = e.inner().to_string();
        let why = why.split(" at line ").next().unwrap_or_default().to_owned();
        let path = e.path().to_string();
        // An unknown or missing member is named in the text, not in the path.
        let named = why.split('`').nth(1).map(str::to_owned);
        let is_about_name = why.starts_with("unknown field") || why.starts_with("missing field");
        let field = match named {
            Some(name) if is_about_name && path == "." => name,
            Some(name) if is_about_name && !path.ends_with(&name) => format!("{path}.{name}"),
            _ => path,
        };
        Problem::invalid(field.trim_start_matches('.'), &why)
    })
}
