//! WebSocket (RFC 6455): the same events and cursors as SSE, subscriptions that change while the connection stays, and
//! publishing.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tidings_core::auth::Principal;
use tidings_core::hub::{Delivery, Reader, Start};
use tidings_core::log::TenantLog;
use tidings_core::topic::{MAX_PATTERNS, Pattern, Patterns};

use super::connections::{Admitted, Application, Order, Scope, Transport};
use super::frame::{self, Control, Reason};
use super::request::{self, Origin, Query};
use super::sse::refused_problem;
use super::{Due, Kind, Silence, feed_key, same_but};
use crate::app::App;
use crate::http::api::events;
use crate::http::body::parse;
use crate::http::problem::Problem;

/// The subprotocol that is answered where it is offered.
pub(crate) const PROTOCOL: &str = "tidings.v1";
/// Pings in a row that may stay without any answer.
const UNANSWERED: u32 = 2;

/// What a WebSocket's request asks for.
#[derive(Debug)]
pub(crate) struct Ask {
    /// Who.
    pub(crate) principal: Arc<Principal>,
    /// The query: `topic` and `last_event_id`, both optional.
    pub(crate) query: Query,
    /// From where.
    pub(crate) origin: Origin,
    /// Topics that a ticket was bought for.
    pub(crate) ticket_topics: Option<Patterns>,
}

/// Opens a WebSocket: everything that can be refused is refused before the upgrade.
pub(crate) async fn open(
    app: &App,
    ask: Ask,
    upgrade: WebSocketUpgrade,
) -> Result<Response, Problem> {
    let transports = &app.transports;
    let kind = transports.native.clone();
    let asked = ask.query.topics(false)?;
    if transports.is_draining() {
        return Err(Problem::unavailable(
            "the server is going down",
            kind.rules.section.retry,
        ));
    }
    super::check_ticket(ask.ticket_topics.as_ref(), &asked)?;
    let (scope, lost) = transports.connections.scope(&ask.principal, &asked);
    if let Some(pattern) = lost.first() {
        return Err(Problem::forbidden(
            "topic",
            &format!("the policy allows nothing of {pattern}"),
        ));
    }
    let log = transports
        .log
        .tenant(&ask.principal.tenant)
        .await
        .map_err(|e| Problem::from(&e))?;
    let application = Application {
        transport: Transport::Websocket,
        kind: kind.name,
        log: log.clone(),
        principal: ask.principal,
        asked: asked.clone(),
        scope: scope.clone(),
        remote: ask.origin.remote,
        user_agent: ask.origin.user_agent,
    };
    let admitted = transports
        .connections
        .admit(&kind.rules.section, application)
        .map_err(|refused| refused_problem(refused, &kind.rules.section))?;
    let cursor = ask
        .query
        .get("last_event_id")
        .map(|c| c.as_bytes().to_vec())
        .filter(|c| !c.is_empty());
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
            admitted,
            log,
            socket,
            reader: None,
            ticket_topics: ask.ticket_topics,
            unanswered: 0,
        };
        tasks.track_future(socket.run(scope, cursor))
    }))
}

