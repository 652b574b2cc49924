//! The one writer: a thread that gathers those who wait, commits once for all, answers them, and then wakes the readers.
//!
//! - `job`: what callers hand over, and how each is answered
//! - `pace`: how many one commit takes, and how long it waits for them
//! - `batch`: one transaction in the making
//! - `pending`: what is durable in the journal and not in the database yet
//! - `storer`: the thread that brings it there

mod batch;
mod job;
mod pace;
mod pending;
mod storer;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::RwLock;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::journal::Journal;
use super::ledger::{Held, Ledger};
use super::store::{self, NewRow};
use super::{Idempotency, PublishError, Published, TenantLog};
use crate::clock::Clock;
use crate::db::{Conn, Db, DbError};
use crate::event::{Event, EventId};
use crate::hub::Hub;
use crate::tenant::Tenant;

use batch::{Batch, replayed, sift};
use job::Answer;
pub use job::Tx;
pub(super) use job::{Job, PublishJob, WriteJob, maintain};
use pace::{Pace, gather};
use pending::Pending;
use storer::Storer;

/// Bytes of the write-ahead log, as far as they can be known, after which it is copied into the database, on a thread of
/// its own. A log that starts over in its own place soon is worth more than few copies: where the file grows, every sync
/// writes the file's new size too, which doubles what a commit waits for.
const CHECKPOINT_BYTES: usize = 4 * 1024 * 1024;
/// What a commit writes at least: the last page of the events, of their index, and of what it noted.
const COMMIT_BYTES: usize = 3 * 4_096;
/// Bytes that the checkpointer may have left for the committer to copy: so few that no publisher notices.
const LEFT_BYTES: usize = 2 * 1024 * 1024;
/// How long after a lost connection the database is left alone.
const RECONNECT_PAUSE: Duration = Duration::from_millis(250);

pub(super) struct Committer {
    conn: Conn,
    db: Db,
    hub: Hub,
    clock: Clock,
    tenants: Arc<RwLock<HashMap<Tenant, Arc<TenantLog>>>>,
    health: Arc<RwLock<Option<String>>>,
    checkpointer: Option<SyncSender<()>>,
    /// Set when the checkpointer has copied what was there; what came meanwhile is left.
    is_copied: Arc<AtomicBool>,
    unchecked_bytes: usize,
    broken_since: Option<Instant>,
    ledger: Ledger,
    pending: Pending,
    /// Set after a failure: the stored heads may not be the known ones.
    is_doubtful: bool,
    runtime: Option<Handle>,
    seconds: metrics::Histogram,
    events: metrics::Histogram,
}

impl Committer {
    pub(super) fn new(
        conn: Conn,
        db: Db,
        hub: Hub,
        clock: Clock,
        tenants: Arc<RwLock<HashMap<Tenant, Arc<TenantLog>>>>,
        health: Arc<RwLock<Option<String>>>,
    ) -> Self {
        Self {
            conn,
            db,
            hub,
            clock,
            tenants,
            health,
            checkpointer: None,
            is_copied: Arc::default(),
            unchecked_bytes: 0,
            ledger: Ledger::new(),
            pending: Pending::new(None),
            broken_since: None,
            is_doubtful: false,
            runtime: Handle::try_current().ok(),
            seconds: metrics::histogram!("tidings_commit_seconds"),
            events: metrics::histogram!("tidings_commit_events"),
        }
    }

    /// Starts the committer's thread, and on SQLite the storer's and the checkpointer's. They end when the log is dropped.
    pub(super) fn start(mut self, jobs: Receiver<Job>) -> Result<(), DbError> {
        let failed = |e: std::io::Error| DbError::Unavailable(format!("no thread: {e}"));
        if let Some(journal) = Journal::open(&self.db)? {
            self.pending = Pending::new(Some((journal, Storer::start(&self.db)?)));
        }
        if !self.db.is_postgres() {
            let (wake, woken) = std::sync::mpsc::sync_channel(1);
            let (mut conn, is_copied) = (self.db.connect()?, self.is_copied.clone());
            thread::Builder::new()
                .name("checkpointer".into())
                .spawn(move || {
                    while woken.recv().is_ok() {
                        checkpoint(&mut conn);
                        is_copied.store(true, Ordering::Release);
                    }
                })
                .map_err(failed)?;
            self.checkpointer = Some(wake);
        }
        thread::Builder::new()
            .name("committer".into())
            .spawn(move || self.run(&jobs))
            .map_err(failed)?;
        Ok(())
    }

