//! What goes in and comes out, as SHAPES of the API have it.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::Error;

/// An immutable fact on a topic, as every reader gets it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Event {
    /// Its id.
    pub id: String,
    /// Where.
    pub topic: String,
    /// What.
    #[serde(rename = "type")]
    pub kind: String,
    /// When it happened: RFC 3339 in UTC.
    pub time: String,
    /// Whom or what it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// The `CloudEvents` source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The W3C `traceparent` that it came with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<String>,
    /// Further `CloudEvents` attributes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extensions: Option<Map<String, Value>>,
    /// Its content: the JSON text as it was published, numbers and member order untouched.
    pub data: Box<RawValue>,
}

impl Event {
    /// Reads the content into a type of the caller's.
    pub fn read_data<'a, T: Deserialize<'a>>(&'a self) -> Result<T, Error> {
        serde_json::from_str(self.data.get())
            .map_err(|e| Error::Invalid(format!("the event's data: {e}")))
    }
}

/// An event to be published. The server gives what is left out.
#[derive(Debug, Clone, Serialize)]
pub struct NewEvent {
    /// Where.
    pub topic: String,
    /// What.
    #[serde(rename = "type")]
    pub kind: String,
    /// The publisher's own id, which makes a repeat harmless.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// When it happened, RFC 3339; else the moment of publishing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
    /// Whom or what it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// Its content.
    pub data: Box<RawValue>,
}

impl NewEvent {
    /// An event with nothing but the required members. Fails where `data` cannot be written as JSON.
    pub fn new(
        topic: impl Into<String>,
        kind: impl Into<String>,
        data: &impl Serialize,
    ) -> Result<Self, Error> {
        let data = serde_json::value::to_raw_value(data)
            .map_err(|e| Error::Invalid(format!("data cannot be written as JSON: {e}")))?;
        Ok(Self::raw(topic, kind, data))
    }

    /// The same with JSON text that is passed on as it stands.
    pub fn raw(topic: impl Into<String>, kind: impl Into<String>, data: Box<RawValue>) -> Self {
        Self {
            topic: topic.into(),
            kind: kind.into(),
            id: None,
            time: None,
            subject: None,
            data,
        }
    }
}

/// The answer to a publish: everything is durable.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Published {
    /// The id of each event, in order.
    pub ids: Vec<String>,
    /// The cursor of the last one; `None` where all were ephemeral.
    #[serde(default)]
    pub cursor: Option<String>,
    /// The same idempotency key had been answered before, so this is that answer.
    #[serde(skip)]
    pub is_replayed: bool,
}

/// An event with its place.
#[derive(Debug, Clone)]
pub struct Placed {
    /// Its place in the log; ephemeral events have none.
    pub cursor: Option<String>,
    /// The event.
    pub event: Event,
}

impl Placed {
    /// Reads one object that has the event's members and `cursor` side by side.
    pub(crate) fn read(json: &RawValue) -> Result<Self, serde_json::Error> {
        #[derive(Deserialize)]
        struct Place {
            cursor: Option<String>,
        }
        let Place { cursor } = serde_json::from_str(json.get())?;
        Ok(Self {
            cursor,
            event: serde_json::from_str(json.get())?,
        })
    }
}

/// Where retention has cut.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Gap {
    /// The oldest place from which nothing is missing.
    pub oldest: String,
}

/// Which part of the log to read.
#[derive(Debug, Clone, Default)]
pub struct HistoryQuery {
    /// Topics and patterns; at least one.
    pub topics: Vec<String>,
    /// Read on from here; else from the oldest event.
    pub after: Option<String>,
    /// The most events of a page, 1 to 1,000; else 100.
    pub limit: Option<u32>,
}

/// A page of history, oldest first.
#[derive(Debug, Clone)]
pub struct History {
    /// The events; none at the end.
    pub events: Vec<Placed>,
    /// Where to read on, also past events that did not match.
    pub cursor: String,
    /// Set where retention has passed the cursor that was asked for.
    pub gap: Option<Gap>,
}
