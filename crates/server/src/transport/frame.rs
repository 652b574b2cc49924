//! Bytes on the wire: how each kind of stream writes events and control frames.
//!
//! A browser's EventSource, and parsers that are less careful, read these. So: LF only, no BOM, each frame whole; `id:`
//! never alone (a frame without data does not move the cursor everywhere); data on one line. Event names and ids were
//! validated when the event came in, and data is one line of JSON since then.

use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use tidings_core::cursor::Cursor;
use tidings_core::hub::{Encoding, Style};
use tidings_core::topic::Pattern;
use uuid::Uuid;

/// The shortest `retry:`: some clients take it as it stands and would hammer a server that is down.
pub(crate) const MIN_RETRY: Duration = Duration::from_secs(1);

/// The comment that keeps a silent native stream open.
pub(crate) const HEARTBEAT: &[u8] = b": heartbeat\n\n";

/// The comment that an idle stream of alarms ends with.
pub(crate) const IDLE_TIMEOUT: &[u8] = b": idle_timeout\n\n";

/// `event:` the type, `id:` the cursor, `data:` the whole event.
pub(crate) static SSE_NAMED: Style = Style {
    name: "sse",
    encode: |event, out| sse(event, out, true, event.json),
};
/// The same without `event:`, for a plain `onmessage`.
pub(crate) static SSE_UNNAMED: Style = Style {
    name: "sse-unnamed",
    encode: |event, out| sse(event, out, false, event.json),
};
/// `event:` the type, `id:` the cursor, `data:` the event's data alone.
pub(crate) static SSE_NAMED_DATA: Style = Style {
    name: "sse-data",
    encode: |event, out| sse(event, out, true, event.data),
};
/// The same without `event:`.
pub(crate) static SSE_UNNAMED_DATA: Style = Style {
    name: "sse-unnamed-data",
    encode: |event, out| sse(event, out, false, event.data),
};
/// One WebSocket message a line: `{"cursor","event"}`.
pub(crate) static MESSAGES: Style = Style {
    name: "messages",
    encode: message,
};
/// One event a line, with its `cursor` as first member: history and long-poll.
pub(crate) static LINES: Style = Style {
    name: "lines",
    encode: line,
};

fn sse(event: &Encoding<'_>, out: &mut Vec<u8>, is_named: bool, data: &str) {
    if is_named {
        out.extend_from_slice(b"event: ");
        out.extend_from_slice(event.kind.as_bytes());
        out.push(b'\n');
    }
    if let Some(seq) = event.seq {
        out.extend_from_slice(b"id: ");
        cursor(event, seq, out);
        out.push(b'\n');
    }
    out.extend_from_slice(b"data: ");
    out.extend_from_slice(data.as_bytes());
    out.extend_from_slice(b"\n\n");
}

fn cursor(event: &Encoding<'_>, seq: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(event.epoch.as_str().as_bytes());
    out.push(b'-');
    out.extend_from_slice(seq.to_string().as_bytes());
}

/// The beginning of an object whose first member is the cursor.
fn object(event: &Encoding<'_>, out: &mut Vec<u8>) {
    out.push(b'{');
    if let Some(seq) = event.seq {
        out.extend_from_slice(b"\"cursor\":\"");
        cursor(event, seq, out);
        out.extend_from_slice(b"\",");
    }
}

fn message(event: &Encoding<'_>, out: &mut Vec<u8>) {
    object(event, out);
    out.extend_from_slice(b"\"event\":");
    out.extend_from_slice(event.json.as_bytes());
    out.extend_from_slice(b"}\n");
}

fn line(event: &Encoding<'_>, out: &mut Vec<u8>) {
    object(event, out);
    out.extend_from_slice(event.json.as_bytes().get(1..).unwrap_or(b"}"));
    out.push(b'\n');
}

