//! Server-Sent Events over HTTP/1.1 or HTTP/2.

use std::time::Duration;

use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, Method};
use reqwest::Response;

use super::control::{Members, is_control, unreadable};
use super::{Delivery, Signal, Signals, Silence, ended};
use crate::client::{Client, send, success};
use crate::error::Error;
use crate::sse::{Frame, Item, Parser};

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

pub(super) struct Connection {
    response: Response,
    parser: Parser,
    silence: Silence,
}

impl Connection {
    pub(super) async fn open(
        client: &Client,
        topics: &[String],
        cursor: Option<String>,
    ) -> Result<Self, Error> {
        let query: Vec<_> = topics.iter().map(|t| ("topic", t.as_str())).collect();
        let mut request = client
            .request(Method::GET, client.url("api/v1/stream", &query)?)
            .await?
            .header(ACCEPT, "text/event-stream");
        if let Some(cursor) = cursor {
            let value = HeaderValue::from_str(&cursor)
                .map_err(|_| Error::Invalid(format!("{cursor:?} cannot be sent as a cursor")))?;
            request = request.header(LAST_EVENT_ID, value);
        }
        let response = success(send(request).await?).await?;
        let kind = response
            .headers()
            .get(CONTENT_TYPE)
            .and_then(|v| v.to_str().ok())
            .unwrap_or_default();
        if kind.split(';').next().map(str::trim) != Some("text/event-stream") {
            return Err(Error::Protocol(format!(
                "a stream of type {kind:?}, not text/event-stream"
            )));
        }
        Ok(Self {
            response,
            parser: Parser::new(),
            silence: Silence::new(),
        })
    }

    /// Waits for more bytes and adds what is whole with them.
    pub(super) async fn read(&mut self, signals: &mut Signals) -> Result<(), Error> {
        let chunk = self.silence.guard(self.response.chunk()).await?;
        let chunk = chunk.map_err(Error::http)?.ok_or_else(ended)?;
        self.silence.hear();
        let (mut failure, silence) = (None, &mut self.silence);
        let fed = self.parser.feed(&chunk, &mut |item| match item {
            Item::Frame(frame) if failure.is_none() => match read_frame(&frame) {
                Ok(Some(delivery)) => {
                    if let Delivery::Connected {
                        heartbeat: Some(heartbeat),
                        ..
                    } = &delivery
                    {
                        silence.set_heartbeat(*heartbeat);
                    }
                    signals.push_back(Signal::Delivery(delivery));
                }
                Ok(None) => {}
                Err(error) => failure = Some(error),
            },
            Item::Retry(millis) => {
                signals.push_back(Signal::Retry(Duration::from_millis(millis)));
            }
            Item::Frame(_) | Item::Comment(_) => {}
        });
        fed.map_err(|e| Error::Protocol(e.to_string()))?;
        failure.map_or(Ok(()), Err)
    }
}

fn read_frame(frame: &Frame<'_>) -> Result<Option<Delivery>, Error> {
    let name = frame.event_text();
    let name = if name.is_empty() { "message" } else { &*name };
    if is_control(name) {
        // `ready` of another server and the like have data of their own kind: not ours to read.
        let members: Members = match serde_json::from_slice(frame.data) {
            Ok(members) => members,
            Err(e) => return Err(unreadable(name, &e)),
        };
        return members.delivery(name);
    }
    Ok(Some(Delivery::Event {
        cursor: frame.id_text().map(|id| id.into_owned()),
        event: serde_json::from_slice(frame.data).map_err(|e| unreadable("an event", &e))?,
    }))
}
