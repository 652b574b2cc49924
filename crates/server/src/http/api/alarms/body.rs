//! Bodies of the module's paths: JSON that is parsed here and read by [`tidings_alarms::reading`].

use axum::body::Body;
use http::HeaderMap;
use serde_json::Value;

use crate::app::App;
use crate::http::body::{any, check_json, media_type, read, unsupported};
use crate::http::problem::Problem;

/// Reads a body of one JSON value, which is to be an object.
pub(crate) async fn object(app: &App, headers: &HeaderMap, body: Body) -> Result<Value, Problem> {
    check_json(headers)?;
    let limits = &app.config.limits;
    let bytes = read(headers, body, limits.body_other).await?;
    any(&bytes, limits.json_depth)
}

/// The same, where no body at all stands for `{}`.
pub(crate) async fn object_or_empty(
    app: &App,
    headers: &HeaderMap,
    body: Body,
) -> Result<Value, Problem> {
    let limits = &app.config.limits;
    let bytes = read(headers, body, limits.body_other).await?;
    if bytes.is_empty() {
        return Ok(Value::Object(serde_json::Map::new()));
    }
    check_json(headers)?;
    any(&bytes, limits.json_depth)
}

/// What a path takes that takes both: an object by itself, or many.
pub(crate) enum Content {
    /// Not in a list: its faults have no place in one.
    One(Value),
    /// An array, or one a line.
    Many(Vec<Value>),
}

/// Reads one object, an array of them, or one a line (NDJSON; empty lines are skipped), up to `limits.batch` items.
pub(crate) async fn items(
    app: &App,
    headers: &HeaderMap,
    body: Body,
) -> Result<Vec<Value>, Problem> {
    Ok(match one_or_items(app, headers, body).await? {
        Content::One(one) => vec![one],
        Content::Many(items) => items,
    })
}

/// The same, where it matters whether there was a list.
pub(crate) async fn one_or_items(
    app: &App,
    headers: &HeaderMap,
    body: Body,
) -> Result<Content, Problem> {
    let limits = &app.config.limits;
    let is_lines = match media_type(headers)?.as_deref() {
        Some("application/json") => false,
        Some("application/x-ndjson" | "application/ndjson" | "application/jsonl") => true,
        other => return Err(unsupported(other, "application/json, application/x-ndjson")),
    };
    let bytes = read(headers, body, limits.body).await?;
    // One level more than an item has, for the array around it.
    let depth = limits.json_depth.saturating_add(1);
    let items = if is_lines {
        lines(&bytes, depth)?
    } else {
        match any(&bytes, depth)? {
            Value::Array(items) => items,
            one => return Ok(Content::One(one)),
        }
    };
    if items.len() > limits.batch {
        let (count, most) = (items.len(), limits.batch);
        let detail = format!("{count} items; at most {most} in one request");
        return Err(Problem::too_large(&detail));
    }
    Ok(Content::Many(items))
}

fn lines(bytes: &[u8], depth: usize) -> Result<Vec<Value>, Problem> {
    let lines = bytes.split(|b| *b == b'\n');
    let lines = lines.filter(|line| !line.trim_ascii().is_empty());
    lines
        .enumerate()
        .map(|(index, line)| any(line, depth).map_err(|e| e.of_item(index)))
        .collect()
}