/// The style of a native SSE stream.
#[must_use]
pub(crate) fn sse_style(is_named: bool, is_data_alone: bool) -> &'static Style {
    match (is_named, is_data_alone) {
        (true, false) => &SSE_NAMED,
        (false, false) => &SSE_UNNAMED,
        (true, true) => &SSE_NAMED_DATA,
        (false, true) => &SSE_UNNAMED_DATA,
    }
}

/// Why a stream ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(serde::Deserialize))]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reason {
    /// The credential's time is over.
    TokenExpired,
    /// The credential was revoked.
    Revoked,
    /// The policy no longer allows any of it.
    Forbidden,
    /// The server is going down.
    Drain,
    /// Nothing was sent for too long.
    Idle,
    /// Too many connections.
    Limit,
    /// Closed through the API.
    Closed,
    /// The client takes nothing.
    Slow,
}

impl Reason {
    /// The word on the wire and in metrics.
    #[must_use]
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::TokenExpired => "token_expired",
            Self::Revoked => "revoked",
            Self::Forbidden => "forbidden",
            Self::Drain => "drain",
            Self::Idle => "idle",
            Self::Limit => "limit",
            Self::Closed => "closed",
            Self::Slow => "slow",
        }
    }
}

/// A control frame, before it is written in a transport's way.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(serde::Deserialize))]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Control {
    /// Always first.
    Connected {
        /// The connection's id.
        connection_id: String,
        /// Where the client stands.
        cursor: String,
        /// Silence longer than this means that the connection is lost.
        heartbeat_seconds: serde_json::Number,
    },
    /// Retention has passed the cursor.
    Gap {
        /// The oldest place from which nothing is missing.
        oldest: String,
    },
    /// The cursor is not of this log: read state anew.
    Reset {
        /// Where the stream goes on.
        cursor: String,
    },
    /// Ephemeral events were dropped.
    Dropped {
        /// How many.
        count: u64,
    },
    /// The log has moved on past what concerns this client.
    Checkpoint {
        /// To here.
        cursor: String,
    },
    /// Part of the rights is gone.
    Unsubscribed {
        /// What the stream no longer carries.
        topics: Vec<String>,
        /// Why.
        reason: Reason,
    },
    /// Before every end that can still be written.
    Closing {
        /// Why.
        reason: Reason,
        /// When to come back, in milliseconds.
        retry_ms: u64,
    },
}

impl Control {
    /// A connection that stands at a place, and how often it will be heard of in silence.
    #[must_use]
    pub(crate) fn connected(connection_id: Uuid, cursor: &Cursor, heartbeat: Duration) -> Self {
        Self::Connected {
            connection_id: connection_id.to_string(),
            cursor: cursor.to_string(),
            heartbeat_seconds: seconds(heartbeat),
        }
    }

    /// Retention has left nothing before a place.
    #[must_use]
    pub(crate) fn gap(oldest: &Cursor) -> Self {
        Self::Gap {
            oldest: oldest.to_string(),
        }
    }

    /// A cursor named no place of this log; the stream goes on from another.
    #[must_use]
    pub(crate) fn reset(cursor: &Cursor) -> Self {
        Self::Reset {
            cursor: cursor.to_string(),
        }
    }

    /// The log has moved on to a place.
    #[must_use]
    pub(crate) fn checkpoint(cursor: &Cursor) -> Self {
        Self::Checkpoint {
            cursor: cursor.to_string(),
        }
    }

    /// What the policy no longer allows; nothing is said where nothing is lost.
    #[must_use]
    pub(crate) fn unsubscribed(lost: &[Pattern]) -> Option<Self> {
        let topics: Vec<_> = lost.iter().map(ToString::to_string).collect();
        let reason = Reason::Forbidden;
        (!topics.is_empty()).then_some(Self::Unsubscribed { topics, reason })
    }

    /// The end, and when to come back.
    #[must_use]
    pub(crate) fn closing(reason: Reason, retry: Duration) -> Self {
        let retry_ms = millis(retry);
        Self::Closing { reason, retry_ms }
    }

