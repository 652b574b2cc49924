//! The newest alarms of each tenant that somebody watches: worked out once a change, for all who watch.
//!
//! A tenant's board lives as long as a stream of it is open. It is woken by the log, like every reader, and waits a moment
//! so that a burst becomes one picture; while nothing changes, it does nothing, and asks the database for nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use serde::Serialize;
use tidings_alarms::Alarms;
use tidings_alarms::alarm::Alarm;
use tidings_alarms::alarm::event::TOPIC;
use tidings_alarms::alarm::list::{self, Filter, Start};
use tidings_alarms::ingest::tmf642;
use tidings_core::clock::Timestamp;
use tidings_core::db::{Conn, DbError};
use tidings_core::hub::{self, Encoding, FeedKey, Hub, Reader, Rights, RingSize, Style};
use tidings_core::log::TenantLog;
use tidings_core::tenant::Tenant;
use tidings_core::topic::{Pattern, Patterns};
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use super::latest::State;
use crate::http::problem::Problem;

/// The newest so many are shown.
const SHOWN: usize = 20;
/// How long changes are gathered before they are shown.
const GATHER: Duration = Duration::from_millis(200);
/// How long after a failure the picture is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Room for the signals of a large batch: one byte each.
const RING: RingSize = RingSize {
    events: 20_000,
    bytes: 1 << 20,
    ephemeral_age: Duration::from_secs(30),
};

/// What wakes a board is that there is something new, not what.
static SIGNAL: Style = Style {
    name: "signal",
    encode: |_: &Encoding<'_>, out: &mut Vec<u8>| out.push(b'\n'),
};

/// The boards of the tenants that are watched. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Boards {
    alarms: Alarms,
    hub: Hub,
    tasks: TaskTracker,
    open: Arc<Mutex<HashMap<Tenant, Arc<Board>>>>,
}

/// What the streams of one tenant show.
#[derive(Debug)]
struct Board {
    sender: watch::Sender<State>,
    /// The picture without its time: what a change is told by.
    content: tokio::sync::Mutex<String>,
}

#[derive(Serialize)]
struct Picture<'a> {
    event: &'static str,
    tenant_id: &'a str,
    count: usize,
    total: u64,
    alarms: Vec<Card<'a>>,
}

/// An alarm, as existing clients read it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Card<'a> {
    id: &'a str,
    specific_problem: &'a str,
    perceived_severity: &'a str,
    alarmed_object: Object<'a>,
    event_time: Offset,
    #[serde(rename = "tenant_id")]
    tenant: &'a str,
    ack_state: &'static str,
}

#[derive(Serialize)]
struct Object<'a> {
    id: &'a str,
}

/// A time with `+00:00`, as the system wrote it that tidings takes over from.
struct Offset(Timestamp);

impl Serialize for Offset {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let text = self.0.to_string();
        to.collect_str(&format_args!("{}+00:00", text.trim_end_matches('Z')))
    }
}

impl<'a> Card<'a> {
    fn of(alarm: &'a Alarm, tenant: &'a Tenant) -> Self {
        let identity = &alarm.identity;
        let problem = identity.specific_problem.as_ref();
        Card {
            id: &alarm.id,
            specific_problem: problem.unwrap_or(&identity.alarm_type),
            perceived_severity: alarm.severity.as_str(),
            alarmed_object: Object {
                id: &identity.entity_id,
            },
            event_time: Offset(alarm.event_at()),
            tenant: tenant.as_str(),
            ack_state: tmf642::ack_state(alarm),
        }
    }
}

impl Boards {
    /// None are watched yet.
    pub(crate) fn new(alarms: Alarms, hub: Hub, tasks: TaskTracker) -> Self {
        Self {
            alarms,
            hub,
            tasks,
            open: Arc::default(),
        }
    }

    /// What a tenant's streams show, now and from now on.
    pub(crate) async fn state(&self, tenant: &Tenant) -> Result<watch::Receiver<State>, Problem> {
        let log = self.alarms.log().tenant(tenant).await?;
        let (board, receiver) = {
            let mut open = self.open.lock();
            let board = open.entry(tenant.clone()).or_insert_with(|| {
                let board = Arc::new(Board {
                    sender: watch::Sender::new(State {
                        seq: 0,
                        data: Bytes::new(),
                    }),
                    content: tokio::sync::Mutex::default(),
                });
                let reader = self.reader(&log);
                let run = self.clone().run(log.clone(), board.clone(), reader);
                self.tasks.spawn(run);
                board
            });
            // Counted before the lock is given back: a board that has a reader is not taken away.
            (board.clone(), board.sender.subscribe())
        };
        self.draw(&log, &board, false).await?;
        Ok(receiver)
    }

    fn reader(&self, log: &Arc<TenantLog>) -> Reader {
        let key = FeedKey {
            patterns: Patterns::new(Pattern::new(TOPIC).into_iter().collect()),
            rights: Rights::All,
            style: &SIGNAL,
            size: RING,
        };
        self.hub.reader(log, key, hub::Start::Live, None)
    }

    /// Draws the picture anew whenever something is new, until nobody looks any more.
    async fn run(self, log: Arc<TenantLog>, board: Arc<Board>, mut reader: Reader) {
        loop {
            tokio::select! {
                () = board.sender.closed() => {
                    let mut open = self.open.lock();
                    if board.sender.receiver_count() == 0 {
                        open.remove(&log.tenant);
                        return;
                    }
                }
                _ = reader.next() => {
                    // Anew from here: what lies between is in the picture, and need not be read one by one.
                    reader = self.reader(&log);
                    while let Err(error) = self.draw(&log, &board, true).await {
                        tracing::warn!(%error, "the newest alarms could not be read; trying again");
                        tokio::time::sleep(RETRY).await;
                    }
                    tokio::time::sleep(GATHER).await;
                }
            }
        }
    }

    /// Draws the picture, unless it has everything that is durable; shows it where it is another one.
    async fn draw(
        &self,
        log: &Arc<TenantLog>,
        board: &Board,
        is_changed: bool,
    ) -> Result<(), DbError> {
        let mut content = board.content.lock().await;
        // First: what comes while it is drawn is drawn again.
        let seq = log.head();
        if !is_changed && !content.is_empty() && board.sender.borrow().seq >= seq {
            return Ok(());
        }
        let number = log.number;
        let read = move |conn: &mut Conn| {
            list::page(conn, number, &Filter::live(), &Start::After(None), SHOWN)
        };
        let page = self.alarms.log().db().read(read).await?;
        let cards = page.alarms.iter().map(|a| Card::of(a, &log.tenant));
        let picture = Picture {
            event: "alarms_updated",
            tenant_id: log.tenant.as_str(),
            count: page.alarms.len(),
            total: page.total,
            alarms: cards.collect(),
        };
        let drawn = serde_json::to_string(&picture).map_err(|e| DbError::Fault(e.to_string()))?;
        if *content == drawn {
            board.sender.send_if_modified(|state| {
                state.seq = seq;
                false
            });
            return Ok(());
        }
        let now = Offset(self.alarms.clock().now());
        let now = serde_json::to_string(&now).map_err(|e| DbError::Fault(e.to_string()))?;
        let members = drawn.strip_suffix('}').unwrap_or(&drawn);
        let data = format!("{members},\"timestamp\":{now}}}").into();
        board.sender.send_replace(State { seq, data });
        *content = drawn;
        Ok(())
    }
}
