//! WebSocket (RFC 6455): the same events and cursors as SSE, subscriptions that change while the connection stays, and
//! publishing.
//!
//! - `message`: what a client may say, and what it is answered
//! - `conversation`: what is done about it
//! - here: the connection, and what it sends by itself

mod conversation;
mod message;

use std::sync::Arc;

use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::response::Response;
use tidings_core::cursor::Cursor;
use tidings_core::hub::{Delivery, Reader};
use tidings_core::log::TenantLog;
use tidings_core::topic::Patterns;

use super::admission::{Ask, Beginning, admit};
use super::connections::{Admitted, Order, Scope};
use super::frame::{self, Control, Reason};
use super::{Due, Kind, Silence, feed_key, in_time, same_but};
use crate::app::App;
use crate::http::problem::Problem;
use crate::telemetry::metrics::{delivered, dropped};

/// The subprotocol that is answered where it is offered.
pub(crate) const PROTOCOL: &str = "tidings.v1";
/// Pings in a row that may stay without any answer.
const UNANSWERED: u32 = 2;

/// Opens a WebSocket: everything that can be refused is refused before the upgrade.
pub(crate) async fn open(
    app: &App,
    ask: Ask,
    upgrade: WebSocketUpgrade,
) -> Result<Response, Problem> {
    let transports = &app.transports;
    let kind = transports.native.clone();
    let asked = ask.query.topics(false)?;
    let (admitted, scope) = admit(transports, &kind, &ask, asked)
        .await
        .map_err(|denied| denied.into_problem(&kind.rules.section))?;
    let app = app.clone();
    let limit = app.config.limits.body_other;
    let upgrade = upgrade
        .protocols([PROTOCOL])
        .max_message_size(limit)
        .max_frame_size(limit);
    let tasks = transports.tasks.clone();
    Ok(upgrade.on_upgrade(move |socket| {
        let clock = app.clock.clone();
        let socket = Socket {
            silence: Silence::new(kind.rules.clone(), clock.now()),
            app,
            kind,
            log: admitted.connection.log.clone(),
            admitted,
            socket,
            reader: None,
            ticket_topics: ask.ticket_topics,
            unanswered: 0,
        };
        tasks.track_future(socket.run(scope, ask.cursor))
    }))
}

/// Why the connection ends.
enum End {
    /// The peer has gone, or has said goodbye.
    Gone,
    /// We say why.
    Close(Reason),
    /// A frame is at fault.
    Fault(u16, &'static str),
}

struct Socket {
    app: App,
    kind: Kind,
    admitted: Admitted,
    log: Arc<TenantLog>,
    socket: WebSocket,
    reader: Option<Reader>,
    ticket_topics: Option<Patterns>,
    silence: Silence,
    /// Pings since the peer was last heard of.
    unanswered: u32,
}

impl Socket {
    async fn run(mut self, scope: Scope, cursor: Option<Vec<u8>>) {
        tracing::info!(connection_id = %self.admitted.connection.id, transport = "websocket", "stream opened");
        let mut end = self.begin(scope, cursor).await.err();
        while end.is_none() {
            end = self.step().await.err();
        }
        if let Some(end) = end {
            self.finish(end).await;
        }
    }

    async fn begin(&mut self, scope: Scope, cursor: Option<Vec<u8>>) -> Result<(), End> {
        let reset = self.subscribe(scope, cursor.as_deref());
        let (id, heartbeat) = (
            self.admitted.connection.id,
            self.kind.rules.section.heartbeat,
        );
        let connected = Control::connected(id, &self.cursor(), heartbeat);
        self.control(&connected).await?;
        if reset { self.reset().await } else { Ok(()) }
    }

    /// Reads a scope from the connection's own place; the first one from a cursor, where there is one. Says whether the
    /// cursor names no place of this log.
    fn subscribe(&mut self, scope: Scope, cursor: Option<&[u8]>) -> bool {
        if let Some(reader) = &mut self.reader {
            let key = same_but(reader, scope);
            reader.change(key);
            return false;
        }
        if scope.patterns.as_slice().is_empty() && cursor.is_none() {
            return false;
        }
        let hub = &self.app.transports.hub;
        let beginning = Beginning::of(hub, &self.log, cursor);
        let key = feed_key(scope, &frame::MESSAGES, &self.kind.rules.section);
        self.reader = Some(beginning.reader(hub, &self.log, key, None));
        beginning.is_reset
    }

