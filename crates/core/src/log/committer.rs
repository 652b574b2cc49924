//! The one writer: a thread that gathers those who wait, commits once for all, answers them, and then wakes the readers.

use std::collections::HashMap;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::RwLock;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::store::{self, NewRow};
use super::{Idempotency, PublishError, Published, TenantLog, WriteError, Written};
use crate::clock::{Clock, Timestamp};
use crate::cursor::Seq;
use crate::db::{Conn, Db, DbError};
use crate::event::{Event, EventId, NewEvent};
use crate::hub::Hub;
use crate::retention::TopicRules;
use crate::tenant::Tenant;

/// Jobs that one transaction takes at most.
const BATCH_JOBS: usize = 4_096;
/// Events after which a transaction takes no further job.
const BATCH_EVENTS: usize = 20_000;
/// The longest that a commit waits for those who are about to come back from the last one. It also never waits longer
/// than the last commit took.
const LINGER: Duration = Duration::from_micros(500);
/// Commits between two tries whether waiting for more brings more.
const PROBE: u32 = 32;
/// Bytes of new events after which the write-ahead log is copied into the database, on a thread of its own.
const CHECKPOINT_BYTES: usize = 8 * 1024 * 1024;
/// Pages that the checkpointer may have left for the committer to copy: so few that no publisher notices. Then the
/// write-ahead log starts over in its own place, and commits need no longer make the file grow.
const LEFT_PAGES: u64 = 2_048;
/// How long after a lost connection the database is left alone.
const RECONNECT_PAUSE: Duration = Duration::from_millis(250);

/// What a caller hands to the committer.
pub(super) enum Job {
    Open(Tenant, oneshot::Sender<Result<Arc<TenantLog>, DbError>>),
    Publish(PublishJob),
    Write(WriteJob),
    Maintain(MaintainJob),
    Flush(oneshot::Sender<()>),
}

pub(super) struct PublishJob {
    pub(super) log: Arc<TenantLog>,
    pub(super) subject: Arc<str>,
    /// Each with whether its topic is ephemeral.
    pub(super) events: Vec<(Event, bool)>,
    pub(super) idempotency: Option<Idempotency>,
    pub(super) reply: oneshot::Sender<Result<Published, PublishError>>,
}

/// Answers a caller once the fate of its transaction is known.
type Answer<T> = Box<dyn FnOnce(Result<T, DbError>) + Send>;
/// What a closure came to: whether to keep what it wrote, and how to answer.
type Ran<T> = (bool, Answer<T>);
/// A closure whose types are forgotten.
type Run<T> = Box<dyn FnOnce(&mut Tx<'_>) -> Ran<T> + Send>;

pub(super) struct WriteJob {
    log: Arc<TenantLog>,
    rules: TopicRules,
    run: Run<Option<Seq>>,
}

pub(super) type MaintainJob = Box<dyn FnOnce(&mut Conn) -> Ran<()> + Send>;

/// A transaction while a closure writes in it. Statements run on it as on any [`Conn`].
#[derive(Debug)]
pub struct Tx<'a> {
    conn: &'a mut Conn,
    log: &'a TenantLog,
    rules: &'a TopicRules,
    now: Timestamp,
    events: Vec<(Event, bool)>,
}

impl Tx<'_> {
    /// Appends an event to the tenant's log. It gets its place when the transaction commits.
    pub fn append(&mut self, event: NewEvent) -> EventId {
        let is_ephemeral = self.rules.is_ephemeral(&event.topic);
        let event = event.seal(self.now);
        let id = event.id.clone();
        self.events.push((event, is_ephemeral));
        id
    }

    /// The time of this transaction.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// Whose transaction it is: the first argument of every store function.
    #[must_use]
    pub fn tenant(&self) -> &Tenant {
        &self.log.tenant
    }

    /// The tenant's number, as rows of the core's own tables hold it.
    #[must_use]
    pub fn tenant_number(&self) -> i64 {
        self.log.number
    }
}

impl Deref for Tx<'_> {
    type Target = Conn;

    fn deref(&self) -> &Conn {
        self.conn
    }
}

