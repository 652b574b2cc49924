//! Following topics: one type over three transports, which comes back by itself from where it stood.
//!
//! ```text
//! Waiting ──► Connecting ──► Open ──► lost, or `closing` ──► Waiting
//!                 └── refused for good ──► Ended ◄── closed for good
//! ```

mod control;
mod long_poll;
mod sse;
mod websocket;

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use tokio::time::Instant;

use crate::client::Client;
use crate::error::Error;
use crate::event::Event;
use crate::retry::Backoff;

/// How long a server may take to answer a stream's request.
const OPEN_TIMEOUT: Duration = Duration::from_secs(20);
/// Silence after which a stream counts as lost, until its `connected` names the server's heartbeat.
const DEFAULT_SILENCE: Duration = Duration::from_secs(45);

/// How events come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Transport {
    /// Server-Sent Events.
    #[default]
    Sse,
    /// WebSocket.
    WebSocket,
    /// Requests that wait, for where nothing else gets through.
    LongPoll,
}

/// What to follow.
#[derive(Debug, Clone)]
#[must_use]
pub struct Subscription {
    pub(crate) topics: Vec<String>,
    pub(crate) since: Option<String>,
    pub(crate) transport: Transport,
}

impl Subscription {
    /// Topics and patterns, 1 to 64 (`*` is one segment, a last `**` is the rest).
    pub fn new<T: Into<String>>(topics: impl IntoIterator<Item = T>) -> Self {
        Self {
            topics: topics.into_iter().map(Into::into).collect(),
            since: None,
            transport: Transport::default(),
        }
    }

    /// Begins after this cursor instead of now.
    pub fn since(mut self, cursor: impl Into<String>) -> Self {
        self.since = Some(cursor.into());
        self
    }

    /// How events come; SSE unless said otherwise.
    pub fn transport(mut self, transport: Transport) -> Self {
        self.transport = transport;
        self
    }
}

/// What a stream yields, in the server's order.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Delivery {
    /// A connection is open; again after every return.
    Connected {
        /// The connection's id; long-poll has none.
        connection_id: Option<String>,
        /// Where the connection stands.
        cursor: Option<String>,
        /// How often a silent connection shows that it is alive; long-poll says nothing.
        heartbeat: Option<Duration>,
    },
    /// An event.
    Event {
        /// Its place; ephemeral events have none.
        cursor: Option<String>,
        /// The event.
        event: Box<Event>,
    },
    /// Retention has passed the cursor: events are missing before the next one.
    Gap {
        /// The oldest place from which nothing is missing.
        oldest: String,
    },
    /// The cursor is not of this log: state must be read anew.
    Reset {
        /// Where the stream goes on.
        cursor: String,
    },
    /// Ephemeral events were dropped because this reader was slow.
    Dropped {
        /// How many.
        count: u64,
    },
    /// The log has moved on past what concerns this stream.
    Checkpoint {
        /// To here.
        cursor: String,
    },
    /// Part of the rights is gone.
    Unsubscribed {
        /// What the stream no longer carries.
        topics: Vec<String>,
        /// Why.
        reason: String,
    },
    /// The server ends the connection. The stream comes back by itself, or ends with [`Error::Closed`] at the next call
    /// where that is of no use.
    Closing {
        /// Why: `drain`, `limit`, `overload`, `idle`, `slow`, `token_expired`, `revoked`, `forbidden`, `closed`, ...
        reason: String,
        /// When to come back, in milliseconds.
        retry_ms: u64,
    },
    /// The connection was lost or could not be made; the stream tries again by itself.
    Lost {
        /// What happened.
        error: Error,
        /// The wait before the next attempt, in milliseconds.
        retry_ms: u64,
    },
}

/// What a transport saw.
enum Signal {
    Delivery(Delivery),
    /// The server has said how long to wait before coming back.
    Retry(Duration),
}

/// What a transport gathers until the stream hands it on.
type Signals = VecDeque<Signal>;