    fn cursor(&self) -> Cursor {
        let reader = self.reader.as_ref();
        reader.map_or_else(|| self.log.at(self.log.head()), Reader::cursor)
    }

    async fn reset(&mut self) -> Result<(), End> {
        let reset = Control::reset(&self.cursor());
        self.control(&reset).await
    }

    async fn step(&mut self) -> Result<(), End> {
        if let Some(reader) = &self.reader {
            self.admitted.connection.set_seq(reader.seq());
        }
        let connection = self.admitted.connection.clone();
        let clock = self.app.clock.clone();
        let reader = &mut self.reader;
        let delivery = async {
            match reader {
                Some(reader) => reader.next().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = connection.ordered() => self.obey().await,
            said = self.socket.recv() => {
                self.unanswered = 0;
                self.hear(said).await
            }
            delivery = delivery => {
                self.silence.sent_event(clock.now());
                self.deliver(delivery).await
            }
            due = self.silence.due(&clock) => {
                self.silence.spoke(clock.now());
                self.heartbeat(due).await
            }
        }
    }

    async fn heartbeat(&mut self, due: Due) -> Result<(), End> {
        if due == Due::Idle {
            return Err(End::Close(Reason::Idle));
        }
        if self.unanswered >= UNANSWERED {
            return Err(End::Close(Reason::Slow));
        }
        self.unanswered += 1;
        match self.reader.as_mut().and_then(Reader::checkpoint) {
            Some(cursor) => self.control(&Control::checkpoint(&cursor)).await?,
            None => self.send(Message::text(r#"{"type":"heartbeat"}"#)).await?,
        }
        self.send(Message::Ping(bytes::Bytes::new())).await
    }

    async fn deliver(&mut self, delivery: Delivery) -> Result<(), End> {
        match delivery {
            Delivery::Gap { oldest } => self.control(&Control::gap(&oldest)).await,
            Delivery::Dropped { count } => {
                dropped(count);
                self.control(&Control::Dropped { count }).await
            }
            Delivery::Frames {
                bytes,
                count,
                committed,
            } => {
                for line in bytes.split(|b| *b == b'\n').filter(|line| !line.is_empty()) {
                    // Encoded by us from text: it is UTF-8.
                    let text = String::from_utf8_lossy(line).into_owned();
                    self.send(Message::text(text)).await?;
                }
                delivered("websocket", count, committed);
                Ok(())
            }
        }
    }

    async fn obey(&mut self) -> Result<(), End> {
        for order in self.admitted.connection.take_orders() {
            match order {
                Order::Close(reason) => return Err(End::Close(reason)),
                Order::Narrow { scope, lost } => {
                    self.subscribe(scope, None);
                    if let Some(unsubscribed) = Control::unsubscribed(&lost) {
                        self.control(&unsubscribed).await?;
                    }
                }
            }
        }
        Ok(())
    }

    async fn control(&mut self, control: &Control) -> Result<(), End> {
        self.send(Message::text(control.to_message())).await
    }

    async fn send(&mut self, message: Message) -> Result<(), End> {
        let limit = self.kind.rules.section.write_timeout;
        match in_time(limit, self.socket.send(message)).await {
            Some(Ok(())) => Ok(()),
            Some(Err(_)) => Err(End::Gone),
            None => Err(End::Close(Reason::Slow)),
        }
    }

    async fn finish(mut self, end: End) {
        let (code, text) = match end {
            End::Gone => return,
            End::Fault(code, text) => (code, text),
            End::Close(reason) => {
                self.admitted.connection.log_end(reason);
                if reason != Reason::Slow {
                    let closing = Control::closing(reason, self.kind.rules.retry(reason));
                    let _ = self.control(&closing).await;
                }
                (code_of(reason), reason.as_str())
            }
        };
        let frame = CloseFrame {
            code,
            reason: text.into(),
        };
        let _ = tokio::time::timeout(frame::MIN_RETRY, async {
            let _ = self.socket.send(Message::Close(Some(frame))).await;
            // The peer's own close frame ends it cleanly.
            while let Some(Ok(_)) = self.socket.recv().await {}
        })
        .await;
    }
}

fn code_of(reason: Reason) -> u16 {
    match reason {
        Reason::Closed | Reason::Idle => close_code::NORMAL,
        Reason::Drain => close_code::AWAY,
        Reason::TokenExpired | Reason::Revoked | Reason::Forbidden => close_code::POLICY,
        Reason::Limit | Reason::Slow => close_code::AGAIN,
    }
}
