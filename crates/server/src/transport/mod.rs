//! What writes to open connections: SSE, WebSocket, long-poll. All three read the same feeds, through one policy check.
//!
//! - `frame`: bytes on the wire
//! - `connections`: who is connected, admitted, listed, closed
//! - `request`: what a stream's request asks for
//! - `admission`: from a request to a stream, or to the reason why not
//! - `sse`, `websocket`, `long_poll`: the three transports
//! - `board`: the newest alarms of each tenant that is watched
//! - `latest`: streams of a state, of which a client gets the newest
//! - `lane`: the threads that write SSE over plain HTTP/1.1

pub(crate) mod admission;
pub(crate) mod board;
pub(crate) mod connections;
pub(crate) mod frame;
pub(crate) mod lane;
pub(crate) mod latest;
pub(crate) mod long_poll;
pub(crate) mod request;
pub(crate) mod sse;
pub(crate) mod websocket;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tidings_core::clock::{Clock, Timestamp};
use tidings_core::hub::{FeedKey, Hub, Reader, RingSize, Style};
use tidings_core::log::Log;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use crate::config::{Kinds, StreamSection};
use connections::{Connections, Scope};
use frame::Reason;
use lane::{Lane, LaneHandle};

/// The rules of a kind of stream.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    /// Its settings.
    pub(crate) section: StreamSection,
    /// Over how long those who are sent away by a drain are spread.
    pub(crate) drain_spread: Duration,
}

impl Rules {
    /// When a client that is sent away may come back: never at once, and not all at the same time.
    #[must_use]
    pub(crate) fn retry(&self, reason: Reason) -> Duration {
        if reason == Reason::Drain {
            return frame::MIN_RETRY + self.drain_spread.mul_f64(fastrand::f64());
        }
        frame::jittered(self.section.retry)
    }
}

/// A kind of stream: what its paths have in common.
#[derive(Debug, Clone)]
pub(crate) struct Kind {
    /// Its name in settings and metrics.
    pub(crate) name: &'static str,
    /// Its rules.
    pub(crate) rules: Arc<Rules>,
    /// What breaks its silence.
    pub(crate) heartbeat: &'static [u8],
    /// What is said before an idle stream ends, where native control frames are not.
    pub(crate) idle: &'static [u8],
    /// Whether native control frames are sent.
    pub(crate) has_controls: bool,
}

/// All that the transports share. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Transports {
    /// The log.
    pub(crate) log: Log,
    /// The hub.
    pub(crate) hub: Hub,
    /// The clock.
    pub(crate) clock: Clock,
    /// Open connections.
    pub(crate) connections: Connections,
    /// The kind of the native streams.
    pub(crate) native: Kind,
    /// The kind of `/api/v1/stream/alarms`.
    pub(crate) alarms: Kind,
    /// Set once the server is going down.
    pub(crate) draining: watch::Receiver<bool>,
    /// Tasks that must end before the process does.
    pub(crate) tasks: TaskTracker,
    lanes: Arc<[LaneHandle]>,
    next_lane: Arc<AtomicUsize>,
}

