//! What is durable in the journal and not in the database yet.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::TenantLog;
use super::super::journal::Journal;
use super::super::store::{self, NewRow};
use super::batch::Fresh;
use super::job::Job;
use crate::cursor::Seq;
use crate::db::DbError;

/// Events after which they are brought into the database: enough to share what a transaction costs, and so few that those
/// who publish meanwhile do not notice.
const EVENTS: usize = 256;
/// Time after which they are brought in, however few they are.
const AGE: Duration = Duration::from_secs(1);
/// Bytes of events that one commit puts into the journal at most: with more, a transaction at once is cheaper than writing
/// them twice.
const COMMIT_BYTES: usize = 64 * 1024;

/// Events that the journal keeps until they are in the database.
#[derive(Debug)]
pub(super) struct Pending {
    /// None on PostgreSQL, and after it has failed.
    journal: Option<Journal>,
    pub(super) rows: Vec<NewRow>,
    logs: HashMap<i64, Arc<TenantLog>>,
    pub(super) bytes: usize,
    since: Instant,
    /// Set when the database did not take them: the next job tries again.
    is_refused: bool,
}

impl Pending {
    pub(super) fn new(journal: Option<Journal>) -> Self {
        Self {
            journal,
            rows: Vec::new(),
            logs: HashMap::new(),
            bytes: 0,
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
        self.journal.is_some()
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
        let Some(journal) = &mut self.journal else {
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
                self.journal = None;
                return Err(e);
            }
        }
        if self.rows.is_empty() {
            self.since = Instant::now();
        }
        self.bytes += rows.iter().map(|r| r.event.json.len()).sum::<usize>();
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

    /// Whether it is time to bring them in.
    pub(super) fn is_due(&self) -> bool {
        let is_full = |journal: &Journal| journal.is_half_full();
        !self.is_refused
            && !self.rows.is_empty()
            && (self.rows.len() >= EVENTS
                || self.journal.as_ref().is_none_or(is_full)
                || self.since.elapsed() >= AGE)
    }

    /// How long they may wait, where some wait.
    pub(super) fn time_left(&self) -> Option<Duration> {
        let waits = !self.rows.is_empty() && !self.is_refused;
        waits.then(|| AGE.saturating_sub(self.since.elapsed()))
    }

    /// They are in the database.
    pub(super) fn stored(&mut self) {
        self.is_refused = false;
        if self.rows.is_empty() {
            return;
        }
        for log in self.logs.values() {
            log.clear_tail(log.head());
        }
        if let Some(journal) = &mut self.journal {
            journal.start_over();
        }
        self.rows.clear();
        self.logs.clear();
        self.bytes = 0;
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
