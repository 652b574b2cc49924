//! Control frames, which every transport writes with the same members.

use std::time::Duration;

use serde::Deserialize;

use super::Delivery;
use crate::error::Error;

/// The members of any control frame.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Members {
    connection_id: Option<String>,
    cursor: Option<String>,
    heartbeat_seconds: Option<f64>,
    oldest: Option<String>,
    count: Option<u64>,
    topics: Option<Vec<String>>,
    reason: Option<String>,
    retry_ms: Option<u64>,
}

/// The wait after a `closing` that names none.
const DEFAULT_RETRY_MS: u64 = 1_000;

impl Members {
    /// The delivery that a control frame of this name stands for; `None` for one that says nothing to a reader
    /// (`heartbeat`, and what later servers may add).
    pub(super) fn delivery(self, name: &str) -> Result<Option<Delivery>, Error> {
        let missing = |member: &str| Error::Protocol(format!("{name} without {member}"));
        Ok(Some(match name {
            "connected" => Delivery::Connected {
                connection_id: self.connection_id,
                cursor: self.cursor,
                heartbeat: self
                    .heartbeat_seconds
                    .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()),
            },
            "gap" => Delivery::Gap {
                oldest: self.oldest.ok_or_else(|| missing("oldest"))?,
            },
            "reset" => Delivery::Reset {
                cursor: self.cursor.ok_or_else(|| missing("cursor"))?,
            },
            "dropped" => Delivery::Dropped {
                count: self.count.ok_or_else(|| missing("count"))?,
            },
            "checkpoint" => Delivery::Checkpoint {
                cursor: self.cursor.ok_or_else(|| missing("cursor"))?,
            },
            "unsubscribed" => Delivery::Unsubscribed {
                topics: self.topics.unwrap_or_default(),
                reason: self.reason.unwrap_or_default(),
            },
            "closing" => Delivery::Closing {
                reason: self.reason.ok_or_else(|| missing("reason"))?,
                retry_ms: self.retry_ms.unwrap_or(DEFAULT_RETRY_MS),
            },
            _ => return Ok(None),
        }))
    }
}

/// Names that no event can bear: frames of these are the stream's own.
pub(super) fn is_control(name: &str) -> bool {
    matches!(
        name,
        "error"
            | "open"
            | "message"
            | "connected"
            | "ready"
            | "heartbeat"
            | "closing"
            | "gap"
            | "dropped"
            | "reset"
            | "checkpoint"
            | "unsubscribed"
    )
}

pub(super) fn unreadable(what: &str, error: &serde_json::Error) -> Error {
    Error::Protocol(format!("{what}: {error}"))
}
