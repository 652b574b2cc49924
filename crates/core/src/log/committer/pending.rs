//! What is durable in the journal and not in the database yet.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::TenantLog;
use super::super::journal::Journal;
use super::super::store::{self, NewRow};
use super::batch::Fresh;
use super::job::Job;
use super::storer::{Done, Storer};
use crate::cursor::Seq;
use crate::db::DbError;

/// Events after which they are brought into the database: enough to share what a transaction costs.
const EVENTS: usize = 512;
/// Time after which they are brought in, however few they are.
const AGE: Duration = Duration::from_secs(1);
/// Bytes of events that one commit puts into the journal at most: with more, a transaction at once is cheaper than writing
/// them twice.
const COMMIT_BYTES: usize = 64 * 1024;

/// Events that the journal keeps until they are in the database.
#[derive(Debug)]
pub(super) struct Pending {
    /// None on PostgreSQL, and after it has failed.
    kept: Option<(Journal, Storer)>,
    /// Those that nobody is bringing in yet.
    pub(super) rows: Vec<NewRow>,
    logs: HashMap<i64, Arc<TenantLog>>,
    since: Instant,
    /// Set when the database did not take them: the next job tries again.
    is_refused: bool,
}

impl Pending {
    pub(super) fn new(kept: Option<(Journal, Storer)>) -> Self {
        Self {
            kept,
            rows: Vec::new(),
            logs: HashMap::new(),
            since: Instant::now(),
            is_refused: false,
        }
    }

    /// Whether these jobs may go to the journal: publishes of a few events that bring nothing but themselves.
    pub(super) fn takes(&self, jobs: &[Job]) -> bool {
        let mut bytes = 0;
        let mut is_plain = |job: &Job| {
            let Job::Publish(job) = job else { return false };
            bytes += job.events.iter().map(|(e, _)| e.json.len()).sum::<usize>();
            job.idempotency.is_none() && job.events.iter().all(|(e, _)| e.identity.is_none())
        };
        self.kept.is_some()
            && !self.is_refused
            && !jobs.is_empty()
            && jobs.iter().all(&mut is_plain)
            && bytes <= COMMIT_BYTES
    }

    /// Makes events durable. Says false where the journal has no room: nothing has happened then.
    pub(super) fn keep(
        &mut self,
        rows: &mut Vec<NewRow>,
        fresh: &HashMap<i64, Fresh>,
    ) -> Result<bool, DbError> {
        let Some((journal, _)) = &mut self.kept else {
            return Ok(false);
        };
        let with_logs = rows
            .iter()
            .filter_map(|row| Some((&*fresh.get(&row.number)?.log, row)));
        match journal.append(with_logs) {
            Ok(true) => {}
            Ok(false) => return Ok(false),
            Err(e) => {
                // After a failed sync nobody knows what the file holds. What it held before goes into the database.
                self.recall();
                self.kept = None;
                return Err(e);
            }
        }
        if self.rows.is_empty() {
            self.since = Instant::now();
        }
        for fresh in fresh.values() {
            self.logs
                .entry(fresh.log.number)
                .or_insert_with(|| fresh.log.clone());
            let durable = fresh.events.iter().filter(|(seq, _)| *seq > 0).cloned();
            fresh.log.push_tail(durable);
        }
        self.rows.append(rows);
        Ok(true)
    }

    /// How long they may wait, where some wait.
    pub(super) fn time_left(&self) -> Option<Duration> {
        let waits = !self.rows.is_empty() && !self.is_refused;
        waits.then(|| AGE.saturating_sub(self.since.elapsed()))
    }

    /// Has them brought in where it is time to. Gives those that are in the database since the last time.
    pub(super) fn go_on(&mut self) -> Vec<NewRow> {
        let Some((_, storer)) = &mut self.kept else {
            return Vec::new();
        };
        let done = storer.look();
        let stored = done.map_or_else(Vec::new, |done| self.take_note(done));
        let is_due = self.rows.len() >= EVENTS || self.since.elapsed() >= AGE;
        if let Some((journal, storer)) = &mut self.kept
            && is_due
            && !self.is_refused
            && !self.rows.is_empty()
            && !storer.is_busy()
        {
            match storer.give(std::mem::take(&mut self.rows)) {
                Ok(()) => journal.turn(),
                Err(rows) => {
                    self.rows = rows;
                    self.is_refused = true;
                }
            }
        }
        stored
    }

    /// Waits until nobody is bringing any in, and gives those that are in the database since. From then on all others are
    /// in `rows`.
    pub(super) fn recall(&mut self) -> Vec<NewRow> {
        let done = self.kept.as_mut().and_then(|(_, storer)| storer.wait());
        done.map_or_else(Vec::new, |done| self.take_note(done))
    }

    fn take_note(&mut self, done: Done) -> Vec<NewRow> {
        let Done { mut rows, result } = done;
        match result {
            Ok(()) => {
                let last: HashMap<i64, Seq> = rows
                    .iter()
                    .map(|row| (row.number, store::seq_of(row.key)))
                    .collect();
                for (number, seq) in last {
                    if let Some(log) = self.logs.get(&number) {
                        log.clear_tail(seq);
                    }
                }
                rows
            }
            Err(error) => {
                tracing::warn!(%error, "the database did not take what the journal has; it is tried again");
                rows.append(&mut self.rows);
                self.rows = rows;
                self.is_refused = true;
                Vec::new()
            }
        }
    }

    /// All of them are in the database. Nobody else was bringing any in.
    pub(super) fn stored(&mut self) {
        self.is_refused = false;
        if let Some((journal, _)) = &mut self.kept {
            journal.start_over();
        }
        for log in self.logs.values() {
            log.clear_tail(log.head());
        }
        self.rows.clear();
        self.logs.clear();
    }

    /// Whether the database did not take some, as far as anybody knows.
    pub(super) fn is_refused(&self) -> bool {
        self.is_refused
    }

    /// The database did not take them.
    pub(super) fn refused(&mut self) {
        self.is_refused = true;
    }

    /// Forgets those that are in the database after all: up to a place in each log.
    pub(super) fn forget(&mut self, number: i64, stored: Seq) {
        self.rows
            .retain(|row| row.number != number || store::seq_of(row.key) > stored);
    }
}
