//! CloudEvents 1.0.2: the JSON event format (structured and batch) and the HTTP protocol binding's binary mode.
//!
//! The topic is the extension `topic`, else the `subject`, else the path of the `source`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::members::Reading;
use super::native::short;
use super::{Class, Invalid, Limits, check_event, data, each, text};
use crate::clock::Timestamp;
use crate::event::{EventId, EventType, Json, NewEvent};
use crate::topic::Topic;

/// Reads a structured event: `application/cloudevents+json`.
pub fn structured(
    body: &[u8],
    limits: &Limits,
    trace: Option<&str>,
) -> Result<Vec<NewEvent>, Invalid> {
    let text = text(body, limits)?;
    let item: &RawValue = serde_json::from_str(text)
        .map_err(|e| Invalid::new(Class::Malformed, format!("not JSON: {e}")))?;
    Ok(vec![event(item, limits, trace)?])
}

/// Reads a batch: `application/cloudevents-batch+json`.
pub fn batch(body: &[u8], limits: &Limits, trace: Option<&str>) -> Result<Vec<NewEvent>, Invalid> {
    let text = text(body, limits)?;
    let whole: &RawValue = serde_json::from_str(text)
        .map_err(|e| Invalid::new(Class::Malformed, format!("not JSON: {e}")))?;
    let items: Vec<&RawValue> = serde_json::from_str(whole.get())
        .map_err(|_| Invalid::new(Class::Invalid, "a batch is a JSON array"))?;
    each(items, limits, |item| event(item, limits, trace))
}

/// The attributes of an event, however they came.
#[derive(Default)]
struct Attributes {
    id: Option<EventId>,
    kind: Option<EventType>,
    source: Option<String>,
    subject: Option<String>,
    time: Option<Timestamp>,
    topic: Option<Topic>,
    trace: Option<String>,
    extensions: Map<String, Value>,
}

impl Attributes {
    /// The topic, where any of the three places names one.
    fn topic(&self) -> Option<Topic> {
        let of_source = || {
            let source = self.source.as_deref()?;
            let path = source.split_once("://").map_or(source, |(_, rest)| {
                rest.split_once('/').map_or("", |(_, path)| path)
            });
            let path = path.split(['?', '#']).next().unwrap_or_default();
            Topic::new(path.trim_matches('/')).ok()
        };
        self.topic
            .clone()
            .or_else(|| Topic::new(self.subject.as_deref()?).ok())
            .or_else(of_source)
    }

    fn event(self, data: Json, trace: Option<&str>) -> Result<NewEvent, Invalid> {
        let Some(topic) = self.topic() else {
            return Err(Invalid::of_members(vec![(
                "topic".into(),
                "no topic: neither the extension topic, nor the subject, nor the source's path is one".into(),
            )]));
        };
        let Some(kind) = self.kind else {
            return Err(Invalid::new(Class::Invalid, "incomplete").at("type"));
        };
        Ok(NewEvent {
            topic,
            kind,
            given: None,
            id: self.id,
            time: self.time,
            subject: self.subject,
            source: self.source,
            trace: self.trace.or_else(|| trace.map(str::to_owned)),
            extensions: Some(self.extensions).filter(|e| !e.is_empty()),
            data,
        })
    }
}

fn version(text: &str) -> Result<(), &'static str> {
    if text == "1.0" {
        Ok(())
    } else {
        Err("must be 1.0")
    }
}

/// "CloudEvents attribute names MUST consist of lower-case letters ('a' to 'z') or digits ('0' to '9')".
fn is_attribute_name(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
}

fn source(text: &str) -> Result<String, &'static str> {
    if text.is_empty() {
        Err("is empty")
    } else {
        short(text)
    }
}

fn event(item: &RawValue, limits: &Limits, trace: Option<&str>) -> Result<NewEvent, Invalid> {
    check_event(item.get().len(), limits)?;
    let mut reading = Reading::new(item)?;
    reading.required("specversion", version);
    let mut attributes = Attributes {
        id: reading.required("id", EventId::new),
        kind: reading.required("type", EventType::new),
        source: reading.required("source", source),
        subject: reading.read("subject", short),
        time: reading.read("time", Timestamp::parse),
        topic: reading.read("topic", Topic::new),
        trace: reading.read("traceparent", short),
        extensions: Map::new(),
    };
    let (plain, encoded) = (reading.raw("data"), reading.text("data_base64"));
    if plain.is_some() && encoded.is_some() {
        reading.fault("data_base64", "stands beside data: only one may");
    }
    for (name, raw) in reading.rest() {
        match serde_json::from_str::<Value>(raw.get()) {
            _ if !is_attribute_name(&name) => {
                reading.fault(&name, "attribute names are of a-z and 0-9");
            }
            Ok(Value::Null) => {}
            Ok(value @ (Value::String(_) | Value::Number(_) | Value::Bool(_))) => {
                attributes.extensions.insert(name.into_owned(), value);
            }
            Ok(_) | Err(_) => {
                reading.fault(&name, "an attribute is a string, a number or a boolean");
            }
        }
    }
    if encoded
        .as_deref()
        .is_some_and(|e| BASE64.decode(e).is_err())
    {
        reading.fault("data_base64", "is not base64");
    }
    reading.done()?;
    let content = match (plain, encoded) {
        (_, Some(encoded)) => base64(&mut attributes, &encoded)?,
        (Some(raw), None) => data(raw, limits)?,
        (None, None) => Json::null(),
    };
    attributes.event(content, trace)
}

