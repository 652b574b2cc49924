//! What raises the alarms: connections that post batch after batch on a schedule.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Deserialize;
use tidings_core::clock::{Clock, Timestamp};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::super::publishers::{at, micros};
use super::super::readers::histogram;
use super::super::target::Address;
use super::super::wire::Connection;
use super::flood::Flood;

/// The wait before a batch that was refused is sent again.
const AGAIN: Duration = Duration::from_millis(200);

/// What was sent.
#[derive(Debug)]
pub(super) struct Sent {
    /// Alarms that were accepted as new.
    pub(super) accepted: u64,
    /// Batches that were refused for now (429, 503), and sent again.
    pub(super) refused: u64,
    /// From writing a batch to its answer, in microseconds.
    pub(super) answers: Histogram<u64>,
    /// How late batches were sent, in microseconds.
    pub(super) lags: Histogram<u64>,
    /// From the beginning to the last answer.
    pub(super) elapsed: Duration,
}

impl Sent {
    fn new() -> io::Result<Self> {
        Ok(Self {
            accepted: 0,
            refused: 0,
            answers: histogram()?,
            lags: histogram()?,
            elapsed: Duration::ZERO,
        })
    }

    fn add(&mut self, other: &Self) -> io::Result<()> {
        self.accepted += other.accepted;
        self.refused += other.refused;
        self.answers.add(&other.answers).map_err(io::Error::other)?;
        self.lags.add(&other.lags).map_err(io::Error::other)
    }
}

/// How the alarms are sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    pub(super) sources: u16,
    pub(super) batch: u32,
    pub(super) per_second: u32,
}

/// Sends all alarms of a flood. `progress` is kept at the number of accepted ones.
pub(super) async fn send(
    address: &Address,
    flood: &Arc<Flood>,
    pace: Pace,
    progress: &Arc<AtomicU64>,
) -> io::Result<Sent> {
    let (begun, begun_at) = (Instant::now(), Clock::System.now());
    let mut tasks = JoinSet::new();
    for number in 0..pace.sources {
        let source = Source {
            connection: Connection::open(address).await?,
            flood: flood.clone(),
            number,
            begun,
            begun_at,
            progress: progress.clone(),
            sent: Sent::new()?,
        };
        tasks.spawn(source.run(pace));
    }
    let mut all = Sent::new()?;
    while let Some(joined) = tasks.join_next().await {
        all.add(&joined.map_err(io::Error::other)??)?;
    }
    all.elapsed = begun.elapsed();
    Ok(all)
}

struct Source {
    connection: Connection,
    flood: Arc<Flood>,
    number: u16,
    begun: Instant,
    begun_at: Timestamp,
    progress: Arc<AtomicU64>,
    sent: Sent,
}

impl Source {
    /// Sends its own batches: the n-th of all belongs to source n modulo their number.
    async fn run(mut self, pace: Pace) -> io::Result<Sent> {
        let (size, mut turn) = (u64::from(pace.batch), u64::from(self.number));
        let total = self.flood.len() as u64;
        while turn * size < total {
            let first = turn * size;
            let due = self.begun + at(first, pace.per_second);
            tokio::time::sleep_until(due).await;
            self.sent.lags.saturating_record(micros(due.elapsed()));
            let place = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
            let places = place(first)..place(total.min(first + size));
            let body = self.flood.batch(places, self.begun_at);
            self.send(&body).await?;
            turn += u64::from(pace.sources);
        }
        Ok(self.sent)
    }

    /// Sends a batch until it is taken.
    async fn send(&mut self, body: &str) -> io::Result<()> {
        #[derive(Deserialize)]
        struct Accepted {
            count: u64,
            idempotent_count: u64,
        }
        loop {
            let begun = Instant::now();
            let answer = self
                .connection
                .post("/api/v1/alarms/ingest/batch", body)
                .await?;
            if matches!(answer.status, 429 | 503) {
                self.sent.refused += 1;
                tokio::time::sleep(AGAIN).await;
                continue;
            }
            self.sent.answers.saturating_record(micros(begun.elapsed()));
            let accepted: Accepted = serde_json::from_slice(&answer.expect("ingest", 202)?)?;
            let new = accepted.count.saturating_sub(accepted.idempotent_count);
            self.sent.accepted += new;
            self.progress.fetch_add(new, Ordering::Relaxed);
            return Ok(());
        }
    }
}