impl DerefMut for Tx<'_> {
    fn deref_mut(&mut self) -> &mut Conn {
        self.conn
    }
}

impl WriteJob {
    pub(super) fn new<T: Send + 'static, E: From<DbError> + Send + 'static>(
        log: Arc<TenantLog>,
        rules: TopicRules,
        run: impl FnOnce(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
        reply: oneshot::Sender<Result<Written<T>, WriteError<E>>>,
    ) -> Self {
        let of = log.clone();
        let run: Run<Option<Seq>> = Box::new(move |tx| {
            let result = run(tx);
            let is_kept = result.is_ok();
            let answer: Answer<Option<Seq>> = Box::new(move |committed| {
                // Who has gone away needs no answer.
                let _ = reply.send(match (result, committed) {
                    (Err(e), _) => Err(WriteError::Refused(e)),
                    (Ok(_), Err(e)) => Err(WriteError::Unavailable(e)),
                    (Ok(value), Ok(seq)) => Ok(Written {
                        value,
                        cursor: seq.map(|seq| of.at(seq)),
                    }),
                });
            });
            (is_kept, answer)
        });
        Self { log, rules, run }
    }
}

pub(super) fn maintain<T: Send + 'static>(
    run: impl FnOnce(&mut Conn) -> Result<T, DbError> + Send + 'static,
    reply: oneshot::Sender<Result<T, DbError>>,
) -> MaintainJob {
    Box::new(move |conn| {
        let result = run(conn);
        let is_kept = result.is_ok();
        let answer: Answer<()> = Box::new(move |committed| {
            let _ = reply.send(committed.and(result));
        });
        (is_kept, answer)
    })
}

/// Events of one tenant, in the order in which they are to be seen.
struct Fresh {
    log: Arc<TenantLog>,
    /// Each with its place; 0 where it is ephemeral.
    events: Vec<(Seq, Event)>,
    head: Seq,
}

/// One transaction in the making.
struct Batch {
    now: Timestamp,
    fresh: HashMap<i64, Fresh>,
    rows: Vec<NewRow>,
    /// Ids given in this transaction, by tenant, source and id: key and content.
    ids: HashMap<(i64, String, String), (i64, String)>,
    answers: Vec<Answer<()>>,
    bytes: usize,
}