type Connecting = Pin<Box<dyn Future<Output = Result<Open, Error>> + Send>>;

enum Open {
    Sse(Box<sse::Connection>),
    WebSocket(Box<websocket::Connection>),
    LongPoll(Box<long_poll::Connection>),
}

enum State {
    /// Nothing is open before this moment.
    Waiting(Instant),
    Connecting(Connecting),
    Open(Open),
    Ended(Error),
}

/// Topics being followed.
pub struct Stream {
    client: Client,
    subscription: Subscription,
    cursor: Option<String>,
    backoff: Backoff,
    state: State,
    signals: Signals,
    /// What ended the connection, once its last deliveries have been handed on.
    end: Option<End>,
    /// A token from the provider was refused; a second one in a row ends the stream.
    was_token_refused: bool,
}

enum End {
    Lost(Error),
    Closing { reason: String, wait: Duration },
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream")
            .field("subscription", &self.subscription)
            .field("cursor", &self.cursor)
            .finish_non_exhaustive()
    }
}

impl Stream {
    pub(crate) fn new(client: Client, subscription: Subscription) -> Self {
        Self {
            backoff: client.backoff(),
            cursor: subscription.since.clone(),
            client,
            subscription,
            state: State::Waiting(Instant::now()),
            signals: Signals::new(),
            end: None,
            was_token_refused: false,
        }
    }

    /// Where the stream stands: everything up to here has been handed out by [`Stream::next`]. What a later
    /// [`Subscription::since`] takes.
    #[must_use]
    pub fn cursor(&self) -> Option<&str> {
        self.cursor.as_deref()
    }

    /// The next delivery. An error is the end: the same one comes at every later call. Dropping the future before it is
    /// ready loses nothing, so it may stand in a `select!`.
    pub async fn next(&mut self) -> Result<Delivery, Error> {
        loop {
            match self.signals.pop_front() {
                Some(Signal::Delivery(delivery)) => {
                    self.note(&delivery);
                    return Ok(delivery);
                }
                Some(Signal::Retry(retry)) => {
                    self.backoff.ask(retry);
                    continue;
                }
                None => {}
            }
            if let Some(end) = self.end.take()
                && let Some(delivery) = self.ended(end)
            {
                return Ok(delivery);
            }
            match &mut self.state {
                State::Waiting(until) => {
                    tokio::time::sleep_until(*until).await;
                    self.state = State::Connecting(self.connect());
                }
                State::Connecting(connecting) => match connecting.await {
                    Ok(open) => self.state = State::Open(open),
                    Err(error) => self.end = Some(End::Lost(error)),
                },
                State::Open(open) => {
                    let read = match open {
                        Open::Sse(connection) => connection.read(&mut self.signals).await,
                        Open::WebSocket(connection) => connection.read(&mut self.signals).await,
                        Open::LongPoll(connection) => connection.read(&mut self.signals).await,
                    };
                    if let Err(error) = read {
                        self.end = Some(End::Lost(error));
                    }
                }
                State::Ended(error) => return Err(error.clone()),
            }
        }
    }

    /// As a stream of the `futures` family; its last item is the error that ended it.
    pub fn into_stream(self) -> impl futures_util::Stream<Item = Result<Delivery, Error>> + Send {
        futures_util::stream::unfold(Some(self), |stream| async {
            let mut stream = stream?;
            let item = stream.next().await;
            let rest = item.is_ok().then_some(stream);
            Some((item, rest))
        })
    }

    /// What has been handed out moves the cursor; nothing else does.
    fn note(&mut self, delivery: &Delivery) {
        match delivery {
            Delivery::Connected { cursor, .. } => {
                self.was_token_refused = false;
                self.backoff.reset();
                // On resume it is the stream's own cursor; an unreadable one is replaced by the `reset` that follows.
                if self.cursor.is_none() {
                    self.cursor.clone_from(cursor);
                }
            }
            Delivery::Event {
                cursor: Some(cursor),
                ..
            }
            | Delivery::Reset { cursor }
            | Delivery::Checkpoint { cursor } => self.cursor = Some(cursor.clone()),
            Delivery::Closing { reason, retry_ms } => {
                self.end = Some(End::Closing {
                    reason: reason.clone(),
                    wait: Duration::from_millis(*retry_ms),
                });
                self.signals.clear();
            }
            _ => {}
        }
    }