fn base64(attributes: &mut Attributes, encoded: &str) -> Result<Json, Invalid> {
    attributes
        .extensions
        .insert("encoding".into(), "base64".into());
    Json::encode(&encoded).map_err(|e| Invalid::new(Class::Malformed, e.to_string()))
}

/// Reads binary mode: attributes in `ce-` headers, data in the body. Names come in lower case.
pub fn binary<'a>(
    headers: impl Iterator<Item = (&'a str, &'a [u8])>,
    content_type: Option<&str>,
    body: &[u8],
    limits: &Limits,
    trace: Option<&str>,
) -> Result<Vec<NewEvent>, Invalid> {
    check_event(body.len(), limits)?;
    let mut attributes = Attributes::default();
    let (mut has_version, mut errors) = (false, Vec::new());
    for (header, value) in headers {
        let Some(name) = header.strip_prefix("ce-") else {
            continue;
        };
        let mut fault = |detail: String| errors.push((header.to_owned(), detail));
        let Some(text) = decode(value) else {
            fault("is not percent-encoded UTF-8".into());
            continue;
        };
        let result = match name {
            "specversion" => {
                has_version = true;
                version(&text).map_err(|e| e.to_string())
            }
            "id" => EventId::new(&text)
                .map(|v| attributes.id = Some(v))
                .map_err(|e| e.to_string()),
            "type" => EventType::new(&text)
                .map(|v| attributes.kind = Some(v))
                .map_err(|e| e.to_string()),
            "source" => source(&text)
                .map(|v| attributes.source = Some(v))
                .map_err(|e| e.to_string()),
            "subject" => short(&text)
                .map(|v| attributes.subject = Some(v))
                .map_err(|e| e.to_string()),
            "time" => Timestamp::parse(&text)
                .map(|v| attributes.time = Some(v))
                .map_err(|e| e.to_string()),
            "topic" => Topic::new(&text)
                .map(|v| attributes.topic = Some(v))
                .map_err(|e| e.to_string()),
            "traceparent" => short(&text)
                .map(|v| attributes.trace = Some(v))
                .map_err(|e| e.to_string()),
            _ if !is_attribute_name(name) => Err("attribute names are of a-z and 0-9".into()),
            _ => short(&text)
                .map(|v| drop(attributes.extensions.insert(name.to_owned(), v.into())))
                .map_err(|e| e.to_string()),
        };
        if let Err(e) = result {
            fault(e);
        }
    }
    for (header, is_there) in [
        ("ce-specversion", has_version),
        ("ce-id", attributes.id.is_some()),
        ("ce-source", attributes.source.is_some()),
        ("ce-type", attributes.kind.is_some()),
    ] {
        if !is_there && !errors.iter().any(|(h, _)| h == header) {
            errors.push((header.to_owned(), "is required".to_owned()));
        }
    }
    if !errors.is_empty() {
        return Err(Invalid {
            class: Class::Header,
            ..Invalid::of_members(errors)
        });
    }
    let content = content(&mut attributes, content_type, body, limits)?;
    Ok(vec![attributes.event(content, trace)?])
}

fn content(
    attributes: &mut Attributes,
    content_type: Option<&str>,
    body: &[u8],
    limits: &Limits,
) -> Result<Json, Invalid> {
    if let Some(content_type) = content_type {
        attributes
            .extensions
            .insert("datacontenttype".into(), content_type.into());
    }
    let media_type = content_type
        .unwrap_or_default()
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    if body.is_empty() {
        return Ok(Json::null());
    }
    if media_type == "application/json" || media_type.ends_with("+json") {
        let text = text(body, limits)?;
        let raw: &RawValue = serde_json::from_str(text)
            .map_err(|e| Invalid::new(Class::Malformed, format!("not JSON: {e}")).at("data"))?;
        return data(raw, limits);
    }
    base64(attributes, &BASE64.encode(body))
}

/// Undoes the percent-encoding of header values (HTTP binding, section 3.1.3.2).
fn decode(value: &[u8]) -> Option<String> {
    let mut out = Vec::with_capacity(value.len());
    let mut bytes = value.iter().copied();
    while let Some(b) = bytes.next() {
        if b == b'%' {
            let digits = [bytes.next()?, bytes.next()?];
            out.push(u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?);
        } else {
            out.push(b);
        }
    }
    String::from_utf8(out).ok()
}