impl Batch {
    fn append(&mut self, log: &Arc<TenantLog>, events: Vec<(Event, bool)>) -> Option<Seq> {
        let fresh = self.fresh.entry(log.number).or_insert_with(|| Fresh {
            log: log.clone(),
            events: Vec::new(),
            head: log.head(),
        });
        let mut last = None;
        for (event, is_ephemeral) in events {
            if is_ephemeral {
                fresh.events.push((0, event));
                continue;
            }
            fresh.head += 1;
            let key = store::key(log.number, fresh.head);
            if let Some(identity) = &event.identity {
                self.ids.insert(
                    (log.number, identity.source.clone(), event.id.to_string()),
                    (key, identity.content.clone()),
                );
            }
            self.bytes += event.json.len();
            fresh.events.push((fresh.head, event.clone()));
            self.rows.push(NewRow {
                key,
                number: log.number,
                event,
            });
            last = Some(fresh.head);
        }
        last
    }
}

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
    /// Set after a failure: the stored heads may not be the known ones.
    is_doubtful: bool,
    runtime: Option<Handle>,
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
            broken_since: None,
            is_doubtful: false,
            runtime: Handle::try_current().ok(),
        }
    }

    /// Starts the committer's thread, and on SQLite the checkpointer's. Both end when the log is dropped.
    pub(super) fn start(mut self, jobs: Receiver<Job>) -> Result<(), DbError> {
        let failed = |e: std::io::Error| DbError::Unavailable(format!("no thread: {e}"));
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
        while let Ok(first) = jobs.recv() {
            let batch = gather(jobs, first, &pace);
            let (count, started) = (batch.len(), Instant::now());
            self.commit(batch);
            pace.learn(count, started.elapsed());
            self.checkpoint();
        }
    }

    fn commit(&mut self, jobs: Vec<Job>) {
        let started = Instant::now();
        let mut batch = Batch {
            now: self.clock.now(),
            fresh: HashMap::new(),
            rows: Vec::new(),
            ids: HashMap::new(),
            answers: Vec::new(),
            bytes: 0,
        };
        let result = self.transact(jobs, &mut batch);
        match &result {
            Ok(()) => {
                if self.health.write().take().is_some() {
                    tracing::info!("the log stores again");
                }
                for fresh in batch.fresh.values() {
                    fresh.log.head.store(fresh.head, Ordering::Release);
                }
                self.unchecked_bytes += batch.bytes;
                metrics::histogram!("tidings_commit_seconds").record(started.elapsed());
                metrics::histogram!("tidings_commit_events").record(f64::from(
                    u32::try_from(batch.rows.len()).unwrap_or(u32::MAX),
                ));
            }
            Err(e) => {
                self.is_doubtful = true;
                let _ = self.conn.command("ROLLBACK");
                if self.health.write().replace(e.to_string()).is_none() {
                    tracing::error!(error = %e, "the log cannot store");
                }
            }
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

    /// Everything of one transaction. An error means that none of it happened.
    fn transact(&mut self, jobs: Vec<Job>, batch: &mut Batch) -> Result<(), DbError> {
        let ready = self.reconnect().and_then(|()| {
            self.conn.command(if self.db.is_postgres() {
                "BEGIN"
            } else {
                "BEGIN IMMEDIATE"
            })
        });
        let mut result = ready;
        for job in jobs {
            // After the first failure the rest is only answered.
            if let Err(e) = self.run_job(job, batch, result.clone()) {
                result = Err(e);
            }
        }
        result?;
        if !batch.rows.is_empty() {
            store::insert(&mut self.conn, &batch.rows, batch.now)?;
        }
        let mut moved: Vec<_> = batch
            .fresh
            .values()
            .filter(|f| f.head > f.log.head())
            .collect();
        moved.sort_unstable_by_key(|f| f.log.number);
        for fresh in moved {
            store::move_head(&mut self.conn, &fresh.log, fresh.head)?;
        }
        self.conn.command("COMMIT")
    }

    fn run_job(
        &mut self,
        job: Job,
        batch: &mut Batch,
        state: Result<(), DbError>,
    ) -> Result<(), DbError> {
        match job {
            Job::Flush(reply) => {
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
        let (is_kept, (answer, events)) = self.in_savepoint(|conn| {
            let mut tx = Tx {
                conn,
                log: &log,
                rules: &rules,
                now,
                events: Vec::new(),
            };
            let (is_kept, answer) = run(&mut tx);
            (is_kept, (answer, tx.events))
        })?;
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
        let known = self.tenants.read().clone();
        for stored in store::tenants(&mut self.conn)? {
            let ahead = |log: &&Arc<TenantLog>| log.head() < stored.head();
            if let Some(log) = known.get(&stored.tenant).filter(ahead) {
                log.head.store(stored.head(), Ordering::Release);
                self.hub.skip_to(log, stored.head());
            }
        }
        self.is_doubtful = false;
        Ok(())
    }

    fn checkpoint(&mut self) {
        if self.is_copied.swap(false, Ordering::AcqRel) {
            let left = (self.unchecked_bytes / 4_096) as u64;
            if left <= LEFT_PAGES {
                checkpoint(&mut self.conn);
                self.unchecked_bytes = 0;
            }
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

/// Copies the write-ahead log into the database as far as no reader stands in the way.
fn checkpoint(conn: &mut Conn) {
    let Conn::Sqlite(it) = conn else { return };
    if let Err(e) = it.checkpoint() {
        tracing::warn!(error = %e, "a checkpoint failed; the next one copies what it left");
    }
}

/// Events that are new, each with whether its topic is ephemeral; and the last place of those that are not.
type Sifted = (Vec<(Event, bool)>, Option<Seq>);

/// Tells what a publish brings anew from what stands already: those with an id and content that stand are the same event.
fn sift(
    conn: &mut Conn,
    log: &TenantLog,
    events: Vec<(Event, bool)>,
    batch: &Batch,
) -> Result<Sifted, PublishError> {
    let mut own: HashMap<(String, String), String> = HashMap::new();
    let mut fresh = Vec::with_capacity(events.len());
    let mut last = None;
    for (index, (event, is_ephemeral)) in events.into_iter().enumerate() {
        let Some(identity) = event.identity.as_ref().filter(|_| !is_ephemeral) else {
            fresh.push((event, is_ephemeral));
            continue;
        };
        let stands =
            match batch
                .ids
                .get(&(log.number, identity.source.clone(), event.id.to_string()))
            {
                Some(found) => Some(found.clone()),
                None => store::find_id(conn, log.number, &identity.source, event.id.as_str())
                    .map_err(PublishError::Unavailable)?,
            };
        let earlier = own.insert(
            (identity.source.clone(), event.id.to_string()),
            identity.content.clone(),
        );
        let content = stands
            .as_ref()
            .map(|(_, content)| content)
            .or(earlier.as_ref());
        if content.is_some_and(|content| *content != identity.content) {
            return Err(PublishError::IdConflict { index });
        }
        if let Some((key, _)) = &stands {
            last = last.max(Some(store::seq_of(*key)));
        } else if earlier.is_none() {
            fresh.push((event, is_ephemeral));
        }
    }
    Ok((fresh, last))
}

fn replayed(log: &TenantLog, answer: &str) -> Result<Published, PublishError> {
    #[derive(serde::Deserialize)]
    struct Kept {
        ids: Vec<String>,
        seq: Option<Seq>,
    }
    let unreadable = |e: &dyn std::fmt::Display| {
        PublishError::Unavailable(DbError::Fault(format!("a kept answer: {e}")))
    };
    let kept: Kept = serde_json::from_str(answer).map_err(|e| unreadable(&e))?;
    let ids = kept
        .ids
        .iter()
        .map(|id| EventId::new(id))
        .collect::<Result<_, _>>()
        .map_err(|e| unreadable(&e))?;
    Ok(Published {
        ids,
        cursor: kept.seq.map(|seq| log.at(seq)),
        is_replayed: true,
    })
}

/// How many a commit waits for. Publishers who wait for their answers come back together: a closed loop of sixteen is
/// served best by one sync for all, but falls into two halves that take turns, each half of a batch behind the other. So
/// now and then a commit waits for as many as the last two had together; where they come, that is the number from then on,
/// and where they do not, nobody waits for them again.
#[derive(Debug, Default)]
struct Pace {
    wanted: usize,
    last: usize,
    commits: u32,
    took: Duration,
}

impl Pace {
    fn learn(&mut self, count: usize, took: Duration) {
        self.commits += 1;
        self.took = took;
        self.wanted = if self.commits >= PROBE {
            self.commits = 0;
            count + self.last
        } else if count < self.wanted {
            count
        } else {
            self.wanted.max(1)
        };
        self.last = count;
    }

    fn linger(&self) -> Duration {
        LINGER.min(self.took)
    }
}

/// Takes what waits, and for a moment those who are about to come back from the last commit.
fn gather(jobs: &Receiver<Job>, first: Job, pace: &Pace) -> Vec<Job> {
    let mut batch = vec![first];
    let mut events = weight(&batch[0]);
    let deadline = Instant::now() + pace.linger();
    while batch.len() < BATCH_JOBS && events < BATCH_EVENTS {
        let next = match jobs.try_recv() {
            Ok(job) => Ok(job),
            Err(_) if batch.len() >= pace.wanted => break,
            Err(_) => jobs.recv_timeout(deadline.saturating_duration_since(Instant::now())),
        };
        match next {
            Ok(job) => {
                events += weight(&job);
                batch.push(job);
            }
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
        }
    }
    batch
}

fn weight(job: &Job) -> usize {
    match job {
        Job::Publish(job) => job.events.len(),
        _ => 1,
    }
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Job")
    }
}
