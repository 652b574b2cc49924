//! Events: what a publisher hands in ([`NewEvent`]) and what the log keeps ([`Event`]).
//!
//! An event's outside form is one JSON object whose last member is `data`. It is made once, when the event is sealed;
//! the log stores that text, and every wire style copies it or the tail of it.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::clock::Timestamp;
use crate::topic::Topic;

/// The longest event type, in bytes.
pub const MAX_TYPE_BYTES: usize = 128;
/// The longest event id, in bytes.
pub const MAX_ID_BYTES: usize = 128;

/// Names of control frames, and those that a browser's `EventSource` fires by itself: no event may bear one.
pub const RESERVED_TYPES: [&str; 12] = [
    "error",
    "open",
    "message",
    "connected",
    "ready",
    "heartbeat",
    "closing",
    "gap",
    "dropped",
    "reset",
    "checkpoint",
    "unsubscribed",
];

/// Why a text is no event type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidType {
    /// Empty, too long, or with another character.
    #[error("a type is 1 to {MAX_TYPE_BYTES} of [A-Za-z0-9_.:/-]")]
    Shape,
    /// One of [`RESERVED_TYPES`], in any case.
    #[error("this type is reserved for the stream's own frames")]
    Reserved,
}

/// What happened, as a name: 1 to 128 of `[A-Za-z0-9_.:/-]`, never a reserved one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EventType(Arc<str>);

