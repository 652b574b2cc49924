//! The publishing end: keep-alive connections, each one request after the other.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Deserialize;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::mark::Run;
use super::readers::histogram;
use super::target::Address;
use super::wire::Connection;

/// What publishers did.
#[derive(Debug)]
pub(super) struct Sent {
    /// Events that each publisher had acknowledged.
    pub(super) by_publisher: Vec<u64>,
    /// From writing a request to its answer, in microseconds.
    pub(super) answers: Histogram<u64>,
    /// How late requests were sent, in microseconds: the bench itself or a server that answers slowly.
    pub(super) lags: Histogram<u64>,
    /// From the first request to the last answer.
    pub(super) elapsed: Duration,
}

impl Sent {
    /// Events that were acknowledged.
    pub(super) fn total(&self) -> u64 {
        self.by_publisher.iter().sum()
    }
}

/// An event's place in the measurement.
#[derive(Debug, Clone)]
pub(super) struct Slot {
    pub(super) topic: String,
    /// Whose numbering `seq` belongs to.
    pub(super) track: u16,
    pub(super) seq: u64,
}

/// How publishers are driven.
#[derive(Debug, Clone, Copy)]
pub(super) enum Pace {
    /// This many events by all of them, on a schedule that does not wait for answers of the past.
    Rate { per_second: u32, seconds: u64 },
    /// As fast as answers come, this many events a request, until the time is over.
    Closed { batch: u32, time: Duration },
}

/// Publishes with `publishers` connections. `slot` says where the n-th event of a publisher goes; `progress` is kept at
/// the number of acknowledged events.
pub(super) async fn publish(
    address: &Address,
    run: Run,
    publishers: u16,
    pace: Pace,
    slot: impl Fn(u16, u64) -> Slot + Send + Sync + 'static,
    progress: &Arc<AtomicU64>,
) -> io::Result<Sent> {
    let slot = Arc::new(slot);
    let mut tasks = JoinSet::new();
    let begun = Instant::now();
    for number in 0..publishers {
        let worker = Worker {
            connection: Connection::open(address).await?,
            run,
            number,
            publishers,
            begun,
            progress: progress.clone(),
            sent: 0,
            answers: histogram()?,
            lags: histogram()?,
        };
        tasks.spawn(worker.run(pace, slot.clone()));
    }
    let mut sent = Sent {
        by_publisher: vec![0; usize::from(publishers)],
        answers: histogram()?,
        lags: histogram()?,
        elapsed: Duration::ZERO,
    };
    while let Some(joined) = tasks.join_next().await {
        let worker = joined.map_err(io::Error::other)??;
        sent.answers
            .add(&worker.answers)
            .map_err(io::Error::other)?;
        sent.lags.add(&worker.lags).map_err(io::Error::other)?;
        if let Some(count) = sent.by_publisher.get_mut(usize::from(worker.number)) {
            *count = worker.sent;
        }
    }
    sent.elapsed = begun.elapsed();
    Ok(sent)
}

struct Worker {
    connection: Connection,
    run: Run,
    number: u16,
    publishers: u16,
    begun: Instant,
    progress: Arc<AtomicU64>,
    sent: u64,
    answers: Histogram<u64>,
    lags: Histogram<u64>,
}

impl Worker {
    async fn run(mut self, pace: Pace, slot: Arc<impl Fn(u16, u64) -> Slot>) -> io::Result<Self> {
        let mut body = String::new();
        match pace {
            Pace::Rate {
                per_second,
                seconds,
            } => {
                let total = u64::from(per_second) * seconds;
                // The n-th event of all belongs to publisher n modulo their number.
                let mut turn = u64::from(self.number);
                while turn < total {
                    let due = self.begun + at(turn, per_second);
                    tokio::time::sleep_until(due).await;
                    self.lags.saturating_record(micros(due.elapsed()));
                    body.clear();
                    self.write_event(&mut body, &*slot, self.sent);
                    self.send(&body, 1).await?;
                    turn += u64::from(self.publishers);
                }
            }
            Pace::Closed { batch, time } => {
                while self.begun.elapsed() < time {
                    body.clear();
                    body.push('[');
                    for place in 0..u64::from(batch) {
                        if place > 0 {
                            body.push(',');
                        }
                        self.write_event(&mut body, &*slot, self.sent + place);
                    }
                    body.push(']');
                    // A single event as most publishers send it.
                    let one = body.get(1..body.len() - 1).unwrap_or(&body);
                    let body = if batch == 1 { one } else { &body };
                    self.send(body, u64::from(batch)).await?;
                }
            }
        }
        Ok(self)
    }

    fn write_event(&self, body: &mut String, slot: &impl Fn(u16, u64) -> Slot, at: u64) {
        let Slot { topic, track, seq } = slot(self.number, at);
        self.run.write_event(body, &topic, track, seq);
    }

    async fn send(&mut self, body: &str, count: u64) -> io::Result<()> {
        let begun = Instant::now();
        self.connection.publish(body).await?;
        self.answers.saturating_record(micros(begun.elapsed()));
        self.sent += count;
        self.progress.fetch_add(count, Ordering::Relaxed);
        Ok(())
    }
}

/// A time as histograms keep it.
pub(super) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX).max(1)
}

/// Publishes `count` events at once, numbered from 0 on track 0, in as few requests as the server takes. Returns the
/// cursor of the last one.
pub(super) async fn publish_all(
    address: &Address,
    run: Run,
    topic: &str,
    count: u64,
    mut sent: impl FnMut(u64),
) -> io::Result<String> {
    #[derive(Deserialize)]
    struct Answer {
        cursor: Option<String>,
    }
    let mut connection = Connection::open(address).await?;
    let (mut seq, mut cursor) = (0, None);
    while seq < count {
        let mut body = String::from("[");
        let end = count.min(seq + 1_000);
        // The server takes 16 MiB; half of that leaves room.
        while seq < end && body.len() < 8 * 1024 * 1024 {
            if body.len() > 1 {
                body.push(',');
            }
            run.write_event(&mut body, topic, 0, seq);
            seq += 1;
        }
        body.push(']');
        let answer = connection.publish(&body).await?;
        let answer: Answer = serde_json::from_slice(&answer)?;
        cursor = answer.cursor.or(cursor);
        sent(seq);
    }
    cursor.ok_or_else(|| io::Error::other("the bench's topic is ephemeral, so it has no cursor"))
}

/// When the n-th event of a rate is due.
pub(super) fn at(turn: u64, per_second: u32) -> Duration {
    let rate = u64::from(per_second).max(1);
    Duration::from_secs(turn / rate) + Duration::from_nanos(turn % rate * 1_000_000_000 / rate)
}
