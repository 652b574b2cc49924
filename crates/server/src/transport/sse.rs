//! Server-Sent Events, per the WHATWG HTML standard, section 9.2.
//!
//! Over plain HTTP/1.1 the socket goes to a [`super::lane`] once the head is known; over TLS and HTTP/2 a task feeds the
//! response's body. Both read the same feeds and follow the same rules.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use http::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue};
use http::{HeaderMap, StatusCode};
use tidings_core::auth::Principal;
use tidings_core::hub::{Delivery, Reader, Start, Style};
use tidings_core::topic::Patterns;
use tokio::sync::mpsc;

use super::connections::{Admitted, Application, Order, Refused, Scope, Transport};
use super::frame::{self, Control, Reason};
use super::lane::{LaneHandle, NewStream};
use super::request::{Origin, Query, last_event_id};
use super::{Due, Kind, Silence, Transports, feed_key, same_but};
use crate::http::accept::{Detached, DetachedSocket};
use crate::http::problem::Problem;

/// Tells nginx not to gather what we write.
const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// What a native stream's request asks for, beside its topics.
#[derive(Debug)]
pub(crate) struct Ask {
    /// Who.
    pub(crate) principal: Arc<Principal>,
    /// The query.
    pub(crate) query: Query,
    /// The headers.
    pub(crate) headers: HeaderMap,
    /// From where.
    pub(crate) origin: Origin,
    /// Topics that a ticket was bought for: nothing else may be asked for with it.
    pub(crate) ticket_topics: Option<Patterns>,
    /// Whether the socket can leave hyper: plain HTTP/1.1.
    pub(crate) is_detachable: bool,
}

/// The topics that a query asks for, and in what style.
fn wanted(query: &Query) -> Result<(Patterns, &'static Style), Problem> {
    let asked = query.topics(true)?;
    let is_named = query.flag("named", true)?;
    let is_data_alone = match query.get("format") {
        None | Some("event") => false,
        Some("data") => true,
        Some(_) => return Err(Problem::bad_request("format", "event or data")),
    };
    Ok((asked, frame::sse_style(is_named, is_data_alone)))
}

/// Opens a native stream.
pub(crate) async fn open(transports: &Transports, ask: Ask) -> Result<Response, Problem> {
    let (asked, style) = wanted(&ask.query)?;
    let kind = &transports.native;
    let cursor = last_event_id(&ask.headers, &ask.query);
    if transports.is_draining() {
        return Ok(come_back(kind, Reason::Drain, ask.is_detachable));
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
        transport: Transport::Sse,
        kind: kind.name,
        log: log.clone(),
        principal: ask.principal.clone(),
        asked,
        scope: scope.clone(),
        remote: ask.origin.remote,
        user_agent: ask.origin.user_agent.clone(),
    };
    let admitted = match transports
        .connections
        .admit(&kind.rules.section, application)
    {
        Ok(admitted) => admitted,
        // A browser's EventSource is dead for good after any other status than 200.
        Err(_) if cursor.is_some() => return Ok(come_back(kind, Reason::Limit, ask.is_detachable)),
        Err(refused) => return Err(refused_problem(refused, &kind.rules.section)),
    };
    let resumed = cursor
        .as_deref()
        .map(|bytes| transports.hub.resume(&log, bytes));
    metrics::counter!("tidings_resumes_total").increment(u64::from(resumed.flatten().is_some()));
    let start = resumed.flatten().map_or(Start::Live, Start::After);
    let lane = if ask.is_detachable {
        transports.lane()
    } else {
        None
    };
    let key = feed_key(scope, style, &kind.rules.section);
    let reader = transports
        .hub
        .reader(&log, key, start, lane.map(|(number, _)| number));
    let opening = opening(kind, &admitted, &reader, resumed == Some(None));
    tracing::info!(
        connection_id = %admitted.connection.id,
        transport = "sse",
        is_resumed = resumed.is_some(),
        "stream opened"
    );
    let mut response = match lane {
        Some((_, lane)) => leave_hyper(lane, kind, admitted, reader, opening),
        None => Response::new(body(transports, kind.clone(), admitted, reader, opening)),
    };
    head(response.headers_mut());
    Ok(response)
}

