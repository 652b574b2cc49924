//! Requests that wait. The first one does not: it tells where the log stands, so that nothing is missed between two.

use std::pin::Pin;
use std::time::Duration;

use http::Method;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Delivery, Signal, Signals};
use crate::client::{Client, read_json, read_placed, send, success};
use crate::error::Error;
use crate::event::Gap;

/// How long the server may hold a request, in seconds.
const WAIT_SECONDS: &str = "25";
/// How long an answer may take beyond that before the connection counts as lost.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(25 + 20);

type Asking = Pin<Box<dyn Future<Output = Result<Answer, Error>> + Send>>;

pub(super) struct Connection {
    client: Client,
    topics: Vec<String>,
    cursor: Option<String>,
    is_connected: bool,
    /// Kept here so that a caller who stops waiting does not ask twice.
    asking: Option<Asking>,
}

#[derive(Deserialize)]
struct Answer {
    events: Vec<Box<RawValue>>,
    cursor: String,
    #[serde(default)]
    reset: bool,
    gap: Option<Gap>,
    dropped: Option<u64>,
    closing: Option<Closing>,
}

#[derive(Deserialize)]
struct Closing {
    reason: String,
    retry_ms: Option<u64>,
}

/// The wait after a `closing`, which a poll's answer need not name.
const CLOSING_RETRY_MS: u64 = 1_000;

impl Connection {
    pub(super) fn new(client: Client, topics: Vec<String>, cursor: Option<String>) -> Self {
        Self {
            client,
            topics,
            cursor,
            is_connected: false,
            asking: None,
        }
    }

    /// Waits for an answer and adds what it holds.
    pub(super) async fn read(&mut self, signals: &mut Signals) -> Result<(), Error> {
        let asking = match self.asking.take() {
            Some(asking) => asking,
            None => self.ask(),
        };
        let answer = self.asking.insert(asking).await;
        self.asking = None;
        let answer = answer?;
        let events = read_placed(&answer.events)?;
        let deliver = |delivery| Signal::Delivery(delivery);
        if !self.is_connected {
            self.is_connected = true;
            signals.push_back(deliver(Delivery::Connected {
                connection_id: None,
                cursor: Some(self.cursor.clone().unwrap_or_else(|| answer.cursor.clone())),
                heartbeat: None,
            }));
        }
        if answer.reset {
            signals.push_back(deliver(Delivery::Reset {
                cursor: answer.cursor.clone(),
            }));
        }
        if let Some(Gap { oldest }) = answer.gap {
            signals.push_back(deliver(Delivery::Gap { oldest }));
        }
        if let Some(count) = answer.dropped {
            signals.push_back(deliver(Delivery::Dropped { count }));
        }
        let last = events.iter().rev().find_map(|e| e.cursor.as_ref());
        let is_moved = self.cursor.as_ref().is_some_and(|c| *c != answer.cursor)
            && last != Some(&answer.cursor);
        signals.extend(events.into_iter().map(|placed| {
            deliver(Delivery::Event {
                cursor: placed.cursor,
                event: Box::new(placed.event),
            })
        }));
        // Past events that did not match.
        if is_moved && !answer.reset {
            signals.push_back(deliver(Delivery::Checkpoint {
                cursor: answer.cursor.clone(),
            }));
        }
        if let Some(Closing { reason, retry_ms }) = answer.closing {
            signals.push_back(deliver(Delivery::Closing {
                reason,
                retry_ms: retry_ms.unwrap_or(CLOSING_RETRY_MS),
            }));
        }
        self.cursor = Some(answer.cursor);
        Ok(())
    }

    fn ask(&self) -> Asking {
        let client = self.client.clone();
        let topics = self.topics.clone();
        let cursor = self.cursor.clone();
        let wait = if self.is_connected { WAIT_SECONDS } else { "0" };
        Box::pin(async move {
            let mut query: Vec<_> = topics.iter().map(|t| ("topic", t.as_str())).collect();
            query.extend(cursor.as_deref().map(|cursor| ("after", cursor)));
            query.extend([("wait", wait), ("limit", "1000")]);
            let request = client
                .request(Method::GET, client.url("api/v1/poll", &query)?)
                .await?
                .timeout(ANSWER_TIMEOUT);
            read_json(success(send(request).await?).await?).await
        })
    }
}