impl EventType {
    /// Checks and takes a type.
    pub fn new(text: &str) -> Result<Self, InvalidType> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"_.:/-".contains(&b);
        if text.is_empty() || text.len() > MAX_TYPE_BYTES || !text.bytes().all(allowed) {
            return Err(InvalidType::Shape);
        }
        if RESERVED_TYPES
            .iter()
            .any(|reserved| reserved.eq_ignore_ascii_case(text))
        {
            return Err(InvalidType::Reserved);
        }
        Ok(Self(text.into()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The text is not 1 to 128 printable ASCII characters without space.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an id is 1 to {MAX_ID_BYTES} printable ASCII characters without space")]
pub struct InvalidId;

/// An event's id: the publisher's, else a `UUIDv7`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EventId(Arc<str>);

impl EventId {
    /// Checks and takes an id.
    pub fn new(text: &str) -> Result<Self, InvalidId> {
        if text.is_empty()
            || text.len() > MAX_ID_BYTES
            || !text.bytes().all(|b| b.is_ascii_graphic())
        {
            return Err(InvalidId);
        }
        Ok(Self(text.into()))
    }

    /// A new `UUIDv7` for an event made at `now`.
    #[must_use]
    pub fn random(now: Timestamp) -> Self {
        let secs = u64::try_from(now.as_secs()).unwrap_or(0);
        let nanos = u32::try_from(now.as_micros().rem_euclid(1_000_000)).unwrap_or(0) * 1_000;
        let at = uuid::Timestamp::from_unix(uuid::NoContext, secs, nanos);
        let mut text = Uuid::encode_buffer();
        Self((&*Uuid::new_v7(at).hyphenated().encode_lower(&mut text)).into())
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// JSON text without insignificant white space: numbers, strings and member order are as they came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Json(Box<str>);

/// Why a text is not JSON that tidings takes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidJson {
    /// Not JSON.
    #[error("not JSON: {0}")]
    Syntax(String),
    /// Arrays and objects stand inside one another more than this many times.
    #[error("nested more than {0} deep")]
    TooDeep(usize),
}

impl Json {
    /// The JSON value null.
    #[must_use]
    pub fn null() -> Self {
        Self("null".into())
    }

    /// Takes JSON that a parser has accepted, drops white space between tokens, and checks its depth.
    pub fn new(raw: &RawValue, max_depth: usize) -> Result<Self, InvalidJson> {
        check_depth(raw.get().as_bytes(), max_depth)?;
        Ok(Self(compact(raw.get()).into()))
    }

    /// Encodes a value of ours.
    pub fn encode(value: &impl serde::Serialize) -> Result<Self, InvalidJson> {
        serde_json::to_string(value)
            .map(|text| Self(text.into()))
            .map_err(|e| InvalidJson::Syntax(e.to_string()))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Refuses text whose arrays and objects stand inside one another more than `max_depth` times, before any parser recurses
/// into it. Reads only brackets and strings, so the text need not be JSON.
pub fn check_depth(text: &[u8], max_depth: usize) -> Result<(), InvalidJson> {
    let (mut depth, mut is_string, mut is_escaped) = (0usize, false, false);
    for &b in text {
        match b {
            _ if is_escaped => is_escaped = false,
            b'\\' if is_string => is_escaped = true,
            b'"' => is_string = !is_string,
            b'[' | b'{' if !is_string => {
                depth += 1;
                if depth > max_depth {
                    return Err(InvalidJson::TooDeep(max_depth));
                }
            }
            b']' | b'}' if !is_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    Ok(())
}

fn compact(text: &str) -> String {
    let (mut out, mut is_string, mut is_escaped) =
        (String::with_capacity(text.len()), false, false);
    let mut kept_from = 0;
    for (at, b) in text.bytes().enumerate() {
        match b {
            _ if is_escaped => is_escaped = false,
            b'\\' if is_string => is_escaped = true,
            b'"' => is_string = !is_string,
            b' ' | b'\t' | b'\n' | b'\r' if !is_string => {
                out.push_str(&text[kept_from..at]);
                kept_from = at + 1;
            }
            _ => {}
        }
    }
    out.push_str(&text[kept_from..]);
    out
}

/// A validated event that has no place in the log yet.
#[derive(Debug, Clone)]
pub struct NewEvent {
    /// Where.
    pub topic: Topic,
    /// What.
    pub kind: EventType,
    /// The publisher's id, which makes a repeat harmless; else the server gives one.
    pub id: Option<EventId>,
    /// The id to give where the publisher gave none; else a new one.
    pub given: Option<EventId>,
    /// When it happened; else now.
    pub time: Option<Timestamp>,
    /// Whom or what it is about.
    pub subject: Option<String>,
    /// The `CloudEvents` source: with the id, the event's identity.
    pub source: Option<String>,
    /// The `traceparent` that it came with.
    pub trace: Option<String>,
    /// Further `CloudEvents` attributes.
    pub extensions: Option<Map<String, Value>>,
    /// Its content.
    pub data: Json,
}

impl NewEvent {
    /// An event with nothing but the required members.
    #[must_use]
    pub fn new(topic: Topic, kind: EventType, data: Json) -> Self {
        Self {
            topic,
            kind,
            id: None,
            given: None,
            time: None,
            subject: None,
            source: None,
            trace: None,
            extensions: None,
            data,
        }
    }

    /// Gives id and time where the publisher gave none, and makes the outside form.
    #[must_use]
    pub fn seal(self, now: Timestamp) -> Event {
        let identity = self.id.is_some().then(|| Identity {
            source: self.source.clone().unwrap_or_default(),
            content: self.content_hash(),
        });
        let id = self.id.or(self.given);
        let id = id.unwrap_or_else(|| EventId::random(now));
        let time = self.time.unwrap_or(now);
        let mut json = String::with_capacity(self.data.as_str().len() + 192);
        json.push_str("{\"id\":");
        push_string(&mut json, id.as_str());
        push_member(&mut json, "topic", self.topic.as_str());
        push_member(&mut json, "type", self.kind.as_str());
        push_member(&mut json, "time", &time.to_string());
        for (name, value) in [
            ("subject", &self.subject),
            ("source", &self.source),
            ("trace", &self.trace),
        ] {
            if let Some(value) = value {
                push_member(&mut json, name, value);
            }
        }
        if let Some(extensions) = self.extensions.as_ref().filter(|e| !e.is_empty()) {
            json.push_str(",\"extensions\":");
            json.push_str(&Value::Object(extensions.clone()).to_string());
        }
        json.push_str(",\"data\":");
        let data_at = json.len();
        json.push_str(self.data.as_str());
        json.push('}');
        Event {
            topic: self.topic,
            kind: self.kind,
            id,
            identity,
            json: json.into(),
            data_at,
        }
    }

    /// What the publisher said, without what the server adds: a repeat of an id must say the same.
    fn content_hash(&self) -> String {
        let mut hash = digest::Context::new(&digest::SHA256);
        let time = self.time.map(|t| t.to_string());
        let extensions = self
            .extensions
            .as_ref()
            .map(|e| Value::Object(e.clone()).to_string());
        let parts = [
            Some(self.topic.as_str()),
            Some(self.kind.as_str()),
            time.as_deref(),
            self.subject.as_deref(),
            extensions.as_deref(),
            Some(self.data.as_str()),
        ];
        for part in parts {
            hash.update(&[u8::from(part.is_some())]);
            let part = part.unwrap_or_default();
            hash.update(&part.len().to_le_bytes());
            hash.update(part.as_bytes());
        }
        hash.finish().as_ref()[..16]
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect()
    }
}

/// Writes a JSON string. Most need no escape.
fn push_string(out: &mut String, text: &str) {
    if text.bytes().any(|b| b < b' ' || b == b'"' || b == b'\\') {
        out.push_str(&Value::String(text.into()).to_string());
    } else {
        out.push('"');
        out.push_str(text);
        out.push('"');
    }
}

fn push_member(out: &mut String, name: &str, text: &str) {
    out.push_str(",\"");
    out.push_str(name);
    out.push_str("\":");
    push_string(out, text);
}

/// What makes two publishes the same event: the `CloudEvents` source (empty for native events) with the id, and what it said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The source, empty where there is none.
    pub source: String,
    /// A digest of all that the publisher said.
    pub content: String,
}

/// An immutable fact on a topic, in the form that the log keeps and every reader gets.
#[derive(Debug, Clone)]
pub struct Event {
    /// Where.
    pub topic: Topic,
    /// What.
    pub kind: EventType,
    /// Its id.
    pub id: EventId,
    /// Set where the publisher gave the id.
    pub identity: Option<Identity>,
    /// The outside form: one line of JSON whose last member is `data`.
    pub json: Arc<str>,
    /// Where in `json` the value of `data` begins; it ends before the last byte.
    pub data_at: usize,
}

impl Event {
    /// The value of `data`, as JSON text.
    #[must_use]
    pub fn data(&self) -> &str {
        self.json
            .get(self.data_at..self.json.len().saturating_sub(1))
            .unwrap_or("null")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.into()).unwrap()
    }

    #[test]
    fn data_keeps_its_numbers_and_order_and_loses_only_white_space() {
        let json = Json::new(
            &raw("{ \"b\" : 1.00 ,\r\n \"a\":\t[1e5, \"x \\\" y\\n\"] }"),
            64,
        )
        .unwrap();
        assert_eq!(json.as_str(), "{\"b\":1.00,\"a\":[1e5,\"x \\\" y\\n\"]}");
    }

    #[test]
    fn depth_is_counted_outside_strings() {
        assert!(check_depth(b"[[[\"[[[[\\\"[[\"]]]", 3).is_ok());
        assert_eq!(check_depth(b"[[[[]]]]", 3), Err(InvalidJson::TooDeep(3)));
    }

    #[test]
    fn the_outside_form_is_one_object_with_data_last() {
        let mut new = NewEvent::new(
            Topic::new("a/b").unwrap(),
            EventType::new("t").unwrap(),
            Json::new(&raw("[1]"), 64).unwrap(),
        );
        new.subject = Some("line\nbreak \u{2028}".into());
        let event = new.seal(Timestamp::from_secs(0));
        assert_eq!(event.data(), "[1]");
        let value: Value = serde_json::from_str(&event.json).unwrap();
        assert_eq!(value["topic"], "a/b");
        assert_eq!(value["subject"], "line\nbreak \u{2028}");
        assert!(!event.json.contains(['\n', '\r']));
        assert!(event.identity.is_none());
    }

    #[test]
    fn reserved_types_are_refused_in_any_case() {
        for name in RESERVED_TYPES {
            assert_eq!(
                EventType::new(&name.to_uppercase()),
                Err(InvalidType::Reserved)
            );
        }
        for name in ["", "a b", "a\n", "é", &"a".repeat(129)] {
            assert_eq!(EventType::new(name), Err(InvalidType::Shape));
        }
    }
}