/// A response whose socket goes to a lane.
fn leave_hyper(
    lane: &LaneHandle,
    kind: &Kind,
    admitted: Admitted,
    reader: Reader,
    opening: Bytes,
) -> Response {
    let (lane, kind) = (lane.clone(), kind.clone());
    let mut response = Response::new(Body::empty());
    response
        .extensions_mut()
        .insert(Detached::new(move |taken: DetachedSocket| {
            lane.open(NewStream {
                socket: taken.socket,
                opening: [&taken.head[..], &opening[..]].concat().into(),
                reader,
                admitted,
                rules: kind.rules,
                heartbeat: kind.heartbeat,
                has_controls: kind.has_controls,
                key: same_but,
            });
        }));
    response
}

/// The status of a first connection over a limit.
#[must_use]
pub(crate) fn refused_problem(refused: Refused, section: &crate::config::StreamSection) -> Problem {
    let retry = section.retry.max(Duration::from_secs(1));
    match refused {
        Refused::Node(most) => Problem::unavailable(
            &format!("this server has its maximum of {most} open connections"),
            retry,
        ),
        Refused::Tenant(most) => Problem::unavailable(
            &format!("this tenant has its maximum of {most} open connections"),
            retry,
        ),
        Refused::User(most) => Problem::too_many(
            &format!("this user has the maximum of {most} open connections"),
            retry,
        ),
    }
}

/// The head alone, as HEAD asks for.
#[must_use]
pub(crate) fn head_only() -> Response {
    let mut response = Response::new(Body::empty());
    head(response.headers_mut());
    response
}

fn head(headers: &mut HeaderMap) {
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(
        CACHE_CONTROL,
        HeaderValue::from_static("no-cache, no-transform"),
    );
    headers.insert(ACCEL_BUFFERING, HeaderValue::from_static("no"));
}

