//! tidings' own event objects: `{"topic","type","data","id"?,"time"?,"subject"?,"source"?,"trace"?,"extensions"?}`.

use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::members::Reading;
use super::{Class, Invalid, Limits, check_event, data, each, text};
use crate::clock::Timestamp;
use crate::event::{EventId, EventType, NewEvent};
use crate::topic::Topic;

/// The longest subject, source or trace, in bytes.
pub(super) const MAX_TEXT_BYTES: usize = 1_024;

/// Reads one event or an array of them. `trace` is the request's own, for events that bring none.
pub fn json(body: &[u8], limits: &Limits, trace: Option<&str>) -> Result<Vec<NewEvent>, Invalid> {
    let text = text(body, limits)?;
    let malformed = |e: serde_json::Error| Invalid::new(Class::Malformed, format!("not JSON: {e}"));
    if text.trim_start().starts_with('[') {
        let items: Vec<&RawValue> = serde_json::from_str(text).map_err(malformed)?;
        return each(items, limits, |item| event(item, limits, trace));
    }
    let item: &RawValue = serde_json::from_str(text).map_err(malformed)?;
    Ok(vec![event(item, limits, trace)?])
}

/// Reads one event a line; empty lines are skipped.
pub fn ndjson(body: &[u8], limits: &Limits, trace: Option<&str>) -> Result<Vec<NewEvent>, Invalid> {
    let lines = body
        .split(|b| *b == b'\n')
        .filter(|line| !line.trim_ascii().is_empty())
        .collect();
    each(lines, limits, |line| {
        let text = text(line, limits)?;
        let item: &RawValue = serde_json::from_str(text)
            .map_err(|e| Invalid::new(Class::Malformed, format!("not JSON: {e}")))?;
        event(item, limits, trace)
    })
}

/// Reads events that a parser has told apart already.
pub fn items(
    items: &[Box<RawValue>],
    limits: &Limits,
    trace: Option<&str>,
) -> Result<Vec<NewEvent>, Invalid> {
    each(items.iter().collect(), limits, |item| {
        event(item, limits, trace)
    })
}

/// Reads one event object.
pub fn event(item: &RawValue, limits: &Limits, trace: Option<&str>) -> Result<NewEvent, Invalid> {
    check_event(item.get().len(), limits)?;
    let mut reading = Reading::new(item)?;
    let topic = reading.required("topic", Topic::new);
    let kind = reading.required("type", EventType::new);
    let id = reading.read("id", EventId::new);
    let time = reading.read("time", Timestamp::parse);
    let subject = reading.read("subject", short);
    let source = reading.read("source", short);
    let own_trace = reading.read("trace", short);
    let extensions = extensions(&mut reading);
    let raw = reading.raw("data");
    if raw.is_none() {
        reading.fault("data", "is required; it may be null");
    }
    for (name, _) in reading.rest() {
        reading.fault(&name, "is not a member of an event");
    }
    reading.done()?;
    let (Some(topic), Some(kind), Some(raw)) = (topic, kind, raw) else {
        return Err(Invalid::new(Class::Invalid, "incomplete"));
    };
    let trace = own_trace.or_else(|| trace.map(str::to_owned));
    Ok(NewEvent {
        topic,
        kind,
        id,
        given: None,
        time,
        subject,
        source,
        trace,
        extensions,
        data: data(raw, limits)?,
    })
}

/// Text of a bounded length without control characters.
pub(super) fn short(text: &str) -> Result<String, &'static str> {
    if text.len() > MAX_TEXT_BYTES {
        return Err("is at most 1024 bytes");
    }
    if text.chars().any(char::is_control) {
        return Err("has a control character");
    }
    Ok(text.to_owned())
}

fn extensions(reading: &mut Reading<'_>) -> Option<Map<String, Value>> {
    let raw = reading.raw("extensions")?;
    match serde_json::from_str::<Option<Map<String, Value>>>(raw.get()) {
        Ok(map) => map,
        Err(_) => {
            reading.fault("extensions", "must be an object");
            None
        }
    }
}
