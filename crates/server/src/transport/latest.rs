//! Streams that show a state, not events: a client is sent the newest, whole, and never what lay between. However fast the
//! state changes, a slow client costs one frame.

use axum::response::Response;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, HeaderValue};
use tidings_core::clock::Clock;
use tidings_core::cursor::Seq;
use tidings_core::topic::Patterns;
use tokio::sync::{mpsc, watch};

use super::admission::{Ask, admit};
use super::connections::{Admitted, Order};
use super::frame::{self, Reason};
use super::sse::{channel_body, head, refused};
use super::{Due, Kind, Silence, Transports, in_time};
use crate::http::problem::Problem;
use crate::telemetry::metrics::delivered;

/// What such a stream shows.
#[derive(Debug, Clone)]
pub(crate) struct State {
    /// The place in the tenant's log that it takes in.
    pub(crate) seq: Seq,
    /// One line of JSON.
    pub(crate) data: Bytes,
}

/// Opens a stream of a kind: whoever may subscribe to all of the topics sees the state. `state` is asked for only once
/// there is a place for the connection; the stream ends when nobody publishes it any more.
pub(crate) async fn open(
    transports: &Transports,
    kind: &Kind,
    ask: Ask,
    topics: Patterns,
    is_http1: bool,
    state: impl Future<Output = Result<watch::Receiver<State>, Problem>>,
) -> Result<Response, Problem> {
    let admitted = match admit(transports, kind, &ask, topics).await {
        Ok((admitted, _)) => admitted,
        Err(denied) => return refused(kind, denied, ask.cursor.is_some(), is_http1),
    };
    let state = state.await?;
    tracing::info!(
        connection_id = %admitted.connection.id,
        transport = "sse",
        kind = kind.name,
        is_resumed = ask.cursor.is_some(),
        "stream opened"
    );
    let (sender, receiver) = mpsc::channel::<Bytes>(1);
    let writer = Writer {
        clock: transports.clock.clone(),
        kind: kind.clone(),
        admitted,
        state,
        sender,
    };
    transports.tasks.spawn(writer.run());
    let mut response = Response::new(channel_body(receiver));
    head(response.headers_mut());
    response
        .headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    Ok(response)
}

struct Writer {
    clock: Clock,
    kind: Kind,
    admitted: Admitted,
    state: watch::Receiver<State>,
    sender: mpsc::Sender<Bytes>,
}

/// The client has gone, or takes nothing, or has been told to go.
struct Gone;

impl Writer {
    async fn run(mut self) {
        let retry = frame::jittered(self.kind.rules.section.retry);
        let retry = format!("retry: {}\n", frame::millis(retry));
        let mut silence = Silence::new(self.kind.rules.clone(), self.clock.now());
        if self.show(&retry).await.is_ok() {
            while self.step(&mut silence).await.is_ok() {}
        }
    }

    async fn step(&mut self, silence: &mut Silence) -> Result<(), Gone> {
        let connection = self.admitted.connection.clone();
        tokio::select! {
            biased;
            () = self.sender.closed() => Err(Gone),
            () = connection.ordered() => self.obey(),
            changed = self.state.changed() => {
                changed.map_err(|_| Gone)?;
                silence.sent_event(self.clock.now());
                self.show("").await
            }
            due = silence.due(&self.clock) => {
                silence.spoke(self.clock.now());
                match due {
                    Due::Heartbeat => self.write(Bytes::from_static(self.kind.heartbeat)).await,
                    Due::Idle => {
                        let _ = self.write(Bytes::from_static(self.kind.idle)).await;
                        self.end(Reason::Idle)
                    }
                }
            }
        }
    }

    /// Sends the newest state. What stands in `first` is of the same frame.
    async fn show(&mut self, first: &str) -> Result<(), Gone> {
        let State { seq, data } = self.state.borrow_and_update().clone();
        let connection = &self.admitted.connection;
        connection.set_seq(seq);
        let id = connection.log.at(seq);
        let mut frame = format!("{first}id: {id}\ndata: ").into_bytes();
        frame.extend_from_slice(&data);
        frame.extend_from_slice(b"\n\n");
        self.write(frame.into()).await?;
        delivered("sse", 1, None);
        Ok(())
    }

    /// These streams stand on exact topics: less of the rights is nothing.
    fn obey(&self) -> Result<(), Gone> {
        let orders = self.admitted.connection.take_orders();
        let lost = orders.iter().find_map(|order| match order {
            Order::Close(reason) => Some(*reason),
            Order::Narrow { lost, .. } => (!lost.is_empty()).then_some(Reason::Forbidden),
        });
        lost.map_or(Ok(()), |reason| self.end(reason))
    }

    fn end(&self, reason: Reason) -> Result<(), Gone> {
        self.admitted.connection.log_end(reason);
        Err(Gone)
    }

    async fn write(&mut self, bytes: Bytes) -> Result<(), Gone> {
        let limit = self.kind.rules.section.write_timeout;
        match in_time(limit, self.sender.send(bytes)).await {
            Some(Ok(())) => Ok(()),
            Some(Err(_)) => Err(Gone),
            None => self.end(Reason::Slow),
        }
    }
}