/// 200, a time to come back, and the end: what a browser that reconnects understands.
fn come_back(kind: &Kind, reason: Reason, is_http1: bool) -> Response {
    let retry = kind.rules.retry(reason);
    let closing = Control::Closing {
        reason,
        retry_ms: frame::millis(retry),
    };
    metrics::counter!("tidings_refused_connections_total", "reason" => reason.as_str())
        .increment(1);
    let mut response = Response::new(Body::from(closing.to_sse(None)));
    *response.status_mut() = StatusCode::OK;
    head(response.headers_mut());
    if is_http1 {
        // Nothing more will come on it.
        response
            .headers_mut()
            .insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// `connected`, and `reset` where the cursor names no place of this log.
fn opening(kind: &Kind, admitted: &Admitted, reader: &Reader, is_reset: bool) -> Bytes {
    let connected = Control::Connected {
        connection_id: admitted.connection.id.to_string(),
        cursor: reader.cursor().to_string(),
        heartbeat_seconds: frame::seconds(kind.rules.section.heartbeat),
    };
    let mut frames = connected
        .to_sse(Some(frame::jittered(kind.rules.section.retry)))
        .to_vec();
    if is_reset {
        frames.extend_from_slice(&frame::reset(&reader.cursor()).to_sse(None));
    }
    frames.into()
}

/// The body of a stream that a task writes. One frame may wait for the client; the rest waits in the feed.
fn body(
    transports: &Transports,
    kind: Kind,
    admitted: Admitted,
    reader: Reader,
    opening: Bytes,
) -> Body {
    let (sender, receiver) = mpsc::channel::<Bytes>(1);
    let writer = Writer {
        clock: transports.clock.clone(),
        kind,
        admitted,
        reader,
        sender,
    };
    transports.tasks.spawn(writer.run(opening));
    Body::from_stream(stream::unfold(receiver, |mut receiver| async {
        receiver
            .recv()
            .await
            .map(|bytes| (Ok::<_, Infallible>(bytes), receiver))
    }))
}

struct Writer {
    clock: tidings_core::clock::Clock,
    kind: Kind,
    admitted: Admitted,
    reader: Reader,
    sender: mpsc::Sender<Bytes>,
}

/// The client has gone, or takes nothing.
struct Gone;

impl Writer {
    async fn run(mut self, opening: Bytes) {
        let _ = self.write(opening).await;
        let mut silence = Silence::new(self.kind.rules.clone(), self.clock.now());
        while self.step(&mut silence).await.is_ok() {}
    }

    async fn step(&mut self, silence: &mut Silence) -> Result<(), Gone> {
        self.admitted.connection.set_seq(self.reader.seq());
        let connection = self.admitted.connection.clone();
        tokio::select! {
            biased;
            () = self.sender.closed() => Err(Gone),
            () = connection.ordered() => self.obey().await,
            delivery = self.reader.next() => {
                silence.sent_event(self.clock.now());
                self.deliver(delivery).await
            }
            due = silence.due(&self.clock) => {
                silence.spoke(self.clock.now());
                match due {
                    Due::Idle => self.close(Reason::Idle).await,
                    Due::Heartbeat => match self.reader.checkpoint().filter(|_| self.kind.has_controls) {
                        Some(cursor) => self.control(&Control::Checkpoint { cursor: cursor.to_string() }).await,
                        None => self.write(Bytes::from_static(self.kind.heartbeat)).await,
                    },
                }
            }
        }
    }

    async fn deliver(&mut self, delivery: Delivery) -> Result<(), Gone> {
        match delivery {
            Delivery::Frames {
                bytes,
                count,
                committed,
            } => {
                self.write(bytes).await?;
                metrics::counter!("tidings_deliveries_total", "transport" => "sse")
                    .increment(count);
                if let Some(committed) = committed {
                    metrics::histogram!("tidings_delivery_seconds").record_many(
                        committed.elapsed(),
                        usize::try_from(count).unwrap_or(usize::MAX),
                    );
                }
                Ok(())
            }
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
        }
    }

    async fn obey(&mut self) -> Result<(), Gone> {
        for order in self.admitted.connection.take_orders() {
            match order {
                Order::Close(reason) => return self.close(reason).await,
                Order::Narrow { scope, lost } => {
                    self.narrow(scope, lost.iter().map(ToString::to_string).collect())
                        .await?;
                }
            }
        }
        Ok(())
    }

    async fn narrow(&mut self, scope: Scope, topics: Vec<String>) -> Result<(), Gone> {
        let key = same_but(&self.reader, scope);
        self.reader.change(key);
        if topics.is_empty() {
            return Ok(());
        }
        self.control(&Control::Unsubscribed {
            topics,
            reason: Reason::Forbidden,
        })
        .await
    }

    async fn close(&mut self, reason: Reason) -> Result<(), Gone> {
        let retry_ms = frame::millis(self.kind.rules.retry(reason));
        tracing::info!(connection_id = %self.admitted.connection.id, reason = reason.as_str(), "stream closed by the server");
        let _ = self.control(&Control::Closing { reason, retry_ms }).await;
        Err(Gone)
    }

    async fn control(&mut self, control: &Control) -> Result<(), Gone> {
        if self.kind.has_controls {
            self.write(control.to_sse(None)).await
        } else {
            Ok(())
        }
    }

    async fn write(&mut self, bytes: Bytes) -> Result<(), Gone> {
        let timeout = self.kind.rules.section.write_timeout;
        let sent = if timeout.is_zero() {
            Ok(self.sender.send(bytes).await)
        } else {
            tokio::time::timeout(timeout, self.sender.send(bytes)).await
        };
        match sent {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Gone),
            Err(_) => {
                tracing::info!(connection_id = %self.admitted.connection.id, reason = "slow", "stream closed by the server");
                Err(Gone)
            }
        }
    }
}