/// What a client may say.
#[derive(Debug)]
enum Said {
    Subscribe(Subscribe),
    Unsubscribe(Unsubscribe),
    Publish(Publish),
    Refresh(Refresh),
    Ping,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Subscribe {
    topics: Vec<String>,
    cursor: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Unsubscribe {
    topics: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Publish {
    event: Option<Box<RawValue>>,
    events: Option<Vec<Box<RawValue>>>,
    idempotency_key: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Refresh {
    token: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Ping {}

/// The answer to something that was said.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Answer {
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
        let connected = Control::Connected {
            connection_id: self.admitted.connection.id.to_string(),
            cursor: self.cursor(),
            heartbeat_seconds: frame::seconds(self.kind.rules.section.heartbeat),
        };
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
        let resumed = cursor.map(|bytes| self.app.transports.hub.resume(&self.log, bytes));
        if scope.patterns.as_slice().is_empty() && resumed.is_none() {
            return false;
        }
        metrics::counter!("tidings_resumes_total")
            .increment(u64::from(resumed.flatten().is_some()));
        let start = resumed.flatten().map_or(Start::Live, Start::After);
        let key = feed_key(scope, &frame::MESSAGES, &self.kind.rules.section);
        self.reader = Some(self.app.transports.hub.reader(&self.log, key, start, None));
        resumed == Some(None)
    }

    fn cursor(&self) -> String {
        self.reader
            .as_ref()
            .map_or_else(|| self.log.at(self.log.head()), Reader::cursor)
            .to_string()
    }

    async fn reset(&mut self) -> Result<(), End> {
        let cursor = self.cursor();
        self.control(&Control::Reset { cursor }).await
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
            Some(cursor) => {
                self.control(&Control::Checkpoint {
                    cursor: cursor.to_string(),
                })
                .await?;
            }
            None => self.send(Message::text(r#"{"type":"heartbeat"}"#)).await?,
        }
        self.send(Message::Ping(bytes::Bytes::new())).await
    }

    async fn deliver(&mut self, delivery: Delivery) -> Result<(), End> {
        match delivery {
            Delivery::Gap { oldest } => {
                self.control(&Control::Gap {
                    oldest: oldest.to_string(),
                })
                .await
            }
            Delivery::Dropped { count } => {
                metrics::counter!("tidings_dropped_total").increment(count);
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
                metrics::counter!("tidings_deliveries_total", "transport" => "websocket")
                    .increment(count);
                if let Some(committed) = committed {
                    metrics::histogram!("tidings_delivery_seconds").record_many(
                        committed.elapsed(),
                        usize::try_from(count).unwrap_or(usize::MAX),
                    );
                }
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
                    if !lost.is_empty() {
                        let topics = lost.iter().map(ToString::to_string).collect();
                        self.control(&Control::Unsubscribed {
                            topics,
                            reason: Reason::Forbidden,
                        })
                        .await?;
                    }
                }
            }
        }
        Ok(())
    }

    async fn hear(&mut self, said: Option<Result<Message, axum::Error>>) -> Result<(), End> {
        match said {
            None | Some(Ok(Message::Close(_))) => Err(End::Gone),
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => Ok(()),
            Some(Ok(Message::Binary(_))) => Err(End::Fault(
                close_code::UNSUPPORTED,
                "messages are JSON text; binary frames are for ephemeral topics of a module",
            )),
            Some(Ok(Message::Text(text))) => self.answer(text.as_str()).await,
            Some(Err(e)) => {
                let why = e.into_inner().to_string().to_ascii_lowercase();
                Err(if why.contains("utf-8") || why.contains("utf8") {
                    End::Fault(close_code::INVALID, "the text is not UTF-8")
                } else if why.contains("too long")
                    || why.contains("too big")
                    || why.contains("capacity")
                {
                    End::Fault(close_code::SIZE, "the message is too long")
                } else {
                    End::Gone
                })
            }
        }
    }

    async fn answer(&mut self, text: &str) -> Result<(), End> {
        let (reference, said) = read(text, self.app.config.limits.json_depth);
        let answer = match said {
            Ok(said) => self.act(said).await,
            Err(problem) => Err(problem),
        };
        let (answer, reset) = match answer {
            Ok(done) => done,
            Err(problem) => (Answer::Error { problem }, false),
        };
        self.send(Message::text(with_reference(&answer, reference)))
            .await?;
        self.silence.spoke(self.app.clock.now());
        if reset { self.reset().await } else { Ok(()) }
    }

    /// Does what was said. Beside the answer: whether a cursor came that names no place of this log.
    async fn act(&mut self, said: Said) -> Result<(Answer, bool), Problem> {
        match said {
            Said::Ping => Ok((Answer::Pong, false)),
            Said::Subscribe(Subscribe { topics, cursor }) => self.add(topics, cursor.as_deref()),
            Said::Unsubscribe(Unsubscribe { topics }) => {
                self.take_away(&topics).map(|answer| (answer, false))
            }
            Said::Refresh(Refresh { token }) => {
                self.refresh(&token).await.map(|answer| (answer, false))
            }
            Said::Publish(Publish {
                event,
                events,
                idempotency_key,
            }) => {
                let items = match (event, events) {
                    (Some(event), None) => vec![event],
                    (None, Some(events)) => events,
                    _ => return Err(Problem::invalid("event", "exactly one of event and events")),
                };
                let principal = self.admitted.connection.principal();
                let published =
                    events::publish_items(&self.app, &principal, items, idempotency_key).await?;
                let ids = published.ids.iter().map(ToString::to_string).collect();
                Ok((
                    Answer::Published {
                        ids,
                        cursor: published.cursor.map(|c| c.to_string()),
                    },
                    false,
                ))
            }
        }
    }

    fn add(
        &mut self,
        topics: Vec<String>,
        cursor: Option<&str>,
    ) -> Result<(Answer, bool), Problem> {
        let more = request::patterns(&topics).map_err(|why| Problem::invalid("topics", &why))?;
        if topics.is_empty() {
            return Err(Problem::invalid("topics", "at least one topic or pattern"));
        }
        super::check_ticket(self.ticket_topics.as_ref(), &more)?;
        let connection = self.admitted.connection.clone();
        if cursor.is_some() && self.reader.is_some() {
            return Err(Problem::invalid(
                "cursor",
                "one cursor for the connection: only the first subscribe may set it",
            ));
        }
        let all: Vec<Pattern> = connection
            .asked()
            .as_slice()
            .iter()
            .chain(more.as_slice())
            .cloned()
            .collect();
        let asked = Patterns::new(all);
        if asked.as_slice().len() > MAX_PATTERNS {
            return Err(Problem::invalid(
                "topics",
                &format!("at most {MAX_PATTERNS} topics on one connection"),
            ));
        }
        let (scope, lost) = self
            .app
            .transports
            .connections
            .scope(&connection.principal(), &asked);
        if let Some(pattern) = lost.iter().find(|p| more.as_slice().contains(p)) {
            return Err(Problem::forbidden(
                "topics",
                &format!("the policy allows nothing of {pattern}"),
            ));
        }
        connection.set_scope(asked, scope.clone());
        let is_reset = self.subscribe(scope, cursor.map(str::as_bytes));
        Ok((
            Answer::Subscribed {
                topics,
                cursor: self.cursor(),
            },
            is_reset,
        ))
    }

    fn take_away(&mut self, topics: &[String]) -> Result<Answer, Problem> {
        let gone = request::patterns(topics).map_err(|why| Problem::invalid("topics", &why))?;
        let connection = self.admitted.connection.clone();
        let had = connection.asked();
        if let Some(pattern) = gone.as_slice().iter().find(|p| !had.as_slice().contains(p)) {
            return Err(Problem::invalid(
                "topics",
                &format!("{pattern} is not subscribed"),
            ));
        }
        let asked = Patterns::new(
            had.as_slice()
                .iter()
                .filter(|p| !gone.as_slice().contains(p))
                .cloned()
                .collect(),
        );
        let (scope, _) = self
            .app
            .transports
            .connections
            .scope(&connection.principal(), &asked);
        connection.set_scope(asked, scope.clone());
        self.subscribe(scope, None);
        Ok(Answer::Unsubscribed {
            topics: topics.to_vec(),
        })
    }

    async fn refresh(&mut self, token: &str) -> Result<Answer, Problem> {
        let connection = self.admitted.connection.clone();
        let principal = self
            .app
            .verify_refresh(&connection.principal(), token)
            .await?;
        let expires_at = principal.expires_at.to_string();
        // The connection is in the table for as long as we hold it.
        let _ = self.app.transports.connections.refresh(
            &connection.log.tenant,
            connection.id,
            principal,
        );
        Ok(Answer::Refreshed { expires_at })
    }

    async fn control(&mut self, control: &Control) -> Result<(), End> {
        self.send(Message::text(control.to_message())).await
    }

    async fn send(&mut self, message: Message) -> Result<(), End> {
        let timeout = self.kind.rules.section.write_timeout;
        let sent = if timeout.is_zero() {
            Ok(self.socket.send(message).await)
        } else {
            tokio::time::timeout(timeout, self.socket.send(message)).await
        };
        match sent {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(End::Gone),
            Err(_) => Err(End::Close(Reason::Slow)),
        }
    }

    async fn finish(mut self, end: End) {
        let (code, text) = match end {
            End::Gone => return,
            End::Fault(code, text) => (code, text),
            End::Close(reason) => {
                tracing::info!(connection_id = %self.admitted.connection.id, reason = reason.as_str(), "stream closed by the server");
                if reason != Reason::Slow {
                    let retry_ms = frame::millis(self.kind.rules.retry(reason));
                    let _ = self.control(&Control::Closing { reason, retry_ms }).await;
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

/// Reads a message, and the `ref` that its answer repeats. Values stay text until it is clear what they are: data keeps
/// its numbers and order.
fn read(text: &str, max_depth: usize) -> (Option<serde_json::Value>, Result<Said, Problem>) {
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

fn with_reference(answer: &Answer, reference: Option<serde_json::Value>) -> String {
    let mut value = serde_json::to_value(answer).unwrap_or_default();
    if let (Some(members), Some(reference)) = (value.as_object_mut(), reference) {
        members.insert("ref".into(), reference);
    }
    value.to_string()
}