    /// Waits and comes back, or ends for good.
    fn ended(&mut self, end: End) -> Option<Delivery> {
        match end {
            End::Closing { reason, wait } if self.may_return(&reason) => {
                // The server has spread these waits over its clients already: taken as it is.
                self.state = State::Waiting(Instant::now() + wait);
                None
            }
            End::Closing { reason, .. } => {
                self.state = State::Ended(Error::Closed { reason });
                None
            }
            End::Lost(error) if self.may_retry(&error) => {
                let wait = self.backoff.wait(error.retry_after(), fastrand::f64());
                self.state = State::Waiting(Instant::now() + wait);
                Some(Delivery::Lost {
                    error,
                    retry_ms: u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
                })
            }
            End::Lost(error) => {
                self.state = State::Ended(error);
                None
            }
        }
    }

    fn may_return(&self, reason: &str) -> bool {
        match reason {
            "revoked" | "forbidden" | "closed" | "superseded" => false,
            "token_expired" => self.client.has_provider(),
            _ => true,
        }
    }

    fn may_retry(&mut self, error: &Error) -> bool {
        if error.status() == Some(401) && self.client.has_provider() {
            return !std::mem::replace(&mut self.was_token_refused, true);
        }
        error.is_temporary()
    }

    fn connect(&self) -> Connecting {
        let client = self.client.clone();
        let subscription = self.subscription.clone();
        let cursor = self.cursor.clone();
        Box::pin(async move {
            let connect = async {
                Ok(match subscription.transport {
                    Transport::Sse => Open::Sse(Box::new(
                        sse::Connection::open(&client, &subscription.topics, cursor).await?,
                    )),
                    Transport::WebSocket => Open::WebSocket(Box::new(
                        websocket::Connection::open(&client, &subscription.topics, cursor).await?,
                    )),
                    Transport::LongPoll => Open::LongPoll(Box::new(long_poll::Connection::new(
                        client,
                        subscription.topics,
                        cursor,
                    ))),
                })
            };
            match tokio::time::timeout(OPEN_TIMEOUT, connect).await {
                Ok(opened) => opened,
                Err(_) => Err(Error::Unreachable(format!(
                    "no answer within {} s",
                    OPEN_TIMEOUT.as_secs()
                ))),
            }
        })
    }
}

/// The moment at which a silent connection counts as lost.
struct Silence {
    allowed: Option<Duration>,
    heard: Instant,
}

impl Silence {
    fn new() -> Self {
        Self {
            allowed: Some(DEFAULT_SILENCE),
            heard: Instant::now(),
        }
    }

    /// Something came.
    fn hear(&mut self) {
        self.heard = Instant::now();
    }

    /// The server beats this often; 0 is never.
    fn set_heartbeat(&mut self, heartbeat: Duration) {
        self.allowed = (!heartbeat.is_zero())
            .then(|| (heartbeat.mul_f64(1.5)).max(heartbeat + Duration::from_secs(5)));
    }

    /// Waits for `coming`, but not past the moment.
    async fn guard<T>(&self, coming: impl Future<Output = T>) -> Result<T, Error> {
        let Some(allowed) = self.allowed else {
            return Ok(coming.await);
        };
        tokio::time::timeout_at(self.heard + allowed, coming)
            .await
            .map_err(|_| Error::Lost(format!("nothing was heard for {} s", allowed.as_secs())))
    }
}

/// What stands for "lost" where a connection simply ended.
fn ended() -> Error {
    Error::Lost("the server ended the connection".into())
}
