//! What a client may say, and what it is answered.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::http::body::parse;
use crate::http::problem::Problem;

/// What a client may say.
#[derive(Debug)]
pub(super) enum Said {
    Subscribe(Subscribe),
    Unsubscribe(Unsubscribe),
    Publish(Publish),
    Refresh(Refresh),
    Ping,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Subscribe {
    pub(super) topics: Vec<String>,
    pub(super) cursor: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Unsubscribe {
    pub(super) topics: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Publish {
    pub(super) event: Option<Box<RawValue>>,
    pub(super) events: Option<Vec<Box<RawValue>>>,
    pub(super) idempotency_key: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Refresh {
    pub(super) token: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Ping {}

/// The answer to something that was said.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Answer {
    Subscribed {
        topics: Vec<String>,
        cursor: String,
    },
    Unsubscribed {
        topics: Vec<String>,
    },
    Published {
        ids: Vec<String>,
        cursor: Option<String>,
    },
    Refreshed {
        expires_at: String,
    },
    Pong,
    Error {
        problem: Problem,
    },
}

/// Reads a message, and the `ref` that its answer repeats. Values stay text until it is clear what they are: data keeps
/// its numbers and order.
pub(super) fn read(
    text: &str,
    max_depth: usize,
) -> (Option<serde_json::Value>, Result<Said, Problem>) {
    // The message and the array around its events are two levels more than data.
    if let Err(e) = tidings_core::event::check_depth(text.as_bytes(), max_depth + 3) {
        return (None, Err(Problem::malformed(&e.to_string())));
    }
    let mut members: BTreeMap<String, Box<RawValue>> = match serde_json::from_str(text) {
        Ok(members) => members,
        Err(e) => {
            return (
                None,
                Err(Problem::malformed(&format!(
                    "a message is a JSON object: {e}"
                ))),
            );
        }
    };
    let reference = members
        .remove("ref")
        .and_then(|raw| serde_json::from_str(raw.get()).ok());
    let kind = members
        .remove("type")
        .and_then(|raw| serde_json::from_str::<String>(raw.get()).ok());
    let rest = match serde_json::to_string(&members) {
        Ok(rest) => rest,
        Err(e) => return (reference, Err(Problem::internal(&e.to_string()))),
    };
    let said = match kind.as_deref() {
        Some("subscribe") => parse(&rest).map(Said::Subscribe),
        Some("unsubscribe") => parse(&rest).map(Said::Unsubscribe),
        Some("publish") => parse(&rest).map(Said::Publish),
        Some("refresh") => parse(&rest).map(Said::Refresh),
        Some("ping") => parse(&rest).map(|Ping {}| Said::Ping),
        _ => Err(Problem::invalid(
            "type",
            "one of subscribe, unsubscribe, publish, refresh, ping",
        )),
    };
    (reference, said)
}

pub(super) fn with_reference(answer: &Answer, reference: Option<serde_json::Value>) -> String {
    let mut value = serde_json::to_value(answer).unwrap_or_default();
    if let (Some(members), Some(reference)) = (value.as_object_mut(), reference) {
        members.insert("ref".into(), reference);
    }
    value.to_string()
}
