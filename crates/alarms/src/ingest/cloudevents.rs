//! Alarms as the data of CloudEvents 1.0, structured, batched or binary. `source` and `id` are the idempotency key.

use aws_lc_rs::digest;
use serde_json::Value;

use super::{Context, native};
use crate::Error;
use crate::alarm::Occurrence;
use crate::reading::{self, Reading};

/// Reads one event: `application/cloudevents+json`.
pub fn one(value: Value, context: Context<'_>) -> Result<Occurrence, Error> {
    reading::object(value, |r| event(r, context))
}

/// Reads each of many: `application/cloudevents-batch+json`.
pub fn many(values: Vec<Value>, context: Context<'_>) -> Result<Vec<Occurrence>, Error> {
    reading::each(values, |r| event(r, context))
}

/// Reads binary mode: the attributes came in headers, the alarm in the body.
pub fn binary(
    source: &str,
    id: &str,
    body: Value,
    context: Context<'_>,
) -> Result<Occurrence, Error> {
    let mut occurrence = native::one(body, context)?;
    occurrence.source_key = Some(key(source, id));
    Ok(occurrence)
}

fn event(r: &mut Reading, context: Context<'_>) -> Option<Occurrence> {
    let version = r.required("specversion", |value| match value.as_str() {
        Some("1.0") => Ok(()),
        _ => Err(("enum", "must be 1.0".into())),
    });
    let (source, id) = (r.text("source"), r.text("id"));
    let kind = r.text("type");
    if r.raw("data_base64").is_some() {
        r.fault(
            "data_base64",
            "json_type",
            "the data of an alarm is JSON: send data",
        );
    }
    let occurrence = r.object("data", |data| native::alarm(data, context));
    // Further attributes are the envelope's: nothing of them is the alarm's.
    r.rest();
    let (mut occurrence, source, id) = (occurrence?, source?, id?);
    let ((), _) = (version?, kind?);
    occurrence.source_key = Some(key(&source, &id));
    Some(occurrence)
}

/// A digest of a source and an id.
fn key(source: &str, id: &str) -> String {
    let mut hash = digest::Context::new(&digest::SHA256);
    hash.update(&source.len().to_le_bytes());
    hash.update(source.as_bytes());
    hash.update(id.as_bytes());
    let hash = hash.finish();
    hash.as_ref()
        .iter()
        .take(16)
        .map(|b| format!("{b:02x}"))
        .collect()
}