    fn run(&mut self, jobs: &Receiver<Job>) {
        let mut pace = Pace::default();
        loop {
            let first = match self.pending.time_left() {
                None => jobs.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(left) => jobs.recv_timeout(left),
            };
            match first {
                Ok(first) => {
                    let batch = gather(jobs, first, &pace);
                    let (count, started) = (batch.len(), Instant::now());
                    self.commit(batch);
                    pace.learn(count, started.elapsed());
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            let stored = self.pending.go_on();
            self.take_note(&stored);
            self.checkpoint();
        }
        let stored = self.pending.recall();
        self.take_note(&stored);
        if !self.pending.rows.is_empty() {
            self.commit(Vec::new());
        }
    }

    /// Of what the storer has done.
    fn take_note(&mut self, stored: &[NewRow]) {
        if !stored.is_empty() {
            self.ledger.add(stored);
            self.unchecked_bytes += bytes_of(stored) + COMMIT_BYTES;
        }
        self.is_doubtful |= self.pending.is_refused();
    }

    fn commit(&mut self, jobs: Vec<Job>) {
        let started = Instant::now();
        let mut batch = Batch::new(self.clock.now(), self.db.is_postgres());
        let result = if !self.is_doubtful && self.pending.takes(&jobs) {
            self.journal(jobs, &mut batch)
        } else {
            self.transact(jobs, &mut batch)
        };
        match &result {
            Ok(()) => {
                if self.health.write().take().is_some() {
                    tracing::info!("the log stores again");
                }
                for fresh in batch.fresh.values() {
                    fresh.log.move_head(fresh.head);
                }
                if batch.events > 0 {
                    self.seconds.record(started.elapsed());
                    let events = u32::try_from(batch.events).unwrap_or(u32::MAX);
                    self.events.record(f64::from(events));
                }
            }
            Err(e) => {
                self.is_doubtful = true;
                self.pending.refused();
                let _ = self.conn.command("ROLLBACK");
                if self.health.write().replace(e.to_string()).is_none() {
                    tracing::error!(error = %e, "the log cannot store");
                }
            }
        }
        if let Some(redacted) = batch.redacted.take() {
            self.forget(&redacted, result.is_ok());
        }
        // The publishers first: what they wait for is done.
        self.answer(batch.answers, &result);
        if result.is_ok() {
            let committed = Instant::now();
            for fresh in batch.fresh.into_values() {
                self.hub.committed(&fresh.log, &fresh.events, committed);
            }
        }
    }

    /// Answers everybody. Many are woken by a task: it does so without crossing threads for each of them.
    fn answer(&self, answers: Vec<Answer<()>>, result: &Result<(), DbError>) {
        let result = result.clone();
        let all = move || {
            answers
                .into_iter()
                .for_each(|answer| answer(result.clone()));
        };
        match &self.runtime {
            Some(runtime) => drop(runtime.spawn(async move { all() })),
            None => all(),
        }
    }

    /// Makes publishes durable that bring nothing but their events.
    fn journal(&mut self, jobs: Vec<Job>, batch: &mut Batch) -> Result<(), DbError> {
        for job in jobs {
            self.run_job(job, batch, Ok(()))?;
        }
        if batch.rows.is_empty() || self.pending.keep(&mut batch.rows, &batch.fresh)? {
            return Ok(());
        }
        self.transact(Vec::new(), batch)
    }

    /// Everything of one transaction. An error means that none of it happened. What is durable already comes first.
    fn transact(&mut self, jobs: Vec<Job>, batch: &mut Batch) -> Result<(), DbError> {
        let stored = self.pending.recall();
        self.take_note(&stored);
        let ready = self.reconnect().and_then(|()| {
            self.conn.command(if self.db.is_postgres() {
                "BEGIN"
            } else {
                "BEGIN IMMEDIATE"
            })
        });
        let mut result = ready.and_then(|()| {
            self.ledger.add(&self.pending.rows);
            store::insert(&mut self.conn, &self.pending.rows)
        });
        for job in jobs {
            // After the first failure the rest is only answered.
            if let Err(e) = self.run_job(job, batch, result.clone()) {
                result = Err(e);
            }
        }
        result?;
        if !batch.rows.is_empty() {
            store::insert(&mut self.conn, &batch.rows)?;
            self.ledger.add(&batch.rows);
        }
        let is_noted = !self.ledger.is_empty() && (batch.is_note_wanted || self.ledger.is_due());
        if is_noted {
            store::note(&mut self.conn, &self.ledger)?;
        }
        store::adjust(&mut self.conn, &batch.held)?;
        self.conn.command("COMMIT")?;
        if is_noted {
            self.ledger = Ledger::new();
        }
        self.unchecked_bytes += batch.bytes + bytes_of(&self.pending.rows) + COMMIT_BYTES;
        self.pending.stored();
        for fresh in batch.fresh.values() {
            fresh.log.clear_tail(fresh.head);
        }
        Ok(())
    }

    /// After a redaction: neither memory nor the write-ahead log serves again what was redacted.
    fn forget(&mut self, redacted: &[(Arc<TenantLog>, String)], is_committed: bool) {
        if is_committed {
            for (log, topic) in redacted {
                self.hub.forget(log, topic);
            }
        }
        let is_empty =
            store::overwrite(&mut self.conn, false).and_then(|()| match &mut self.conn {
                Conn::Sqlite(it) if is_committed => it.empty_wal(),
                Conn::Sqlite(_) | Conn::Postgres(_) => Ok(false),
            });
        match is_empty {
            Ok(true) => self.unchecked_bytes = 0,
            // A reader stands in the way: the write-ahead log's next round writes over it.
            Ok(false) => {}
            Err(e) => tracing::warn!(error = %e, "the write-ahead log was not emptied"),
        }
    }

    fn run_job(
        &mut self,
        job: Job,
        batch: &mut Batch,
        state: Result<(), DbError>,
    ) -> Result<(), DbError> {
        match job {
            Job::Flush(reply) => {
                batch.is_note_wanted = true;
                batch.answers.push(Box::new(move |_| {
                    let _ = reply.send(());
                }));
                Ok(())
            }
            Job::Open(tenant, reply) => self.open(&tenant, reply, batch, state),
            Job::Publish(job) => self.publish(job, batch, state),
            Job::Write(job) => self.write(job, batch, state),
            Job::Maintain(run) => {
                state?;
                // What it removes must have been written down.
                batch.is_note_wanted = true;
                let (is_kept, answer) = self.in_savepoint(run)?;
                let fate = if is_kept {
                    Ok(())
                } else {
                    Err(DbError::Fault("undone".into()))
                };
                batch
                    .answers
                    .push(Box::new(move |committed| answer(committed.and(fate))));
                Ok(())
            }
        }
    }

    /// Runs a closure so that what it wrote can be undone alone.
    fn in_savepoint<T>(
        &mut self,
        run: impl FnOnce(&mut Conn) -> (bool, T),
    ) -> Result<(bool, T), DbError> {
        self.conn.command("SAVEPOINT one")?;
        let (is_kept, value) = run(&mut self.conn);
        self.conn.batch(if is_kept {
            "RELEASE SAVEPOINT one"
        } else {
            "ROLLBACK TO SAVEPOINT one; RELEASE SAVEPOINT one"
        })?;
        Ok((is_kept, value))
    }

    fn open(
        &mut self,
        tenant: &Tenant,
        reply: oneshot::Sender<Result<Arc<TenantLog>, DbError>>,
        batch: &mut Batch,
        state: Result<(), DbError>,
    ) -> Result<(), DbError> {
        let known = self.tenants.read().get(tenant).cloned();
        let (opened, fate) = match (known, state) {
            (Some(log), _) => (Ok(log), Ok(())),
            (None, Err(e)) => (Err(e.clone()), Err(e)),
            (None, Ok(())) => match store::open_tenant(&mut self.conn, tenant) {
                Ok(log) => (Ok(Arc::new(log)), Ok(())),
                Err(e) => (Err(e.clone()), Err(e)),
            },
        };
        let (tenants, hub) = (self.tenants.clone(), self.hub.clone());
        batch.answers.push(Box::new(move |committed| {
            let _ = reply.send(committed.and(opened).map(|log| {
                // Two callers may have asked at once: the first row stands.
                let log = tenants
                    .write()
                    .entry(log.tenant.clone())
                    .or_insert(log)
                    .clone();
                hub.open_tenant(&log);
                log
            }));
        }));
        fate
    }

    fn write(
        &mut self,
        job: WriteJob,
        batch: &mut Batch,
        state: Result<(), DbError>,
    ) -> Result<(), DbError> {
        // The closure is dropped unrun where the transaction is lost already: its caller hears that it is closed.
        state?;
        let now = batch.now;
        let WriteJob { log, rules, run } = job;
        let (is_kept, (answer, events, redactions, held)) = self.in_savepoint(|conn| {
            let mut tx = Tx {
                conn,
                log: &log,
                rules: &rules,
                ids: &batch.ids,
                now,
                events: Vec::new(),
                redactions: Vec::new(),
                held: Held::new(),
            };
            let (is_kept, answer) = run(&mut tx);
            (is_kept, (answer, tx.events, tx.redactions, tx.held))
        })?;
        match (redactions.is_empty(), is_kept) {
            (true, _) => {}
            (false, true) => batch.redact(&log, &redactions, held),
            (false, false) => store::overwrite(&mut self.conn, false)?,
        }
        let last = if is_kept {
            batch.append(&log, events)
        } else {
            None
        };
        batch
            .answers
            .push(Box::new(move |committed| answer(committed.map(|()| last))));
        Ok(())
    }

    fn publish(
        &mut self,
        job: PublishJob,
        batch: &mut Batch,
        state: Result<(), DbError>,
    ) -> Result<(), DbError> {
        let PublishJob {
            log,
            subject,
            events,
            idempotency,
            reply,
        } = job;
        let outcome = match state {
            Ok(()) => self.accept(&log, &subject, events, idempotency.as_ref(), batch),
            Err(e) => Err(PublishError::Unavailable(e)),
        };
        let fate = match &outcome {
            Err(PublishError::Unavailable(e)) => Err(e.clone()),
            _ => Ok(()),
        };
        batch.answers.push(Box::new(move |committed| {
            let _ = reply.send(committed.map_err(PublishError::Unavailable).and(outcome));
        }));
        fate
    }

    /// Takes a publish into the transaction, unless it repeats an earlier one.
    fn accept(
        &mut self,
        log: &Arc<TenantLog>,
        subject: &str,
        events: Vec<(Event, bool)>,
        idempotency: Option<&Idempotency>,
        batch: &mut Batch,
    ) -> Result<Published, PublishError> {
        let conn = &mut self.conn;
        if let Some(asked) = idempotency {
            let kept = store::find_answer(conn, log.number, subject, &asked.key)
                .map_err(PublishError::Unavailable)?;
            if let Some((request, answer)) = kept {
                return if request == asked.request {
                    replayed(log, &answer)
                } else {
                    Err(PublishError::KeyReused)
                };
            }
        }
        let ids: Vec<EventId> = events.iter().map(|(event, _)| event.id.clone()).collect();
        let (fresh, mut last) = sift(conn, log, events, batch)?;
        last = batch.append(log, fresh).or(last);
        if let Some(asked) = idempotency {
            let answer = serde_json::json!({ "ids": ids.iter().map(EventId::as_str).collect::<Vec<_>>(), "seq": last }).to_string();
            store::keep_answer(conn, log, subject, asked, &answer, batch.now)
                .map_err(PublishError::Unavailable)?;
        }
        Ok(Published {
            ids,
            cursor: last.map(|seq| log.at(seq)),
            is_replayed: false,
        })
    }

    /// Brings the connection back where it is lost, and what is known of the heads in line with what is stored.
    fn reconnect(&mut self) -> Result<(), DbError> {
        if self.conn.is_broken() {
            let now = Instant::now();
            let is_fresh = |at: Instant| now.duration_since(at) < RECONNECT_PAUSE;
            if self.broken_since.is_some_and(is_fresh) {
                return Err(DbError::Unavailable(
                    "the connection to the database is lost".into(),
                ));
            }
            self.broken_since = Some(now);
            self.conn = self.db.connect()?;
            self.broken_since = None;
            self.is_doubtful = true;
        }
        if !self.is_doubtful {
            return Ok(());
        }
        // A commit whose answer was lost may stand: readers get its events from the log.
        self.ledger = Ledger::new();
        self.conn.command("BEGIN")?;
        store::catch_up(&mut self.conn)?;
        self.conn.command("COMMIT")?;
        let known = self.tenants.read().clone();
        for stored in store::tenants(&mut self.conn)? {
            let ahead = |log: &&Arc<TenantLog>| log.head() < stored.head();
            self.pending.forget(stored.number, stored.head());
            if let Some(log) = known.get(&stored.tenant).filter(ahead) {
                log.clear_tail(stored.head());
                log.move_head(stored.head());
                self.hub.skip_to(log, stored.head());
            }
        }
        self.is_doubtful = false;
        Ok(())
    }

    fn checkpoint(&mut self) {
        if self.is_copied.swap(false, Ordering::AcqRel) && self.unchecked_bytes <= LEFT_BYTES {
            checkpoint(&mut self.conn);
            self.unchecked_bytes = 0;
        }
        if self.unchecked_bytes < CHECKPOINT_BYTES {
            return;
        }
        self.unchecked_bytes = 0;
        if let Some(checkpointer) = &self.checkpointer {
            // Full means that one is on its way.
            let _ = checkpointer.try_send(());
        }
    }
}

fn bytes_of(rows: &[NewRow]) -> usize {
    rows.iter().map(|row| row.event.json.len()).sum()
}

/// Copies the write-ahead log into the database as far as no reader stands in the way.
fn checkpoint(conn: &mut Conn) {
    let Conn::Sqlite(it) = conn else { return };
    if let Err(e) = it.checkpoint() {
        tracing::warn!(error = %e, "a checkpoint failed; the next one copies what it left");
    }
}