    /// The name and the members, apart: serde puts the tag first.
    fn parts(&self) -> (String, String) {
        let message = self.to_message();
        let (tag, members) = message.split_once(',').unwrap_or((&message, "}"));
        let name = tag.split('"').nth(3).unwrap_or_default();
        (name.to_owned(), format!("{{{members}"))
    }

    /// As a WebSocket message.
    #[must_use]
    pub(crate) fn to_message(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// As an SSE frame. `retry` stands in the same frame; `Closing` brings its own.
    #[must_use]
    pub(crate) fn to_sse(&self, retry: Option<Duration>) -> Bytes {
        let (name, data) = self.parts();
        let mut out = String::with_capacity(data.len() + 96);
        let retry = match self {
            Self::Closing { retry_ms, .. } => Some(*retry_ms),
            _ => retry.map(millis),
        };
        if let Some(retry) = retry {
            out.push_str(&format!("retry: {retry}\n"));
        }
        out.push_str(&format!("event: {name}\n"));
        if let Self::Connected { cursor, .. } | Self::Checkpoint { cursor } = self {
            out.push_str(&format!("id: {cursor}\n"));
        }
        out.push_str(&format!("data: {data}\n\n"));
        out.into()
    }
}

/// Seconds as JSON shows them best: whole where they are whole.
#[must_use]
fn seconds(time: Duration) -> serde_json::Number {
    let whole = serde_json::Number::from(time.as_secs());
    if time.subsec_nanos() == 0 {
        whole
    } else {
        serde_json::Number::from_f64(time.as_secs_f64()).unwrap_or(whole)
    }
}

/// Whole milliseconds.
#[must_use]
pub(crate) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// A `retry:` of at least [`MIN_RETRY`], spread so that clients do not all come back at once.
#[must_use]
pub(crate) fn jittered(base: Duration) -> Duration {
    let base = millis(base.max(MIN_RETRY));
    Duration::from_millis(base + fastrand::u64(0..=base / 2))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;
    use tidings_core::cursor::Epoch;

    use super::*;

    /// `conformance/framing.yaml`, as far as a server is concerned.
    #[derive(Deserialize)]
    struct Cases {
        encode: Vec<EventCase>,
        control: Vec<ControlCase>,
    }

    #[derive(Deserialize)]
    struct EventCase {
        name: String,
        epoch: String,
        seq: Option<u64>,
        r#type: String,
        json: String,
        data: String,
        writes: BTreeMap<String, String>,
    }

    #[derive(Deserialize)]
    struct ControlCase {
        name: String,
        control: Control,
        retry: Option<u64>,
        sse: String,
        message: String,
    }

    fn cases() -> Cases {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../conformance/framing.yaml"
        );
        serde_saphyr::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
    }

    #[test]
    fn each_style_to_the_letter() {
        let styles = [
            &SSE_NAMED,
            &SSE_UNNAMED,
            &SSE_NAMED_DATA,
            &SSE_UNNAMED_DATA,
            &MESSAGES,
            &LINES,
        ];
        for case in cases().encode {
            let epoch = Epoch::stored(&case.epoch);
            let event = Encoding {
                epoch: &epoch,
                seq: case.seq,
                topic: "a",
                kind: &case.r#type,
                json: &case.json,
                data: &case.data,
            };
            let written = styles.map(|style| {
                let mut out = Vec::new();
                (style.encode)(&event, &mut out);
                (style.name.to_owned(), String::from_utf8(out).unwrap())
            });
            assert_eq!(BTreeMap::from(written), case.writes, "{}", case.name);
        }
    }

    #[test]
    fn control_frames_to_the_letter() {
        for case in cases().control {
            let retry = case.retry.map(Duration::from_millis);
            assert_eq!(case.control.to_sse(retry), case.sse, "{}", case.name);
            assert_eq!(case.control.to_message(), case.message, "{}", case.name);
        }
    }

    #[test]
    fn retry_is_never_short() {
        for _ in 0..100 {
            let retry = jittered(Duration::ZERO);
            assert!((1_000..=1_500).contains(&millis(retry)));
        }
    }
}
