//! Long-poll: history that waits for the next event.

use std::time::Duration;

use serde::Serialize;
use serde_json::value::RawValue;
use tidings_core::hub::{Delivery, Reader, Start};
use tidings_core::log::{Logged, TenantLog};

use super::admission::{Ask, Beginning, Denied, entitle};
use super::connections::{Admitted, Order};
use super::frame::{self, Reason};
use super::{Transports, feed_key, same_but, sleep_until};
use crate::http::problem::Problem;
use crate::telemetry::metrics::dropped;

/// How long a poll waits where it does not say.
const DEFAULT_WAIT: u64 = 25;
/// How long a poll may wait, in seconds.
const MAX_WAIT: u64 = 60;
/// How many events a page holds where the request does not say.
pub(crate) const DEFAULT_LIMIT: u64 = 100;
/// How many events a page may hold.
pub(crate) const MAX_LIMIT: u64 = 1_000;

/// A page of history or of a poll.
#[derive(Debug, Serialize)]
pub(crate) struct Answer {
    /// Oldest first, each with its `cursor`.
    pub(crate) events: Vec<Box<RawValue>>,
    /// Where to go on from.
    pub(crate) cursor: String,
    /// The cursor was of no place of this log.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) reset: bool,
    /// Retention has passed the cursor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) gap: Option<Gap>,
    /// Ephemeral events that were dropped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) dropped: Option<u64>,
    /// Why the wait was cut short.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) closing: Option<Closing>,
}

/// What retention has left.
#[derive(Debug, Serialize)]
pub(crate) struct Gap {
    /// The oldest place from which nothing is missing.
    pub(crate) oldest: String,
}

/// Why a wait was cut short.
#[derive(Debug, Serialize)]
pub(crate) struct Closing {
    /// The reason.
    pub(crate) reason: Reason,
}

impl Answer {
    fn at(cursor: String) -> Self {
        Self {
            events: Vec::new(),
            cursor,
            reset: false,
            gap: None,
            dropped: None,
            closing: None,
        }
    }
}

/// Answers with what comes after the cursor, at once or when it comes.
pub(crate) async fn poll(transports: &Transports, ask: Ask) -> Result<Answer, Problem> {
    let asked = ask.query.topics(true)?;
    let wait = Duration::from_secs(ask.query.number("wait", DEFAULT_WAIT, 0, MAX_WAIT)?);
    let limit = usize::try_from(ask.query.number("limit", DEFAULT_LIMIT, 1, MAX_LIMIT)?)
        .unwrap_or(usize::MAX);
    let kind = &transports.native;
    let section = &kind.rules.section;
    let application = entitle(transports, kind, &ask, asked)
        .await
        .map_err(|denied| denied.into_problem(section))?;
    let (log, scope) = (application.log.clone(), application.scope.clone());
    let beginning = Beginning::of(&transports.hub, &log, ask.cursor.as_deref());
    let key = feed_key(scope.clone(), &frame::LINES, section);
    let mut reader = transports.hub.reader(&log, key, beginning.start, None);
    let mut answer = Answer::at(reader.cursor().to_string());
    if beginning.is_reset {
        answer.reset = true;
        return Ok(answer);
    }
    if let Start::After(seq) = beginning.start {
        let page = transports
            .log
            .read(&log, seq, &scope.patterns, &scope.rights, limit)
            .await?;
        answer.gap = page.end.gap.map(|oldest| Gap {
            oldest: log.at(oldest).to_string(),
        });
        answer.cursor = log.at(page.end.next).to_string();
        answer.events = with_cursors(&log, &page.events)?;
        if !answer.events.is_empty() || answer.gap.is_some() || wait.is_zero() || !page.end.is_end {
            return Ok(answer);
        }
    } else if wait.is_zero() {
        return Ok(answer);
    }
    let admitted = transports
        .connections
        .admit(section, application)
        .map_err(|refused| Denied::Full(refused).into_problem(section))?;
    wait_for_events(transports, &admitted, &mut reader, &mut answer, wait, limit).await?;
    Ok(answer)
}

/// Events of the log as history shows them.
pub(crate) fn with_cursors(
    log: &TenantLog,
    events: &[Logged],
) -> Result<Vec<Box<RawValue>>, Problem> {
    let with_cursor = |event: &Logged| {
        let members = event.json.get(1..).unwrap_or("}");
        let json = format!("{{\"cursor\":\"{}\",{members}", log.at(event.seq));
        RawValue::from_string(json).map_err(|e| Problem::internal(&e.to_string()))
    };
    events.iter().map(with_cursor).collect()
}

async fn wait_for_events(
    transports: &Transports,
    admitted: &Admitted,
    reader: &mut Reader,
    answer: &mut Answer,
    wait: Duration,
    limit: usize,
) -> Result<(), Problem> {
    let until = transports.clock.now().plus(wait);
    let connection = &admitted.connection;
    loop {
        tokio::select! {
            biased;
            () = connection.ordered() => {
                for order in connection.take_orders() {
                    match order {
                        Order::Close(reason) => {
                            answer.closing = Some(Closing { reason });
                            return Ok(());
                        }
                        Order::Narrow { scope, .. } => {
                            let key = same_but(reader, scope);
                            reader.change(key);
                        }
                    }
                }
            }
            delivery = reader.next() => match delivery {
                Delivery::Gap { oldest } => {
                    answer.gap = Some(Gap { oldest: oldest.to_string() });
                    answer.cursor = oldest.to_string();
                    return Ok(());
                }
                Delivery::Dropped { count } => {
                    dropped(count);
                    answer.dropped = Some(answer.dropped.unwrap_or(0) + count);
                }
                Delivery::Frames { bytes, .. } => {
                    let lines: Vec<_> = bytes.split(|b| *b == b'\n').filter(|l| !l.is_empty()).collect();
                    for line in lines.iter().take(limit) {
                        let text = String::from_utf8_lossy(line).into_owned();
                        answer.events.push(RawValue::from_string(text).map_err(|e| Problem::internal(&e.to_string()))?);
                    }
                    // Cut short, the next poll goes on after the last event that has a place.
                    answer.cursor = if lines.len() <= limit {
                        reader.cursor().to_string()
                    } else {
                        last_cursor(&answer.events).unwrap_or_else(|| answer.cursor.clone())
                    };
                    metrics::counter!("tidings_deliveries_total", "transport" => "long_poll").increment(answer.events.len() as u64);
                    return Ok(());
                }
            },
            () = sleep_until(&transports.clock, until) => {
                if let Some(cursor) = reader.checkpoint() {
                    answer.cursor = cursor.to_string();
                }
                return Ok(());
            }
        }
    }
}

fn last_cursor(events: &[Box<RawValue>]) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Placed {
        cursor: Option<String>,
    }
    events
        .iter()
        .rev()
        .find_map(|e| serde_json::from_str::<Placed>(e.get()).ok()?.cursor)
}