impl Transports {
    /// Starts the lanes of the hub.
    pub(crate) fn start(
        log: Log,
        hub: Hub,
        clock: Clock,
        connections: Connections,
        sections: (StreamSection, &Kinds, Duration),
        draining: watch::Receiver<bool>,
        tasks: TaskTracker,
    ) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Handle::current();
        let lanes = (0..hub.lanes().len())
            .map(|number| Lane::start(number, hub.clone(), clock.clone(), runtime.clone()))
            .collect::<Result<Vec<_>, _>>()?;
        let (native, kinds, drain_spread) = sections;
        let rules = |section| {
            Arc::new(Rules {
                section,
                drain_spread,
            })
        };
        let native = Kind {
            name: "native",
            rules: rules(native),
            heartbeat: frame::HEARTBEAT,
            idle: b"",
            has_controls: true,
        };
        let alarms = Kind {
            name: "alarms",
            rules: rules(kinds.alarms),
            heartbeat: frame::HEARTBEAT,
            idle: frame::IDLE_TIMEOUT,
            has_controls: false,
        };
        Ok(Self {
            log,
            hub,
            clock,
            connections,
            native,
            alarms,
            draining,
            tasks,
            lanes: lanes.into(),
            next_lane: Arc::default(),
        })
    }

    /// The lane that the next stream goes to, and its number.
    fn lane(&self) -> Option<(usize, &LaneHandle)> {
        let at = self.next_lane.fetch_add(1, Ordering::Relaxed) % self.lanes.len().max(1);
        self.lanes.get(at).map(|lane| (at, lane))
    }

    /// Whether the server is going down.
    #[must_use]
    pub(crate) fn is_draining(&self) -> bool {
        *self.draining.borrow()
    }
}

/// The feed of a scope in a style.
fn feed_key(scope: Scope, style: &'static Style, section: &StreamSection) -> FeedKey {
    let size = RingSize {
        events: section.queue_size,
        bytes: usize::try_from(section.queue_bytes).unwrap_or(usize::MAX),
        ephemeral_age: if section.write_timeout.is_zero() {
            Duration::from_secs(30)
        } else {
            section.write_timeout
        },
    };
    FeedKey {
        patterns: scope.patterns,
        rights: scope.rights,
        style,
        size,
    }
}

/// The feed that a reader goes on with when its scope has changed: all else stays.
fn same_but(reader: &Reader, scope: Scope) -> FeedKey {
    let now = &reader.feed().key;
    FeedKey {
        patterns: scope.patterns,
        rights: scope.rights,
        style: now.style,
        size: now.size,
    }
}

/// Waits for a write, but no longer than a client may take; zero is for ever. None where it took longer.
async fn in_time<T>(limit: Duration, write: impl Future<Output = T>) -> Option<T> {
    if limit.is_zero() {
        Some(write.await)
    } else {
        tokio::time::timeout(limit, write).await.ok()
    }
}

/// How often a manual clock is looked at.
const MANUAL_CLOCK: Duration = Duration::from_millis(20);

/// Sleeps until a moment of the server's clock, which a test may move by hand.
async fn sleep_until(clock: &Clock, at: Timestamp) {
    loop {
        let left = at.since(clock.now());
        if left.is_zero() {
            return;
        }
        match clock {
            Clock::System => tokio::time::sleep(left).await,
            Clock::Manual(_) => tokio::time::sleep(MANUAL_CLOCK).await,
        }
    }
}

/// When a stream is next due to say something, and what.
#[derive(Debug)]
struct Silence {
    rules: Arc<Rules>,
    spoken: Timestamp,
    event: Timestamp,
}

/// What a silent stream is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Due {
    Heartbeat,
    Idle,
}

impl Silence {
    fn new(rules: Arc<Rules>, now: Timestamp) -> Self {
        Self {
            rules,
            spoken: now,
            event: now,
        }
    }

    fn spoke(&mut self, now: Timestamp) {
        self.spoken = now;
    }

    fn sent_event(&mut self, now: Timestamp) {
        (self.spoken, self.event) = (now, now);
    }

    /// Waits for the next thing that is due; for ever where nothing is.
    async fn due(&self, clock: &Clock) -> Due {
        let at = |every: Duration, since: Timestamp| (!every.is_zero()).then(|| since.plus(every));
        let heartbeat = at(self.rules.section.heartbeat, self.spoken);
        let idle = at(self.rules.section.idle, self.event);
        match (heartbeat, idle) {
            (Some(heartbeat), idle) if idle.is_none_or(|idle| heartbeat < idle) => {
                sleep_until(clock, heartbeat).await;
                Due::Heartbeat
            }
            (_, Some(idle)) => {
                sleep_until(clock, idle).await;
                Due::Idle
            }
            _ => std::future::pending().await,
        }
    }
}
