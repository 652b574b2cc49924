//! Server-Sent Events, per the WHATWG HTML standard, section 9.2.
//!
//! Over plain HTTP/1.1 the socket goes to a [`super::lane`] once the head is known; over TLS and HTTP/2 a task feeds the
//! response's body. Both read the same feeds and follow the same rules.

use std::convert::Infallible;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use http::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue};
use http::{HeaderMap, StatusCode};
use tidings_core::hub::{Delivery, Reader, Style};
use tidings_core::topic::Patterns;
use tokio::sync::mpsc;

use super::admission::{Ask, Beginning, Denied, admit};
use super::connections::{Admitted, Order};
use super::frame::{self, Control, Reason};
use super::lane::{LaneHandle, NewStream};
use super::request::Query;
use super::{Due, Kind, Silence, Transports, feed_key, in_time, same_but};
use crate::http::accept::{Detached, DetachedSocket};
use crate::http::problem::Problem;
use crate::telemetry::metrics::{delivered, dropped};

/// Tells nginx not to gather what we write.
const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

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

/// Opens a native stream. `is_detachable` says whether the socket can leave hyper: plain HTTP/1.1.
pub(crate) async fn open(
    transports: &Transports,
    ask: Ask,
    is_detachable: bool,
) -> Result<Response, Problem> {
    let (asked, style) = wanted(&ask.query)?;
    let kind = &transports.native;
    let (admitted, scope) = match admit(transports, kind, &ask, asked).await {
        Ok(admitted) => admitted,
        Err(denied) => return refused(kind, denied, ask.cursor.is_some(), is_detachable),
    };
    let (hub, log) = (&transports.hub, &admitted.connection.log);
    let beginning = Beginning::of(hub, log, ask.cursor.as_deref());
    let lane = if is_detachable {
        transports.lane()
    } else {
        None
    };
    let key = feed_key(scope, style, &kind.rules.section);
    let reader = beginning.reader(hub, log, key, lane.map(|(number, _)| number));
    let opening = opening(kind, &admitted, &reader, beginning.is_reset);
    tracing::info!(
        connection_id = %admitted.connection.id,
        transport = "sse",
        is_resumed = ask.cursor.is_some(),
        "stream opened"
    );
    let mut response = match lane {
        Some((_, lane)) => leave_hyper(lane, kind, admitted, reader, opening),
        None => Response::new(body(transports, kind.clone(), admitted, reader, opening)),
    };
    head(response.headers_mut());
    Ok(response)
}

/// What a stream that is not opened answers. A browser's EventSource is dead for good after any other status than 200.
pub(super) fn refused(
    kind: &Kind,
    denied: Denied,
    is_resumed: bool,
    is_http1: bool,
) -> Result<Response, Problem> {
    match denied {
        Denied::Draining => Ok(come_back(kind, Reason::Drain, is_http1)),
        Denied::Full(_) if is_resumed => Ok(come_back(kind, Reason::Limit, is_http1)),
        denied => Err(denied.into_problem(&kind.rules.section)),
    }
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
                kind,
            });
        }));
    response
}

/// The head alone, as HEAD asks for.
#[must_use]
pub(crate) fn head_only() -> Response {
    let mut response = Response::new(Body::empty());
    head(response.headers_mut());
    response
}

pub(super) fn head(headers: &mut HeaderMap) {
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
    metrics::counter!("tidings_refused_connections_total", "reason" => reason.as_str())
        .increment(1);
    let last = if kind.has_controls {
        Control::closing(reason, retry).to_sse(None)
    } else {
        // No frame: some parsers would make an empty event of it.
        format!("retry: {}\n", frame::millis(retry)).into()
    };
    let mut response = Response::new(Body::from(last));
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
    let (cursor, section) = (reader.cursor(), &kind.rules.section);
    let connected = Control::connected(admitted.connection.id, &cursor, section.heartbeat);
    let mut frames = connected
        .to_sse(Some(frame::jittered(section.retry)))
        .to_vec();
    if is_reset {
        frames.extend_from_slice(&Control::reset(&cursor).to_sse(None));
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
    channel_body(receiver)
}

/// A body that a task feeds.
pub(super) fn channel_body(receiver: mpsc::Receiver<Bytes>) -> Body {
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
                        Some(cursor) => self.control(&Control::checkpoint(&cursor)).await,
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
                delivered("sse", count, committed);
                Ok(())
            }
            Delivery::Gap { oldest } => self.control(&Control::gap(&oldest)).await,
            Delivery::Dropped { count } => {
                dropped(count);
                self.control(&Control::Dropped { count }).await
            }
        }
    }

    async fn obey(&mut self) -> Result<(), Gone> {
        for order in self.admitted.connection.take_orders() {
            match order {
                Order::Close(reason) => return self.close(reason).await,
                Order::Narrow { scope, lost } => {
                    let key = same_but(&self.reader, scope);
                    self.reader.change(key);
                    if let Some(unsubscribed) = Control::unsubscribed(&lost) {
                        self.control(&unsubscribed).await?;
                    }
                }
            }
        }
        Ok(())
    }

    async fn close(&mut self, reason: Reason) -> Result<(), Gone> {
        self.admitted.connection.log_end(reason);
        let closing = Control::closing(reason, self.kind.rules.retry(reason));
        let _ = self.control(&closing).await;
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
        let limit = self.kind.rules.section.write_timeout;
        let sent = in_time(limit, self.sender.send(bytes)).await;
        if sent.is_none() {
            self.admitted.connection.log_end(Reason::Slow);
        }
        sent.and_then(Result::ok).ok_or(Gone)
    }
}
