//! WebSocket. The request is an ordinary one of the HTTP client, so that addresses, TLS, proxies and refusals are the
//! same as everywhere; only then do the bytes belong to WebSocket.

use futures_util::{SinkExt, StreamExt};
use http::header::{
    CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use reqwest::Upgraded;
use serde::Deserialize;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Message, Role, WebSocketConfig};

use super::control::{Members, unreadable};
use super::{Delivery, Signal, Signals, Silence, ended};
use crate::client::{Client, send, success};
use crate::error::Error;
use crate::event::Event;
use crate::sse::DEFAULT_LIMIT_BYTES;

const PROTOCOL: &str = "tidings.v1";

pub(super) struct Connection {
    socket: WebSocketStream<Upgraded>,
    silence: Silence,
}

/// What an event's message holds; a control message has `type`.
#[derive(Deserialize)]
struct Envelope {
    r#type: Option<String>,
    cursor: Option<String>,
    event: Option<Box<Event>>,
}

impl Connection {
    pub(super) async fn open(
        client: &Client,
        topics: &[String],
        cursor: Option<String>,
    ) -> Result<Self, Error> {
        let mut query: Vec<_> = topics.iter().map(|t| ("topic", t.as_str())).collect();
        query.extend(cursor.as_deref().map(|cursor| ("last_event_id", cursor)));
        let key = generate_key();
        let request = client
            .upgrade_request(client.url("api/v1/ws", &query)?)
            .await?
            .header(CONNECTION, "Upgrade")
            .header(UPGRADE, "websocket")
            .header(SEC_WEBSOCKET_VERSION, "13")
            .header(SEC_WEBSOCKET_KEY, &key)
            .header(SEC_WEBSOCKET_PROTOCOL, PROTOCOL);
        let response = success(send(request).await?).await?;
        let header = |name| response.headers().get(name).map(|v| v.as_bytes());
        if response.status() != http::StatusCode::SWITCHING_PROTOCOLS
            || header(SEC_WEBSOCKET_ACCEPT) != Some(derive_accept_key(key.as_bytes()).as_bytes())
            || header(SEC_WEBSOCKET_PROTOCOL) != Some(PROTOCOL.as_bytes())
        {
            return Err(Error::Protocol(
                "the server did not switch to WebSocket with tidings.v1".into(),
            ));
        }
        let config = WebSocketConfig::default()
            .max_message_size(Some(DEFAULT_LIMIT_BYTES))
            .max_frame_size(Some(DEFAULT_LIMIT_BYTES));
        let upgraded = response.upgrade().await.map_err(Error::http)?;
        let socket = WebSocketStream::from_raw_socket(upgraded, Role::Client, Some(config)).await;
        Ok(Self {
            socket,
            silence: Silence::new(),
        })
    }

    /// Waits for a message and adds what it says.
    pub(super) async fn read(&mut self, signals: &mut Signals) -> Result<(), Error> {
        let message = self.silence.guard(self.socket.next()).await?;
        let message = message
            .ok_or_else(ended)?
            .map_err(|e| Error::Lost(e.to_string()))?;
        self.silence.hear();
        match message {
            Message::Text(text) => {
                if let Some(delivery) = read_message(&text)? {
                    if let Delivery::Connected {
                        heartbeat: Some(heartbeat),
                        ..
                    } = &delivery
                    {
                        self.silence.set_heartbeat(*heartbeat);
                    }
                    signals.push_back(Signal::Delivery(delivery));
                }
                Ok(())
            }
            // Reading has queued the pong; the next read would send it, and a quiet topic has none for long.
            Message::Ping(_) => {
                let sent = self.socket.flush().await;
                sent.map_err(|e| Error::Lost(e.to_string()))
            }
            Message::Close(frame) => Err(frame.map_or_else(ended, |frame| {
                Error::Lost(format!(
                    "the server closed the connection: {} {}",
                    u16::from(frame.code),
                    frame.reason
                ))
            })),
            Message::Binary(_) | Message::Pong(_) | Message::Frame(_) => Ok(()),
        }
    }
}

fn read_message(text: &str) -> Result<Option<Delivery>, Error> {
    let envelope: Envelope = serde_json::from_str(text).map_err(|e| unreadable("a message", &e))?;
    if let Some(event) = envelope.event {
        return Ok(Some(Delivery::Event {
            cursor: envelope.cursor,
            event,
        }));
    }
    let Some(name) = envelope.r#type else {
        return Err(Error::Protocol(
            "a message with neither event nor type".into(),
        ));
    };
    if name == "error" {
        tracing::warn!(message = text, "the server reports an error");
        return Ok(None);
    }
    let members: Members = serde_json::from_str(text).map_err(|e| unreadable(&name, &e))?;
    members.delivery(&name)
}
